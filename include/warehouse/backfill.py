"""Dates that a backfill asks for: their builds fill the history and never move the pointer.

A request stands in audit.backfill_requests from before its date is started until the date is published. A run
that begins meanwhile is a backfill (include/warehouse/lock.py), whoever starts it; `stratum run` of the date
takes the request back first.
"""

from datetime import date, datetime, timedelta

from include.warehouse.connect import connect


def request(as_of: date) -> None:
    """Ask for a backfill of a date; asked for already, it stays as it is."""
    with connect("housekeeper") as connection:
        connection.execute(
            "insert into audit.backfill_requests (as_of_date) values (%s) on conflict do nothing", [as_of]
        )


def withdraw(as_of: date) -> bool:
    """Take the request of a date back, so that its next run is an ordinary one; tell whether there was one."""
    with connect("housekeeper") as connection:
        done = connection.execute("delete from audit.backfill_requests where as_of_date = %s", [as_of])
    return done.rowcount > 0


def pending() -> list[tuple[date, datetime]]:
    """Return the dates that were asked for and are not published yet, and since when, the oldest date first."""
    with connect("auditor") as connection:
        return connection.execute(
            "select as_of_date, requested_at from audit.backfill_requests order by as_of_date"
        ).fetchall()


def dates_to_fill(first: date, last: date, again: bool) -> list[date]:
    """Return the dates from `first` to `last` that a backfill has to run, the oldest first.

    Those in the history already are left out, unless `again`; the published date always is, since what is
    read of it must not change beside the pointer.
    """
    with connect("housekeeper") as connection:
        rows = connection.execute("select as_of_date from published.history_run").fetchall()
        current = connection.execute("select as_of_date from published.current_run").fetchone()
    done = set() if again else {row[0] for row in rows}
    if current is not None:
        done.add(current[0])
    days = (first + timedelta(days=day) for day in range((last - first).days + 1))
    return [day for day in days if day not in done]
