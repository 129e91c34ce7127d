"""The local stack: start what is missing, and stop what was started."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import psycopg
from psycopg import sql

from include.errors import StratumError
from include.local.airflow_api import AirflowApi
from include.local.environment import (
    ADMIN,
    AIRFLOW_DATABASE,
    SANDBOX_CONNECTION,
    airflow_environment,
    airflow_home,
)
from include.local.processes import Process, stop, wait_until
from include.local.secrets import load_secrets
from include.settings import PROJECT_DIR, Settings
from include.sources.config import Sources
from include.warehouse import embedded
from include.warehouse.connect import OWNER, ROLES, open_connection, variable, with_database, with_login
from include.warehouse.migrate import migrate

WAREHOUSE_DATABASE = "stratum"
START_TIMEOUT_S = 120
POOLS = {
    "announce": "One announcement of a source at a time: two at the same moment may lose the build.",
    "warehouse_writer": "One dbt writer at a time: concurrent DDL fails.",
}


class Stack:
    """PostgreSQL, Airflow and the sandbox of one STRATUM_HOME."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.say = say
        self.secrets = load_secrets(settings.home)
        self.cluster = embedded.Cluster(
            data=settings.home / "postgres" / "data",
            port=settings.postgres_port,
            password=self.secrets["postgres"],
            bin=embedded.server_programs(settings.postgres_bin),
        )
        run = settings.home / "run"
        program = (sys.executable, "-m", "airflow")
        self.sandbox = Process(
            "sandbox",
            run,
            (
                *(sys.executable, "-m", "include.sandbox"),
                *("--port", str(settings.sandbox_port), "--state", str(settings.home / "sandbox.db")),
            ),
        )
        self.airflow = [
            Process("api-server", run, (*program, "api-server")),
            Process("scheduler", run, (*program, "scheduler", "--skip-serve-logs")),
            Process("dag-processor", run, (*program, "dag-processor")),
        ]
        self.started: list[Process] = []
        self.started_postgres = False

    @property
    def owner_url(self) -> str:
        """The URL of the warehouse's owner: the user's own server, else the embedded one."""
        return self.settings.warehouse_url or with_database(self.cluster.url, WAREHOUSE_DATABASE)

    @property
    def metadata_url(self) -> str:
        """The URL of Airflow's own database, in the embedded server under a role of its own."""
        url = with_login(self.cluster.url, AIRFLOW_DATABASE, self.secrets["airflow_database"])
        return with_database(url, AIRFLOW_DATABASE)

    @property
    def airflow_url(self) -> str:
        """Where Airflow's UI and API are."""
        return f"http://127.0.0.1:{self.settings.airflow_port}"

    def api(self) -> AirflowApi:
        """Return a client of this stack's Airflow; it logs in by itself on its first call."""
        return AirflowApi(self.airflow_url, ADMIN, self.secrets["airflow_admin"])

    def up(self, sources: Sources) -> None:
        """Start what is missing of PostgreSQL, the sandbox and Airflow, and wait until all of it answers.

        Raises StratumError where a port is taken or a part does not come up; what this call had started by
        then is stopped by `down_started`.
        """
        self._check_ports(sources)
        self._check_schedule()
        self.start_warehouse()
        # The schedule runs in the company's time zone, which its sources may state.
        self.environment["STRATUM_TIMEZONE"] = sources.company.timezone
        if _uses_sandbox(sources) and not self.sandbox.find():
            self._start(self.sandbox, os.environ | {"STRATUM_SANDBOX_TOKEN": self.secrets["sandbox_token"]})
        missing = [process for process in self.airflow if not process.find()]
        if missing:
            self._migrate_airflow()
            for process in missing:
                self._start(process, self.environment)
        api = self.api()
        if not wait_until(lambda: self._alive() and api.healthy(), START_TIMEOUT_S):
            raise StratumError(f"Airflow did not come up within {START_TIMEOUT_S} s: {self._dead_or_log()}")
        self._wait_for_dags(api)
        for name, description in POOLS.items():
            api.set_pool(name, 1, description)

    def start_warehouse(self) -> None:
        """Start the embedded PostgreSQL if it is down, and migrate the warehouse; role URLs go to the environment."""
        if self.settings.warehouse_url:
            open_connection(self.settings.warehouse_url, "stratum stack").close()
        if embedded.start(self.cluster):
            self.started_postgres = True
        self._create_databases()
        passwords = {role: self.secrets[f"role_{role}"] for role in ROLES}
        self.role_urls = migrate(self.owner_url, passwords)
        if set(self.role_urls.values()) == {self.owner_url}:
            self.say("The warehouse's owner may not create roles: every part works as the owner.")
        os.environ.update({variable(role): url for role, url in self.role_urls.items()})
        os.environ[variable(OWNER)] = self.owner_url
        self.environment = airflow_environment(
            self.settings, self.secrets, self.metadata_url, self.role_urls, self.owner_url
        )
        self.environment["STRATUM_SCHEDULE"] = _flag(self.settings.schedule)
        self._write_password_file()

    def stop_started_processes(self) -> None:
        """Stop the processes this object started; PostgreSQL stays up."""
        stop(self.started[::-1])
        self.started.clear()

    def down_started(self) -> None:
        """Stop what this object started, and nothing else."""
        self.stop_started_processes()
        if self.started_postgres:
            embedded.stop(self.cluster)
            self.started_postgres = False

    def down(self) -> None:
        """Stop everything of this STRATUM_HOME, whoever started it."""
        stop([*self.airflow, self.sandbox])
        embedded.stop(self.cluster)

    def _check_ports(self, sources: Sources) -> None:
        """Find a taken port before anything is started."""
        if not embedded.is_running(self.cluster):
            embedded.assert_port_free(self.settings.postgres_port, "PostgreSQL", "STRATUM_POSTGRES_PORT")
        if not self.airflow[0].find():
            embedded.assert_port_free(self.settings.airflow_port, "Airflow", "STRATUM_AIRFLOW_PORT")
        if _uses_sandbox(sources) and not self.sandbox.find():
            embedded.assert_port_free(self.settings.sandbox_port, "the CRM sandbox", "STRATUM_SANDBOX_PORT")

    def _check_schedule(self) -> None:
        """Refuse to pass a running Airflow for one with the other setting of the schedules."""
        running = self.airflow[1].find()
        if running and running.environ().get("STRATUM_SCHEDULE") != _flag(self.settings.schedule):
            state = "without" if self.settings.schedule else "with"
            raise StratumError(f"Airflow is running {state} schedules. Stop it first: make down")

    def _start(self, process: Process, environment: dict[str, str]) -> None:
        process.start(environment)
        self.started.append(process)

    def _create_databases(self) -> None:
        with psycopg.connect(self.cluster.url, autocommit=True) as connection:
            role = sql.Identifier(AIRFLOW_DATABASE)
            known = connection.execute(
                "select 1 from pg_roles where rolname = %s", [AIRFLOW_DATABASE]
            ).fetchone()
            connection.execute(
                sql.SQL("{} role {} login password {}").format(
                    sql.SQL("alter" if known else "create"),
                    role,
                    sql.Literal(self.secrets["airflow_database"]),
                )
            )
            for database, owner in (
                (AIRFLOW_DATABASE, role),
                (WAREHOUSE_DATABASE, sql.Identifier("postgres")),
            ):
                if not connection.execute(
                    "select 1 from pg_database where datname = %s", [database]
                ).fetchone():
                    connection.execute(
                        sql.SQL("create database {} owner {}").format(sql.Identifier(database), owner)
                    )
                # Nobody reaches a database by default: each role is let in by name.
                connection.execute(
                    sql.SQL("revoke connect on database {} from public").format(sql.Identifier(database))
                )

    def _migrate_airflow(self) -> None:
        """Bring Airflow's database to the installed version, unless it is there already (it takes a while)."""
        home = airflow_home(self.settings)
        home.mkdir(parents=True, exist_ok=True)
        (home / "passwords.json").write_text(json.dumps({ADMIN: self.secrets["airflow_admin"]}))
        (home / "passwords.json").chmod(0o600)
        marker = home / "database_version.json"
        installed = {"airflow": version("apache-airflow-core"), "revision": self._airflow_revision()}
        if installed["revision"] and marker.exists() and json.loads(marker.read_text()) == installed:
            return
        self.say("Preparing Airflow's database ...")
        log = home / "db-migrate.log"
        with log.open("w") as output:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode != 0:
            raise StratumError(f"Airflow's database could not be prepared; see {log}.")
        marker.write_text(json.dumps(installed | {"revision": self._airflow_revision()}))

    def _airflow_revision(self) -> str | None:
        with open_connection(self.metadata_url, "stratum stack") as connection:
            if connection.execute("select to_regclass('alembic_version')").fetchone() == (None,):
                return None
            row = connection.execute("select version_num from alembic_version").fetchone()
            return row[0] if row else None

    def _alive(self) -> bool:
        """Tell whether the processes run; raises StratumError as soon as one has died."""
        if self._dead():
            raise StratumError(f"Airflow did not come up: {self._dead_or_log()}")
        return True

    def _dead(self) -> list[Process]:
        return [process for process in self.airflow if not process.find()]

    def _dead_or_log(self) -> str:
        process = next(iter(self._dead()), self.airflow[0])
        return f"see {process.log}, which ends: {process.tail()}"

    def _wait_for_dags(self, api: AirflowApi) -> None:
        wanted = {path.stem for path in (PROJECT_DIR / "dags").glob("*.py")}
        if not wait_until(lambda: wanted <= api.dag_ids() or bool(api.import_errors()), START_TIMEOUT_S):
            raise StratumError(
                f"Airflow did not read these DAGs: {', '.join(sorted(wanted - api.dag_ids()))}."
            )
        if errors := api.import_errors():
            raise StratumError(f"A DAG does not import: {errors[0]}")

    def _write_password_file(self) -> None:
        """Keep the roles' passwords where libpq finds them with PGPASSFILE, so that no URL need hold one."""
        lines = []
        for url in self.role_urls.values():
            info = psycopg.conninfo.conninfo_to_dict(url)
            host, port, database = info.get("host", ""), info.get("port", 5432), info.get("dbname", "")
            lines.append(f"{host}:{port}:{database}:{info.get('user')}:{info.get('password')}")
        path = self.settings.home / "pgpass"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _uses_sandbox(sources: Sources) -> bool:
    parts = (sources.crm, sources.sync)
    return any(part is not None and part.connection == SANDBOX_CONNECTION for part in parts)
