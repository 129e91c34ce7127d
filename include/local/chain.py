"""Drive the chain for one as-of date over Airflow's API, and follow it to its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from include.errors import StratumError
from include.local.airflow_api import AirflowApi

INGESTS = ("ingest_orders", "ingest_crm", "ingest_behavior")
CHAIN = (*INGESTS, "build_marts", "train_models", "score_accounts", "publish", "sync_crm")
TRIGGERED_BY = {
    "build_marts": INGESTS,
    "train_models": ("build_marts",),
    "score_accounts": ("train_models",),
    "publish": ("score_accounts",),
    "sync_crm": ("publish",),
}
GOES_ON = {"train_models"}
"""DAGs whose failure does not end the chain: without a new model the accounts are scored by the one before."""
SYNC = "sync_crm"
"""One task a target: one that failed, or waits for an answer, does not end the others."""
POLL_S = 0.3
LOST_AFTER_S = 10.0
"""A hop takes 0.6–1.5 s; a build that has not begun this long after the last announcement was lost."""
CHECK_EVERY_S = 3.0
CHAIN_TIMEOUT_S = 3600
ENDED = {"success", "failed"}
TASK_ENDED = {"success", "failed", "skipped", "upstream_failed"}
WAITS = "awaiting_input"


@dataclass
class Follow:
    """What is known of the chain so far: the run of each DAG that belongs to it, and its ended tasks."""

    earlier: dict[str, set[str]]
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    shown: set[tuple[str, str, int]] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    """The lines of tasks that failed without ending the chain."""
    sync_failures: list[str] = field(default_factory=list)
    """The lines of targets that could not be told, known once every target has had its turn."""
    waiting: list[str] = field(default_factory=list)
    """The targets whose sync a brake held, and which wait for an answer."""

    def state(self, dag_id: str) -> str | None:
        """Return the state of the DAG's run, or None while it has none."""
        run = self.runs.get(dag_id)
        return run["state"] if run else None


def run_chain(
    api: AirflowApi, as_of: date, say: Callable[[str], None], check: Callable[[], object]
) -> Follow:
    """Start the three ingests for a date and follow the chain to its end, saying each task as it ends.

    Three announcements without a build, which Airflow 3.3 can lose, are seen and the build is started by
    its key. `check` is called every few seconds and raises where Airflow is no longer whole. Returns the runs
    by DAG. Raises StratumError with the failed task's own line.
    """
    wait_for_earlier(api, as_of, say, check)
    follow = Follow({dag_id: {run["dag_run_id"] for run in api.runs(dag_id, as_of)} for dag_id in CHAIN})
    for dag_id in INGESTS:
        api.trigger(dag_id, as_of)
    deadline = time.monotonic() + CHAIN_TIMEOUT_S
    announced_at: float | None = None
    checked_at = time.monotonic()
    while time.monotonic() < deadline:
        if time.monotonic() - checked_at > CHECK_EVERY_S:
            check()
            checked_at = time.monotonic()
        _look(api, as_of, follow, say)
        if _ended(api, follow, say):
            return follow
        if announced_at is None and all(follow.state(dag_id) == "success" for dag_id in INGESTS):
            announced_at = time.monotonic()
        if (
            announced_at
            and time.monotonic() - announced_at > LOST_AFTER_S
            and not follow.state("build_marts")
        ):
            say(f"The three announcements of {as_of} started no build: starting it by its key.")
            api.trigger("build_marts", as_of)
            announced_at = time.monotonic()
        time.sleep(POLL_S)
    raise StratumError(f"The chain of {as_of} did not end within {CHAIN_TIMEOUT_S} s; see Airflow's UI.")


def wait_for_earlier(
    api: AirflowApi, as_of: date, say: Callable[[str], None], check: Callable[[], object]
) -> None:
    """Wait until no chain of the date is at work in Airflow; two at once would take each other's build lock.

    Such a chain may be another command's, or one that was cut off and went on when Airflow came up again. A sync that
    waits for an answer is none. `check` is as in `run_chain`. Raises StratumError where it does not end in time.
    """
    if not _at_work(api, as_of):
        return
    say(f"Airflow is at work on {as_of} already: waiting until that chain has ended ...")
    deadline = time.monotonic() + CHAIN_TIMEOUT_S
    worked_at = time.monotonic()
    while time.monotonic() - worked_at < LOST_AFTER_S:  # the next DAG begins a moment after the one before
        if time.monotonic() > deadline:
            raise StratumError(
                f"An earlier chain of {as_of} did not end within {CHAIN_TIMEOUT_S} s; see Airflow's UI."
            )
        time.sleep(POLL_S)
        check()
        if _at_work(api, as_of):
            worked_at = time.monotonic()


def _at_work(api: AirflowApi, as_of: date) -> bool:
    return any(
        run["state"] not in ENDED for dag_id in CHAIN if dag_id != SYNC for run in api.runs(dag_id, as_of)
    )


def cancel_chain(api: AirflowApi, as_of: date) -> None:
    """End what runs or waits of a date's chain, for whoever is about to stop Airflow.

    Runs that are merely cut off would be taken up again at the next start. A task that runs goes on until its
    next heartbeat, so the build lock is to be given back only once Airflow is down.
    """
    for dag_id in CHAIN:
        for run in api.runs(dag_id, as_of):
            if run["state"] not in ENDED:
                api.fail_run(dag_id, run["dag_run_id"])


def _look(api: AirflowApi, as_of: date, follow: Follow, say: Callable[[str], None]) -> None:
    """Read the runs and tasks that have not ended, and say the tasks that have ended since."""
    for dag_id in CHAIN:
        before = follow.state(dag_id)
        if before in ENDED:
            continue
        if before is None and not all(
            follow.state(above) in ENDED or follow.state(above) == "running"
            for above in TRIGGERED_BY.get(dag_id, ())
        ):
            continue
        mine = [run for run in api.runs(dag_id, as_of) if run["dag_run_id"] not in follow.earlier[dag_id]]
        if not mine:
            continue
        follow.runs[dag_id] = mine[0]
        for instance in api.tasks(dag_id, mine[0]["dag_run_id"]):
            _say_task(api, dag_id, instance, follow, say)


def _say_task(
    api: AirflowApi, dag_id: str, instance: dict[str, Any], follow: Follow, say: Callable[[str], None]
) -> None:
    task_id, state, map_index = instance["task_id"], instance["state"], instance["map_index"]
    if (dag_id, task_id, map_index) in follow.shown or state not in {*TASK_ENDED, WAITS}:
        return
    follow.shown.add((dag_id, task_id, map_index))
    target = instance["rendered_map_index"] if map_index >= 0 else None
    name = f"{task_id} {target}" if target else task_id
    if state == WAITS:
        follow.waiting.append(str(target))
        say(f"  {dag_id:<16} {name:<16} held")
        return
    waited = _waited_for_an_answer(api, instance) if dag_id == SYNC else timedelta()
    worked_s = (instance["duration"] or 0) - waited.total_seconds()
    wait = (
        f"  (and waited {timedelta(seconds=round(waited.total_seconds()))} for an answer)" if waited else ""
    )
    say(f"  {dag_id:<16} {name:<16} {state:<8} {worked_s:5.1f} s{wait}")
    if state == "failed":
        line = api.failure(dag_id, instance["dag_run_id"], task_id, instance["try_number"], map_index)
        failure = f"{dag_id}.{name} failed: {line}"
        if dag_id == SYNC:
            follow.sync_failures.append(failure)
        elif dag_id in GOES_ON:
            follow.failures.append(failure)
        else:
            raise StratumError(failure)


def _waited_for_an_answer(api: AirflowApi, instance: dict[str, Any]) -> timedelta:
    """Return how long a task that has ended was parked; Airflow counts that time as the task's own.

    One that was parked in this try was scheduled once more after it had started.
    """
    if not instance["start_date"] or not instance["scheduled_when"]:
        return timedelta()
    started, resumed = (datetime.fromisoformat(instance[key]) for key in ("start_date", "scheduled_when"))
    if resumed <= started:
        return timedelta()
    return resumed - api.asked_at(SYNC, instance["dag_run_id"], instance["map_index"])


def follow_sync(
    api: AirflowApi, run_id: str, say: Callable[[str], None], check: Callable[[], object]
) -> None:
    """Follow one run of the sync until all its targets are told or wait, saying each as it ends.

    Raises StratumError with the lines of those that failed. `check` is as in `run_chain`.
    """
    follow = Follow({})
    deadline = time.monotonic() + CHAIN_TIMEOUT_S
    while time.monotonic() < deadline:
        check()
        follow.runs[SYNC] = api.run(SYNC, run_id)
        tasks = api.tasks(SYNC, run_id)
        for instance in tasks:
            _say_task(api, SYNC, instance, follow, say)
        if _sync_ended(follow, tasks):
            if follow.sync_failures:
                raise StratumError("; ".join(follow.sync_failures))
            return
        time.sleep(POLL_S)
    raise StratumError(f"The sync did not end within {CHAIN_TIMEOUT_S} s; see Airflow's UI.")


def _sync_ended(follow: Follow, tasks: list[dict[str, Any]]) -> bool:
    """Tell whether every target was told, failed or waits."""
    states = {task["state"] for task in tasks}
    # A run that waits goes on until it is answered; before its targets are known, none waits.
    if follow.state(SYNC) not in ENDED and not (WAITS in states and states <= {*TASK_ENDED, WAITS}):
        return False
    if follow.state(SYNC) == "failed" and not follow.sync_failures:
        follow.sync_failures.append(f"{SYNC} failed without a failed task; see Airflow's UI")
    return True


def _ended(api: AirflowApi, follow: Follow, say: Callable[[str], None]) -> bool:
    for dag_id in CHAIN:
        if follow.state(dag_id) == "failed" and dag_id not in (*GOES_ON, SYNC):
            raise StratumError(f"{dag_id} failed without a failed task; see Airflow's UI.")
    if follow.state("publish") != "success":
        return False
    tasks = {t["task_id"]: t["state"] for t in api.tasks("publish", follow.runs["publish"]["dag_run_id"])}
    if tasks["announce_newest"] == "skipped":
        return True
    if SYNC not in follow.runs:
        return False
    tasks_of_sync = api.tasks(SYNC, follow.runs[SYNC]["dag_run_id"])
    for instance in tasks_of_sync:
        _say_task(api, SYNC, instance, follow, say)
    return _sync_ended(follow, tasks_of_sync)
