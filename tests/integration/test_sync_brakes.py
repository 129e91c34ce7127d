"""What the brakes count in the warehouse, and that a sync they stop sends nothing and adds up."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.errors import StratumError, TransientError
from include.sync.brakes import Counts, count
from include.sync.ledger import Ledger
from include.sync.mapping import SyncMapping
from include.sync.plan import make_plan
from include.sync.run import sync_crm
from include.sync.switches import status_lines, status_of, switch_off, switch_on
from include.sync.targets import hubspot
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import record_id
from tests.integration.sync_stage import AS_OF, SyncStage, sync_stage

N = 10


@pytest.fixture
def stage(
    emptied_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SyncStage]:
    with sync_stage(emptied_warehouse, tmp_path, monkeypatch, accounts=N) as stage:
        yield stage


def counted(stage: SyncStage) -> Counts:
    mapping = stage.sources.sync["crm"]
    with connect("syncer") as books:
        books.autocommit = True
        return count(books, mapping, make_plan(books, mapping, f"run-{stage.run}", AS_OF))


def test_the_first_sync_is_held_whole_and_calls_nobody(stage: SyncStage) -> None:
    stage.publish(*[("A", "0.5")] * N)
    result = stage.sync()
    assert (result.status, result.queried, result.sent, result.held, result.calls) == ("held", N, 0, N, 0)
    assert result.reasons == {"brake": N}
    assert stage.crm.sandbox.calls.by_endpoint.total() == 0, "not even the fields were made"
    ((status, run_hold),) = stage.warehouse.rows("select status, hold_id from sync.runs")
    (hold,) = stage.holds()
    assert (status, run_hold) == ("held", hold[0])
    assert hold[1:3] == ("waiting", ["first_sync"])


@pytest.mark.parametrize(("kept", "status"), [(8, "finished"), (7, "held")])
def test_a_source_that_shrank_is_compared_with_the_last_finished_sync(
    stage: SyncStage, kept: int, status: str
) -> None:
    stage.told(*[("A", "0.5")] * N)
    stage.publish(*[("A", "0.5")] * kept)
    result = stage.sync()
    assert (result.status, result.queried, result.unchanged) == (status, kept, kept)
    if status == "held":
        # A held sync is no measure: the next one is compared with the last that was finished.
        assert counted(stage).published_before == N
        assert stage.holds()[0][2] == ["shrunken_source"]


def test_a_mapping_that_tells_neither_tier_nor_score_has_nothing_counted_of_them(stage: SyncStage) -> None:
    stage.configure(fields={"stratum_account": "account_id"}, brakes={"first_sync": False})
    stage.publish(*[("A", "0.5")] * N)
    first = counted(stage)
    assert (first.is_first, first.tiers_told, first.scores_told) == (True, 0, 0)
    assert stage.sync().sent == N
    stage.publish(*[("B", "0.9")] * N)
    assert counted(stage).published_before == N
    assert stage.sync().unchanged == N


def test_an_empty_source_is_held_though_there_is_nothing_to_send(stage: SyncStage) -> None:
    stage.told(*[("A", "0.5")] * N)
    stage.publish()
    result = stage.sync()
    assert (result.status, result.queried) == ("held", 0)
    assert stage.holds()[0][2] == ["empty_source"]


@pytest.mark.parametrize(("changed", "status"), [(3, "finished"), (4, "held")])
def test_tiers_that_change_are_counted_against_what_the_crm_confirmed(
    stage: SyncStage, changed: int, status: str
) -> None:
    stage.told(*[("A", "0.5")] * N)
    stage.publish(*[("S", "0.5")] * changed, *[("A", "0.5")] * (N - changed))
    result = stage.sync()
    sent, held = (changed, 0) if status == "finished" else (0, changed)
    assert (result.status, result.sent, result.held, result.unchanged) == (status, sent, held, N - changed)
    if status == "held":
        assert stage.crm.writes == 1
        assert stage.holds()[0][2] == ["tier_changes"]


@pytest.mark.parametrize(("moved", "status"), [(5, "finished"), (6, "held")])
def test_scores_that_move_by_more_than_the_step_are_counted(
    stage: SyncStage, moved: int, status: str
) -> None:
    stage.told(*[("A", "0.5")] * N)
    stage.publish(*[("A", "0.6001")] * moved, *[("A", "0.6")] * (N - moved))  # 0.1 is not more than the step
    result = stage.sync()
    assert result.status == status
    if status == "held":
        assert stage.holds()[0][2] == ["score_moves"]


def test_a_null_that_is_not_told_is_no_change_and_one_that_clears_is(stage: SyncStage) -> None:
    stage.told(*[("A", "0.5")] * N)
    stage.publish(*[(None, None)] * N)
    assert (counted(stage).tiers_changed, counted(stage).scores_moved) == (0, 0)
    stage.configure(fields={"stratum_tier": {"column": "tier", "when_null": "clear"}})
    assert (counted(stage).tiers_told, counted(stage).tiers_changed) == (N, N)


def test_records_of_which_a_field_is_cleared_are_counted_whether_the_account_is_gone_or_a_value(
    stage: SyncStage,
) -> None:
    stage.told(*[("A", "0.5")] * N)
    stage.publish(("B", "0.5"), ("A", None), *[("A", "0.5")] * (N - 4))
    assert (counted(stage).records_told, counted(stage).cleared) == (N, 0)
    stage.configure(removal="clear")
    assert counted(stage).cleared == 2
    rule = {"column": "churn_probability", "when_null": "clear"}
    stage.configure(fields={"stratum_tier": "tier", "stratum_score": rule})
    assert counted(stage).cleared == 3
    # Two of ten pass with the default; the third holds the sync, and the question says how many there are.
    result = stage.sync()
    assert (result.status, result.held, stage.holds()[0][2]) == ("held", 4, ["removals"])
    assert "fields of 3 of 10 records told before (30.0%) would be cleared" in str(result.hold)


def test_a_number_is_compared_as_a_number(stage: SyncStage) -> None:
    stage.told(*[("A", "0.50")] * N)
    stage.configure(brakes={"tier_column": "churn_probability"})
    stage.publish(*[("A", "0.500")] * (N - 1), ("A", "0.51"))
    assert (counted(stage).tiers_told, counted(stage).tiers_changed) == (N, 1)


def test_a_column_the_crm_is_not_told_brakes_nothing_unless_it_was_meant_to(stage: SyncStage) -> None:
    stage.configure(fields={"stratum_score": "churn_probability"})
    stage.publish(*[("A", "0.5")] * N)
    assert counted(stage).tiers_told == 0
    stage.configure(brakes={"tier_column": "teir"})
    with pytest.raises(
        StratumError, match=r"brakes\.tier_column of hubspot:hubspot_default is teir, which no field"
    ):
        stage.sync()
    stage.configure(fields={"stratum_tier": "tier"}, brakes={"score_column": "tier"})
    with pytest.raises(StratumError, match="is tier, which is a string: name a number"):
        stage.sync()
    assert stage.crm.sandbox.calls.by_endpoint.total() == 0


def test_a_target_that_is_switched_off_ends_held_without_any_call(stage: SyncStage) -> None:
    stage.told(*[("A", "0.5")] * N)
    target = stage.sources.sync["crm"].target
    calls = stage.crm.sandbox.calls.by_endpoint.total()
    switch_off(target, "anna", "wrong tiers")
    stage.publish(*[("S", "0.5")] * 2, *[("A", "0.5")] * (N - 2))
    result = stage.sync()
    assert (result.status, result.held, result.unchanged, result.calls) == ("held", 2, N - 2, 0)
    assert result.reasons == {"switched_off": 2}
    assert stage.crm.sandbox.calls.by_endpoint.total() == calls
    assert "switched off by anna" in "\n".join(status_lines(status_of(target)))
    switch_on(target)
    assert stage.sync().sent == 2
    with pytest.raises(StratumError, match="is not switched off"):
        switch_on(target)
    assert status_of(target)["switch"] is None


def test_a_target_that_is_switched_off_gets_no_half_of_a_refused_batch_and_nothing_a_second_time(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stage.sources.sync["crm"].target
    stage.told(*[("A", "0.5")] * N)
    stage.configure(brakes={"max_tier_changes": None})
    stage.publish(*[("B", "0.5")] * N)
    writes = stage.crm.writes

    stage.crm.fault(reject_batch_ids=[record_id(0)])
    with monkeypatch.context() as patch:
        patch.setattr(
            Ledger, "settle", then(Ledger.settle, lambda: switch_off(target, "anna", "wrong tiers"))
        )
        halved = stage.sync()
    assert (halved.sent, halved.failed, halved.reasons) == (0, 0, {"switched_off": N})
    assert (halved.status, stage.crm.writes - writes) == ("finished", 1)

    switch_on(target)
    stage.crm.fault(reject_batch_ids=[], server_error=1)
    # It is switched off while we wait to send again what did not land.
    off = sync_crm(stage.sources, AS_OF, "crm", sleep=lambda _: switch_off(target, "anna", "wrong tiers"))
    assert (off.sent, off.failed, off.reasons) == (0, 0, {"switched_off": N})
    assert stage.crm.writes - writes == 2

    switch_on(target)
    assert stage.sync().sent == N


def test_a_target_that_is_switched_off_is_asked_no_more_of_what_an_earlier_sync_left(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubspot, "BATCH_SIZE", N // 2)
    target = stage.sources.sync["crm"].target
    stage.publish(*[("A", "0.5")] * N)
    stage.configure(brakes={"first_sync": False})
    stage.crm.fault(empty_complete=2)
    assert stage.sync().reasons == {"missing_from_answer": N}
    settled: list[int] = []

    def switch() -> None:
        settled.append(N // 2)
        switch_off(target, "anna", "wrong tiers")

    with monkeypatch.context() as patch:
        patch.setattr(hubspot.HubSpotTarget, "settle", then(hubspot.HubSpotTarget.settle, switch))
        with pytest.raises(TransientError, match="was switched off by anna: wrong tiers"):
            stage.sync()
    assert settled == [N // 2]
    assert stage.warehouse.value("select count(*) from sync.attempts where status = 'open'") == N // 2
    assert stage.sync().reasons == {"switched_off": N}
    switch_on(target)
    assert stage.sync().sent == N


def then(method: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    """Return a method that acts after it was called."""

    def called(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        act()
        return result

    return called


def test_what_the_brakes_may_say_is_read_from_the_mapping() -> None:
    with pytest.raises(ValueError, match="max_tier_change"):
        SyncMapping.model_validate(
            {"system": "hubspot", "fields": {"a": "b"}, "brakes": {"max_tier_change": 0.1}}
        )


def test_the_database_refuses_a_hold_without_a_reason(stage: SyncStage) -> None:
    stage.publish(*[("A", "0.5")] * N)
    stage.sync()
    with pytest.raises(psycopg.errors.CheckViolation):
        stage.warehouse.rows("update sync.holds set reasons = '[]'")
