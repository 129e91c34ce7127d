"""Train the models of the as-of date's week (`retrain_days` in ml/params.yaml), where they are not there yet.

Reached by every build, and trains on few of them. A model is trained as of the week's Monday, on month-ends
alone whose whole label window lies before it. A training that fails fails this run, and the accounts are
scored all the same with the model there is; the other models are trained. Too little history to train on is
no failure: the scores of that model are then absent. Clusters (once a quarter) and recommendations (weekly, as a
model) are fitted likewise.

When it fails: docs/runbooks/train.md.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable, TriggerRule, get_current_context, task

from include.assets import MARTS, MODELS
from include.dag_support import DEFAULT_ARGS, fail_clearly
from include.dates import as_of_of

with DAG(
    dag_id="train_models",
    schedule=PartitionedAssetTimetable(assets=MARTS),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["models"],
    doc_md=__doc__,
):

    @task
    @fail_clearly
    def train() -> list[str]:
        """Decide which models score the date, training what that takes; fit clusters and recommendations where due."""
        from include.settings import get_settings
        from include.warehouse.lock import run_of
        from ml.due import fit_all_due

        as_of = as_of_of(get_current_context())
        run_of(as_of)  # keeps the lease of the build that waits for the scores
        return fit_all_due(as_of, get_settings().model_cards)

    @task(outlets=[MODELS], trigger_rule=TriggerRule.ALL_DONE)
    def announce() -> None:
        """Let the accounts be scored, by the new model or the one before."""

    @task
    def trained() -> None:
        """Fail this run where the training failed: `announce` alone would end it well."""

    train() >> [announce(), trained()]
