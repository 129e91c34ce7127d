"""How far each source has been read, in one table: where the next load begins, kept in the load's own transaction.

A position is the value of a source's cursor below which everything has landed or was refused: of a database the column
that the user names, of a CRM its stamp of modification. What fails moves nothing; a load that is retracted sets it back.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from include.errors import TransientError
from include.sources.loads import Load
from include.sources.row_sources import OrderRows
from include.warehouse.connect import connect


@dataclass(frozen=True)
class Position:
    """Where a source stands: `value` of its cursor as text (None: read everything), and what was seen so far."""

    asked: str
    """What was read, and how: a fingerprint of the question. Another question begins anew."""
    value: str | None = None
    through: date | None = None
    """The newest as-of date that was landed up to this position."""
    kinds: dict[str, list[str]] = field(default_factory=dict)
    """Of a database: column, in small letters → kinds of its values."""
    whole_on: date | None = None
    """Of a source that is now and then read as a whole although it has a position: the as-of date of the last such load."""
    load_seq: int = 0
    """The load that left it so; 0 for none."""


def mapping_id(orders: OrderRows, rates: Path) -> str:
    """Return what rows are read and judged by: a change of the section, or of the rates, means reading all anew."""
    text = orders.model_dump_json() + (rates.read_text(encoding="utf-8") if rates.exists() else "")
    return hashlib.sha256(text.encode()).hexdigest()


def position_of(source: str, entity: str, asked: str) -> Position:
    """Return where the newest load left a source, before it is read: `held_position` on a connection of its own."""
    with connect("loader") as connection:
        return held_position(connection, source, entity, asked)


def held_position(connection: psycopg.Connection, source: str, entity: str, asked: str) -> Position:
    """Return where the newest load left the source; the beginning where it read by another question."""
    row = connection.execute(
        "select asked, position, through, column_kinds, whole_on, load_seq from audit.cursors "
        "where source = %s and entity = %s order by load_seq desc limit 1",
        [source, entity],
    ).fetchone()
    if row is None:
        return Position(asked)
    if row[0] != asked:
        return Position(asked, load_seq=row[5])
    return Position(*row)


def keep_position(load: Load, after: Position, before: Position | None = None) -> None:
    """Write the position down with the load.

    Raises TransientError where another load has moved it from `before`, the position this one read from.
    """
    held = held_position(load.connection, load.source, load.entity, after.asked)
    if before is not None and (held.load_seq, held.value) != (before.load_seq, before.value):
        raise TransientError(
            f"Another load of {load.source} ended, or was taken out, while this one read its source; nothing of "
            "this one was landed. Run the date again."
        )
    load.connection.execute(
        "insert into audit.cursors "
        "(load_id, load_seq, source, entity, asked, position, through, column_kinds, whole_on) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            load.load_id,
            load.load_seq,
            load.source,
            load.entity,
            after.asked,
            after.value,
            after.through or load.as_of,
            Jsonb(after.kinds),
            after.whole_on,
        ],
    )


def set_back(connection: psycopg.Connection, source: str, entity: str, load_seq: int) -> None:
    """Let the source stand where it stood before a load, as the housekeeper: what came after is read again."""
    connection.execute(
        "with before as (select asked, position, through, column_kinds, whole_on from audit.cursors "
        "  where source = %(source)s and entity = %(entity)s and load_seq < %(load_seq)s "
        "  order by load_seq desc limit 1) "
        "update audit.cursors set asked = coalesce(before.asked, cursors.asked), position = before.position, "
        "through = coalesce(before.through, cursors.through), "
        "column_kinds = coalesce(before.column_kinds, '{}'), whole_on = before.whole_on "
        "from (select) as nothing left join before on true "
        "where cursors.source = %(source)s and cursors.entity = %(entity)s and cursors.load_seq >= %(load_seq)s",
        {"source": source, "entity": entity, "load_seq": load_seq},
    )
