"""The local stack: start what is missing, and stop what was started."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from include.errors import StratumError
from include.local.airflow_api import AirflowApi
from include.local.disk import assert_room
from include.local.environment import (
    ADMIN,
    SANDBOX_CONNECTION,
    airflow_command,
    airflow_environment,
    airflow_home,
    sandbox_command,
)
from include.local.in_use import InUse
from include.local.preparation import (
    POOLS,
    WAREHOUSE_DATABASE,
    alone,
    create_databases,
    metadata_url,
    migrate_airflow,
    read_role_urls,
    run_airflow,
    write_password_file,
    write_role_urls,
)
from include.local.processes import Process, stop, wait_until
from include.local.secrets import load_secrets
from include.settings import PROJECT_DIR, SOURCES_VARIABLE, Settings
from include.sources.config import Sources
from include.warehouse import embedded
from include.warehouse.connect import OWNER, ROLES, open_connection, variable, with_database
from include.warehouse.migrate import migrate

START_TIMEOUT_S = 300
"""Long, for a part that dies is seen at once: this is for machines that are slow."""
LOCAL_PARTS = ("api-server", "scheduler", "dag-processor")


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
        self.sandbox = Process("sandbox", run, sandbox_command(settings))
        self.airflow = [Process(part, run, airflow_command(part)) for part in LOCAL_PARTS]
        self.in_use = InUse(run)
        self.started: list[Process] = []
        self.started_postgres = False

    @property
    def server_url(self) -> str:
        """The URL of the login that makes the databases: on the user's own server, else the embedded one."""
        return self.settings.postgres_url or self.cluster.url

    @property
    def owner_url(self) -> str:
        """The URL of the warehouse's owner: of the user's own database, else of ours on the server."""
        return self.settings.warehouse_url or with_database(self.server_url, WAREHOUSE_DATABASE)

    @property
    def airflow_url(self) -> str:
        """Where Airflow's UI and API are."""
        return self.settings.airflow_url or f"http://127.0.0.1:{self.settings.airflow_port}"

    def api(self) -> AirflowApi:
        """Return a client of this stack's Airflow; it logs in by itself on its first call."""
        return AirflowApi(self.airflow_url, ADMIN, self.secrets["airflow_admin"])

    def up(self, sources: Sources) -> None:
        """Start what is missing of PostgreSQL, the sandbox and Airflow, and wait until all of it answers.

        Raises StratumError where a port is taken or a part does not come up; what this call had started by
        then is stopped by `down_started`.
        """
        if self.settings.airflow_url:
            self._attach()
            return
        assert_room(self.settings.home)
        self.in_use.enter()
        self._check_ports(sources)
        self._check_schedule()
        self.start_warehouse()
        # The schedule runs in the company's time zone, which its sources may state.
        self.environment["STRATUM_TIMEZONE"] = sources.company.timezone
        if uses_sandbox(sources) and not self.sandbox.find():
            self._start(self.sandbox, self.sandbox_environment())
        missing = [process for process in self.airflow if not process.find()]
        if missing:
            if missing == self.airflow:
                self.in_use.keep(False)  # that mark is of an Airflow that went down with its machine
            self._migrate_airflow()
            for process in missing:
                self._start(process, self.environment)
        api = self.api()
        if not wait_until(lambda: self.check_alive() and api.healthy(), START_TIMEOUT_S):
            raise StratumError(
                f"Airflow did not come up within {START_TIMEOUT_S} s: {self._silent(api)}. Give the command again, it may "
                "need longer on a busy machine"
            )
        self._wait_for_dags(api)
        for name, description in POOLS.items():
            api.set_pool(name, 1, description)

    def start_warehouse(self) -> None:
        """Start the embedded PostgreSQL if it is down, and migrate the warehouse; role URLs go to the environment.

        Where others run Airflow the warehouse is up and was migrated by `prepare`: then only the URLs are read.
        """
        if self.settings.airflow_url:
            self._use(read_role_urls(self.settings.home))
            return
        self.start_server()
        self._migrate_warehouse()

    def start_server(self) -> bool:
        """Start the embedded PostgreSQL if it is ours and down; tell whether this call did it.

        Raises StratumError where it does not start, or a database of the user's own cannot be reached.
        """
        self.in_use.enter()
        if self.settings.warehouse_url:
            open_connection(self.settings.warehouse_url, "stratum stack").close()
        if self.settings.postgres_url:
            return False
        if embedded.start(self.cluster):
            self.started_postgres = True
            return True
        return False

    def prepare(self, chosen: Path, sources: Sources) -> None:
        """Make and migrate both databases, then set pools and sources: all that must be before the parts run."""
        self.start_server()
        self._migrate_warehouse()
        self._migrate_airflow()
        log = airflow_home(self.settings) / "prepare.log"
        pools = airflow_home(self.settings) / "pools.json"
        pools.write_text(json.dumps({name: {"slots": 1, "description": why} for name, why in POOLS.items()}))
        run_airflow(["pools", "import", str(pools)], self.environment, log)
        run_airflow(["variables", "set", SOURCES_VARIABLE, str(chosen)], self.environment, log)

    def part_environment(self, sources: Sources) -> dict[str, str]:
        """Return the environment a part of Airflow runs in; it holds passwords.

        Raises StratumError where nothing was prepared yet.
        """
        self._use(read_role_urls(self.settings.home))
        self.environment["STRATUM_TIMEZONE"] = sources.company.timezone
        return self.environment

    def sandbox_environment(self) -> dict[str, str]:
        """Return the environment of the CRM sandbox."""
        return os.environ | {"STRATUM_SANDBOX_TOKEN": self.secrets["sandbox_token"]}

    def stop_started_processes(self) -> None:
        """Stop the processes this object started; PostgreSQL stays up."""
        stop(self.started[::-1])
        self.started.clear()

    def may_stop(self) -> bool:
        """Tell whether something is to be stopped now: what this object started, or what another left for the last.

        What was started to stay stays. Where other commands are at work, they get what this one started.
        """
        started = bool(self.started or self.started_postgres)
        if not self.in_use.is_alone():
            if started:
                self.in_use.leave_to_others()
            return False
        return not self.in_use.stays and (started or self.in_use.was_left)

    def down_started(self) -> None:
        """Stop what this object started, and what others left for the last one; see `may_stop`."""
        if self.may_stop():
            if self.in_use.was_left:
                self._stop_all()
            else:
                self.stop_started_processes()
                if self.started_postgres:
                    embedded.stop(self.cluster)
        self.started.clear()
        self.started_postgres = False
        self.in_use.leave()

    def stay_up(self) -> None:
        """Let what is up stay when this command ends; an Airflow that others run is theirs to stop anyway."""
        if not self.settings.airflow_url:
            self.in_use.keep(True)

    def is_shared(self) -> bool:
        """Tell whether another command is at work here right now."""
        alone = self.in_use.is_alone()
        self.in_use.share()
        return not alone

    def down(self) -> None:
        """Stop everything of this STRATUM_HOME, whoever started it. Raises StratumError where others run Airflow."""
        if self.settings.airflow_url:
            raise StratumError(
                f"Others run Airflow at {self.airflow_url}. Stop it there: docker compose down"
            )
        self._stop_all()

    def _stop_all(self) -> None:
        stop([*self.airflow, self.sandbox])
        embedded.stop(self.cluster)
        self.in_use.forget()

    def _check_ports(self, sources: Sources) -> None:
        """Find a taken port before anything is started; PostgreSQL, the first, looks at its own."""
        if not self.airflow[0].find():
            embedded.assert_port_free(self.settings.airflow_port, "Airflow", "STRATUM_AIRFLOW_PORT")
        if uses_sandbox(sources) and not self.sandbox.find():
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

    def _attach(self) -> None:
        """Find the Airflow that others run. Raises StratumError where it is not healthy."""
        self.start_warehouse()
        self._check_attached()

    def _check_attached(self) -> None:
        if not self.api().healthy():
            raise StratumError(
                f"Airflow at {self.airflow_url} does not answer, or misses a scheduler or DAG processor. "
                "Are all its parts up? See `docker compose ps`."
            )

    def _migrate_warehouse(self) -> None:
        """Make both databases, on a server that is up, and bring the warehouse to its newest schema."""
        with alone(self.server_url):
            create_databases(self.server_url, self.secrets)
            role_urls = migrate(self.owner_url, {role: self.secrets[f"role_{role}"] for role in ROLES})
            write_role_urls(self.settings.home, role_urls)
            write_password_file(self.settings.home, role_urls)
        if set(role_urls.values()) == {self.owner_url}:
            self.say("The warehouse's owner may not create roles: every part works as the owner.")
        self._use(role_urls)

    def _use(self, role_urls: dict[str, str]) -> None:
        """Put the roles' URLs into this process's environment and into that of Airflow's parts."""
        os.environ.update({variable(role): url for role, url in role_urls.items()})
        os.environ[variable(OWNER)] = self.owner_url
        database = metadata_url(self.server_url, self.secrets)
        self.environment = airflow_environment(
            self.settings, self.secrets, database, role_urls, self.owner_url
        )
        self.environment["STRATUM_SCHEDULE"] = _flag(self.settings.schedule)

    def _migrate_airflow(self) -> None:
        database = metadata_url(self.server_url, self.secrets)
        migrate_airflow(airflow_home(self.settings), self.environment, database, self.secrets, self.say)

    def check_alive(self) -> bool:
        """Tell that Airflow's processes run; raises StratumError, naming it, where one has died or the disk is full."""
        assert_room(self.settings.home)
        if self.settings.airflow_url:
            self._check_attached()
            return True
        if dead := self._dead():
            raise StratumError(
                f"Airflow's {dead[0].name} is not running: {self._dead_or_log()}. Start it again: make up"
            )
        return True

    def _dead(self) -> list[Process]:
        return [process for process in self.airflow if not process.find()]

    def _dead_or_log(self) -> str:
        process = next(iter(self._dead()), self.airflow[0])
        return f"see {process.log}, which ends: {process.tail()}"

    def _silent(self, api: AirflowApi) -> str:
        """Say which part does not answer, and what its log ends with."""
        healthy = {
            name.replace("_", "-") for name, part in api.health().items() if part["status"] == "healthy"
        }
        process = next((each for each in self.airflow[1:] if each.name not in healthy), self.airflow[0])
        return f"its {process.name} does not answer; see {process.log}, which ends: {process.tail()}"

    def _wait_for_dags(self, api: AirflowApi) -> None:
        wanted = {path.stem for path in (PROJECT_DIR / "dags").glob("*.py")}
        if not wait_until(lambda: wanted <= api.dag_ids() or bool(api.import_errors()), START_TIMEOUT_S):
            raise StratumError(
                f"Airflow did not read these DAGs: {', '.join(sorted(wanted - api.dag_ids()))}."
            )
        if errors := api.import_errors():
            raise StratumError(f"A DAG does not import: {errors[0]}")


def _flag(value: bool) -> str:
    return "1" if value else "0"


def uses_sandbox(sources: Sources) -> bool:
    """Tell whether the sources talk to the CRM sandbox."""
    parts = (sources.crm, *sources.sync.values())
    return any(part is not None and part.connection == SANDBOX_CONNECTION for part in parts)
