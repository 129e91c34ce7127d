"""The build lock: one run at a time builds and publishes, from its first step to the moved pointer.

The lock is the only row of audit.build_lock. It carries a lease, so that a run that died gives way by itself.
Every step of a run asks `run_of` for the run it belongs to, which renews the lease; a step whose run has lost
the lock is refused, so no candidate and no pointer is ever written by two runs.
"""

import logging
import secrets
import subprocess
import time
from datetime import date, datetime, timedelta
from importlib.metadata import version
from typing import NamedTuple

import psycopg

from include.errors import StratumError, TransientError
from include.settings import PROJECT_DIR
from include.warehouse.connect import connect

log = logging.getLogger(__name__)

# Each step renews the lease, so it must outlast the longest single step (a first full build of some ten
# million rows takes minutes), and a dead run must not hold up the next day for long.
LEASE = timedelta(minutes=30)
WAIT_S = 900
POLL_S = 2.0
LOG_EVERY_S = 30.0


class Holder(NamedTuple):
    """Who holds the lock: the run, its as-of date, and when its lease ends."""

    run_id: str
    as_of: date
    lease_until: datetime

    def __str__(self) -> str:
        return f"run {self.run_id} (as of {self.as_of}) until {self.lease_until:%Y-%m-%d %H:%M:%S %Z}"


def holder_now() -> Holder | None:
    """Return who holds the build lock at this moment, for whoever only wants to know."""
    with connect("auditor") as connection:
        row = connection.execute("select run_id, as_of_date, lease_until from audit.build_lock").fetchone()
    return Holder(*row) if row else None


def in_the_way(as_of: date) -> str | None:
    """Return the line for a user whose date must wait for another date's build; None where the way is free.

    A lock of the same date is taken over at once, and so is one whose lease has ended.
    """
    with connect("auditor") as connection:
        row = connection.execute(
            "select run_id, as_of_date, lease_until from audit.build_lock "
            "where as_of_date <> %s and lease_until > clock_timestamp()",
            [as_of],
        ).fetchone()
    if row is None:
        return None
    holder = Holder(*row)
    return (
        f"The build lock is held by {holder}: the build of {as_of} waits for it, {WAIT_S // 60} minutes at most. If that "
        f"run died, run its date again (stratum run --as-of {holder.as_of}) or give the lock back: stratum unlock"
    )


def begin_run(as_of: date, wait_s: float = WAIT_S) -> str:
    """Take the build lock for an as-of date, waiting up to `wait_s` seconds, and return the new run's id.

    The lock is free, or taken over where its lease has ended or it is held for this same date (a retry of
    that date: the run it held is marked failed). The id is the date and eight random characters, such as
    `20260630_1f0c93ab`: safe inside a table name. A date that a backfill asked for (audit.backfill_requests)
    begins as a backfill, and is published into the history alone. Raises TransientError, naming the holder,
    after the wait.
    """
    run_id = f"{as_of:%Y%m%d}_{secrets.token_hex(4)}"
    code = code_version()
    deadline = time.monotonic() + wait_s
    told = -LOG_EVERY_S
    with connect("transformer") as connection:
        connection.autocommit = True
        while (holder := _try_begin(connection, run_id, as_of, code)) is not None:
            now = time.monotonic()
            if now >= deadline:
                raise TransientError(
                    f"The build as of {as_of} waited {wait_s:.0f} s for the build lock: it is held by {holder}. "
                    "Let that run finish (`stratum status`); one that died gives way when its lease ends, "
                    f"or at once by `stratum unlock` or `stratum run --as-of {holder.as_of}`."
                )
            if now - told >= LOG_EVERY_S:
                log.info("The build as of %s waits: the build lock is held by %s.", as_of, holder)
                told = now
            time.sleep(min(POLL_S, max(deadline - now, 0.05)))
    log.info("Run %s builds as of %s.", run_id, as_of)
    return run_id


def run_of(as_of: date) -> str:
    """Return the run that holds the lock for this date, its lease renewed.

    Raises StratumError, naming the holder, where the lock is free or another date's: what that step would
    write is not its own to write.
    """
    with connect("transformer") as connection:
        holder = lock_holder(connection)
        if holder is None or holder.as_of != as_of:
            raise not_held(f"the build as of {as_of}", holder)
        _renew(connection, holder.run_id)
    return holder.run_id


def mark_built(run_id: str) -> None:
    """Write down that the run's marts stand and passed their gate. Raises StratumError where it lost the lock."""
    with connect("transformer") as connection:
        hold(connection, run_id)
        connection.execute(
            "update audit.runs set status = 'built' where run_id = %s and status = 'building'", [run_id]
        )


def finish_run(run_id: str) -> None:
    """Release the lock of a published run (publishing itself marks the run) and settle its backfill request.

    Safe to call twice.

    Raises StratumError where the run is not published: an unpublished run ends by `fail_run`.
    """
    with connect("publisher") as connection:
        row = connection.execute(
            "select status, as_of_date from audit.runs where run_id = %s", [run_id]
        ).fetchone()
        if row is None or row[0] != "published":
            raise StratumError(
                f"Run {run_id} cannot be finished: it is {row[0] if row else 'unknown'}, not published. "
                "Publish it, or start its date again."
            )
        released = connection.execute("delete from audit.build_lock where run_id = %s", [run_id])
        if released.rowcount:
            connection.execute("delete from audit.backfill_requests where as_of_date = %s", [row[1]])


def fail_run(as_of: date, why: str) -> None:
    """Release the lock this date's run holds and mark the run failed, with the reason in one line.

    Does nothing where the lock is free or another date's (the run was taken over, published, or never
    began), so a failure handler may call it at any time and twice.
    """
    reason = why.strip().partition("\n")[0][:2000]
    with connect("transformer") as connection:
        row = connection.execute(
            "delete from audit.build_lock where as_of_date = %s returning run_id", [as_of]
        ).fetchone()
        if row is None:
            log.info("No run as of %s holds the build lock: nothing to fail.", as_of)
            return
        _mark_failed(connection, row[0], reason)
    log.info("Run %s failed: %s", row[0], reason)


def lock_holder(connection: psycopg.Connection) -> Holder | None:
    """Return who holds the lock and keep the row locked until the transaction ends; None where it is free."""
    row = connection.execute(
        "select run_id, as_of_date, lease_until from audit.build_lock for update"
    ).fetchone()
    return Holder(*row) if row else None


def hold(connection: psycopg.Connection, run_id: str) -> Holder:
    """Renew the lease of `run_id` and keep the lock its own until the transaction ends.

    Raises StratumError, naming the holder, where the lock is free or another run's.
    """
    holder = lock_holder(connection)
    if holder is None or holder.run_id != run_id:
        raise not_held(f"run {run_id}", holder)
    _renew(connection, run_id)
    return holder


def not_held(who: str, holder: Holder | None) -> StratumError:
    """Return the error of a step that does not hold the build lock."""
    held = f"it is held by {holder}" if holder else "nobody holds it"
    return StratumError(
        f"The build lock is not held by {who}: {held}. Nothing was written; "
        "start the date again with `stratum run --as-of DATE`."
    )


def code_version() -> str:
    """Return the commit of the code, marked `-dirty` where files were changed, else the package's version."""
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_DIR), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return version("stratum")
    return done.stdout.strip() if done.returncode == 0 else version("stratum")


def _try_begin(connection: psycopg.Connection, run_id: str, as_of: date, code: str) -> Holder | None:
    """Take the lock if it may be taken, in one transaction; return who holds it otherwise."""
    with connection.transaction():
        # Two runs that find the lock free both insert; the second waits here for the first and gets no row.
        taken = connection.execute(
            "insert into audit.build_lock (run_id, as_of_date, acquired_at, lease_until) "
            "values (%s, %s, clock_timestamp(), clock_timestamp() + %s) on conflict do nothing returning 1",
            [run_id, as_of, LEASE],
        ).fetchone()
        if not taken:
            holder = lock_holder(connection)
            if holder is None:  # released between the two statements
                return _try_begin(connection, run_id, as_of, code)
            now = connection.execute("select clock_timestamp()").fetchone()
            if holder.as_of != as_of and holder.lease_until > now[0]:  # type: ignore[index]
                return holder
            _take_over(connection, holder, run_id, as_of)
        connection.execute(
            # The request stands until the run is published: a begin_run that is tried again reads it again.
            "insert into audit.runs (run_id, as_of_date, status, code_version, is_backfill) values "
            "(%s, %s, 'building', %s, exists (select from audit.backfill_requests where as_of_date = %s))",
            [run_id, as_of, code, as_of],
        )
    return None


def _take_over(connection: psycopg.Connection, holder: Holder, run_id: str, as_of: date) -> None:
    why = (
        f"started again as run {run_id}"
        if holder.as_of == as_of
        else f"its lease ended; taken over by {run_id}"
    )
    _mark_failed(connection, holder.run_id, why)
    connection.execute(
        "update audit.build_lock set run_id = %s, as_of_date = %s, acquired_at = clock_timestamp(), "
        "lease_until = clock_timestamp() + %s",
        [run_id, as_of, LEASE],
    )
    log.warning("Run %s takes the build lock over from %s: %s.", run_id, holder, why)


def _mark_failed(connection: psycopg.Connection, run_id: str, why: str) -> None:
    # A run that published and died before it let the lock go is published all the same.
    connection.execute(
        "update audit.runs set status = 'failed', failure = %s, finished_at = clock_timestamp() "
        "where run_id = %s and status in ('building', 'built')",
        [why, run_id],
    )


def _renew(connection: psycopg.Connection, run_id: str) -> None:
    connection.execute(
        "update audit.build_lock set lease_until = greatest(lease_until, clock_timestamp() + %s) where run_id = %s",
        [LEASE, run_id],
    )


def keep_builds_out(connection: psycopg.Connection, what: str) -> None:
    """Let no build begin until the transaction ends. Raises TransientError, naming it, where one is at work."""
    # Conflicts with every write to the lock's table, so `begin_run` waits for us; readers do not.
    connection.execute("lock table audit.build_lock in share row exclusive mode")
    row = connection.execute(
        "select run_id, as_of_date, lease_until from audit.build_lock where lease_until > clock_timestamp()"
    ).fetchone()
    if row is not None:
        raise TransientError(
            f"While a build is at work, {what}: {Holder(*row)} holds the build lock. Wait for it to end "
            "(`stratum status`) and try again; nothing was changed."
        )
