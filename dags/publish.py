"""Publish an as-of date: build its tables in `candidate`, gate them, and move the one pointer.

Readers see the old set until the pointer moves, and the whole new set from then on. An older date than the
published one fills the dated history and moves nothing. Only the newest date is announced to the sync.

When it fails: docs/runbooks/publish.md.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable, get_current_context, task
from airflow.sdk.bases.operator import chain
from airflow.sdk.exceptions import AirflowSkipException

from include.assets import PUBLISHED_NEWEST, SCORES
from include.dag_support import DEFAULT_ARGS, WAREHOUSE_POOL, fail_clearly, release_build
from include.dates import as_of_of

with DAG(
    dag_id="publish",
    schedule=PartitionedAssetTimetable(assets=SCORES),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS | {"on_failure_callback": release_build},
    tags=["publish"],
    doc_md=__doc__,
):

    @task(pool=WAREHOUSE_POOL)
    @fail_clearly
    def build_candidate() -> None:
        """Build the tables to publish in `candidate`."""
        from include.dbt import build
        from include.warehouse.lock import run_of

        as_of = as_of_of(get_current_context())
        build("published", as_of, run_of(as_of))

    @task
    @fail_clearly
    def gate_published() -> None:
        """Check the candidate as its readers will see it."""
        from include.quality.gate import run_gate
        from include.warehouse.lock import run_of

        as_of = as_of_of(get_current_context())
        run_gate("published", as_of, run_of(as_of))

    @task
    @fail_clearly
    def publish() -> bool:
        """Copy the candidate, append the history, move the pointer; return whether it moved."""
        from include.warehouse.lock import finish_run, run_of
        from include.warehouse.publish import publish

        as_of = as_of_of(get_current_context())
        run_id = run_of(as_of)
        published = publish(run_id, as_of)
        finish_run(run_id)
        return published.moved_pointer

    @task(outlets=[PUBLISHED_NEWEST])
    def announce_newest(moved_pointer: bool) -> None:
        """Tell the sync that the newest date was published; skip, and so tell nothing, for an older one."""
        if not moved_pointer:
            raise AirflowSkipException("An older date than the published one: history only, nothing to sync.")

    published = publish()
    chain(build_candidate(), gate_published(), published)
    announce_newest(published)  # type: ignore[arg-type]  # Airflow hands the value over
