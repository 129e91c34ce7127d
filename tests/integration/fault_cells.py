"""The cells of the fault matrices: each way to fail and each kind of target, with what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import pytest

from include.sync.targets.salesforce_bulk import LOOKS_S
from tests.integration.target_stage import BATCH, JOB, ROWS, SHORT_S, Place

FAULTS = (
    "429 with Retry-After",
    "429 without Retry-After",
    "500",
    "502",
    "connection cut before the write",
    "connection cut after the write",
    "timeout after the write",
    "207 with one bad row",
    "whole-batch 409",
    "COMPLETE but empty",
    "expired token",
    "slow trickle",
    "malformed JSON",
)
IMPOSSIBLE = {
    ("whole-batch 409", "bulk"): (
        "A job takes its rows one by one. What Salesforce refuses of it as a whole is its file, or a column: no row is "
        "to blame, and halving finds none. Such a job ends as Failed; see test_sync_targets_salesforce.py."
    ),
}
"""Cells that cannot occur, each with the reason."""
GUILTY = 1
"""The place of the row that is refused."""
FIRST = {"hubspot": BATCH, "collections": BATCH, "bulk": JOB, "webhook": BATCH}
"""The rows of the first batch."""
STAY = {"hang_s", "retry_after", "server_error_status", "reject_batch_status"}
"""Numbers of faults that do not count down."""


@dataclass(frozen=True)
class Cell:
    """A fault, and its stated outcome: of the sync it strikes, then of the one after it.

    `faults` may name the guilty record, and `step` the call of a Bulk job that is struck.
    """

    faults: Callable[[str], dict[str, Any]]
    sent: int = ROWS
    failed: dict[str, int] | None = None
    dead: int = 0
    then_sent: int = 0
    max_tries: int = 5
    slept: tuple[float, ...] | None = None
    """Each wait but those between two looks at a job."""
    step: str | None = None
    is_lost: bool = False
    """Whether the write was done and its answer did not come, so that it had to be asked for."""

    def strike(self, place: Place, guilty: str) -> None:
        """Put the fault in."""
        place.faults(**self.faults(guilty))

    def assert_struck(self, place: Place, guilty: str) -> None:
        """Each fault that strikes so many times has done so: none missed the call it was meant for."""
        counted = [name for name, n in self.faults(guilty).items() if isinstance(n, int) and name not in STAY]
        assert {name: place.left(name) for name in counted} == dict.fromkeys(counted, 0)

    def assert_waited(self, kind: str, slept: list[float]) -> None:
        """It was waited as it is stated."""
        looks = LOOKS_S if kind == "bulk" else ()
        assert self.slept is None or [each for each in slept if each not in looks] == list(self.slept)


def told(**faults: Any) -> Callable[[str], dict[str, Any]]:
    return lambda guilty: faults


def refused_one(faults: Callable[[str], dict[str, Any]]) -> Cell:
    """One row is refused: it alone fails, is given up after its last try, and arrives once it is replayed."""
    return Cell(faults, sent=ROWS - 1, failed={"refused": 1}, dead=1, then_sent=1, max_tries=1)


def struck(step: str | None, **faults: Any) -> Cell:
    """One call is struck, and all rows arrive in the same sync."""
    at = {"write_fault_at": step} if step else {}
    done = {"drop_answer", "drop_after", "hang_after", "trickle", "malformed"}
    return Cell(told(**faults, **at), step=step, is_lost=not done.isdisjoint(faults))


def turned_away(step: str | None, wait_s: float, **faults: Any) -> Cell:
    """One call is turned away thrice, and waited out: so long each time."""
    at = {"rate_limited_at": step} if step else {}
    return Cell(told(rate_limited=3, **faults, **at), slept=(wait_s,) * 3, step=step)


def failing(step: str, status: int) -> Cell:
    return Cell(told(server_error=1, server_error_at=step, server_error_status=status), step=step)


def forgotten(kind: str, **faults: Any) -> Cell:
    """The first batch is answered without a word of its rows: they fail, and the next sync settles and sends them.

    A webhook's are settled by posting them again, before anything is planned.
    """
    lost = FIRST[kind]
    then = 0 if kind == "webhook" else lost
    return Cell(told(**faults), sent=ROWS - lost, failed={"missing_from_answer": lost}, then_sent=then)


OUT = {"failed": {"not_sent": ROWS}, "sent": 0, "then_sent": ROWS}
"""Nobody is let in: nothing is sent, and no row is to blame."""
JOB_STEPS = ("set_state", "upload", "create_ingest")
EVERY_STEP = (*JOB_STEPS, "show_ingest", "successful")
"""Those that only ask, too."""


def matrix(makes: bool) -> dict[tuple[str, str], list[Cell]]:
    """Return (fault, kind) → how it strikes and what comes of it, where records are updated, or where they are made.

    The rows of a creation are named by their key. Its outcomes are those of an update: what a key finds is there.
    """
    batch, collection = (
        ("upsert_batch", "collection_upsert") if makes else ("update_batch", "collection_update")
    )
    # Calls of HubSpot before the first write: the list of properties, and which keys are there.
    before = 1 + (ceil(ROWS / BATCH) if makes else 0)
    return {
        ("429 with Retry-After", "hubspot"): [turned_away(batch, 7.0, retry_after=7)],
        ("429 with Retry-After", "collections"): [turned_away(collection, 7.0, retry_after=7)],
        ("429 with Retry-After", "bulk"): [turned_away(step, 7.0, retry_after=7) for step in EVERY_STEP],
        ("429 with Retry-After", "webhook"): [turned_away(None, 7.0, retry_after=7)],
        ("429 without Retry-After", "hubspot"): [turned_away(batch, 10.5)],
        ("429 without Retry-After", "collections"): [turned_away(collection, 10.0)],
        ("429 without Retry-After", "bulk"): [turned_away(step, 10.0) for step in EVERY_STEP],
        ("429 without Retry-After", "webhook"): [turned_away(None, 10.0)],
        ("500", "hubspot"): [struck(None, server_error=1, server_error_status=500)],
        ("500", "collections"): [failing(collection, 500)],
        ("500", "bulk"): [failing(step, 500) for step in EVERY_STEP],
        ("500", "webhook"): [struck(None, server_error=1, server_error_status=500)],
        ("502", "hubspot"): [struck(None, server_error=1)],
        ("502", "collections"): [failing(collection, 502)],
        ("502", "bulk"): [failing(step, 502) for step in EVERY_STEP],
        ("502", "webhook"): [struck(None, server_error=1, server_error_status=502)],
        ("connection cut before the write", "hubspot"): [struck(None, drop_before=1)],
        ("connection cut before the write", "collections"): [struck(collection, drop_before=1)],
        ("connection cut before the write", "bulk"): [struck(step, drop_before=1) for step in JOB_STEPS],
        ("connection cut before the write", "webhook"): [struck(None, drop_before=1)],
        ("connection cut after the write", "hubspot"): [struck(None, drop_answer=1)],
        ("connection cut after the write", "collections"): [struck(collection, drop_after=1)],
        ("connection cut after the write", "bulk"): [struck(step, drop_after=1) for step in JOB_STEPS],
        ("connection cut after the write", "webhook"): [struck(None, drop_after=1)],
        ("timeout after the write", "hubspot"): [struck(None, hang_after=1, hang_s=2 * SHORT_S)],
        ("timeout after the write", "collections"): [struck(collection, hang_after=1)],
        ("timeout after the write", "bulk"): [struck(step, hang_after=1) for step in JOB_STEPS],
        ("timeout after the write", "webhook"): [struck(None, hang_after=1, hang_s=2 * SHORT_S)],
        ("207 with one bad row", "hubspot"): [refused_one(lambda guilty: {"refuse_ids": [guilty]})],
        ("207 with one bad row", "collections"): [
            refused_one(lambda guilty: {"refuse_rows": {guilty: "FIELD_CUSTOM_VALIDATION_EXCEPTION"}})
        ],
        ("207 with one bad row", "bulk"): [
            refused_one(lambda guilty: {"refuse_rows": {guilty: "FIELD_CUSTOM_VALIDATION_EXCEPTION"}})
        ],
        ("207 with one bad row", "webhook"): [refused_one(lambda guilty: {"refuse": [guilty]})],
        ("whole-batch 409", "hubspot"): [
            refused_one(lambda guilty: {"reject_batch_ids": [guilty], "reject_batch_status": 409})
        ],
        # Salesforce says 400 to a collection that it cannot read.
        ("whole-batch 409", "collections"): [refused_one(lambda guilty: {"reject_ids": [guilty]})],
        ("whole-batch 409", "webhook"): [refused_one(lambda guilty: {"reject": [guilty]})],
        ("COMPLETE but empty", "hubspot"): [forgotten("hubspot", empty_complete=1)],
        ("COMPLETE but empty", "collections"): [forgotten("collections", empty_results=1)],
        ("COMPLETE but empty", "bulk"): [forgotten("bulk", empty_ingest=1)],
        ("COMPLETE but empty", "webhook"): [forgotten("webhook", empty_complete=1)],
        # HubSpot's token and a webhook's secret can be renewed by a person alone, a Salesforce session by a login.
        ("expired token", "hubspot"): [Cell(told(expires_after=before), **OUT)],
        ("expired token", "collections"): [Cell(told(expire_session=1, expire_session_at=collection))],
        ("expired token", "bulk"): [
            Cell(told(expire_session=1, expire_session_at=step), step=step) for step in EVERY_STEP
        ],
        ("expired token", "webhook"): [Cell(told(forgets_secret=1), **OUT)],
        ("slow trickle", "hubspot"): [struck(None, trickle=1)],
        ("slow trickle", "collections"): [struck(collection, trickle=1)],
        ("slow trickle", "bulk"): [struck(step, trickle=1) for step in ("set_state", "create_ingest")],
        ("slow trickle", "webhook"): [struck(None, trickle=1)],
        ("malformed JSON", "hubspot"): [struck(None, malformed=1)],
        ("malformed JSON", "collections"): [struck(collection, malformed=1)],
        ("malformed JSON", "bulk"): [struck(step, malformed=1) for step in ("set_state", "create_ingest")],
        ("malformed JSON", "webhook"): [struck(None, malformed=1)],
    }


def cells(makes: bool, everyday: Callable[[str, str, Cell, int], bool]) -> list[Any]:
    """Return kind and cell as a test's parameters; `everyday` says, of kind, fault, cell and its place, which are quick."""
    return [
        pytest.param(
            kind,
            cell,
            id="-".join(part for part in (kind, fault, cell.step) if part),
            marks=[] if everyday(kind, fault, cell, place) else [pytest.mark.extended],
        )
        for (fault, kind), of_it in matrix(makes).items()
        for place, cell in enumerate(of_it)
    ]
