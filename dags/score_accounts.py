"""Score the accounts by each model, with the newest one trained as of the date or before.

Writes probability, rank and three reasons per account and model, keyed by the run, and gates them: range, spread,
coverage, and drift against training and the last published set. Where a model cannot be trained yet its scores are
absent, which is written down, and the chain goes on. Likewise the cluster of each account, and whose recommendations
the run shows.

When it fails: docs/runbooks/score.md.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable, get_current_context, task

from include.assets import MODELS, SCORES
from include.dag_support import DEFAULT_ARGS, fail_clearly, release_build
from include.dates import as_of_of

with DAG(
    dag_id="score_accounts",
    schedule=PartitionedAssetTimetable(assets=MODELS),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS | {"on_failure_callback": release_build},
    tags=["models"],
    doc_md=__doc__,
):

    @task
    @fail_clearly
    def score() -> None:
        """Write the scores of the run, the cluster of each account, and whose recommendations the run shows."""
        from include.warehouse.lock import run_of
        from ml.cluster_runs import assign_clusters
        from ml.recommend_runs import name_recommendations
        from ml.score import score_all

        as_of = as_of_of(get_current_context())
        run_id = run_of(as_of)
        score_all(as_of, run_id)
        assign_clusters(as_of, run_id)
        name_recommendations(as_of, run_id)

    @task(outlets=[SCORES])
    @fail_clearly
    def gate_scores() -> None:
        """Check the scores of the run, and announce them."""
        from include.quality.gate import run_gate
        from include.warehouse.lock import run_of

        as_of = as_of_of(get_current_context())
        run_gate("scores", as_of, run_of(as_of))

    score() >> gate_scores()
