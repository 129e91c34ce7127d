"""Bring the CRM to what is published: changed rows only, each confirmed by the CRM's own answer.

Runs when the newest date was published. Plans the difference to what the CRM confirmed before, notes the
attempt, sends, and writes each row's answer to the ledger. Rows the CRM refused fail this run and come back
by themselves. Without a sync target it succeeds as absent.

When it fails: docs/runbooks/sync.md.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable, get_current_context, task

from include.assets import PUBLISHED_NEWEST
from include.dag_support import DEFAULT_ARGS, active_sources, fail_clearly
from include.dates import as_of_of

with DAG(
    dag_id="sync_crm",
    schedule=PartitionedAssetTimetable(assets=PUBLISHED_NEWEST),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["sync"],
    doc_md=__doc__,
):

    @task
    @fail_clearly
    def sync() -> None:
        """Send each target what changed; fail, after the books are written, where one refused rows."""
        from include.sync.run import sync_all

        sync_all(active_sources(), as_of_of(get_current_context()))

    sync()
