"""What every DAG shares: defaults, schedules, how a task fails, and what happens when it does."""

import functools
import logging
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from airflow.sdk import (
    DAG,
    Asset,
    CronPartitionTimetable,
    CronTriggerTimetable,
    PartitionedAtRuntime,
    Variable,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowFailException

from include.dates import KEY_FORMAT, as_of_of
from include.errors import StratumError, TransientError
from include.settings import SOURCES_VARIABLE, get_settings
from include.sources.config import Sources, load_sources

log = logging.getLogger(__name__)

OWNER = "data-engineering"
DEFAULT_ARGS: dict[str, Any] = {
    "owner": OWNER,
    "retries": 2,
    "retry_delay": timedelta(seconds=15),
    "execution_timeout": timedelta(hours=2),
}
ANNOUNCE_POOL = "announce"
"""One slot. Announcements of one as-of date must not end at the same moment: Airflow 3.3 then loses the
join and no build starts (docs/decisions/0003-announcements-one-at-a-time.md)."""
WAREHOUSE_POOL = "warehouse_writer"
"""One slot: one dbt writer at a time, since concurrent DDL fails."""
WAITING_RUNS = 16
"""Runs of a DAG that may wait for a person at once, so that a newer date is never kept from asking or going on."""

P = ParamSpec("P")
R = TypeVar("R")


def ingest_schedule() -> CronPartitionTimetable | PartitionedAtRuntime:
    """Return the timetable of the ingests: started by name and date, or daily with STRATUM_SCHEDULE=1.

    The daily run's as-of date is the day before it starts: that day is over.
    """
    settings = get_settings()
    if not settings.schedule:
        return PartitionedAtRuntime()
    return CronPartitionTimetable(
        settings.ingest_cron, timezone=settings.timezone, run_offset=-1, key_format=KEY_FORMAT
    )


def daily(cron: str) -> CronTriggerTimetable | None:
    """Return the timetable of what belongs to no as-of date: at `cron` with STRATUM_SCHEDULE=1, else by hand alone."""
    settings = get_settings()
    return CronTriggerTimetable(cron, timezone=settings.timezone) if settings.schedule else None


def fail_clearly(function: Callable[P, R]) -> Callable[P, R]:
    """Let a task fail at once where trying again cannot help: with StratumError's one line."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TransientError:
            raise
        except StratumError as error:
            raise AirflowFailException(str(error)) from error

    return wrapped


def active_sources() -> Sources:
    """Return the sources this installation runs on: those of the last `stratum run --sources`, else the setting's."""
    path = Variable.get(SOURCES_VARIABLE, default=None)
    return load_sources(Path(path) if path else get_settings().sources)


def ingest_dag(
    dag_id: str, asset: Asset, pull: Callable[[Sources, date], object | None], doc_md: str | None
) -> DAG:
    """Return the DAG of one source: `pull` loads up to the as-of date (None: the source is absent), then
    `announce` alone holds the outlet, in the pool of one slot."""
    with DAG(
        dag_id=dag_id,
        schedule=ingest_schedule(),
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["ingest"],
        doc_md=doc_md,
    ) as dag:

        @task
        @fail_clearly
        def ingest() -> bool:
            """Load up to the as-of date; return whether the source is absent."""
            return pull(active_sources(), as_of_of(get_current_context())) is None

        @task(outlets=[asset], pool=ANNOUNCE_POOL)
        def announce(absent: bool) -> None:
            """Tell the build that this source is ready for the date: an absent one too."""
            get_current_context()["outlet_events"][asset].extra = {"absent": absent}
            log.info("%s: %s", asset.name, "absent" if absent else "loaded")

        announce(ingest())  # type: ignore[arg-type]  # Airflow hands the value over
    return dag


def release_build(context: Mapping[str, Any]) -> None:
    """Give the build lock back when a task of the build or the publish has finally failed."""
    from include.warehouse.lock import fail_run

    error = context.get("exception")
    fail_run(as_of_of(context), f"{context['task_instance'].task_id}: {error}")
