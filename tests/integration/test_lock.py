"""One run at a time builds; a dead one gives way; a step that lost the lock is refused."""

import logging
import re
import threading
from datetime import date

import pytest

from include.errors import StratumError
from include.warehouse import lock
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, fail_run, finish_run, hold, mark_built, run_of
from tests.conftest import Warehouse

DAY = date(2026, 6, 30)
NEXT = date(2026, 7, 1)


def status(warehouse: Warehouse, run_id: str) -> tuple:
    ((*row,),) = warehouse.rows("select status, failure from audit.runs where run_id = %s", run_id)
    return tuple(row)


def expire(warehouse: Warehouse) -> None:
    warehouse.rows("update audit.build_lock set lease_until = clock_timestamp() - interval '1 second'")


@pytest.fixture
def warehouse(emptied_warehouse: Warehouse) -> Warehouse:
    return emptied_warehouse


def test_a_run_id_tells_its_date_and_fits_a_table_name(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    assert re.fullmatch(r"20260630_[0-9a-f]{8}", run_id)
    assert warehouse.rows("select run_id, as_of_date, status from audit.runs") == [(run_id, DAY, "building")]
    assert warehouse.value("select code_version from audit.runs")
    assert run_of(DAY) == run_id


def test_another_date_waits_until_the_lock_is_free(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "POLL_S", 0.02)
    caplog.set_level(logging.INFO, "include.warehouse.lock")
    first = begin_run(DAY)
    second: list[str] = []
    waiter = threading.Thread(target=lambda: second.append(begin_run(NEXT, wait_s=20)))
    waiter.start()
    waiter.join(0.5)
    assert not second
    fail_run(DAY, "stopped by the test")
    waiter.join(20)
    assert run_of(NEXT) == second[0]
    assert f"held by run {first} (as of 2026-06-30) until " in caplog.text


def test_a_wait_in_vain_names_the_holder_and_leaves_no_run(warehouse: Warehouse) -> None:
    first = begin_run(DAY)
    with pytest.raises(StratumError, match=rf"as of 2026-07-01 waited 0 s.*held by run {first}"):
        begin_run(NEXT, wait_s=0)
    assert warehouse.rows("select run_id from audit.runs") == [(first,)]


def test_of_many_that_begin_at_once_one_at_a_time_holds_the_lock(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    inside: list[date] = []
    overlaps: list[list[date]] = []
    done: list[str] = []

    def build(as_of: date) -> None:
        run_id = begin_run(as_of, wait_s=60)
        inside.append(as_of)
        if len(inside) > 1:
            overlaps.append(list(inside))
        assert run_of(as_of) == run_id
        inside.remove(as_of)
        fail_run(as_of, "end of the test's build")
        done.append(run_id)

    threads = [threading.Thread(target=build, args=[date(2026, 7, day)]) for day in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert overlaps == []
    assert len(set(done)) == 8
    assert warehouse.value("select count(*) from audit.build_lock") == 0


def test_the_same_date_started_again_takes_its_own_lock_over(warehouse: Warehouse) -> None:
    first = begin_run(DAY)
    second = begin_run(DAY, wait_s=0)
    assert run_of(DAY) == second != first
    assert status(warehouse, first) == ("failed", f"started again as run {second}")


def test_an_ended_lease_is_taken_over_and_the_old_run_is_refused(warehouse: Warehouse) -> None:
    first = begin_run(DAY)
    expire(warehouse)
    second = begin_run(NEXT, wait_s=0)
    assert status(warehouse, first)[0] == "failed"
    with pytest.raises(StratumError, match=f"held by run {second}"):
        run_of(DAY)
    with pytest.raises(StratumError, match=f"not held by run {first}"):
        mark_built(first)


def test_of_two_that_find_an_ended_lease_one_takes_it_over(warehouse: Warehouse) -> None:
    begin_run(DAY)
    expire(warehouse)
    won: list[str] = []
    lost: list[str] = []

    def take(as_of: date) -> None:
        try:
            won.append(begin_run(as_of, wait_s=0))
        except StratumError as error:
            lost.append(str(error))

    takers = [threading.Thread(target=take, args=[date(2026, 7, day)]) for day in (1, 2)]
    with connect("transformer") as connection:  # both are made to wait for the same row at once
        connection.execute("select from audit.build_lock for update")
        for taker in takers:
            taker.start()
        takers[0].join(0.7)
    for taker in takers:
        taker.join(20)
    assert len(won) == len(lost) == 1
    assert f"held by run {won[0]}" in lost[0]
    assert warehouse.value("select count(*) from audit.runs where status = 'building'") == 1


def test_a_step_renews_the_lease_even_of_a_run_that_was_slow(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    expire(warehouse)
    assert run_of(DAY) == run_id
    assert warehouse.value(
        "select lease_until > clock_timestamp() + interval '29 minutes' from audit.build_lock"
    )


def test_a_step_without_any_lock_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(StratumError, match="nobody holds it"):
        run_of(DAY)


def test_failing_releases_the_lock_and_may_be_repeated(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    fail_run(DAY, "the gate stopped it\nwith a traceback nobody needs")
    fail_run(DAY, "again")
    assert status(warehouse, run_id) == ("failed", "the gate stopped it")
    assert warehouse.value("select count(*) from audit.build_lock") == 0


def test_failing_leaves_another_dates_lock_alone(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    fail_run(NEXT, "not mine")
    assert run_of(DAY) == run_id
    assert status(warehouse, run_id) == ("building", None)


def test_only_a_published_run_can_be_finished(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    mark_built(run_id)
    with pytest.raises(StratumError, match="it is built, not published"):
        finish_run(run_id)
    warehouse.rows("update audit.runs set status = 'published' where run_id = %s", run_id)
    finish_run(run_id)
    finish_run(run_id)
    assert warehouse.value("select count(*) from audit.build_lock") == 0


def test_a_published_run_that_died_before_release_stays_published(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    warehouse.rows("update audit.runs set status = 'published' where run_id = %s", run_id)
    begin_run(DAY)
    assert status(warehouse, run_id) == ("published", None)


def test_while_a_step_holds_the_lock_row_nobody_takes_it_over(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    run_id = begin_run(DAY)
    expire(warehouse)
    taken: list[str] = []
    with connect("publisher") as connection:
        hold(connection, run_id)
        thief = threading.Thread(target=lambda: taken.append(begin_run(DAY, wait_s=30)))
        thief.start()
        thief.join(0.5)
        assert not taken
    thief.join(30)
    assert taken
