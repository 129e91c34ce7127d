"""The steps of the chain that the models need, without Airflow: build the marts of a date, look at a run's scores."""

from datetime import date

from include.dbt import build
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run
from ml.frames import policy_on, training_frame
from ml.params import params_of
from ml.train import Fitted, fit_model
from tests.conftest import Warehouse


def build_marts(as_of: date) -> str:
    """What build_marts does but for its gates; returns the run, which holds the lock."""
    run_id = begin_run(as_of)
    build("staging", as_of, run_id)
    build("marts", as_of, run_id)
    return run_id


def fitted_on(as_of: date) -> Fitted:
    """The model of a date from the marts as they stand, kept nowhere."""
    with connect("scorer") as connection:
        policy = policy_on(connection, as_of)
        frame = training_frame(connection, as_of, policy.horizon_days)
    return fit_model("churn", as_of, frame, policy, params_of("churn"))


def scores_of(warehouse: Warehouse, run_id: str) -> list[tuple]:
    """A run's scores but for the run."""
    return warehouse.rows(
        "select account_id, as_of_date, model_id, probability, score_rank, reason_1, reason_2, reason_3 "
        "from ml.scores where run_id = %s order by account_id",
        run_id,
    )
