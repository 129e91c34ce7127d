"""Read order lines from a database of the user's: one SELECT, in one read-only transaction, chunk by chunk.

SQLAlchemy speaks to whatever database has a driver; the rows come through a cursor on the server's side and go
as Arrow batches of text into DuckDB, so that memory does not grow with the table and no number is rounded. From
there on they are mapped and landed as rows of files are.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.pool import NullPool

from include.connections import database_url
from include.errors import StratumError, TransientError
from include.sources.files import REFUSED, SOURCE
from include.sources.row_sources import DatabaseOrders

CHUNK_ROWS = 20_000
CONNECT_TIMEOUT_S = 10
SCHEMES = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mssql": "mssql+pymssql",
    "oracle": "oracle+oracledb",
}
"""A scheme without a driver, as Airflow writes it → the SQLAlchemy dialect and driver that is used."""
TIMEOUT_OPTIONS = {"psycopg": "connect_timeout", "pymysql": "connect_timeout", "pymssql": "login_timeout"}
SNAPSHOT: dict[str, dict[str, Any]] = {
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    "mysql": {"isolation_level": "REPEATABLE READ"},
    "mariadb": {"isolation_level": "REPEATABLE READ"},
}
"""How a dialect is asked for a transaction that sees one moment; elsewhere it is the database's own default."""
READ_ONLY = {
    "mysql": "set session transaction read only",
    "mariadb": "set session transaction read only",
    "oracle": "set transaction read only",
}
"""What is said first where SQLAlchemy has no option for a transaction that only reads."""
TURNED_AWAY = ("authentication", "password", "denied", "login failed", "does not exist", "unknown database")
"""Words of a database that answered and does not let us in: trying again would not help."""
MYSQL_TURNED_AWAY = frozenset({1044, 1045, 1049, 1130, 1698})
"""The same as numbers of MySQL's and MariaDB's errors; PyMySQL gives most of them one class."""
MYSQL_LOST = frozenset({1040, 1053, 1203, 1205, 1213, 1927, *range(2000, 3000)})
"""Numbers of those that pass: too many connections, a shutdown, a lock, a killed connection, all of the client's own.
https://mariadb.com/kb/en/mariadb-error-code-reference/"""


@dataclass
class Read:
    """What a read has found, beside the rows themselves, which are in the table SOURCE."""

    columns: list[str]
    """The columns of SOURCE that are the database's."""
    binary: set[str]
    """Columns that hold binary data, in the database's own spelling; they are not in SOURCE."""
    kinds: dict[str, list[str]] = field(default_factory=dict)
    """Column, in small letters → kinds of its values: number, text, time, time with zone, date, ...; null is none."""
    rows: int = 0


@contextmanager
def reading(orders: DatabaseOrders) -> Iterator[Connection]:
    """Connect for reading alone. Raises StratumError, without password and address, where that fails."""
    engine, password = _engine(orders.connection)
    try:
        with engine.connect() as connection:
            backend = engine.dialect.name
            if options := SNAPSHOT.get(backend):
                connection = connection.execution_options(**options)
            if first := READ_ONLY.get(backend):
                connection.exec_driver_sql(first)
            if engine.dialect.driver == "pymysql":  # as mysql_values expects them
                connection.exec_driver_sql("set time_zone = '+00:00'")
            yield connection
    except DBAPIError as error:
        raise _fault(error, orders, password) from None  # its text and its arguments may show the address
    finally:
        engine.dispose()


def columns_of(connection: Connection, orders: DatabaseOrders) -> list[str]:
    """Return the columns of the table or query. Raises StratumError for a name that stands twice or is ours."""
    names = list(connection.execute(text(f"select * from {_from(connection, orders)} where 1 = 0")).keys())  # noqa: S608
    lowered = [name.lower() for name in names]
    if doubled := [name for name in lowered if lowered.count(name) > 1]:
        raise StratumError(
            f"{orders.origin} names the column '{doubled[0]}' twice: give each a name of its own (as)."
        )
    if ours := {"stratum_file", "stratum_row"} & set(lowered):
        raise StratumError(f"{orders.origin} has a column '{min(ours)}', which is a name of Stratum's own.")
    if orders.cursor is not None and orders.cursor.lower() not in lowered:
        raise StratumError(
            f"orders.cursor names the column '{orders.cursor}', which {orders.origin} does not have. Its columns "
            f"are: {', '.join(names)}."
        )
    return names


def read_database(
    engine: duckdb.DuckDBPyConnection, connection: Connection, orders: DatabaseOrders, start: Any | None
) -> Read:
    """Fill SOURCE with the rows from `start` of the cursor on (None: all), every value as text.

    Rows whose cursor is null, or a zero date, are always read. REFUSED is made, and stays empty: a database has no
    broken lines. Raises as `columns_of` does; whatever the database raises is for `reading` to tell.
    """
    read = declare(engine, connection, orders)
    names = read.columns
    kinds: list[set[str]] = [set() for _ in names]
    for rows in _chunks(connection, orders, start):
        texts = [_as_text(values, kinds[place]) for place, values in enumerate(zip(*rows, strict=True))]
        _append(engine, texts, orders.table or "query", read.rows)
        read.rows += len(rows)
    read.binary = {name for name, found in zip(names, kinds, strict=True) if "binary" in found}
    for name in read.binary:
        engine.execute(f"alter table {SOURCE} drop column {_quoted(name)}")
    read.columns = [name for name in names if name not in read.binary]
    read.kinds = {name.lower(): sorted(found) for name, found in zip(names, kinds, strict=True)}
    return read


def declare(engine: duckdb.DuckDBPyConnection, connection: Connection, orders: DatabaseOrders) -> Read:
    """Make SOURCE and REFUSED, both empty, for the rows of the table or query. Raises as `columns_of` does."""
    names = columns_of(connection, orders)
    declared = ", ".join(f"{_quoted(name)} varchar" for name in names)
    engine.execute(f"create table {SOURCE} ({declared}, stratum_file varchar, stratum_row bigint)")
    engine.execute(
        f"create table {REFUSED} (stratum_file varchar, stratum_row bigint, line varchar, fault varchar)"
    )
    return Read(names, set())


def count_rows(connection: Connection, orders: DatabaseOrders) -> tuple[int, Any]:
    """Return how many rows there are, and the greatest value of the cursor (None without one)."""
    newest = "null" if orders.cursor is None else f"max({_name(connection, orders.cursor)})"
    row = connection.execute(text(f"select count(*), {newest} from {_from(connection, orders)}")).one()  # noqa: S608
    return row[0], row[1]


def _engine(conn_id: str) -> tuple[Engine, str]:
    """Return an engine of the connection, and its password, which no message may show."""
    try:
        url = make_url(database_url(conn_id))
        url = url.set(drivername=SCHEMES.get(url.drivername, url.drivername))
        if url.get_backend_name() == "sqlite":
            return create_engine("sqlite://", creator=_sqlite(url), poolclass=NullPool), ""
        timeout = TIMEOUT_OPTIONS.get(url.get_driver_name())
        arguments: dict[str, Any] = (
            {timeout: CONNECT_TIMEOUT_S} if timeout and timeout not in url.query else {}
        )
        if url.get_driver_name() == "pymysql":
            from include.sources.mysql_values import DECODERS  # the driver is the user's to install

            arguments["conv"] = DECODERS
        return create_engine(url, connect_args=arguments, poolclass=NullPool), str(url.password or "")
    except ModuleNotFoundError as error:
        raise StratumError(
            f"The connection '{conn_id}' needs the Python package '{error.name}', which is not installed. Install "
            "it into Stratum's .venv, on every machine that runs tasks."
        ) from None
    except NoSuchModuleError as error:
        raise StratumError(
            f"The connection '{conn_id}' is of a kind that is not known here ({error}). Write it as SQLAlchemy does, "
            "such as postgresql://, mysql+pymysql://, mssql+pymssql://, and install its driver."
        ) from None
    except (ArgumentError, ValueError):
        raise StratumError(
            f"The connection '{conn_id}' cannot be read as a URL such as postgresql://user:password@host/database "
            "(signs like @ and / in a password are written as %40 and %2F)."
        ) from None


def _sqlite(url: URL) -> Callable[[], sqlite3.Connection]:
    """Return what opens a SQLite file that is there, for reading alone."""
    path = quote(url.database or "")
    return lambda: sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def _fault(error: DBAPIError, orders: DatabaseOrders, password: str) -> StratumError:
    """Return the one line for a fault of the database: what it said first, and what to do."""
    number, reason = _told(error)
    said = next((line.strip() for line in reason.splitlines() if line.strip()), "no reason given")
    if password:
        said = said.replace(password, "***")
    if isinstance(error.orig, sqlite3.Error):
        is_lost, is_turned_away = False, "unable to open" in said
    elif number is not None:
        is_lost = error.connection_invalidated or number in MYSQL_LOST
        is_turned_away = number in MYSQL_TURNED_AWAY
    else:
        is_lost = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        is_turned_away = is_lost and any(word in said.lower() for word in TURNED_AWAY)
    if is_turned_away:
        return StratumError(
            f"The database of the connection '{orders.connection}' does not let Stratum in: {said.rstrip('.')}. "
            "Correct its database, user and password."
        )
    if is_lost:
        return TransientError(
            f"The database of the connection '{orders.connection}' did not answer to the end: {said.rstrip('.')}. "
            "Nothing was landed. Is it up, and is its host right?"
        )
    return StratumError(
        f"orders: {orders.origin} cannot be read: {said.rstrip('.')}. Correct table, query or cursor, or let the "
        "user of the connection select from it."
    )


def _told(error: DBAPIError) -> tuple[int | None, str]:
    """Return what the database said; its number with it where that is MySQL's or MariaDB's, through PyMySQL."""
    given = error.orig.args if error.orig is not None else ()
    if type(error.orig).__module__ == "pymysql.err" and len(given) > 1 and isinstance(given[0], int):
        return given[0], str(given[1])
    return None, str(error.orig)


def _chunks(connection: Connection, orders: DatabaseOrders, start: Any | None) -> Iterator[Sequence[Any]]:
    statement = f"select * from {_from(connection, orders)}"  # noqa: S608 - the user's own table or query
    values = {}
    if start is not None and orders.cursor is not None:
        cursor = _name(connection, orders.cursor)
        statement += f" where {cursor} >= :stratum_start or {cursor} is null"
        if isinstance(start, date) and connection.dialect.driver == "pymysql":
            statement += f" or {cursor} < '1000-01-01'"  # a zero date, which is MySQL's way to say none
            if isinstance(start, datetime) and start.tzinfo:
                start = start.astimezone(UTC).replace(tzinfo=None)  # PyMySQL drops an offset as it is
        values["stratum_start"] = start
    # The cursor stays on the server's side, where the driver has such cursors; of text, SQLAlchemy itself would
    # make one chunk.
    streamed = connection.execution_options(stream_results=True, max_row_buffer=CHUNK_ROWS)
    yield from streamed.execute(text(statement), values).partitions(CHUNK_ROWS)


def _from(connection: Connection, orders: DatabaseOrders) -> str:
    """Return the table, or the query as a derived table, as it stands after FROM."""
    if orders.table is not None:
        return ".".join(_name(connection, part) for part in orders.table.split("."))
    return f"({_no_binds(orders.query or '')}\n) stratum_rows"


def _no_binds(query: str) -> str:
    # A colon before a word would be a parameter to SQLAlchemy.
    return query.replace(":", "\\:")


def _name(connection: Connection, name: str) -> str:
    return _no_binds(connection.dialect.identifier_preparer.quote(name.strip()))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _append(engine: duckdb.DuckDBPyConnection, texts: list[list[str | None]], file: str, before: int) -> None:
    rows = len(texts[0])
    arrays = [pa.array(values, pa.string()) for values in texts]
    places = pa.array(range(before + 1, before + rows + 1), pa.int64())
    names = [str(number) for number in range(len(arrays) + 2)]
    batch = pa.Table.from_arrays([*arrays, pa.array([file] * rows, pa.string()), places], names=names)
    engine.register("stratum_chunk", batch)
    engine.execute(f"insert into {SOURCE} select * from stratum_chunk")  # noqa: S608
    engine.unregister("stratum_chunk")


def _as_text(values: Sequence[Any], kinds: set[str]) -> list[str | None]:
    """Return the values of one column as text, and add what kinds they are of; binary ones come as null."""
    types = {type(value) for value in values} - {type(None)}
    if datetime in types:  # with a zone or without: only the values tell
        kinds.update(_kind(value) for value in values if value is not None)
    else:
        kinds.update(KINDS.get(kind, kind.__name__) for kind in types)
    if types <= {str}:
        return list(values)
    return [None if value is None else TEXTS.get(type(value), str)(value) for value in values]


def _kind(value: Any) -> str:
    if type(value) is datetime:
        return "time" if value.tzinfo is None else "time with zone"
    return KINDS.get(type(value), type(value).__name__)


def _no_text(value: Any) -> None:
    return None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


KINDS: dict[type, str] = {
    bool: "true or false",
    int: "number",
    float: "number",
    Decimal: "number",
    date: "date",
    str: "text",
    bytes: "binary",
    bytearray: "binary",
    memoryview: "binary",
}
TEXTS: dict[type, Callable[[Any], str | None]] = {
    bool: lambda value: "true" if value else "false",
    float: repr,
    Decimal: lambda value: format(value, "f"),  # never 1E+2
    datetime: lambda value: value.isoformat(" "),
    bytes: _no_text,
    bytearray: _no_text,
    memoryview: _no_text,
    dict: _json,
    list: _json,
}
