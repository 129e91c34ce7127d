"""Where the next read of a database's orders begins: the value of the cursor column that a load has reached.

Rows dated after the as-of date wait for their own day, so the position never passes the first of them. A load of an
older date leaves it where it is.
"""

from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from math import floor
from typing import Any

import duckdb

from include.errors import StratumError
from include.sources.cursors import Position
from include.sources.files import SOURCE
from include.sources.mapping import MAPPED
from include.sources.row_sources import DatabaseOrders

COMPARABLE = {
    "number": "decimal(38, 9)",
    "time": "timestamp",
    "time with zone": "timestamptz",
    "date": "date",
    "text": "varchar",
}
"""The kinds of a cursor's values, and the type by which DuckDB puts them in order."""


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
        return Position(before.asked, None, as_of, merged)
    value, through = before.value, before.through
    if through is None or as_of >= through:
        through = as_of
        value = _reached(engine, orders, kinds) or before.value
    return Position(before.asked, value, through, merged)


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
