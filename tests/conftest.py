"""Fixtures shared by all tests: a real PostgreSQL, and a fresh migrated warehouse for each test that asks."""

import gc
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

# Before anything imports Airflow, which writes into its home when it is first imported.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="stratum-test-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

from include.dbt import lay_ground, manifest_path
from include.settings import PROJECT_DIR, get_settings
from include.sources.config import Sources, load_sources
from include.sources.loads import bind_company
from include.warehouse import embedded
from include.warehouse.connect import OWNER, ROLES, connect, variable, with_database, with_login
from include.warehouse.migrate import migrate
from include.warehouse.roles import role_name

PASSWORDS = {role: f"password-of-{role}" for role in ROLES}
TEMPLATE = "stratum_template"
TIMEZONE, CURRENCY = "Asia/Shanghai", "CNY"
"""Of most companies of the tests."""
PARSED: dict[str, bytes] = {}
"""The dbt project as it was parsed for the first test database that was built in, by that database's name."""
OPEN: dict[str, Path] = {}
"""Where the project is kept once it is parsed, by the name of each database that is there now."""


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking again and again through all that was imported, which stays.

    These are more than a million objects; looking through them took up to half of a test's processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_unconfigure() -> None:
    """Let the end of the process collect them: libraries tell of what they find left over."""
    gc.unfreeze()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Cluster]:
    """A PostgreSQL of this test process alone, on a free port.

    Nothing of it outlives the machine, so it waits for no disk: a database for each test is hundreds of files to sync.
    Nor has it a secret: proving a password takes most of the time of a connection, of which tests make thousands.
    """
    data = tmp_path_factory.mktemp("postgres") / "data"
    cluster = embedded.Cluster(data, free_port(), "owner-password", embedded.server_programs(None))
    embedded.start(cluster)
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("alter system set fsync = off")
        connection.execute("alter system set scram_iterations = 1")
        connection.execute("select pg_reload_conf()")
        connection.execute("set scram_iterations = 1")
        connection.execute("alter role current_user password 'owner-password'")
    yield cluster
    embedded.stop(cluster)


@pytest.fixture(scope="session")
def bare_template(cluster: embedded.Cluster) -> str:
    """The name of a migrated, empty database."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"create database {TEMPLATE}")
    migrate(with_database(cluster.url, TEMPLATE), PASSWORDS)
    return TEMPLATE


@pytest.fixture(scope="session")
def template(
    cluster: embedded.Cluster, bare_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of the database that each test's warehouse is copied from: migrated, with policy tables and staging views.

    They are those of a company of TIMEZONE and CURRENCY; a build of another one, or of a changed project, makes its own.
    """
    with fresh_warehouse(cluster, bare_template, tmp_path_factory.mktemp("ground")) as ground:
        with connect("loader") as connection:
            bind_company(connection, "Test", TIMEZONE, CURRENCY)
        lay_ground(date(2026, 1, 1), "ground")
        with psycopg.connect(ground.owner_url) as connection:
            connection.execute("truncate audit.company, audit.dbt_nodes")
            name = connection.info.dbname
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
            )
        yield name


class Warehouse:
    """A migrated database of one test, with the URL of the owner and of each role."""

    def __init__(self, owner_url: str, role_urls: dict[str, str]) -> None:
        self.owner_url = owner_url
        self.role_urls = role_urls

    def rows(self, query: str, *arguments: object) -> list[tuple]:
        """Run a statement as the owner and return its rows (none for a statement without a result)."""
        with psycopg.connect(self.owner_url) as connection:
            cursor = connection.execute(query, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *arguments: object) -> object:
        """Return the only value of a one-row, one-column result."""
        ((value,),) = self.rows(query, *arguments)
        return value


def empty(warehouse: Warehouse, schema: str = "%") -> None:
    """Empty our own tables, those of one schema if it is named, and let their numbers begin at one.

    Truncating makes the files of a table anew, so that is done with those few that hold rows.
    """
    ours = f"like '{schema}' and schemaname not in ('pg_catalog', 'information_schema', 'public')"
    warehouse.rows(f"""
        do $$ declare name text; is_filled boolean; filled text[]; begin
            for name in select format('%I.%I', schemaname, tablename) from pg_tables
                where tableowner = current_user and schemaname {ours}
            loop
                execute format('select exists (select from %s)', name) into is_filled;
                if is_filled then filled := filled || name; end if;
            end loop;
            if filled is not null then
                execute format('truncate %s cascade', array_to_string(filled, ', '));
            end if;
            for name in select format('%I.%I', schemaname, sequencename) from pg_sequences
                where sequenceowner = current_user and last_value is not null and schemaname {ours}
            loop
                execute format('alter sequence %s restart', name);
            end loop;
        end $$
    """)


def database_of(warehouse: Warehouse) -> str:
    """Return the name of its database, to be copied as a template."""
    return urlsplit(warehouse.owner_url).path.lstrip("/")


@contextmanager
def shared_manifest(database: str) -> Iterator[None]:
    """Parse the dbt project once per test process, not once per warehouse: parsing takes longer than most tests.

    The parsed project names its database, and the names of all test databases are equally long.
    """
    path = manifest_path(database)
    _remember_what_was_parsed()
    for parsed_for, content in PARSED.items():
        path.write_bytes(content.replace(parsed_for.encode(), database.encode()))
    OPEN[database] = path
    yield
    _remember_what_was_parsed()
    del OPEN[database]


def _remember_what_was_parsed() -> None:
    for database, path in OPEN.items():
        if not PARSED and path.exists():
            PARSED[database] = path.read_bytes()


@contextmanager
def fresh_warehouse(cluster: embedded.Cluster, template: str, home: Path) -> Iterator[Warehouse]:
    """A warehouse of its own; inside, `connect(role)` reaches it and STRATUM_HOME is `home`."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template} strategy file_copy")
    owner_url = with_database(cluster.url, name)
    role_urls = {role: with_login(owner_url, role_name(role), PASSWORDS[role]) for role in ROLES}
    with pytest.MonkeyPatch.context() as patch:
        for role, url in {**role_urls, OWNER: owner_url}.items():
            patch.setenv(variable(role), url)
        patch.setenv("STRATUM_HOME", str(home))
        get_settings.cache_clear()
        with shared_manifest(name):
            yield Warehouse(owner_url, role_urls)
    get_settings.cache_clear()
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def warehouse(cluster: embedded.Cluster, template: str, tmp_path: Path) -> Iterator[Warehouse]:
    """A fresh warehouse for one test."""
    with fresh_warehouse(cluster, template, tmp_path) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def module_warehouse(
    cluster: embedded.Cluster, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    """The same for a whole test module: for tests that only read what one slow step made."""
    with fresh_warehouse(cluster, template, tmp_path_factory.mktemp("home")) as fresh:
        yield fresh


@pytest.fixture
def emptied_warehouse(module_warehouse: Warehouse) -> Warehouse:
    """The warehouse of the module with all its rows taken out: for many short tests that only load and read."""
    empty(module_warehouse)
    return module_warehouse


@pytest.fixture
def online_retail(monkeypatch: pytest.MonkeyPatch) -> Sources:
    """The documented mapping of Online Retail II; skips where its file is not on this machine."""
    folder = Path(os.environ.get("STRATUM_DATA", PROJECT_DIR.parent / "shared" / "data"))
    path = folder / "online_retail_ii.parquet"
    if not path.exists():
        pytest.skip(f"Online Retail II is not at {path}: set STRATUM_DATA to its folder")
    monkeypatch.setenv("STRATUM_DATA", str(folder))
    return load_sources(PROJECT_DIR / "docs" / "examples" / "online_retail_ii.yml")
