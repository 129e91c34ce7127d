"""The steps of the chain that the models need, without Airflow: build the marts of a date, look at a run's scores."""

from datetime import date

from include.dbt import build
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run
from ml.frames import later_revenue, training_frame
from ml.params import params_of
from ml.targets import policy_on, target_on
from ml.train import Fitted, fit_model
from tests.conftest import Warehouse
from tests.dbt.selections import FEATURES

WITH_OWN_MARTS = ("+trial_features", "trial_outcomes", "+lapse_features", "lapse_outcomes")


def build_marts(as_of: date) -> str:
    """What build_marts does but for its gates, every month-end made anew; returns the run, which holds the lock.

    The dates that are built are noted by hand: the model that notes them stands on all marts.
    """
    run_id = begin_run(as_of)
    with connect("transformer") as connection:
        connection.execute(
            "create table if not exists marts.built_dates "
            "(as_of_date date primary key, kpis_stand boolean, kpi_definition text)"
        )
        connection.execute("delete from marts.built_dates where extract(day from as_of_date + 1) = 1")
    build("staging", as_of, run_id)
    build("marts", as_of, run_id, only=(*FEATURES, *WITH_OWN_MARTS))
    with connect("transformer") as connection:
        connection.execute(
            "insert into marts.built_dates select distinct as_of_date, true from marts.account_features "
            "on conflict do nothing"
        )
    return run_id


def without_groups(as_of: date, run_id: str) -> None:
    """Write down that a run has neither clusters nor recommendations, as its steps do where they find none."""
    with connect("scorer") as connection:
        connection.execute(
            "insert into ml.cluster_runs (run_id, as_of_date, reason, accounts) values (%s, %s, 'none are made', 0)",
            [run_id, as_of],
        )
        connection.execute(
            "insert into ml.recommendation_runs (run_id, as_of_date, reason) values (%s, %s, 'none are made')",
            [run_id, as_of],
        )


def fitted_on(as_of: date, model: str = "churn") -> Fitted:
    """The model of a date from the marts as they stand, kept nowhere."""
    with connect("scorer") as connection:
        target = target_on(connection, model, as_of)
        policy = policy_on(connection, target, as_of)
        frame = training_frame(connection, target, as_of, policy)
        revenue = None
        if target.has_value:
            dates = sorted(frame["as_of_date"].dt.date.unique())
            revenue = later_revenue(connection, target, dates, policy)["net_revenue"].to_numpy()
    return fit_model(target, as_of, frame, policy, params_of(model), revenue)


def scores_of(warehouse: Warehouse, run_id: str) -> list[tuple]:
    """A run's scores but for the run."""
    return warehouse.rows(
        "select model, account_id, as_of_date, model_id, probability, score_rank, reason_1, reason_2, reason_3, "
        "expected_value, next_best, next_best_probability from ml.scores where run_id = %s order by model, account_id",
        run_id,
    )
