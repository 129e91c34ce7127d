"""Look after Airflow: start builds whose announcements were lost, and remove old runs and logs of its own."""

import logging
import os
import shutil
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from include.local.airflow_api import AirflowApi
from include.local.environment import airflow_home
from include.local.preparation import metadata_url, run_airflow
from include.local.stack import Stack
from include.settings import get_settings
from include.warehouse.connect import connect, open_connection
from include.warehouse.housekeeping import Removed, keep, newest_published, record

log = logging.getLogger(__name__)

SOURCES = ("orders", "crm", "behavior")
INGESTS = tuple(f"ingest_{source}" for source in SOURCES)
BUILD_CHAIN = ("build_marts", "train_models", "score_accounts", "publish")
LOST_AFTER = timedelta(minutes=5)
"""A hop takes 0.6–1.5 s; a build that has not begun this long after the last load was lost, unless it waits."""
LOOK_BACK = timedelta(days=7)
# What `airflow db clean` is to touch: what runs leave behind, not the DAGs themselves.
CLEANED_TABLES = (
    "dag_run,task_instance,task_instance_history,task_reschedule,xcom,log,job,asset_event,"
    "partitioned_asset_key_log,callback,import_error,revoked_token,trigger"
)


def announced_without_build() -> list[date]:
    """Return the dates that all three sources have loaded since the date's last build began, or without any.

    Only loads between LOST_AFTER and LOOK_BACK old count: younger ones may still be on their way.
    """
    with connect("auditor") as connection:
        rows = connection.execute(
            """
            with newest as (
                select as_of_date, source, max(loaded_at) as loaded_at from audit.loads
                where status in ('loaded', 'absent') and source = any(%(sources)s) group by as_of_date, source
            ), dates as (
                select as_of_date, min(loaded_at) as first_at, max(loaded_at) as last_at from newest
                group by as_of_date having count(*) = cardinality(%(sources)s)
            )
            select dates.as_of_date from dates
            where last_at between clock_timestamp() - %(look_back)s and clock_timestamp() - %(lost_after)s
                and not exists (
                    select from audit.runs
                    where runs.as_of_date = dates.as_of_date and runs.started_at > dates.first_at
                )
            order by dates.as_of_date""",
            {"sources": list(SOURCES), "look_back": LOOK_BACK, "lost_after": LOST_AFTER},
        ).fetchall()
    return [row[0] for row in rows]


def lost_builds(api: AirflowApi) -> list[date]:
    """Return the announced dates without a build whose ingests all ended well and whose build does not wait.

    A build that waits for the lock, or for its turn, has a run in Airflow. Raises StratumError where Airflow
    does not answer.
    """
    return [as_of for as_of in announced_without_build() if _is_lost(api, as_of)]


def start_lost_builds() -> list[date]:
    """Start the build of each date that was announced by all sources and never begun; return the dates.

    Airflow 3.3 can lose the join of three announcements (docs/decisions/0003). Raises StratumError where
    Airflow cannot be asked or refuses.
    """
    if not announced_without_build():
        return []
    api = _stack().api()
    started = lost_builds(api)
    for as_of in started:
        api.trigger("build_marts", as_of)
        log.warning("The three announcements of %s started no build: started it by its key.", as_of)
    return started


def building(api: AirflowApi, as_of: date) -> str | None:
    """Return the DAG of the build chain, from the lock to its release, that is at work for a date; None where none is."""
    for dag_id in BUILD_CHAIN:
        if any(run["state"] in ("queued", "running") for run in api.runs(dag_id, as_of)):
            return dag_id
    return None


def _is_lost(api: AirflowApi, as_of: date) -> bool:
    ingests = [api.runs(dag_id, as_of)[:1] for dag_id in INGESTS]
    if not all(runs and runs[0]["state"] == "success" for runs in ingests):
        return False
    announced_at = min(runs[0]["end_date"] for runs in ingests)
    return not any(_began_after(run, announced_at) for run in api.runs("build_marts", as_of))


def _began_after(run: dict[str, Any], announced_at: str) -> bool:
    queued = run["queued_at"] or run["run_after"]
    return run["state"] in ("queued", "running") or datetime.fromisoformat(queued) >= datetime.fromisoformat(
        announced_at
    )


def tidy_airflow() -> list[Removed]:
    """Remove Airflow's old runs and logs as policy says, and write it down; nothing before the first publish."""
    as_of = newest_published()
    if as_of is None:
        return []
    kept = keep(as_of)
    done = []
    for thing, remove in (("airflow_runs", clean_airflow_database), ("task_logs", drop_task_logs)):
        removed = remove(kept[thing])
        record(as_of, removed)
        done.append(removed)
    return done


def clean_airflow_database(days: int) -> Removed:
    """Remove what runs of more than `days` days ago left in Airflow's own database, by Airflow's own command.

    The newest run of each DAG stays. Returns how many DAG runs went. Raises StratumError naming the log where
    the command fails.
    """
    stack = _stack()
    before = datetime.now(UTC) - timedelta(days=days)
    url = metadata_url(stack.server_url, stack.secrets)
    count = _dag_runs(url)
    # A task is cut off from this database on purpose; this one command is given its address back.
    environment = os.environ | {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.replace("postgresql://", "postgresql+psycopg2://", 1)
    }
    arguments = ["db", "clean", "--yes", "--skip-archive", "--error-on-cleanup-failure"]
    arguments += ["--clean-before-timestamp", before.isoformat(), "--tables", CLEANED_TABLES]
    run_airflow(arguments, environment, airflow_home(stack.settings) / "db-clean.log")
    return Removed("airflow_runs", before.date(), count - _dag_runs(url))


def drop_task_logs(days: int, folder: Path | None = None) -> Removed:
    """Remove the logs of task runs, and of the DAG processor, that nothing was written to for `days` days.

    `folder` is Airflow's log folder. Returns how many run folders and daily folders went.
    """
    folder = folder or airflow_home(get_settings()) / "logs"
    before = datetime.now(UTC) - timedelta(days=days)
    old = [
        run
        for run in (*folder.glob("dag_id=*/run_id=*"), *folder.glob("dag_processor/????-??-??"))
        if _last_written(run) < before.timestamp()
    ]
    for run in old:
        shutil.rmtree(run)
    return Removed("task_logs", before.date(), len(old))


def _last_written(folder: Path) -> float:
    """Return when something under a folder was written last (seconds since 1970)."""
    return max((path.stat().st_mtime for path in (folder, *folder.rglob("*"))), default=time.time())


def _dag_runs(url: str) -> int:
    with open_connection(url, "stratum housekeeping") as connection:
        row = connection.execute("select count(*) from dag_run").fetchone()
    return row[0] if row else 0


def _stack() -> Stack:
    return Stack(get_settings(), log.info)
