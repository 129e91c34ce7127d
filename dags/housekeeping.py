"""Keep the installation well: start builds that were lost, and remove what policy no longer keeps.

Removes old published runs, raw events that are rolled up, refused rows, days of the marts, scores, check
results, Airflow's own runs and logs; how long each is kept is include/warehouse/retention.csv, and every
removal is a row of audit.housekeeping. Daily with STRATUM_SCHEDULE=1, after the ingests; else start it by
hand in Airflow's UI. It belongs to no as-of date: what is old is counted from the newest published one.

When it fails: docs/runbooks/housekeeping.md.
"""

from datetime import timedelta

from airflow.sdk import DAG, task

from include.dag_support import DEFAULT_ARGS, daily, fail_clearly
from include.settings import get_settings

with DAG(
    dag_id="housekeeping",
    schedule=daily(get_settings().housekeeping_cron),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["housekeeping"],
    doc_md=__doc__,
):

    @task
    @fail_clearly
    def start_lost_builds() -> list[str]:
        """Start the build of each date that every source has announced and none has begun."""
        from include.local.airflow_care import start_lost_builds

        return [str(as_of) for as_of in start_lost_builds()]

    @task(retries=10, retry_delay=timedelta(minutes=3))  # while a build is at work some of it must wait
    @fail_clearly
    def tidy_warehouse() -> dict[str, int]:
        """Remove what the warehouse no longer keeps."""
        from include.warehouse.housekeeping import tidy_warehouse

        return {removed.thing: removed.removed for removed in tidy_warehouse()}

    @task
    @fail_clearly
    def vacuum() -> int:
        """Give the space back to the tables, each as its owner."""
        from include.warehouse.housekeeping import vacuum_and_analyze

        return vacuum_and_analyze()

    @task
    @fail_clearly
    def tidy_airflow() -> dict[str, int]:
        """Remove Airflow's own old runs and the logs of tasks."""
        from include.local.airflow_care import tidy_airflow

        return {removed.thing: removed.removed for removed in tidy_airflow()}

    start_lost_builds()
    tidy_warehouse() >> vacuum()
    tidy_airflow()
