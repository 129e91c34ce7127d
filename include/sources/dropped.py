"""Events that policy dropped long ago are not landed again: a file that still holds them is no new knowledge."""

import logging
from datetime import date

import duckdb
import psycopg

from include.sources.loads import Load
from include.sources.mapping import MAPPED

RAW_EVENTS = "raw_events"
"""What audit.housekeeping calls them."""

log = logging.getLogger(__name__)


def events_kept_from(connection: psycopg.Connection) -> date | None:
    """Return the first day whose raw events are kept; None where none were ever dropped."""
    row = connection.execute(
        "select max(older_than) from audit.housekeeping where thing = %s", [RAW_EVENTS]
    ).fetchone()
    return row[0] if row else None


def leave_out_dropped(engine: duckdb.DuckDBPyConnection, load: Load) -> int:
    """Take the events of days that are no longer kept out of MAPPED; return how many. Of other entities none.

    Called within the load's transaction, which housekeeping waits for. Those days stand as they were rolled
    up: landed again, a single late event would replace the whole of its day.
    """
    if (load.source, load.entity) != ("behavior", "events"):
        return 0
    kept_from = events_kept_from(load.connection)
    if kept_from is None:
        return 0
    count = engine.execute(f"delete from {MAPPED} where local_day < ?", [kept_from]).fetchall()  # noqa: S608
    ((rows,),) = count
    if rows:
        log.info(
            "%d events dated before %s are left out: policy no longer keeps events so old.", rows, kept_from
        )
    return rows
