"""The books of every load: what came in, what was kept, what was refused, in the load's own transaction."""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import psycopg

from include.errors import StratumError
from include.warehouse.connect import connect

LOADS_CHECKED = "loads_checked"
"""What audit.checks calls the raw gate's memory of the loads it has seen."""


@dataclass
class Load:
    """One ingest of one entity: its id, its place in the order of loads, and its counts.

    rows_in = rows_new + rows_corrected + rows_unchanged + rows_quarantined, which the database checks.
    `reasons` counts quarantined rows by their one primary reason and sums to rows_quarantined.
    """

    connection: psycopg.Connection
    source: str
    entity: str
    as_of: date
    started_at: datetime
    load_id: uuid.UUID
    load_seq: int
    covered_until: date | None
    """The newest as-of date an earlier load of this entity covered: a row of that day or before, unseen
    until now, is late, and known only from this load's as-of date on. None for a first load."""
    files: list[str] = field(default_factory=list)
    rows_in: int = 0
    rows_new: int = 0
    rows_corrected: int = 0
    rows_unchanged: int = 0
    rows_unattributed: int = 0
    rows_later: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rows_quarantined(self) -> int:
        """Rows refused by this load, each counted under one reason."""
        return self.reasons.total()


def bind_company(connection: psycopg.Connection, name: str, timezone: str, currency: str) -> None:
    """Bind the warehouse to its company on the first load; later, check that it is still the same.

    Raises StratumError as `check_company` does.
    """
    connection.execute(
        "insert into audit.company (company_name, timezone, currency) values (%s, %s, %s) on conflict do nothing",
        [name, timezone, currency],
    )
    check_company(connection, name, timezone, currency)


def check_company(connection: psycopg.Connection, name: str, timezone: str, currency: str) -> None:
    """Check that the warehouse holds no other company than this one.

    Raises StratumError where it does, or the same one with another time zone or currency: what a day and an
    amount mean must not change under rows that are already there.
    """
    held = connection.execute("select company_name, timezone, currency from audit.company").fetchone()
    if held is not None and held != (name, timezone, currency):
        raise StratumError(
            f"This warehouse holds the company {held[0]!r} ({held[1]}, {held[2]}) and the sources name "
            f"{name!r} ({timezone}, {currency}). Use another warehouse for it: set STRATUM_HOME to another "
            "folder, or STRATUM_WAREHOUSE_URL to another database."
        )


def lock_entity(connection: psycopg.Connection, source: str, entity: str) -> None:
    """Wait until nobody else changes the raw rows of an entity, and let nobody until the transaction ends."""
    connection.execute(
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"stratum load {source}.{entity}"]
    )


@contextmanager
def landing(source: str, entity: str, as_of: date, status: str = "loaded") -> Iterator[Load]:
    """Open a load as the loader: all the block writes through `load.connection` lands together, or nothing.

    Loads of one entity go one after the other. At the end the counts are written to audit.loads and
    audit.load_reasons; a block that raises leaves no trace. `status` is `loaded`, which covers the days up to
    `as_of`, or `replayed`, which lands refused rows of earlier loads and covers none.
    """
    with connect("loader") as connection:
        lock_entity(connection, source, entity)
        ((covered_until,),) = connection.execute(
            "select max(as_of_date) from audit.loads where source = %s and entity = %s and status = 'loaded'",
            [source, entity],
        ).fetchall()
        started_at = datetime.now(UTC)
        ((load_id, load_seq),) = connection.execute(
            "insert into audit.loads (source, entity, as_of_date, status, started_at) "
            "values (%s, %s, %s, %s, %s) returning load_id, load_seq",
            [source, entity, as_of, status, started_at],
        ).fetchall()
        load = Load(connection, source, entity, as_of, started_at, load_id, load_seq, covered_until)
        yield load
        _close(load)


def ungated_loads(connection: psycopg.Connection) -> list[tuple[str, str, str]]:
    """Return (load_id, source, entity) of the loads that no raw gate has passed yet, in the order they were loaded."""
    return connection.execute(
        "select load_id::text, source, entity from audit.loads where status in ('loaded', 'replayed') "
        "and load_id::text not in ("
        "  select jsonb_array_elements_text(arguments -> 'load_ids') from audit.checks"
        "  where gate = 'raw' and expectation = %s and success) order by load_seq",
        [LOADS_CHECKED],
    ).fetchall()


def _close(load: Load) -> None:
    load.connection.execute(
        "update audit.loads set files = %s, rows_in = %s, rows_new = %s, rows_corrected = %s, "
        "rows_unchanged = %s, rows_quarantined = %s, rows_unattributed = %s, rows_later = %s, "
        "loaded_at = clock_timestamp() where load_id = %s",
        [
            load.files,
            load.rows_in,
            load.rows_new,
            load.rows_corrected,
            load.rows_unchanged,
            load.rows_quarantined,
            load.rows_unattributed,
            load.rows_later,
            load.load_id,
        ],
    )
    with load.connection.cursor() as cursor:
        cursor.executemany(
            "insert into audit.load_reasons (load_id, reason, rows) values (%s, %s, %s)",
            [(load.load_id, reason, rows) for reason, rows in sorted(load.reasons.items()) if rows],
        )


def record_absent(source: str, entities: str | Iterable[str], as_of: date) -> None:
    """Write down that an entity of a source, or several, is not configured: its absence is a fact then, and no gap."""
    names = [entities] if isinstance(entities, str) else list(entities)
    with connect("loader") as connection:
        connection.execute(
            "insert into audit.loads (source, entity, as_of_date, status, started_at) "
            "select %s, unnest(%s::text[]), %s, 'absent', %s",
            [source, names, as_of, datetime.now(UTC)],
        )
