"""What stands after publishes, fills and rollbacks: a stack, read from the log alone."""

from datetime import UTC, date, datetime

import pytest

from include.warehouse.history import Change, current_and_previous, run_by_date, standing

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def log(*steps: str) -> list[Change]:
    """Each step `publish a 3` is an action, a run and the day of July it is as of."""
    made = []
    for step in steps:
        action, run, day = step.split()
        made.append(Change(run, date(2026, 7, int(day)), action, {}, NOW))
    return made


@pytest.mark.parametrize(
    ("steps", "current", "previous", "shown"),
    [
        ([], None, None, {}),
        (["publish a 1"], "a", None, {1: "a"}),
        (["publish a 1", "publish b 2"], "b", "a", {1: "a", 2: "b"}),
        (["publish a 1", "publish b 2", "rollback a 1"], "a", None, {1: "a"}),
        (["publish a 1", "publish b 1", "rollback a 1"], "a", None, {1: "a"}),
        # Two steps back at once leave what two single steps leave.
        (["publish a 1", "publish b 2", "publish c 3", "rollback a 1"], "a", None, {1: "a"}),
        (["publish a 1", "publish b 2", "publish c 3", "rollback b 2", "rollback a 1"], "a", None, {1: "a"}),
        # A run left behind does not come back with the next publish, but may be named.
        (["publish a 1", "publish b 2", "rollback a 1", "publish c 3"], "c", "a", {1: "a", 3: "c"}),
        (["publish a 1", "publish b 2", "rollback a 1", "rollback b 2"], "b", "a", {1: "a", 2: "b"}),
        # Fills of older dates are not rolled back, but the date rolled back to shows what the pointer shows.
        (["publish a 5", "publish b 6", "history h 2", "rollback a 5"], "a", None, {5: "a", 2: "h"}),
        (["publish a 5", "publish b 6", "history h 5", "rollback a 5"], "a", None, {5: "a"}),
        (["publish a 5", "history h 2", "history i 2", "drop a 5"], "a", None, {5: "a", 2: "i"}),
    ],
)
def test_what_stands(
    steps: list[str], current: str | None, previous: str | None, shown: dict[int, str]
) -> None:
    changes = log(*steps)
    now, before = current_and_previous(changes)
    assert (now and now.run_id, before and before.run_id) == (current, previous)
    assert run_by_date(changes) == {date(2026, 7, day): run for day, run in shown.items()}
    assert all(change.action in ("publish", "history") for change in standing(changes))
