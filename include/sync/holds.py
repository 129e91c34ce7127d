"""Holds: syncs that a brake stopped, and what a person answered. sync.holds is the one place an answer stands."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from include.errors import StratumError
from include.sync.brakes import Reason
from include.sync.mapping import SyncMapping
from include.warehouse.connect import connect

COLUMNS = (
    "hold_id, target, sync_id, run_id, as_of_date, fingerprint, to_send, reasons, status, opened_at, expires_at, "
    "decided_at, decided_by, why"
)
OPEN, APPROVED, REJECTED, SUPERSEDED, EXPIRED = "waiting", "approved", "rejected", "superseded", "expired"


@dataclass(frozen=True)
class Hold:
    """One row of sync.holds."""

    hold_id: int
    target: str
    sync_id: int
    run_id: str
    as_of_date: date
    fingerprint: str
    to_send: int
    reasons: list[dict[str, Any]]
    status: str
    opened_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    why: str | None

    @property
    def says(self) -> str:
        """Why it was held, all brakes in one text."""
        return "; ".join(reason["says"] for reason in self.reasons)

    @property
    def subject(self) -> str:
        """What Airflow's screen calls it; a command finds it by this."""
        return f"Sync to {self.target} as of {self.as_of_date}: hold {self.hold_id}"

    def __str__(self) -> str:
        """Say in one line what became of it and what can be done."""
        what = f"hold {self.hold_id} of the sync of {self.as_of_date} to {self.target}"
        if self.status == OPEN:
            return f"{what} waits for an answer until {self.expires_at:%Y-%m-%d %H:%M %Z}: {self.says}"
        if self.status in (APPROVED, REJECTED):
            return f"{what} was {self.status} by {self.decided_by}" + (f": {self.why}" if self.why else "")
        if self.status == EXPIRED:
            return f"{what} expired at {self.expires_at:%Y-%m-%d %H:%M %Z} without an answer"
        return f"{what} was superseded: another run, or another mapping, took its place"


def fingerprint(run_id: str, mapping: SyncMapping) -> str:
    """Return the sha256 (hex) of what an answer holds for: the published run, and the rules it is sent by."""
    rules = mapping.model_dump_json(exclude={"brakes", "reconcile"})
    return hashlib.sha256(f"{run_id}\n{rules}".encode()).hexdigest()


def hold_of(
    connection: psycopg.Connection,
    sync_id: int,
    run_id: str,
    as_of: date,
    mapping: SyncMapping,
    reasons: list[Reason],
    to_send: int,
) -> Hold | None:
    """Return the hold that stops this sync, a new one where none was asked about it; None where it may be sent.

    An answer holds for the same run and mapping, as long as no other run was synced in between: a yes for at most as many
    records; a no, or an expired hold, whatever the brakes say by now. Any other hold of the target that still waits is
    superseded. Call it under the target's lock.
    """
    mark = fingerprint(run_id, mapping)
    expire(connection, mapping.target)
    asked = _holds(
        connection,
        "select {} from sync.holds as hold where target = %s and fingerprint = %s "
        "and (to_send >= %s or status in ('rejected', 'expired')) and status <> 'superseded' "
        "and not exists (select from sync.runs where runs.target = hold.target "
        "and runs.sync_id > hold.sync_id and runs.run_id <> hold.run_id) order by hold_id desc limit 1",
        [mapping.target, mark, to_send],
    )
    is_refused = any(hold.status in (REJECTED, EXPIRED) for hold in asked)
    with connection.transaction():
        _supersede(connection, mapping.target, keep=asked[0] if asked and reasons else None)
        if not reasons and not is_refused:
            return None
        (hold,) = asked or _holds(
            connection,
            "insert into sync.holds (target, sync_id, run_id, as_of_date, fingerprint, to_send, reasons, expires_at) "
            "values (%s, %s, %s, %s, %s, %s, %s, clock_timestamp() + %s) returning {}",
            [
                mapping.target,
                sync_id,
                run_id,
                as_of,
                mark,
                to_send,
                Jsonb([asdict(reason) for reason in reasons]),
                timedelta(hours=mapping.brakes.expire_hours),
            ],
        )
        connection.execute("update sync.runs set hold_id = %s where sync_id = %s", [hold.hold_id, sync_id])
    return None if hold.status == APPROVED else hold


def expire(connection: psycopg.Connection, target: str) -> None:
    """Close the target's hold that nobody answered in time."""
    connection.execute(
        "update sync.holds set status = 'expired', decided_at = expires_at "
        "where target = %s and status = 'waiting' and expires_at <= clock_timestamp()",
        [target],
    )


def _supersede(connection: psycopg.Connection, target: str, keep: Hold | None) -> None:
    connection.execute(
        "update sync.holds set status = 'superseded', decided_at = clock_timestamp() "
        "where target = %s and status = 'waiting' and hold_id is distinct from %s",
        [target, keep.hold_id if keep else None],
    )


def read_hold(hold_id: int) -> Hold:
    """Return a hold as it stands now. Raises StratumError where there is none of that number."""
    with connect("syncer") as connection:
        return _read(connection, hold_id)


def newest_hold(target: str) -> Hold:
    """Return the newest hold of a target. Raises StratumError where it never had one."""
    with connect("syncer") as connection:
        expire(connection, target)
        holds = _holds(
            connection,
            "select {} from sync.holds where target = %s order by hold_id desc limit 1",
            [target],
        )
    if not holds:
        raise StratumError(f"No sync to {target} was ever held: there is nothing to answer.")
    return holds[0]


def decide(hold_id: int, approved: bool, by: str, why: str | None) -> Hold:
    """Write a person's answer down and return the hold. The same answer a second time changes nothing.

    Raises StratumError where it was answered otherwise, has expired, or another published run took its place.
    """
    wanted = APPROVED if approved else REJECTED
    with connect("syncer") as connection:
        connection.autocommit = True
        hold = _read(connection, hold_id)
        published = connection.execute("select run_id from published.current_run").fetchone()
        if hold.status == OPEN and published != (hold.run_id,):
            connection.execute(
                "update sync.holds set status = 'superseded', decided_at = clock_timestamp() "
                "where hold_id = %s and status = 'waiting'",
                [hold_id],
            )
        connection.execute(
            "update sync.holds set status = %s, decided_at = clock_timestamp(), decided_by = %s, why = %s "
            "where hold_id = %s and status = 'waiting'",
            [wanted, by, why, hold_id],
        )
        hold = _read(connection, hold_id)
    if hold.status != wanted:
        raise StratumError(f"The answer comes too late: {hold}. Run the date again to be asked anew.")
    return hold


def _read(connection: psycopg.Connection, hold_id: int) -> Hold:
    row = connection.execute("select target from sync.holds where hold_id = %s", [hold_id]).fetchone()
    if row is None:
        raise StratumError(f"There is no hold {hold_id}. See `stratum sync status`.")
    expire(connection, row[0])
    (hold,) = _holds(connection, "select {} from sync.holds where hold_id = %s", [hold_id])
    return hold


def _holds(connection: psycopg.Connection, query: str, arguments: Iterable[Any]) -> list[Hold]:
    """Run a query whose `{}` stands for the columns."""
    with connection.cursor(row_factory=class_row(Hold)) as cursor:
        return cursor.execute(query.format(COLUMNS), list(arguments)).fetchall()
