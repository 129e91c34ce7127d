"""Records that a sync makes, by key: never a second one, whatever breaks; counted in the target's own record."""

from collections.abc import Callable

import pytest

from include.sync.ledger import Ledger
from include.sync.target import Answer
from include.sync.targets.hubspot import HubSpotTarget
from include.sync.targets.salesforce import SalesforceTarget
from include.sync.targets.salesforce_bulk import BulkJobs
from tests.conftest import Warehouse
from tests.integration.create_stage import CREATED_BY, MAKES, CreateStage
from tests.integration.fault_cells import matrix
from tests.integration.sync_stage import crash_in, prepare

# The everyday run has two kinds of each proof.
PROVES = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.extended] if kind == "bulk" else []) for kind in CREATED_BY],
)


@pytest.fixture(scope="module")
def warehouse(module_warehouse: Warehouse) -> Warehouse:
    prepare(module_warehouse)
    return module_warehouse


@MAKES
def test_an_account_without_a_record_is_held_unless_it_is_asked_for(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.mapping |= {"create": False, "external_key": None, "create_fields": {}}
    stage.publish(3)
    before = stage.total()
    result = stage.sync()
    assert (result.sent, result.held, result.reasons) == (0, 3, {"not_in_crm": 3})
    assert (stage.total(), result.calls) == (before, 0)


@PROVES
def test_a_record_is_made_once_and_is_one_like_any_other_from_then_on(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    before = stage.total()
    stage.publish(5)
    first = stage.sync()
    assert (first.queried, first.sent, first.failed, first.held) == (5, 5, 0, 0)
    stage.assert_one_record_each(5)
    name = next(iter(stage.mapping["create_fields"]))
    assert {values[name] for ((_, values),) in stage.records().values()} == {f"Company {n}" for n in range(5)}

    # Before a pull has brought it: neither made again nor not_in_crm. The name is told to new records alone.
    stage.publish(5, account_name="Renamed")
    second = stage.sync()
    assert (second.sent, second.unchanged, second.held, second.calls) == (0, 5, 0, 0)
    stage.publish(5, tier="S")
    third = stage.sync()
    assert (third.sent, third.unchanged) == (5, 0)
    by_key = "select count(*) from sync.attempts where sync_id = %s and by_key"
    assert (
        stage.warehouse.value(by_key, first.sync_id),
        stage.warehouse.value(by_key, third.sync_id),
    ) == (5, 0)
    stage.assert_one_record_each(5, "S")
    assert stage.total() == before + 5
    assert {values[name] for ((_, values),) in stage.records().values()} == {f"Company {n}" for n in range(5)}


@PROVES
@pytest.mark.parametrize(
    ("method", "nth", "made"),
    [("attempt", 2, "some"), ("confirm", 1, "some"), ("confirm", 2, "all")],
    ids=["before-the-write", "after-the-write", "after-the-second-write"],
)
def test_a_crash_before_or_after_the_write_makes_no_second_record(
    stage_of: Callable[[str], CreateStage],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    method: str,
    nth: int,
    made: str,
) -> None:
    stage = stage_of(kind)
    stage.publish(5)
    before = stage.total()
    with crash_in(monkeypatch, Ledger, method, nth):
        stage.sync()
    landed = stage.total() - before
    assert landed == 5 if made == "all" else 0 < landed < 5
    # What was made and not booked is found by its key before anything is planned.
    result = stage.sync()
    assert (result.failed, result.held) == (0, 0)
    assert result.unchanged == landed
    assert result.sent == 5 - landed
    assert stage.total() == before + 5
    stage.assert_one_record_each(5)


@PROVES
def test_a_write_that_lands_after_it_was_asked_for_makes_no_second_record(
    stage_of: Callable[[str], CreateStage], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each read by key comes too early to see what was written, so every row is sent a second time."""
    stage = stage_of(kind)
    stage.publish(5)
    before = stage.total()
    for target in (HubSpotTarget, SalesforceTarget):
        monkeypatch.setattr(target, "find", lambda self, keys: {})
    # A job tells of its rows; but for seven days only.
    monkeypatch.setattr(BulkJobs, "settle", lambda self, rows, job_id: (Answer(), rows))
    (cut, *_) = matrix(makes=True)["connection cut after the write", kind]
    cut.strike(stage.place, stage.account(0))
    first = stage.sync()
    with crash_in(monkeypatch, Ledger, "confirm"):
        stage.forget()
        stage.sync()
    second = stage.sync()
    assert second.failed == 0
    assert (first.sent, first.failed) == (5, 0)
    assert stage.total() == before + 5
    stage.assert_one_record_each(5)
    assert all(len(stage.place.written(record)) > 1 for record in _ids(stage))


def _ids(stage: CreateStage) -> list[str]:
    return [record_id for ((record_id, _),) in stage.records().values()]


@PROVES
def test_a_crash_before_the_noted_write_leaves_nothing_to_find(
    stage_of: Callable[[str], CreateStage], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stage = stage_of(kind)
    stage.publish(5)
    before = stage.total()
    with crash_in(monkeypatch, HubSpotTarget if kind == "hubspot" else SalesforceTarget, "write"):
        stage.sync()
    assert stage.total() == before
    assert stage.warehouse.value("select count(*) from sync.attempts where status = 'open' and by_key") > 0
    result = stage.sync()
    assert (result.sent, result.unchanged, result.failed) == (5, 0, 0)
    stage.assert_one_record_each(5)


@PROVES
def test_lost_books_make_no_second_record(stage_of: Callable[[str], CreateStage], kind: str) -> None:
    stage = stage_of(kind)
    stage.publish(5)
    stage.sync()
    total = stage.total()
    stage.forget()
    stage.publish(6, tier="B")
    result = stage.sync()
    assert (result.sent, result.failed, result.held) == (6, 0, 0)
    assert stage.total() == total + 1
    stage.assert_one_record_each(6, "B")
    by_key = stage.warehouse.rows("select account_id from sync.attempts where by_key")
    assert by_key == [(stage.account(5),)]
