"""One burst limit for all tasks of all processes; a day's limit that is met while a job is at work."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from threading import Barrier
from typing import Any
from urllib.parse import urlencode

import pytest

from include.connections import ApiConnection
from include.sync.hubspot_api import hubspot
from include.sync.limits import Alone, Limiter, Limits, limiter
from include.sync.mapping import SyncMapping
from include.sync.target import Refused, Row
from include.sync.targets import open_target
from include.sync.targets.salesforce_bulk import BulkJobs
from include.sync.targets.webhook import webhook
from tests.conftest import Warehouse
from tests.integration import bottlecrm_fixture
from tests.integration.sync_stage import Time, prepare
from tests.integration.target_stage import JOB, ROWS, Place, Places, Stage, make_fields


def test_two_tasks_together_stay_within_the_burst(emptied_warehouse: Warehouse) -> None:
    time = Time()
    with (
        limiter("loader", "org", Limits(5, 10.0), time, time.sleep) as ingest,
        limiter("syncer", "org", Limits(5, 10.0), time, time.sleep) as sync,
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
        with limiter("syncer", "org", Limits(burst, 10.0), lambda: 1_800_000_000.0, turn_away) as shared:
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
        limiter("syncer", "one", Limits(1, 10.0), time, time.sleep) as one,
        limiter("syncer", "two", Limits(1, 10.0), time, time.sleep) as two,
    ):
        began = time.now
        one.take()
        two.take()
        assert time.now == began


def test_a_block_holds_for_every_task(emptied_warehouse: Warehouse) -> None:
    time = Time()
    with (
        limiter("loader", "org", Limits(5, 10.0), time, time.sleep) as ingest,
        limiter("syncer", "org", Limits(5, 10.0), time, time.sleep) as sync,
    ):
        assert isinstance(ingest, Limiter)
        began = time.now
        ingest.block(7.0)
        sync.take()
        assert time.now == began + 7.0


def test_a_lower_burst_than_was_let_through_before_waits_until_there_is_room(
    emptied_warehouse: Warehouse,
) -> None:
    time = Time()
    with limiter("loader", "org", Limits(4, 10.0), time, time.sleep) as before:
        for _ in range(4):
            before.take()
            time.now += 1.0
    with limiter("syncer", "org", Limits(2, 10.0), time, time.sleep) as after:
        after.take()
    assert time.slept == [8.0]  # the third of the four is ten seconds old


def with_extra(connection: str, extra: dict[str, Any]) -> str:
    """Return a connection, in the form that it has, with more in its extra."""
    if not connection.startswith("{"):
        return f"{connection}?{urlencode(extra)}"
    given = json.loads(connection)
    return json.dumps(given | {"extra": (given.get("extra") or {}) | extra})


@pytest.mark.parametrize("system", ["hubspot", "salesforce", "bottlecrm", "webhook"])
def test_a_connection_states_burst_and_budget_and_all_tasks_together_keep_them(
    emptied_warehouse: Warehouse,
    reached: Callable[[str], Place],
    monkeypatch: pytest.MonkeyPatch,
    system: str,
) -> None:
    time = Time()
    mapping = SyncMapping.model_validate({"system": system, "fields": {"stratum_tier": "tier"}})

    def call(role: str) -> None:
        with open_target(mapping, role, time, time.sleep) as target:
            if target.can_read:
                target.setup({"stratum_tier": "string"}, make=False)
            else:
                target.write([Row("key", "A1", "A1", {"stratum_tier": "S"})], lambda job_id: None)

    with ExitStack() as stack:
        if system == "bottlecrm":
            bottle = stack.enter_context(bottlecrm_fixture.running_bottle(datetime.now(UTC)))
            bottlecrm_fixture.reach(monkeypatch, bottle.url)
        else:
            reached("collections" if system == "salesforce" else system)
        variable = f"AIRFLOW_CONN_{system.upper()}_DEFAULT"
        stated = {"burst_calls": 2, "burst_seconds": "7.5", "daily_budget": 5}
        monkeypatch.setenv(variable, with_extra(os.environ[variable], stated))
        for turn in range(5):
            call("loader" if turn % 2 else "syncer")
        assert time.slept == [7.5, 7.5]  # before the third and the fifth
        for role in ("loader", "syncer"):
            with pytest.raises(Refused, match="5 calls in the last 24 hours, its daily_budget") as spent:
                call(role)
            assert (spent.value.status, spent.value.is_of_rows) == (429, False)
        assert time.slept == [7.5, 7.5]  # nobody waits for a day


def test_an_organisation_that_allows_one_call_a_day_is_asked_once(emptied_warehouse: Warehouse) -> None:
    time = Time()
    with limiter("syncer", "one-a-day", Limits(daily=1), time, time.sleep) as shared:
        shared.take()
        with pytest.raises(Refused, match="made 1 calls in the last 24 hours, its share of the 1"):
            shared.take()


@contextmanager
def limiter_of(system: str, connection: ApiConnection, time: Time) -> Iterator[Limiter | Alone]:
    """Open a system that is never called, and give its limiter."""
    if system == "hubspot":
        with hubspot(connection, "syncer", time, time.sleep) as api:
            yield api.limiter
    else:
        with webhook(connection, "accounts", "syncer", time, time.sleep) as target:
            yield target._limiter


@pytest.mark.parametrize("system", ["hubspot", "webhook"])
def test_tokens_of_one_account_share_its_limits_where_their_connections_name_it(
    emptied_warehouse: Warehouse, system: str
) -> None:
    time = Time()

    def take(token: str, **extra: str) -> None:
        connection = ApiConnection("c", "http://127.0.0.1:1", token, {"daily_budget": "2"} | extra)
        with limiter_of(system, connection, time) as shared:
            shared.take()

    take("one", account="7")
    take("two", account="7")
    with pytest.raises(Refused, match="2 calls in the last 24 hours"):
        take("three", account="7")
    take("three", account="8")
    take("three")
    take("three")
    with pytest.raises(Refused, match="2 calls in the last 24 hours"):
        take("three")
    assert not emptied_warehouse.rows("select org from sync.call_windows where org ~ 'one|two|three'")


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
