"""Events that policy dropped long ago are not landed again: a file that still holds them is no new knowledge."""

from datetime import date

import psycopg

RAW_EVENTS = "raw_events"
"""What audit.housekeeping calls them."""


def events_kept_from(connection: psycopg.Connection) -> date | None:
    """Return the first day whose raw events are kept; None where none were ever dropped.

    Asked within the load's transaction, which housekeeping waits for. Days before it stand as they were rolled up:
    landed again, a single late event would replace the whole of its day.
    """
    row = connection.execute(
        "select max(older_than) from audit.housekeeping where thing = %s", [RAW_EVENTS]
    ).fetchone()
    return row[0] if row else None
