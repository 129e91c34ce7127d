"""Sync the newest published run to the CRM."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from functools import cache

import psycopg

from include.errors import StratumError, TransientError
from include.sources.config import Sources
from include.sync.brakes import count, reasons_to_hold
from include.sync.creation import adopt_found
from include.sync.engine import Engine
from include.sync.holds import OPEN, Hold, hold_of
from include.sync.ledger import Ledger
from include.sync.mapping import SyncMapping
from include.sync.overwrite import apply_overwrite_rules
from include.sync.plan import HOLD_REASONS, kinds_of, make_plan
from include.sync.setup import check_fields, set_up
from include.sync.target import Setup
from include.sync.targets import open_target
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
    status: str = "finished"
    """As in sync.runs: finished, failed, or held where a brake or the switch let nothing be sent."""
    hold: Hold | None = None
    """The hold that stopped it."""


def sync_crm(
    sources: Sources,
    as_of: date,
    name: str,
    *,
    max_tries: int = MAX_TRIES,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> SyncResult:
    """Tell the target `name` of sync.yml what changed in the published run of `as_of`.

    Where a brake speaks, or the target is switched off, nothing is sent: what would have been is held. The rows that
    worked are in the books when this returns, and stay there; rows that failed are counted in the result and come back
    by themselves in the next sync (see `raise_if_failed`). Raises StratumError where nothing could be sent at all:
    nothing published, `as_of` not the newest published date, a wrong mapping, or a CRM that refuses or does not answer
    before the first row. The target is opened (a Salesforce logs in then) only where there is something to ask or tell.
    """
    mapping = mapping_of(sources, name)
    with connect("syncer") as books, ExitStack() as stack:
        books.autocommit = True
        ledger = Ledger(books, mapping.target)
        ledger.lock()
        ledger.open_run(published_run(books, as_of), as_of)

        @cache
        def engine() -> Engine:
            target = stack.enter_context(open_target(mapping, "syncer", clock, sleep))
            return Engine(target, ledger, max_tries, sleep)

        def calls() -> int:
            return engine().target.calls if engine.cache_info().currsize else 0

        try:
            status, why, hold = _sync(ledger, mapping, engine)
        except StratumError as error:
            ledger.close_run("failed", calls(), str(error))
            raise
        ledger.close_run(status, calls(), why)
        result = SyncResult(
            ledger.sync_id,
            ledger.run_id,
            as_of,
            *ledger.counts(),
            calls(),
            ledger.reasons(),
            status,
            hold,
        )
    log.info(
        "sync %d of %s to %s %s: %d queried = %d sent + %d unchanged + %d failed + %d held, in %d calls",
        result.sync_id,
        as_of,
        ledger.target,
        result.status,
        result.queried,
        result.sent,
        result.unchanged,
        result.failed,
        result.held,
        result.calls,
    )
    return result


def _sync(
    ledger: Ledger, mapping: SyncMapping, engine: Callable[[], Engine]
) -> tuple[str, str | None, Hold | None]:
    """Return the status the run ends with, why it is not finished, and the hold that stopped it.

    `engine` opens the target when it is called first.
    """
    if switched_off := ledger.switched_off():
        plan = make_plan(ledger.connection, mapping, ledger.run_id, ledger.as_of)
        ledger.note_plan(plan)
        ledger.hold_changes("switched_off", switched_off)
        return "held", switched_off, None
    if ledger.open_attempts():
        engine().resolve()
    plan = make_plan(ledger.connection, mapping, ledger.run_id, ledger.as_of)
    # Before the CRM is asked anything for this plan, or made to have a field: a person may say no to all of it.
    reasons = reasons_to_hold(mapping.brakes, count(ledger.connection, mapping, plan))
    hold = hold_of(
        ledger.connection, ledger.sync_id, ledger.run_id, ledger.as_of, mapping, reasons, len(plan.changes)
    )
    if hold:
        ledger.note_plan(plan)
        ledger.hold_changes("brake", str(hold))
        return "held", str(hold), hold
    if not plan.changes:
        ledger.note_plan(plan)
        return "finished", None, None
    sending = engine()
    target = sending.target
    check_fields(target, plan.kinds, mapping.make_fields, mapping.external_key)
    if plan.creations and target.can_read:
        plan = adopt_found(ledger, mapping, target, plan)
    apply_overwrite_rules(target, plan, mapping)
    ledger.note_plan(plan)
    sending.send(plan.changes)
    return ("failed" if sending.stopped else "finished"), sending.stopped, None


def tell(sources: Sources, as_of: date, name: str) -> Hold | None:
    """Sync a target, check its books, and raise where rows failed; return the hold where one waits for an answer.

    Raises as `sync_crm` and `raise_if_failed` do, and GateFailed where the books are wrong.
    """
    from include.quality.gate import (
        run_sync_gate,  # Great Expectations takes seconds that a dry run need not pay
    )

    result = sync_crm(sources, as_of, name)
    run_sync_gate(as_of, result.run_id, result.sync_id)
    raise_if_failed(result)
    return result.hold


def set_up_target(sources: Sources, name: str) -> Setup:
    """Make the fields the target `name` lacks, where its API allows; the rest is told as to be made by hand."""
    mapping = mapping_of(sources, name)
    with connect("syncer") as books:
        kinds = kinds_of(books, mapping)
    with open_target(mapping, "syncer") as target:
        return set_up(target, kinds)


def raise_if_failed(result: SyncResult) -> None:
    """Raise where rows failed, or were held and nobody is to be asked any more: after the books are committed.

    TransientError where the CRM did not answer or turned all away; StratumError where it refused rows,
    since trying at once again would only use up their tries.
    """
    if result.hold and result.hold.status != OPEN:
        raise StratumError(
            f"Nothing was sent: {result.hold}. A new run of {result.as_of} asks anew (stratum run --as-of {result.as_of})."
        )
    if result.failed == 0:
        return
    is_transient = result.reasons.keys() <= {"no_answer", "not_sent", "switched_off", *HOLD_REASONS}
    error = TransientError if is_transient else StratumError
    reasons = ", ".join(f"{rows} {reason}" for reason, rows in result.reasons.items())
    raise error(
        f"{result.failed} of {result.queried} accounts could not be told to the CRM ({reasons}); "
        f"{result.sent} were sent. Details stand in sync.outcomes, sync_id {result.sync_id}. "
        "The failed rows are sent again by the next sync."
    )


def replay_dead_letters(sources: Sources, name: str, record_ids: list[str] | None = None) -> int:
    """Let the next sync send dead letters again, all or those of the records; return how many there were."""
    target = mapping_of(sources, name).target
    with connect("syncer") as books:
        return books.execute(
            "delete from sync.failures where target = %s and dead_at is not null "
            "and (%s::text[] is null or record_id = any(%s))",
            [target, record_ids, record_ids],
        ).rowcount


def mapping_of(sources: Sources, name: str) -> SyncMapping:
    """Return the mapping of a target by its name in sync.yml. Raises StratumError where there is none."""
    if name in sources.sync:
        return sources.sync[name]
    known = ", ".join(sources.sync) or "none: sources.yml names no sync file"
    raise StratumError(f"No sync target '{name}'. There is {known}.")


def published_run(books: psycopg.Connection, as_of: date) -> str:
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
