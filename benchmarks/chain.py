"""chain_overhead: what Airflow adds to the work of a date's chain, per step from one task to the next."""

import itertools
import os
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from benchmarks.data import LAST_DAY
from benchmarks.meter import Meter
from benchmarks.place import Row, free_port
from include.local.airflow_api import AirflowApi
from include.local.chain import TRIGGERED_BY, Follow, run_chain
from include.local.stack import Stack
from include.settings import get_settings
from include.sources.config import load_sources

RUNS = 5
LIMIT_S = 1.0
"""What a hop may cost (the median of RUNS chains)."""


@dataclass(frozen=True)
class Task:
    """A task instance of the chain; times are seconds since 1970-01-01 UTC."""

    dag: str
    name: str
    start: float
    end: float
    above: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[str, str]:
        """DAG and task id."""
        return self.dag, self.name


@dataclass(frozen=True)
class Chain:
    """One chain: its wall time, the time worked on its critical path, the steps of that path, in seconds."""

    wall_s: float
    worked_s: float
    steps: list[float]
    """The time between the end of a task and the start of the next, along the critical path."""
    between_dags: list[float]
    """Those of the steps that lead from one DAG to another."""

    @property
    def per_hop_s(self) -> float:
        """What a step from task to task cost."""
        return (self.wall_s - self.worked_s) / len(self.steps)


def chain_overhead(size: str, home: Path, sources: Path) -> list[Row]:
    """Run five dates of a tiny company through a whole local stack, after one that warms it up.

    A hop is an edge of the critical path: from the last task to end, back through the task above it that ended
    last, to an ingest. The wall time begins with the trigger, so the way to the first task is paid by the hops.
    """
    os.environ.update(
        {
            "STRATUM_HOME": str(home),
            "STRATUM_POSTGRES_PORT": str(free_port()),
            "STRATUM_AIRFLOW_PORT": str(free_port()),
            "STRATUM_SOURCES": str(sources),
        }
    )
    get_settings.cache_clear()
    stack = Stack(get_settings(), print_nothing)
    try:
        stack.up(load_sources(sources))
        api = stack.api()
        meters, chains = [], []
        for number in range(RUNS + 1):
            as_of = LAST_DAY - timedelta(days=RUNS - number)
            with Meter(_processes(stack), forked=True) as meter:
                started = time.time()
                follow = run_chain(api, as_of, print_nothing, stack.check_alive)
            chain = measure(api, follow, started)
            print(f"chain of {as_of}: {chain.wall_s:.1f} s, {chain.per_hop_s:.2f} s a hop", file=sys.stderr)
            if number > 0:  # the first one makes all the past
                meters.append(meter)
                chains.append(chain)
    finally:
        stack.down_started()
    median = sorted(chains, key=lambda chain: chain.per_hop_s)[RUNS // 2]
    meter = meters[chains.index(median)]
    gap = statistics.median(step for chain in chains for step in chain.between_dags)
    floor = (
        f"allowed per hop; {len(median.steps)} hops, {median.worked_s:.1f} s of work in a chain of {median.wall_s:.1f} s, "
        f"median of {RUNS}; {gap:.2f} s from DAG to DAG"
    )
    per_hop_s = median.per_hop_s
    return [
        Row(
            "chain_overhead",
            size,
            len(median.steps),
            per_hop_s,
            meter.cpu_s,
            meter.peak_mb,
            floor,
            LIMIT_S,
            per_hop_s / LIMIT_S,
        )
    ]


def print_nothing(_: str) -> None:
    """Take what the stack and the chain say."""


def measure(api: AirflowApi, follow: Follow, started: float) -> Chain:
    """Read the task instances of a chain and find its critical path; `started` is when it was triggered."""
    tasks = {
        task.key: task for dag in follow.runs for task in _tasks(api, dag, follow.runs[dag]["dag_run_id"])
    }
    path = critical_path(tasks)
    pairs = list(itertools.pairwise(path))
    return Chain(
        path[-1].end - started,
        sum(task.end - task.start for task in path),
        [below.start - above.end for above, below in pairs],
        [below.start - above.end for above, below in pairs if above.dag != below.dag],
    )


def critical_path(tasks: dict[tuple[str, str], Task]) -> list[Task]:
    """Return the tasks that the end waited for: from the last to end, always the one above that ended last."""
    path = [max(tasks.values(), key=lambda task: task.end)]
    while above := [tasks[key] for key in path[0].above if key in tasks]:
        path.insert(0, max(above, key=lambda task: task.end))
    return path


def _tasks(api: AirflowApi, dag: str, run_id: str) -> list[Task]:
    """Return the tasks of a run that succeeded, each with those above it: in its DAG, or the ends of the DAGs before."""
    wiring = api.call("GET", f"/dags/{dag}/tasks")["tasks"]
    above: dict[str, list[tuple[str, str]]] = {task["task_id"]: [] for task in wiring}
    for task in wiring:
        for below in task["downstream_task_ids"]:
            above[below].append((dag, task["task_id"]))
    before = [key for other in TRIGGERED_BY.get(dag, ()) for key in _announcers(api, other)]
    return [
        Task(
            dag,
            instance["task_id"],
            _seconds(instance["start_date"]),
            _seconds(instance["end_date"]),
            tuple(above[instance["task_id"]] or before),
        )
        for instance in api.tasks(dag, run_id)
        if instance["state"] == "success"
    ]


def _announcers(api: AirflowApi, dag: str) -> list[tuple[str, str]]:
    """Return the tasks of a DAG that hold an outlet: they start the next DAG."""
    assets = api.call("GET", "/assets", params={"dag_ids": dag})["assets"]
    return [
        (dag, task["task_id"])
        for asset in assets
        for task in asset["producing_tasks"]
        if task["dag_id"] == dag
    ]


def _seconds(stamp: Any) -> float:
    return datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).astimezone(UTC).timestamp()


def _processes(stack: Stack) -> list[psutil.Process]:
    """Return the processes of a running stack."""
    pid = int((stack.cluster.data / "postmaster.pid").read_text().splitlines()[0])
    found = [process.find() for process in stack.airflow]
    return [psutil.Process(pid), *(process for process in found if process is not None)]
