"""The fault matrix: what becomes of every row where a target fails in each way, by the target's own log of writes."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from include.errors import StratumError
from include.sources import salesforce_api
from include.sync import trickle
from include.sync.target import Answer, Row, Target
from include.sync.targets import webhook
from include.sync.targets.hubspot import HubSpotTarget
from include.sync.targets.salesforce import SalesforceTarget
from include.sync.targets.webhook import WebhookTarget
from tests.conftest import Warehouse
from tests.integration.sync_stage import prepare
from tests.integration.target_stage import (
    BATCH,
    JOB,
    KINDS,
    ROWS,
    SHORT_S,
    Place,
    Places,
    Stage,
    make_fields,
)

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
    step: str | None = None
    is_lost: bool = False
    """Whether the write was done and its answer did not come, so that it had to be asked for."""


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
CELLS: dict[tuple[str, str], list[Cell]] = {
    ("429 with Retry-After", "hubspot"): [Cell(told(rate_limited=3, retry_after=7), slept=(7.0,) * 3)],
    ("429 with Retry-After", "collections"): [Cell(told(rate_limited=3, retry_after=7), slept=(7.0,) * 3)],
    ("429 with Retry-After", "bulk"): [Cell(told(rate_limited=5, retry_after=7))],
    ("429 with Retry-After", "webhook"): [Cell(told(rate_limited=3, retry_after=7), slept=(7.0,) * 3)],
    ("429 without Retry-After", "hubspot"): [Cell(told(rate_limited=3), slept=(10.5,) * 3)],
    ("429 without Retry-After", "collections"): [Cell(told(rate_limited=3), slept=(10.0,) * 3)],
    ("429 without Retry-After", "bulk"): [Cell(told(rate_limited=5))],
    ("429 without Retry-After", "webhook"): [Cell(told(rate_limited=3), slept=(10.0,) * 3)],
    ("500", "hubspot"): [struck(None, server_error=1, server_error_status=500)],
    ("500", "collections"): [failing("collection_update", 500)],
    ("500", "bulk"): [failing(step, 500) for step in (*JOB_STEPS, "show_ingest", "successful")],
    ("500", "webhook"): [struck(None, server_error=1, server_error_status=500)],
    ("502", "hubspot"): [struck(None, server_error=1)],
    ("502", "collections"): [failing("collection_update", 502)],
    ("502", "bulk"): [failing("set_state", 502)],
    ("502", "webhook"): [struck(None, server_error=1, server_error_status=502)],
    ("connection cut before the write", "hubspot"): [struck(None, drop_before=1)],
    ("connection cut before the write", "collections"): [struck("collection_update", drop_before=1)],
    ("connection cut before the write", "bulk"): [struck(step, drop_before=1) for step in JOB_STEPS],
    ("connection cut before the write", "webhook"): [struck(None, drop_before=1)],
    ("connection cut after the write", "hubspot"): [struck(None, drop_answer=1)],
    ("connection cut after the write", "collections"): [struck("collection_update", drop_after=1)],
    ("connection cut after the write", "bulk"): [struck(step, drop_after=1) for step in JOB_STEPS],
    ("connection cut after the write", "webhook"): [struck(None, drop_after=1)],
    ("timeout after the write", "hubspot"): [struck(None, hang_after=1, hang_s=2 * SHORT_S)],
    ("timeout after the write", "collections"): [struck("collection_update", hang_after=1)],
    ("timeout after the write", "bulk"): [struck("set_state", hang_after=1)],
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
    ("expired token", "hubspot"): [Cell(told(expires_after=1), **OUT)],  # after the list of properties
    ("expired token", "collections"): [Cell(told(expire_session=1, expire_session_at="collection_update"))],
    ("expired token", "bulk"): [
        Cell(told(expire_session=1, expire_session_at=step), step=step)
        for step in (*JOB_STEPS, "show_ingest", "successful")
    ],
    ("expired token", "webhook"): [Cell(told(forgets_secret=1), **OUT)],
    ("slow trickle", "hubspot"): [struck(None, trickle=1)],
    ("slow trickle", "collections"): [struck("collection_update", trickle=1)],
    ("slow trickle", "bulk"): [struck(step, trickle=1) for step in ("set_state", "create_ingest")],
    ("slow trickle", "webhook"): [struck(None, trickle=1)],
    ("malformed JSON", "hubspot"): [struck(None, malformed=1)],
    ("malformed JSON", "collections"): [struck("collection_update", malformed=1)],
    ("malformed JSON", "bulk"): [struck(step, malformed=1) for step in ("set_state", "create_ingest")],
    ("malformed JSON", "webhook"): [struck(None, malformed=1)],
}
ALL = [
    pytest.param(
        kind,
        cell,
        id="-".join(part for part in (kind, fault, cell.step) if part),
        # Of a Bulk job, each step can be struck: the first one named here is the everyday proof.
        marks=[pytest.mark.extended] if place else [],
    )
    for (fault, kind), cells in CELLS.items()
    for place, cell in enumerate(cells)
]


@pytest.fixture(scope="module")
def warehouse(module_warehouse: Warehouse) -> Warehouse:
    prepare(module_warehouse)
    return module_warehouse


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each write without an answer that a target was asked about."""
    asked: list[int] = []
    for target in (HubSpotTarget, SalesforceTarget, WebhookTarget):

        def settle(
            self: Target, rows: list[Row], job_id: str | None, original: Callable[..., Answer] = target.settle
        ) -> Answer:
            asked.append(len(rows))
            return original(self, rows, job_id)

        monkeypatch.setattr(target, "settle", settle)
    return asked


@pytest.fixture
def impatient(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an answer up after a second, and one that trickles after half of one."""
    monkeypatch.setattr(trickle, "WHOLE_ANSWER_S", SHORT_S / 2)
    monkeypatch.setattr(webhook, "WHOLE_ANSWER_S", SHORT_S / 2)


def test_every_cell_of_the_matrix_has_an_outcome_or_a_reason_and_none_has_both() -> None:
    wanted = set(product(FAULTS, KINDS))
    assert set(CELLS) | set(IMPOSSIBLE) == wanted
    assert set(CELLS) & set(IMPOSSIBLE) == set()
    assert all(CELLS.values())
    assert all(IMPOSSIBLE.values())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("kind", "cell"), ALL)
def test_a_fault_has_its_stated_outcome(
    warehouse: Warehouse,
    systems: Places,
    reached: Callable[[str], Place],
    settled: list[int],
    kind: str,
    cell: Cell,
) -> None:
    place = reached(kind)
    stage = Stage(warehouse, place, systems.time)
    make_fields(stage)
    stage.time.slept.clear()
    place.faults(**cell.faults(stage.records[GUILTY]))

    first = stage.sync(max_tries=cell.max_tries)
    assert (first.sent, first.reasons) == (cell.sent, cell.failed or {})
    assert stage.dead() == cell.dead
    if cell.slept is not None:
        assert stage.time.slept == list(cell.slept)

    if cell.is_lost:  # a job that was made without our knowing its id does nothing: another one is made
        assert settled == ([] if cell.step == "create_ingest" else [FIRST[kind]])

    place.mend()
    assert stage.replay() == cell.dead
    second = stage.sync()
    assert (second.sent, second.failed, second.held) == (cell.then_sent, 0, 0)
    third = stage.sync()
    assert (third.sent, third.unchanged, third.calls) == (0, ROWS, 1 if place.system == "salesforce" else 0)

    # By the target's own log: every row was applied, once, and with nothing but what was published.
    assert stage.told() == {record: [f"T{stage.mark}"] for record in stage.records}
    assert stage.open_attempts() == 0
    tier = place.fields["tier"]
    published = dict.fromkeys(stage.records, f"T{stage.mark}")
    assert {each: values[tier] for each, values in stage.confirmed().items()} == published


def test_a_salesforce_login_that_is_refused_while_a_sync_runs_sends_nothing_and_blames_no_row(
    warehouse: Warehouse, systems: Places, reached: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = reached("collections")
    stage = Stage(warehouse, place, systems.time)
    make_fields(stage)
    place.faults(expire_session=1, expire_session_at="collection_update")
    monkeypatch.setattr(
        salesforce_api.SalesforceApi, "_log_in", lambda *_: (_ for _ in ()).throw(StratumError("refused"))
    )
    result = stage.sync()
    assert (result.sent, result.reasons) == (0, {"not_sent": ROWS})
    assert stage.told() == {record: [] for record in stage.records}
    assert warehouse.value("select count(*) from sync.failures") == 0
