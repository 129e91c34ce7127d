"""Sync the newest published run to the CRM, and the dry run of it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

import psycopg

from include.connections import get_connection
from include.errors import StratumError, TransientError
from include.sources.config import Sources, Sync
from include.sync.engine import Engine
from include.sync.hubspot_api import HubSpotApi, NoAnswer, Refused, hubspot, unreachable
from include.sync.ledger import Ledger
from include.sync.plan import HOLD_REASONS, Plan, make_plan
from include.sync.targets.hubspot import ensure_properties
from include.warehouse.connect import connect

log = logging.getLogger(__name__)
MAX_TRIES = 5
"""Syncs in which the CRM may refuse a row before it becomes a dead letter."""


@dataclass(frozen=True)
class SyncResult:
    """The books of one sync. queried = sent + unchanged + failed + held, which the database checks."""

    sync_id: int
    run_id: str
    as_of: date
    queried: int
    sent: int
    unchanged: int
    failed: int
    held: int
    calls: int
    """HTTP requests of every kind made to the CRM; 0 where nothing had changed."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason → rows, of those that failed or were held."""


def sync_crm(
    sources: Sources,
    as_of: date,
    *,
    max_tries: int = MAX_TRIES,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> SyncResult | None:
    """Tell the CRM what changed in the published run of `as_of`; None where sources.yml has no sync target.

    The rows that worked are in the books when this returns, and stay there; rows that failed are counted in
    the result and come back by themselves in the next sync (see `raise_if_failed`). Raises StratumError
    where nothing could be sent at all: nothing published, `as_of` not the newest published date, a wrong
    mapping, or a CRM that refuses or does not answer before the first row.
    """
    if sources.sync is None:
        return None
    wanted = _checked(sources.sync)
    access = get_connection(wanted.connection)
    with connect("syncer") as books, hubspot(access, "syncer", clock, sleep) as api:
        books.autocommit = True
        ledger = Ledger(books, _target(wanted))
        ledger.lock()
        ledger.open_run(_published_run(books, as_of), as_of)
        try:
            stopped = _sync(api, ledger, wanted, Engine(api, ledger, max_tries, sleep))
        except StratumError as error:
            ledger.close_run("failed", api.calls, str(error))
            raise
        ledger.close_run("failed" if stopped else "finished", api.calls, stopped)
        result = SyncResult(
            ledger.sync_id, ledger.run_id, as_of, *ledger.counts(), api.calls, ledger.reasons()
        )
    log.info(
        "sync %d of %s to %s: %d queried = %d sent + %d unchanged + %d failed + %d held, in %d calls",
        result.sync_id,
        as_of,
        ledger.target,
        result.queried,
        result.sent,
        result.unchanged,
        result.failed,
        result.held,
        result.calls,
    )
    return result


def _sync(api: HubSpotApi, ledger: Ledger, wanted: Sync, engine: Engine) -> str | None:
    engine.resolve()
    plan = make_plan(ledger.connection, ledger.target, wanted.fields, ledger.run_id, ledger.as_of)
    if plan.changes:
        try:
            ensure_properties(api, plan.kinds)
        except (Refused, NoAnswer) as error:
            raise unreachable(
                error, f"let Stratum read or create company properties at {api.host}"
            ) from error
    ledger.note_plan(plan)
    engine.send(plan.changes)
    return engine.stopped


def raise_if_failed(result: SyncResult | None) -> None:
    """Raise where rows failed: for the task, after the books are committed.

    TransientError where the CRM did not answer or turned all away; StratumError where it refused rows,
    since trying at once again would only use up their tries.
    """
    if result is None or result.failed == 0:
        return
    is_transient = result.reasons.keys() <= {"no_answer", "not_sent", *HOLD_REASONS}
    error = TransientError if is_transient else StratumError
    reasons = ", ".join(f"{rows} {reason}" for reason, rows in result.reasons.items())
    raise error(
        f"{result.failed} of {result.queried} accounts could not be told to the CRM ({reasons}); "
        f"{result.sent} were sent. Details stand in sync.outcomes, sync_id {result.sync_id}. "
        "The failed rows are sent again by the next sync."
    )


def plan_sync(sources: Sources, as_of: date) -> Plan | None:
    """Return what a sync would send, without any call: per record, property → new value and last confirmed one.

    A property that is missing in `old` was never told: what the CRM holds there is not known. None where
    sources.yml has no sync target; raises StratumError as `sync_crm` does.
    """
    if sources.sync is None:
        return None
    wanted = _checked(sources.sync)
    with connect("syncer") as books:
        books.autocommit = True
        run_id = _published_run(books, as_of)
        return make_plan(books, _target(wanted), wanted.fields, run_id, as_of)


def replay_dead_letters(sources: Sources, record_ids: list[str] | None = None) -> int:
    """Let the next sync send dead letters again, all or those of the records; return how many there were."""
    if sources.sync is None:
        return 0
    with connect("syncer") as books:
        return books.execute(
            "delete from sync.failures where target = %s and dead_at is not null "
            "and (%s::text[] is null or record_id = any(%s))",
            [_target(sources.sync), record_ids, record_ids],
        ).rowcount


def _checked(wanted: Sync) -> Sync:
    if wanted.create:
        raise StratumError(
            "sync.create in sources.yml is true, but creating companies is not supported: set it to false. "
            "Accounts without a CRM record are held as not_in_crm."
        )
    return wanted


def _target(wanted: Sync) -> str:
    return f"{wanted.target}:{wanted.connection}"


def _published_run(books: psycopg.Connection, as_of: date) -> str:
    """Return the run that is published. Raises StratumError where none is, or one of another date."""
    row = books.execute("select run_id, as_of_date from published.current_run").fetchone()
    if row is None:
        raise StratumError("Nothing is published yet, so there is nothing to tell the CRM.")
    run_id, newest = row
    if newest != as_of:
        raise StratumError(
            f"The published set is of {newest}, not of {as_of}: only the newest date is told to the CRM. "
            f"Sync {newest}, or publish {as_of} first."
        )
    return run_id
