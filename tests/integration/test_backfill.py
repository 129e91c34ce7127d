"""A backfilled date fills the history, never moves the pointer, and is made once."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from types import SimpleNamespace

import pytest

from include.commands import backfill as command
from include.errors import StratumError
from include.local import chain
from include.warehouse.backfill import dates_to_fill, pending, request, withdraw
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, fail_run, finish_run
from include.warehouse.publish import Published, publish, rollback
from tests.conftest import Warehouse
from tests.fixtures.candidates import make_candidate

DAY = date(2026, 6, 10)
LATER = date(2026, 6, 20)
EARLIER = date(2026, 6, 1)


def run_date(as_of: date, accounts: int = 5) -> Published:
    """What the chain does between the lock and its release."""
    run_id = begin_run(as_of, wait_s=0)
    make_candidate(run_id, as_of, accounts)
    done = publish(run_id, as_of)
    finish_run(run_id)
    return done


def backfill_date(as_of: date, accounts: int = 5) -> Published:
    request(as_of)
    return run_date(as_of, accounts)


def shown(warehouse: Warehouse) -> dict[date, str]:
    return dict(warehouse.rows("select distinct as_of_date, run_id from published.account_tiers"))


def current(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows("select run_id, as_of_date from published.current_run")


def test_a_backfill_never_moves_the_pointer_older_newer_or_into_an_empty_warehouse(
    warehouse: Warehouse,
) -> None:
    first = backfill_date(EARLIER)
    assert not first.moved_pointer
    assert current(warehouse) == []
    ordinary = run_date(DAY)
    later = backfill_date(LATER)
    assert (ordinary.moved_pointer, later.moved_pointer) == (True, False)
    assert current(warehouse) == [(ordinary.run_id, DAY)]
    assert shown(warehouse) == {EARLIER: first.run_id, DAY: ordinary.run_id, LATER: later.run_id}
    assert warehouse.rows("select is_backfill from audit.runs order by started_at") == [
        (True,),
        (False,),
        (True,),
    ]


def test_an_ordinary_run_of_a_backfilled_newer_date_moves_the_pointer_and_rolls_back_to_the_fill(
    warehouse: Warehouse,
) -> None:
    before = run_date(DAY)
    filled = backfill_date(LATER)
    newest = run_date(LATER)
    assert current(warehouse) == [(newest.run_id, LATER)]
    assert shown(warehouse) == {DAY: before.run_id, LATER: newest.run_id}
    rollback()
    assert current(warehouse) == [(before.run_id, DAY)]
    assert shown(warehouse) == {DAY: before.run_id, LATER: filled.run_id}


def test_a_begin_that_is_tried_again_is_still_a_backfill(warehouse: Warehouse) -> None:
    request(DAY)
    begin_run(DAY)
    done = run_date(DAY)
    assert not done.moved_pointer
    assert pending() == []


def test_a_failed_backfill_stays_asked_for_until_the_request_is_taken_back(warehouse: Warehouse) -> None:
    request(DAY)
    begin_run(DAY)
    fail_run(DAY, "the gate stopped it")
    assert [as_of for as_of, _ in pending()] == [DAY]
    assert withdraw(DAY)
    assert not withdraw(DAY)
    assert run_date(DAY).moved_pointer


def test_the_published_date_is_not_filled_beside_the_set_that_is_read(warehouse: Warehouse) -> None:
    run_date(DAY)
    request(DAY)
    run_id = begin_run(DAY)
    make_candidate(run_id, DAY)
    with pytest.raises(StratumError, match="2026-06-10 is the date that is published"):
        publish(run_id, DAY)
    assert warehouse.value("select count(*) from audit.publishes") == 1


def test_dates_in_the_history_are_left_out_and_the_published_one_always(warehouse: Warehouse) -> None:
    days = [EARLIER + timedelta(days=n) for n in range(4)]
    backfill_date(days[1])
    run_date(days[2])
    assert dates_to_fill(days[0], days[3], again=False) == [days[0], days[3]]
    assert dates_to_fill(days[0], days[3], again=True) == [days[0], days[1], days[3]]
    with pytest.raises(StratumError, match="lies before"):
        command.backfill(str(days[1]), str(days[0]))


@pytest.fixture
def chains(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """The dates whose chain was run, in order; the chain itself is the part that the lock and publish see."""
    ran: list[date] = []

    def run_chain(api: object, as_of: date, say: Callable[[str], None], check: object) -> chain.Follow:
        if as_of.day == 3 and as_of not in ran:
            ran.append(as_of)
            raise StratumError("ingest_orders.ingest failed: no file.")
        ran.append(as_of)
        run_date(as_of)
        say("  publish          publish          success    1.0 s")
        return chain.Follow({}, failures=["train_models.train failed: no."] if as_of.day == 4 else [])

    monkeypatch.setattr(chain, "run_chain", run_chain)
    return ran


def test_a_failed_date_stops_with_its_line_and_the_same_command_goes_on_there(
    warehouse: Warehouse, chains: list[date]
) -> None:
    stack = SimpleNamespace(api=lambda: None, check_alive=lambda: True, started=[])
    span = date(2026, 6, 1), date(2026, 6, 4)
    told: list[str] = []
    with pytest.raises(
        StratumError,
        match=r"stopped at 2026-06-03, 2 dates done, 2 left: ingest_orders.*no file.*same command",
    ):
        command._fill(stack, span, False, command.Order.OLDEST, told.append)
    done = command._fill(stack, span, False, command.Order.OLDEST, told.append)
    assert [row["as_of_date"].day for row in done] == [3, 4]
    assert [day.day for day in chains] == [1, 2, 3, 3, 4]
    # Each step as `stratum run` says it, with its date; then how long the date took, and how many are left.
    step = "publish          publish          success    1.0 s"
    assert told[:2] == ["Backfill of 4 dates from 2026-06-01 to 2026-06-04.", f"  2026-06-01  {step}"]
    assert re.fullmatch(r"\[2026-06-01: \d+\.\d s, 3 of 4 dates left\]", told[2])
    assert "2 are in the history" in told[5]
    assert told[8:10] == [f"  2026-06-04  {step}", "  2026-06-04  train_models.train failed: no."]
    assert re.fullmatch(r"\[2026-06-04: .* s, 0 of 2 dates left\]", told[10])
    assert sorted(shown(warehouse)) == [date(2026, 6, day) for day in (1, 2, 3, 4)]
    assert current(warehouse) == []
    with connect("auditor") as connection:
        actions = connection.execute("select distinct action from audit.publishes").fetchall()
    assert actions == [("history",)]
