"""One burst limit for all tasks of all processes; a day's limit that is met while a job is at work."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from include.sync.limits import Limiter, limiter
from include.sync.targets.salesforce_bulk import BulkJobs
from tests.conftest import Warehouse
from tests.integration.sync_stage import Time, prepare
from tests.integration.target_stage import JOB, ROWS, Place, Places, Stage, make_fields


def test_two_tasks_together_stay_within_the_burst(emptied_warehouse: Warehouse) -> None:
    time = Time()
    with (
        limiter("loader", "org", 5, 10.0, time, time.sleep) as ingest,
        limiter("syncer", "org", 5, 10.0, time, time.sleep) as sync,
    ):
        calls: list[float] = []
        for turn in range(40):
            (ingest if turn % 2 else sync).take()
            calls.append(time.now)
            time.now += 0.1
    for start in calls:
        assert sum(start <= call < start + 10.0 for call in calls) <= 5
    assert calls[-1] - calls[0] < 75  # and no slower than it must be: seven windows


def test_tasks_that_ask_in_the_same_instant_are_let_through_one_by_one(emptied_warehouse: Warehouse) -> None:
    """Each reads what the others counted, or calls would be lost count of. The clock stands still."""
    burst, tasks = 40, 8
    begin = Barrier(tasks)

    class TurnedAway(Exception):
        pass

    def turn_away(_: float) -> None:
        raise TurnedAway

    def task(_: int) -> int:
        with limiter("syncer", "org", burst, 10.0, lambda: 1_800_000_000.0, turn_away) as shared:
            begin.wait()
            for calls in range(burst + 1):
                try:
                    shared.take()
                except TurnedAway:
                    return calls
        raise AssertionError("more than the burst")

    with ThreadPoolExecutor(tasks) as pool:
        assert sum(pool.map(task, range(tasks))) == burst
    assert (
        emptied_warehouse.value("select cardinality(calls) from sync.call_windows where org = 'org'") == burst
    )


def test_another_organisation_has_its_own(emptied_warehouse: Warehouse) -> None:
    time = Time()
    with (
        limiter("syncer", "one", 1, 10.0, time, time.sleep) as one,
        limiter("syncer", "two", 1, 10.0, time, time.sleep) as two,
    ):
        began = time.now
        one.take()
        two.take()
        assert time.now == began


def test_a_block_holds_for_every_task(emptied_warehouse: Warehouse) -> None:
    time = Time()
    with (
        limiter("loader", "org", 5, 10.0, time, time.sleep) as ingest,
        limiter("syncer", "org", 5, 10.0, time, time.sleep) as sync,
    ):
        assert isinstance(ingest, Limiter)
        began = time.now
        ingest.block(7.0)
        sync.take()
        assert time.now == began + 7.0


def test_a_job_that_is_at_work_when_the_day_is_used_up_is_settled_by_the_next_sync_and_not_sent_again(
    warehouse: Warehouse,
    systems: Places,
    reached: Callable[[str], Place],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(warehouse)
    place = reached("bulk")
    stage = Stage(warehouse, place, systems.time)
    make_fields(stage)
    original = BulkJobs._ended

    def ended(self: BulkJobs, job_id: str) -> dict[str, Any]:
        place.faults(request_limit=True)
        return original(self, job_id)

    with monkeypatch.context() as patch:
        patch.setattr(BulkJobs, "_ended", ended)
        first = stage.sync()
    assert (first.sent, first.reasons) == (0, {"no_answer": JOB, "not_sent": ROWS - JOB})
    assert stage.open_attempts() == JOB
    place.mend()
    second = stage.sync()
    assert (second.sent, second.unchanged) == (ROWS - JOB, JOB)
    assert stage.told() == {record: [f"T{stage.mark}"] for record in stage.records}
