"""The columns of a source from load to load: what is new, what is gone, what has another type.

A column that the mapping reads must be there and of the type it had; every other change is kept in the books and
told. docs/contracts/sources.md has the rules.
"""

import logging
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import psycopg
from psycopg.types.json import Jsonb

from include.errors import StratumError
from include.sources.files import SOURCE
from include.sources.loads import Load
from include.warehouse.connect import connect

log = logging.getLogger(__name__)

PLACES = ("stratum_file", "stratum_row")
"""Columns of SOURCE that say where a row stands; all others are the source's own."""
TYPED = ("parquet",)
"""Kinds whose columns have types of their own; those of csv and jsonl are text, and so are a database's as they are read."""
# Each type's values are values of all that follow it.
WIDER = (
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    ("UTINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    ("USMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    ("UINTEGER", "BIGINT", "HUGEINT"),
    ("UBIGINT", "HUGEINT"),
    ("FLOAT", "DOUBLE"),
    ("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP"),
)
DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


@dataclass(frozen=True)
class SourceColumns:
    """What a load found: the columns and their DuckDB types in order, of which kind of source, and those mapped."""

    kind: str
    """`csv`, `jsonl`, `parquet` or `database`."""
    types: dict[str, str]
    mapped: frozenset[str]
    """The columns that an expression of sources.yml reads, in small letters."""


@dataclass(frozen=True)
class Before:
    """The columns of the newest load of an entity that read any, and its as-of date and id."""

    kind: str
    types: dict[str, str]
    as_of: date
    load_id: str


def column_types(engine: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return the columns of SOURCE in their order, each with DuckDB's name of its type."""
    rows = engine.execute(f"describe {SOURCE}").fetchall()
    return {row[0]: row[1] for row in rows if row[0] not in PLACES}


def check_columns(found: SourceColumns, named: dict[str, str], source: str, entity: str, origin: str) -> None:
    """Check the columns that the mapping reads against those of the loads before.

    `named` is each column the mapping reads, in small letters → the key of sources.yml that reads it; `origin` names
    the source in messages. Raises StratumError, naming the column, where one that was there before is missing, or
    has another type that could lose something and that nobody has accepted. A column that was never there is left
    to the check of the mapping.
    """
    with connect("loader") as connection:
        before = newest_columns(connection, source, entity)
        if before is None:
            return
        present = _lowered(found.types)
        for column, place in named.items():
            if column not in present:
                _refuse_missing(connection, source, entity, column, place, origin)
            elif found.kind == before.kind and found.kind in TYPED:
                _check_type(connection, source, entity, column, found, before, origin)


def newest_columns(connection: psycopg.Connection, source: str, entity: str) -> Before | None:
    """Return the columns of the newest load of an entity that read any; None before the first."""
    return _columns_of_load(connection, source, entity, "desc")


def record_columns(load: Load, found: SourceColumns) -> list[str]:
    """Write the columns into the books of the load, tell what changed since the one before, and return the extras.

    Extras are columns that the entity's first load did not have and that no expression reads.
    """
    before = newest_columns(load.connection, load.source, load.entity)
    first = _columns_of_load(load.connection, load.source, load.entity, "asc")
    load.connection.execute(
        "update audit.loads set columns_of = %s, columns = %s where load_id = %s",
        [found.kind, Jsonb([{"name": n, "type": t} for n, t in found.types.items()]), load.load_id],
    )
    if before is None or first is None:
        return []
    for line in changes(found, before):
        log.warning("%s.%s: %s", load.source, load.entity, line)
    known = _lowered(first.types)
    return [name for name in found.types if name.lower() not in known and name.lower() not in found.mapped]


def changes(found: SourceColumns, before: Before) -> list[str]:
    """Return one line for each column that is new, gone or of another type since the load before."""
    since = f"since the load of {before.as_of}"
    was, now = _lowered(before.types), _lowered(found.types)
    lines = [
        f"the column '{name}' ({found.types[name]}) is new {since}"
        + ("." if key in found.mapped else "; no expression of sources.yml reads it.")
        for key, name in now.items()
        if key not in was
    ]
    lines += [
        f"the column '{name}' is gone {since}; no expression of sources.yml reads it."
        for key, name in was.items()
        if key not in now
    ]
    if found.kind != before.kind:
        return [*lines, f"the source is {found.kind} and was {before.kind} {since}."]
    return lines + [
        f"the column '{name}' is {found.types[name]} and was {before.types[was[key]]} {since}."
        for key, name in now.items()
        if key in was and found.types[name] != before.types[was[key]]
    ]


def is_wider(new: str, old: str) -> bool:
    """Tell whether every value of the DuckDB type `old` is a value of `new`, unchanged."""
    if any(new in row and old in row and row.index(new) > row.index(old) for row in WIDER):
        return True
    wide, narrow = DECIMAL.fullmatch(new), DECIMAL.fullmatch(old)
    if not wide or not narrow:
        return False
    digits, scale = int(wide[1]), int(wide[2])
    return scale >= int(narrow[2]) and digits - scale >= int(narrow[1]) - int(narrow[2])


def accept_column(source: str, entity: str, column: str, new_type: str, why: str) -> None:
    """Agree to a new type of a column, for good; the next load takes it.

    Raises StratumError where `why` is empty, or where no load of the entity has met the column.
    """
    if not why.strip():
        raise StratumError("Say why the new type is right: --why 'the ERP writes quantities as text now'.")
    with connect("housekeeper") as connection:
        before = newest_columns(connection, source, entity)
        name = _lowered(before.types).get(column.lower()) if before else None
        if before is None or name is None:
            listed = ", ".join(before.types) if before else "none: there was no load"
            raise StratumError(f"{source}.{entity} has no column '{column}'. Its columns are: {listed}.")
        connection.execute(
            "insert into audit.accepted_columns (source, entity, column_name, column_type, why) "
            "values (%s, %s, %s, %s, %s) on conflict do nothing",
            [source, entity, name.lower(), new_type.upper(), " ".join(why.split())],
        )


def _columns_of_load(connection: psycopg.Connection, source: str, entity: str, order: str) -> Before | None:
    query = (
        "select columns_of, columns, as_of_date, load_id::text from audit.loads where source = %s and entity = %s "
        "and status = 'loaded' and columns is not null order by load_seq "
    )
    row: Any = connection.execute(query + order + " limit 1", [source, entity]).fetchone()
    if row is None:
        return None
    kind, columns, as_of, load_id = row
    return Before(kind, {each["name"]: each["type"] for each in columns}, as_of, load_id)


def _refuse_missing(
    connection: psycopg.Connection, source: str, entity: str, column: str, place: str, origin: str
) -> None:
    row = connection.execute(
        "select min(first_as_of_date), max(last_as_of_date) from audit.source_columns "
        "where source = %s and entity = %s and lower(column_name) = %s",
        [source, entity, column],
    ).fetchone()
    if row is None or row[0] is None:
        return
    raise StratumError(
        f"{origin} no longer has the column '{column}', which {place} of the sources reads: it was there from the "
        f"load of {row[0]} to that of {row[1]}. Correct the export, or that expression."
    )


def _check_type(
    connection: psycopg.Connection,
    source: str,
    entity: str,
    column: str,
    found: SourceColumns,
    before: Before,
    origin: str,
) -> None:
    was, now = _lowered(before.types), _lowered(found.types)
    if column not in was:
        return
    old, new = before.types[was[column]], found.types[now[column]]
    if old == new or is_wider(new, old):
        return
    accepted = connection.execute(
        "select from audit.accepted_columns where source = %s and entity = %s and column_name = %s and column_type = %s",
        [source, entity, column, new.upper()],
    ).fetchone()
    if accepted is None:
        raise StratumError(
            f"{origin}: the column '{column}' is {new} and was {old} up to the load of {before.as_of} "
            f"({before.load_id[:8]}). Correct the export; or, where the new type is right: "
            f"stratum loads accept-column {source} {entity} '{column}' '{new}' --why TEXT"
        )


def _lowered(types: dict[str, str]) -> dict[str, str]:
    """Return each column's name in small letters, as DuckDB tells names apart → the name as it is written."""
    return {name.lower(): name for name in types}
