"""Sync the newest published run to the CRM."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

import psycopg

from include.errors import StratumError, TransientError
from include.sources.config import Sources
from include.sync.engine import Engine
from include.sync.ledger import Ledger
from include.sync.mapping import SyncMapping
from include.sync.plan import HOLD_REASONS, kinds_of, make_plan
from include.sync.respect import respect
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

    The rows that worked are in the books when this returns, and stay there; rows that failed are counted in
    the result and come back by themselves in the next sync (see `raise_if_failed`). Raises StratumError
    where nothing could be sent at all: nothing published, `as_of` not the newest published date, a wrong
    mapping, or a CRM that refuses or does not answer before the first row.
    """
    mapping = mapping_of(sources, name)
    with connect("syncer") as books, open_target(mapping, "syncer", clock, sleep) as target:
        books.autocommit = True
        ledger = Ledger(books, mapping.target)
        ledger.lock()
        ledger.open_run(published_run(books, as_of), as_of)
        try:
            stopped = _sync(ledger, mapping, Engine(target, ledger, max_tries, sleep))
        except StratumError as error:
            ledger.close_run("failed", target.calls, str(error))
            raise
        ledger.close_run("failed" if stopped else "finished", target.calls, stopped)
        result = SyncResult(
            ledger.sync_id, ledger.run_id, as_of, *ledger.counts(), target.calls, ledger.reasons()
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


def _sync(ledger: Ledger, mapping: SyncMapping, engine: Engine) -> str | None:
    engine.resolve()
    plan = make_plan(ledger.connection, mapping, ledger.run_id, ledger.as_of)
    respect(engine.target, plan, mapping)
    if plan.changes:
        check_fields(engine.target, plan.kinds, mapping.make_fields)
    ledger.note_plan(plan)
    engine.send(plan.changes)
    return engine.stopped


def sync_all(sources: Sources, as_of: date) -> None:
    """Tell every target, whatever becomes of the others; then raise the first fault, a lasting one before the rest."""
    faults: list[StratumError] = []
    for name in sources.sync:
        try:
            raise_if_failed(sync_crm(sources, as_of, name))
        except StratumError as error:
            log.error("%s: %s", name, error)
            faults.append(error)
    if faults:
        raise min(faults, key=lambda error: isinstance(error, TransientError))


def set_up_target(sources: Sources, name: str) -> Setup:
    """Make the fields the target `name` lacks, where its API allows; the rest is told as to be made by hand."""
    mapping = mapping_of(sources, name)
    with connect("syncer") as books:
        kinds = kinds_of(books, mapping)
    with open_target(mapping, "syncer") as target:
        return set_up(target, kinds)


def raise_if_failed(result: SyncResult) -> None:
    """Raise where rows failed: for the task, after the books are committed.

    TransientError where the CRM did not answer or turned all away; StratumError where it refused rows,
    since trying at once again would only use up their tries.
    """
    if result.failed == 0:
        return
    is_transient = result.reasons.keys() <= {"no_answer", "not_sent", *HOLD_REASONS}
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
