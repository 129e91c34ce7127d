"""Bring the CRM to what is published: changed rows only, each confirmed by the CRM's own answer.

Runs when the newest date was published, one task for each target of sync.yml, so that one that fails or is held does not
stop the others. Each plans the difference to what its CRM confirmed before, notes the attempt, sends, and writes each
row's answer to the ledger. Rows the CRM refused fail its task and come back by themselves. A sync that a brake stopped
waits for a person's answer (required actions here, or `stratum sync approve`), and fails where none comes. Without a
sync target it succeeds as absent.

When it fails: docs/runbooks/sync.md.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable, task

from include.assets import PUBLISHED_NEWEST
from include.dag_support import DEFAULT_ARGS, WAITING_RUNS, active_sources, fail_clearly
from include.sync.operator import TellTarget

with DAG(
    dag_id="sync_crm",
    schedule=PartitionedAssetTimetable(assets=PUBLISHED_NEWEST),
    catchup=False,
    max_active_runs=WAITING_RUNS,
    default_args=DEFAULT_ARGS,
    tags=["sync"],
    doc_md=__doc__,
):

    @task
    @fail_clearly
    def targets() -> list[str]:
        """Return the names of the targets in sync.yml."""
        return list(active_sources().sync)

    # Without a limit of its own: a task that waits for an answer would count against one, and stop the others.
    TellTarget.partial(task_id="sync", map_index_template="{{ task.target }}").expand(target=targets())
