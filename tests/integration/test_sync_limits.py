"""One burst limit for all tasks of all processes."""

from include.sync.limits import Limiter, limiter
from tests.conftest import Warehouse
from tests.integration.sync_stage import Time


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
