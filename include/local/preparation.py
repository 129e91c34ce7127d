"""What comes before Airflow's parts run: both databases, their roles, and the files that hold passwords."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psycopg
from psycopg import sql

from include.errors import StratumError
from include.local.environment import ADMIN, AIRFLOW_DATABASE
from include.warehouse.connect import open_connection, with_database, with_login

WAREHOUSE_DATABASE = "stratum"
POOLS = {
    "announce": "One announcement of a source at a time: two at the same moment may lose the build.",
    "warehouse_writer": "One dbt writer at a time: concurrent DDL fails.",
}
"""Airflow's pools, of one slot each, with why."""
ROLE_URLS = "role_urls.json"


def metadata_url(server_url: str, secrets: dict[str, str]) -> str:
    """Return the URL of Airflow's own database on a server, under a role of its own."""
    return with_database(
        with_login(server_url, AIRFLOW_DATABASE, secrets["airflow_database"]), AIRFLOW_DATABASE
    )


@contextmanager
def alone(server_url: str) -> Iterator[None]:
    """Hold the server's one place of those who prepare it, waiting for it: grants made at the same moment collide."""
    with open_connection(server_url, "stratum stack") as connection:
        connection.autocommit = True  # a lock of the session, and no transaction that stays open beside it
        connection.execute("select pg_advisory_lock(hashtextextended('stratum prepare', 0))")
        yield


def create_databases(server_url: str, secrets: dict[str, str]) -> None:
    """Make Airflow's role and both databases where they are missing, and set the role's password.

    `server_url` is the URL of a login that may create databases and roles.
    """
    with open_connection(server_url, "stratum stack") as connection:
        connection.autocommit = True
        airflow, owner = sql.Identifier(AIRFLOW_DATABASE), sql.Identifier(connection.info.user)
        known = connection.execute("select 1 from pg_roles where rolname = %s", [AIRFLOW_DATABASE]).fetchone()
        connection.execute(
            sql.SQL("{} role {} login password {}").format(
                sql.SQL("alter" if known else "create"), airflow, sql.Literal(secrets["airflow_database"])
            )
        )
        for name, its_owner in ((AIRFLOW_DATABASE, airflow), (WAREHOUSE_DATABASE, owner)):
            database = sql.Identifier(name)
            if not connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("create database {} owner {}").format(database, its_owner))
            # Nobody reaches a database by default: each role is let in by name.
            connection.execute(sql.SQL("revoke connect on database {} from public").format(database))


def migrate_airflow(
    home: Path,
    environment: dict[str, str],
    database_url: str,
    secrets: dict[str, str],
    say: Callable[[str], None],
) -> None:
    """Bring Airflow's database to the installed version, unless it is there already (it takes a while).

    `home` is Airflow's folder, where the password of its one user is written, too. Raises StratumError naming
    the log where Airflow fails.
    """
    home.mkdir(parents=True, exist_ok=True)
    (home / "passwords.json").write_text(json.dumps({ADMIN: secrets["airflow_admin"]}))
    (home / "passwords.json").chmod(0o600)
    marker = home / "database_version.json"
    revision = _revision(database_url)
    installed = {"airflow": version("apache-airflow-core"), "revision": revision}
    if revision and marker.exists() and json.loads(marker.read_text()) == installed:
        return
    say("Preparing Airflow's database ...")
    run_airflow(["db", "migrate"], environment, home / "db-migrate.log")
    marker.write_text(json.dumps(installed | {"revision": _revision(database_url)}))


def run_airflow(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """Run one command of Airflow's own command line. Raises StratumError naming the log where it fails."""
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode != 0:
        raise StratumError(f"`airflow {' '.join(arguments[:2])}` failed; see {log}.")


def write_password_file(home: Path, role_urls: dict[str, str]) -> None:
    """Keep the roles' passwords where libpq finds them with PGPASSFILE, so that no URL need hold one."""
    lines = []
    for url in role_urls.values():
        info = psycopg.conninfo.conninfo_to_dict(url)
        host, port, database = info.get("host", ""), info.get("port", 5432), info.get("dbname", "")
        lines.append(f"{host}:{port}:{database}:{info.get('user')}:{info.get('password')}")
    _write_private(home / "pgpass", "\n".join(lines) + "\n")


def write_role_urls(home: Path, role_urls: dict[str, str]) -> None:
    """Keep the roles' URLs for processes that find the warehouse prepared."""
    _write_private(home / ROLE_URLS, json.dumps(role_urls, indent=1))


def read_role_urls(home: Path) -> dict[str, str]:
    """Return the roles' URLs as they were kept. Raises StratumError where nothing was prepared yet."""
    path = home / ROLE_URLS
    if not path.exists():
        raise StratumError(f"{home} holds no prepared installation. Prepare it first: stratum deploy init")
    return json.loads(path.read_text())


def _revision(database_url: str) -> str | None:
    with open_connection(database_url, "stratum stack") as connection:
        if connection.execute("select to_regclass('alembic_version')").fetchone() == (None,):
            return None
        row = connection.execute("select version_num from alembic_version").fetchone()
        return row[0] if row else None


def _write_private(path: Path, text: str) -> None:
    written = path.with_suffix(".new")
    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    written.replace(path)
