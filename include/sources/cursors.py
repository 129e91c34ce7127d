"""How far a database was read: where the next load begins, kept in the load's own transaction.

The position is the value of the cursor column below which every row was landed or refused. Rows dated after
the as-of date wait for their own day, so the position never passes the first of them. A load of an older
date leaves it where it is.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from math import floor
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from psycopg.types.json import Jsonb

from include.errors import StratumError, TransientError
from include.sources.config import DatabaseOrders, OrderRows
from include.sources.files import SOURCE
from include.sources.loads import Load
from include.sources.mapping import MAPPED

COMPARABLE = {
    "number": "decimal(38, 9)",
    "time": "timestamp",
    "time with zone": "timestamptz",
    "date": "date",
    "text": "varchar",
}
"""The kinds of a cursor's values, and the type by which DuckDB puts them in order."""


@dataclass(frozen=True)
class Position:
    """Where a source stands: `value` of its cursor as text (None: read every row), and what was seen so far."""

    mapping: str
    value: str | None = None
    through: date | None = None
    kinds: dict[str, list[str]] = field(default_factory=dict)
    """Column, in small letters → kinds of its values."""
    load_seq: int = 0
    """The load that left it so; 0 for none."""


def mapping_id(orders: OrderRows, rates: Path) -> str:
    """Return what rows are read and judged by: a change of the section, or of the rates, means reading all anew."""
    text = orders.model_dump_json() + (rates.read_text(encoding="utf-8") if rates.exists() else "")
    return hashlib.sha256(text.encode()).hexdigest()


def held_position(connection: psycopg.Connection, source: str, entity: str, mapping: str) -> Position:
    """Return where the newest load left the source; the beginning where it read by another mapping."""
    row = connection.execute(
        "select mapping, position, through, column_kinds, load_seq from audit.cursors "
        "where source = %s and entity = %s order by load_seq desc limit 1",
        [source, entity],
    ).fetchone()
    if row is None:
        return Position(mapping)
    if row[0] != mapping:
        return Position(mapping, load_seq=row[4])
    return Position(*row)


def keep_position(load: Load, after: Position, before: Position | None = None) -> None:
    """Write the position down with the load.

    Raises TransientError where another load has moved it from `before`, the position this one read from.
    """
    held = held_position(load.connection, load.source, load.entity, after.mapping)
    if before is not None and (held.load_seq, held.value) != (before.load_seq, before.value):
        raise TransientError(
            f"Another load of {load.source} ended, or was taken out, while this one read its source; nothing of "
            "this one was landed. Run the date again."
        )
    load.connection.execute(
        "insert into audit.cursors (load_id, load_seq, source, entity, mapping, position, through, column_kinds) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s)",
        [
            load.load_id,
            load.load_seq,
            load.source,
            load.entity,
            after.mapping,
            after.value,
            after.through or load.as_of,
            Jsonb(after.kinds),
        ],
    )


def set_back(connection: psycopg.Connection, source: str, entity: str, load_seq: int) -> None:
    """Let the source stand where it stood before a load, as the housekeeper: what came after is read again."""
    connection.execute(
        "with before as (select mapping, position, through, column_kinds from audit.cursors "
        "  where source = %(source)s and entity = %(entity)s and load_seq < %(load_seq)s "
        "  order by load_seq desc limit 1) "
        "update audit.cursors set mapping = coalesce(before.mapping, cursors.mapping), position = before.position, "
        "through = coalesce(before.through, cursors.through), "
        "column_kinds = coalesce(before.column_kinds, '{}') "
        "from (select) as nothing left join before on true "
        "where cursors.source = %(source)s and cursors.entity = %(entity)s and cursors.load_seq >= %(load_seq)s",
        {"source": source, "entity": entity, "load_seq": load_seq},
    )


def next_position(
    engine: duckdb.DuckDBPyConnection,
    orders: DatabaseOrders,
    before: Position,
    kinds: dict[str, list[str]],
    as_of: date,
) -> Position:
    """Return where the source stands once the kept rows of MAPPED are landed.

    Raises StratumError where the values of the cursor cannot be put in order.
    """
    merged = {name: sorted({*before.kinds.get(name, []), *found}) for name, found in kinds.items()}
    if orders.cursor is None:
        return Position(before.mapping, None, as_of, merged)
    value, through = before.value, before.through
    if through is None or as_of >= through:
        through = as_of
        value = _reached(engine, orders, kinds) or before.value
    return Position(before.mapping, value, through, merged)


def _reached(
    engine: duckdb.DuckDBPyConnection, orders: DatabaseOrders, kinds: dict[str, list[str]]
) -> str | None:
    """Return the cursor of the first row that waits for a later day, else the last one read; None of no rows."""
    cursor = orders.cursor or ""
    found = kinds.get(cursor.lower(), [])
    if not found:
        return None
    if len(found) > 1 or found[0] not in COMPARABLE:
        raise StratumError(
            f"orders.cursor: the column '{cursor}' of {orders.origin} holds {' and '.join(found)}: a cursor is a "
            "number, a date or a time."
        )
    column = '"' + cursor.replace('"', '""') + '"'
    first, last = engine.execute(
        f"select arg_min(value, place) filter (where is_later), arg_max(value, place) from (select {column} as value, "  # noqa: S608
        f"try_cast({column} as {COMPARABLE[found[0]]}) as place, is_later "
        f"from {SOURCE} join {MAPPED} on {SOURCE}.rowid = row_no)"
    ).fetchall()[0]
    reached = first if first is not None else last
    if reached is not None:
        read_from(reached, found[0], orders)  # a text that is no time is told now, not by the next load
    return reached


def read_from(value: str, kind: str, orders: DatabaseOrders) -> Any:
    """Return the value from which a load reads: `overlap` before the position, as the database compares it.

    Rows that are committed late carry a value from before: the overlap is how late they may be.
    """
    try:
        if kind == "number":
            return floor(Decimal(value)) - orders.overlap
        back = timedelta(seconds=orders.overlap)
        if kind == "date":
            return (datetime.fromisoformat(value) - back).date()
        start = datetime.fromisoformat(value) - back
    except (ValueError, OverflowError, InvalidOperation) as error:
        raise StratumError(
            f"orders.cursor: the value {value!r} of '{orders.cursor}' in {orders.origin} is no {kind} to go on "
            "from: a cursor is a number, a date, a time, or text that is a time as ISO 8601 writes it."
        ) from error
    if kind != "text":
        return start
    # A database without a type for times compares text: the start is written as the value is, cut to the second.
    start = start.replace(tzinfo=None, microsecond=0)
    return start.date().isoformat() if len(value) <= 10 else start.isoformat(sep=value[10])


def check_kinds(
    orders: DatabaseOrders, before: Position, kinds: dict[str, list[str]], used: set[str]
) -> None:
    """Raise StratumError, naming the column, where a mapped column holds nothing of a kind it held before."""
    for name in sorted(used):
        held, found = before.kinds.get(name), kinds.get(name)
        if held and found and not set(held) & set(found):
            raise StratumError(
                f"orders: the column '{name}' of {orders.origin} was {' and '.join(held)} and is "
                f"{' and '.join(found)} now. Put it back, or, if it is meant, change what orders makes of it: with "
                "the section changed all rows are read anew."
            )


def kind_of_cursor(orders: DatabaseOrders, before: Position) -> str:
    """Return the kind of the cursor's values as it was at the position."""
    (kind,) = before.kinds[(orders.cursor or "").lower()]
    return kind
