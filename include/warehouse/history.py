"""What the log of publishes says: which publishes stand, which run is current, which run each date shows.

audit.publishes is append-only. Reading it in order gives a stack: a publish is laid on top, a rollback takes
off what lies above its run. Published dates that were only filled into the history are not rolled back.
"""

from datetime import date, datetime
from typing import NamedTuple

import psycopg


class Change(NamedTuple):
    """One row of audit.publishes."""

    run_id: str
    as_of: date
    action: str
    rows: dict[str, int]
    at: datetime


def changes(connection: psycopg.Connection) -> list[Change]:
    """Return every change of what is published, in the order they were made."""
    rows = connection.execute(
        "select run_id, as_of_date, action, rows, published_at from audit.publishes order by publish_id"
    ).fetchall()
    return [Change(*row) for row in rows]


def standing(log: list[Change]) -> list[Change]:
    """Return the publishes and history fills that stand, in order.

    A rollback to a run takes off every publish above it, and fills of its own date made since: that date
    shows what the pointer shows. A rollback to a run that was itself taken off lays it on top again.
    """
    stack: list[Change] = []
    for change in log:
        if change.action in ("publish", "history"):
            stack.append(change)
        elif change.action == "rollback":
            at = max((i for i, s in enumerate(stack) if _publishes(s, change.run_id)), default=None)
            if at is None:
                stack.append(change._replace(action="publish"))
            else:
                fills = [s for s in stack[at + 1 :] if s.action == "history" and s.as_of != change.as_of]
                stack = [*stack[: at + 1], *fills]
    return stack


def current_and_previous(log: list[Change]) -> tuple[Change | None, Change | None]:
    """Return the publish that is current and the one before it; None where there is none."""
    published = [change for change in standing(log) if change.action == "publish"]
    return (published[-1] if published else None), (published[-2] if len(published) > 1 else None)


def run_by_date(log: list[Change]) -> dict[date, str]:
    """Return the run whose rows each date of the history shows: the last that stands for it."""
    return {change.as_of: change.run_id for change in standing(log)}


def _publishes(change: Change, run_id: str) -> bool:
    return change.action == "publish" and change.run_id == run_id
