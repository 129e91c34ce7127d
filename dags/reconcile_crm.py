"""Read back what each CRM confirmed, and list what it no longer holds: somebody edited it there, or it was dropped.

One task for each target of sync.yml that has `reconcile`: a sample or all, and `report` or `heal` as it says. Nothing is
sent: what is to be healed is told by the next sync. The result is a row of sync.reconciliations, each difference one of
sync.drift, shown by `stratum status`. What is not healed is a warning in the task's log, or fails it with `on_drift:
fail`. Daily with STRATUM_SCHEDULE=1, after the chain; else start it by hand in Airflow's UI, or run `stratum sync
reconcile`. It belongs to no as-of date: the ledger is compared as it stands.

When it fails: docs/runbooks/sync.md.
"""

from airflow.sdk import DAG, task

from include.dag_support import DEFAULT_ARGS, active_sources, daily, fail_clearly
from include.settings import get_settings

with DAG(
    dag_id="reconcile_crm",
    schedule=daily(get_settings().reconcile_cron),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["sync"],
    doc_md=__doc__,
):

    @task
    @fail_clearly
    def targets() -> list[str]:
        """Return the names of the targets that are to be reconciled."""
        from include.sync.reconcile import scheduled

        return scheduled(active_sources())

    @task(map_index_template="{{ task.op_kwargs['target'] }}")
    @fail_clearly
    def reconcile(target: str) -> None:
        """Read a target back, write down what differs, and tell of it."""
        from include.sync.reconcile import keep_watch

        keep_watch(active_sources(), target)

    reconcile.expand(target=targets())
