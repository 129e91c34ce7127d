"""Build the marts of an as-of date, once every source has announced it.

Takes the build lock, gates the raw rows, builds staging, intermediate and marts with dbt, and gates the
marts. The lock is held until the publish is through, or given back when a task finally fails; a failed gate
leaves what is published untouched. To run a date again from here:
`POST /dags/build_marts/dagRuns` with the date as partition key, or `stratum run --as-of DATE`.

When it fails: docs/runbooks/build.md.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable, get_current_context, task
from airflow.sdk.bases.operator import chain

from include.assets import MARTS, RAW_BEHAVIOR, RAW_CRM, RAW_ORDERS
from include.dag_support import DEFAULT_ARGS, WAREHOUSE_POOL, fail_clearly, release_build
from include.dates import as_of_of

with DAG(
    dag_id="build_marts",
    schedule=PartitionedAssetTimetable(assets=RAW_ORDERS & RAW_CRM & RAW_BEHAVIOR),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS | {"on_failure_callback": release_build},
    tags=["build"],
    doc_md=__doc__,
):

    @task
    @fail_clearly
    def begin_run() -> str:
        """Take the build lock, waiting for it; return the new run id."""
        from include.warehouse.lock import begin_run

        return begin_run(as_of_of(get_current_context()))

    @task
    @fail_clearly
    def gate_raw() -> None:
        """Check the raw rows the build will read."""
        from include.quality.gate import run_gate
        from include.warehouse.lock import run_of

        as_of = as_of_of(get_current_context())
        run_gate("raw", as_of, run_of(as_of))

    def build(layer: str) -> None:
        """Build one layer with dbt, as the run that holds the lock."""
        from include.dbt import build
        from include.warehouse.lock import run_of

        as_of = as_of_of(get_current_context())
        build(layer, as_of, run_of(as_of))

    @task(pool=WAREHOUSE_POOL)
    @fail_clearly
    def build_staging() -> None:
        """Build policy seeds, staging and intermediate."""
        build("staging")

    @task(pool=WAREHOUSE_POOL)
    @fail_clearly
    def build_marts() -> None:
        """Build the marts of the as-of date."""
        build("marts")

    @task(outlets=[MARTS])
    @fail_clearly
    def gate_marts() -> None:
        """Check the marts of the as-of date, and announce them."""
        from include.quality.gate import run_gate
        from include.warehouse.lock import mark_built, run_of

        as_of = as_of_of(get_current_context())
        run_id = run_of(as_of)
        run_gate("marts", as_of, run_id)
        mark_built(run_id)

    chain(begin_run(), gate_raw(), build_staging(), build_marts(), gate_marts())
