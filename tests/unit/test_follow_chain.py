"""Following a sync: each target has its turn, one that is held is not waited for, and failures are told at the end."""

from datetime import date, datetime
from typing import Any

import pytest

from include.commands.run import what_is_left
from include.errors import StratumError
from include.local import chain
from include.local.chain import follow_sync


class Api:
    """Airflow's answers, one look after the other: the run's state and that of each target's task."""

    def __init__(self, *looks: tuple[str, dict[str, str | None]]) -> None:
        self.looks = looks
        self.look = -1

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        self.look += 1
        return {"state": self.looks[self.look][0], "dag_run_id": run_id}

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [
            {
                "task_id": "sync",
                "state": state,
                "map_index": place,
                "rendered_map_index": name,
                "duration": 1.0,
                "start_date": "2026-11-24T00:37:49.1Z",
                "scheduled_when": "2026-11-24T00:37:49.0Z",
                "dag_run_id": run_id,
                "try_number": 1,
            }
            for place, (name, state) in enumerate(self.looks[self.look][1].items())
        ]

    def failure(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int) -> str:
        return f"line of {map_index}"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "POLL_S", 0)


def followed(api: Api) -> list[str]:
    said: list[str] = []
    follow_sync(api, "run", said.append, lambda: None)  # type: ignore[arg-type]
    assert api.look == len(api.looks) - 1, "it ended before the last look"
    return [" ".join(line.split()) for line in said]


def test_each_target_is_said_once_as_it_ends() -> None:
    api = Api(
        ("running", {"a": "running", "b": None}),
        ("running", {"a": "success", "b": "running"}),
        ("success", {"a": "success", "b": "success"}),
    )
    assert followed(api) == ["sync_crm sync a success 1.0 s", "sync_crm sync b success 1.0 s"]


def test_a_target_that_waits_is_not_waited_for_once_the_others_have_ended() -> None:
    api = Api(
        ("running", {"a": "awaiting_input", "b": "running"}),
        ("running", {"a": "awaiting_input", "b": "success"}),
    )
    assert followed(api) == ["sync_crm sync a held", "sync_crm sync b success 1.0 s"]


def test_a_target_that_failed_is_told_after_the_others_had_their_turn() -> None:
    api = Api(
        ("running", {"a": "failed", "b": "running"}),
        ("running", {"a": "failed", "b": "success"}),
        ("failed", {"a": "failed", "b": "success"}),
    )
    with pytest.raises(StratumError, match=r"^sync_crm\.sync a failed: line of 0$"):
        followed(api)
    assert api.look == 2


def test_a_failed_and_a_waiting_target_are_both_told() -> None:
    api = Api(("running", {"a": "failed", "b": "awaiting_input"}))
    with pytest.raises(StratumError, match="sync a failed"):
        followed(api)


def test_what_a_task_waited_for_an_answer_is_told_apart_from_its_own_time() -> None:
    class Waited(Api):
        """Parked 3 s after it began, answered two hours later, done 6 s after that."""

        def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
            (task,) = super().tasks(dag_id, run_id)
            return [task | {"duration": 7209.0, "scheduled_when": "2026-11-24T02:37:52.1Z"}]

        def asked_at(self, dag_id: str, run_id: str, map_index: int) -> datetime:
            return datetime.fromisoformat("2026-11-24T00:37:52.1Z")

    told = followed(Waited(("success", {"a": "success"})))
    assert told == ["sync_crm sync a success 9.0 s (and waited 2:00:00 for an answer)"]


class WholeChain(Api):
    """A chain in which all but the sync goes through: each DAG has a run from when the ingests are triggered."""

    def __init__(self, state: str, targets: dict[str, str | None]) -> None:
        super().__init__((state, targets))
        self.look = 0
        self.began = False

    def trigger(self, dag_id: str, as_of: date) -> str:
        self.began = True
        return "run"

    def runs(self, dag_id: str, as_of: date) -> list[dict[str, Any]]:
        state = self.looks[0][0] if dag_id == chain.SYNC else "success"
        return [{"state": state, "dag_run_id": "run"}] if self.began else []

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        tasks = super().tasks(dag_id, run_id)
        if dag_id == chain.SYNC:
            return tasks
        (task, *_) = tasks
        return [task | {"task_id": "announce_newest", "state": "success", "map_index": -1}]


def ran(state: str, targets: dict[str, str | None]) -> chain.Follow:
    api: Any = WholeChain(state, targets)
    return chain.run_chain(api, date(2026, 6, 30), lambda line: None, lambda: None)


def test_a_chain_whose_sync_failed_or_is_held_went_through_but_for_that() -> None:
    """So its summary is told, and then what is left to do; nothing else ends it with an error."""
    follow = ran("running", {"a": "failed", "b": "awaiting_input"})
    assert follow.sync_failures == ["sync_crm.sync a failed: line of 0"]
    assert follow.waiting == ["b"]
    left = what_is_left(follow, date(2026, 6, 30))
    assert left is not None
    assert left.startswith(
        "sync_crm.sync a failed: line of 0. The sync to b is held and nothing was sent to it."
    )
    assert "send it: stratum sync approve b --reason TEXT (or reject)" in left
    assert left.endswith("All else of 2026-06-30 went through.")
    assert ran("failed", {"a": "skipped"}).sync_failures == [
        "sync_crm failed without a failed task; see Airflow's UI"
    ]


def test_a_chain_that_went_through_leaves_nothing() -> None:
    assert what_is_left(ran("success", {"a": "success"}), date(2026, 6, 30)) is None


def test_a_run_that_somebody_failed_is_no_success() -> None:
    with pytest.raises(StratumError, match="sync_crm failed without a failed task"):
        followed(Api(("failed", {"a": "skipped"})))
