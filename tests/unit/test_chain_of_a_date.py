"""A chain begins when no other of its date is at work."""

from datetime import date
from typing import Any

import pytest

from include.errors import StratumError
from include.local import chain

DAY = date(2026, 6, 30)


class Api:
    """Airflow whose runs are read from a script: at each look, which DAGs have a run that has not ended."""

    def __init__(self, looks: list[set[str]]) -> None:
        self.looks = looks
        self.seen = 0

    def runs(self, dag_id: str, as_of: date | None = None) -> list[dict[str, Any]]:
        if dag_id == chain.CHAIN[0]:
            self.seen += 1
        at_work = self.looks[min(self.seen, len(self.looks)) - 1]
        return [{"state": "running" if dag_id in at_work else "success"}]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves, a second each time."""
    now = [0.0]

    def sleep(_: float) -> None:
        now[0] += 1

    monkeypatch.setattr(chain.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(chain.time, "sleep", sleep)
    return now


def test_with_nothing_at_work_it_begins_at_once(clock: list[float]) -> None:
    said: list[str] = []
    chain.wait_for_earlier(Api([set()]), DAY, said.append, lambda: None)  # type: ignore[arg-type]
    assert (clock[0], said) == (0, [])


def test_it_waits_over_the_moment_between_two_dags_of_the_other_chain(clock: list[float]) -> None:
    said: list[str] = []
    between = [set[str]()] * int(chain.LOST_AFTER_S - 2)
    looks = [{"build_marts"}, *between, {"publish"}, {"publish"}, set()]
    api = Api(looks)
    chain.wait_for_earlier(api, DAY, said.append, lambda: None)  # type: ignore[arg-type]
    assert api.seen > len(looks)
    assert said == ["Airflow is at work on 2026-06-30 already: waiting until that chain has ended ..."]


def test_a_sync_that_waits_for_an_answer_is_not_waited_for(clock: list[float]) -> None:
    chain.wait_for_earlier(Api([{"sync_crm"}]), DAY, lambda line: None, lambda: None)  # type: ignore[arg-type]
    assert clock[0] == 0


def test_a_chain_that_never_ends_is_told(clock: list[float]) -> None:
    with pytest.raises(StratumError, match="An earlier chain of 2026-06-30 did not end within"):
        chain.wait_for_earlier(Api([{"publish"}]), DAY, lambda line: None, lambda: None)  # type: ignore[arg-type]


def test_airflow_that_dies_meanwhile_ends_the_wait(clock: list[float]) -> None:
    def dead() -> None:
        raise StratumError("Airflow's scheduler is not running")

    with pytest.raises(StratumError, match="scheduler is not running"):
        chain.wait_for_earlier(Api([{"publish"}]), DAY, lambda line: None, dead)  # type: ignore[arg-type]
