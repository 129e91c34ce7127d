"""Connections to the warehouse: each part connects as its own role."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg

from include.connections import airflow_connection
from include.errors import StratumError, TransientError

ROLES = ("loader", "transformer", "scorer", "publisher", "syncer", "housekeeper", "bi_reader", "auditor")
OWNER = "warehouse"  # owns schemas and tables; used by migrations and by nothing that runs daily
CONNECT_TIMEOUT_S = 10


def connection_id(role: str) -> str:
    """Return the id of the Airflow connection of a role: `stratum_loader`, ..., `stratum_warehouse`."""
    return f"stratum_{role}"


def variable(role: str) -> str:
    """Return the environment variable Airflow reads a role's connection from."""
    return f"AIRFLOW_CONN_{connection_id(role).upper()}"


def role_url(role: str) -> str:
    """Return the postgresql:// URL of a role. It holds a password: never print it.

    Read from the environment as Airflow itself does, else, inside a task, from Airflow's connections.
    Raises StratumError where neither knows it.
    """
    if role not in (*ROLES, OWNER):
        raise ValueError(f"'{role}' is not a warehouse role; the roles are {', '.join(ROLES)}")
    if url := os.environ.get(variable(role)):
        return url
    if found := airflow_connection(connection_id(role)):
        return found.get_uri().replace("postgres://", "postgresql://", 1)
    raise StratumError(
        f"No connection '{connection_id(role)}'. Set {variable(role)}=postgresql://..., "
        "or add it to Airflow's connections."
    )


def with_login(url: str, user: str, password: str) -> str:
    """Return the URL with another user and password, and the same host, port, database and options."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"))


def with_database(url: str, database: str) -> str:
    """Return the URL with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(database, safe='')}"))


def printable(url: str) -> str:
    """Return the URL without its password, for messages and logs."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{name}@{host}" if name else host))


def open_connection(url: str, application: str) -> psycopg.Connection:
    """Connect to a URL. Raises TransientError, without the password, where the server does not let us in."""
    try:
        return psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S, application_name=application)
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise TransientError(
            f"The warehouse {printable(url)} cannot be reached: {reason}. "
            "Is the server up, and are host, database and login right?"
        ) from error


@contextmanager
def connect(role: str) -> Iterator[psycopg.Connection]:
    """Open a connection as `role`; commit at the end, roll back if the block raises, close in any case."""
    with open_connection(role_url(role), f"stratum {role}") as connection:
        yield connection
