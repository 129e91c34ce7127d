"""Following a sync: each target has its turn, one that is held is not waited for, and failures are told at the end."""

from typing import Any

import pytest

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


def test_a_run_that_somebody_failed_is_no_success() -> None:
    with pytest.raises(StratumError, match="sync_crm failed without a failed task"):
        followed(Api(("failed", {"a": "skipped"})))
