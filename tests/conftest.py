"""Fixtures shared by all tests: a real PostgreSQL, and a fresh migrated warehouse for each test that asks."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

# Before anything imports Airflow, which writes into its home when it is first imported.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="stratum-test-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

from include.settings import get_settings
from include.warehouse import embedded
from include.warehouse.connect import OWNER, ROLES, variable, with_database
from include.warehouse.migrate import migrate

PASSWORDS = {role: f"password-of-{role}" for role in ROLES}
TEMPLATE = "stratum_template"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Cluster]:
    """A PostgreSQL of this test process alone, on a free port."""
    data = tmp_path_factory.mktemp("postgres") / "data"
    cluster = embedded.Cluster(data, free_port(), "owner-password", embedded.server_programs(None))
    embedded.start(cluster)
    yield cluster
    embedded.stop(cluster)


@pytest.fixture(scope="session")
def template(cluster: embedded.Cluster) -> str:
    """The name of a migrated, empty database that each test's warehouse is copied from."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"create database {TEMPLATE}")
    migrate(with_database(cluster.url, TEMPLATE), PASSWORDS)
    return TEMPLATE


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


@pytest.fixture
def warehouse(
    cluster: embedded.Cluster, template: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Warehouse]:
    """A fresh warehouse; `connect(role)` in the code under test reaches it, and STRATUM_HOME is a temp folder."""
    yield from _warehouse(cluster, template, monkeypatch.setenv, tmp_path, f"test_{free_port()}")
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def module_warehouse(
    cluster: embedded.Cluster, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    """The same for a whole test module: for tests that only read what one slow step made."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        yield from _warehouse(cluster, template, patch.setenv, home, f"module_{free_port()}")
    get_settings.cache_clear()


def _warehouse(
    cluster: embedded.Cluster, template: str, setenv: Callable[[str, str], None], home: Path, name: str
) -> Iterator[Warehouse]:
    from include.warehouse.connect import with_login
    from include.warehouse.roles import role_name

    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template} strategy file_copy")
    owner_url = with_database(cluster.url, name)
    role_urls = {role: with_login(owner_url, role_name(role), PASSWORDS[role]) for role in ROLES}
    for role, url in {**role_urls, OWNER: owner_url}.items():
        setenv(variable(role), url)
    setenv("STRATUM_HOME", str(home))
    get_settings.cache_clear()
    yield Warehouse(owner_url, role_urls)
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")
