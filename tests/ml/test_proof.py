"""The proof of tests/ml/test_online_retail.py on a made-up company, small enough for every run of the tests."""

from datetime import date

import numpy as np
import pytest

from ml.baselines import bg_nbd, logistic
from ml.estimators import one_thread, probabilities
from ml.judge import Figure, judge
from ml.params import params_of
from ml.targets import CHURN, Policy
from ml.train import fit_model
from tests.ml.world import features, labelled, month_ends, order_days

TRAINED, CUTOFF = date(2026, 3, 9), date(2026, 3, 20)
POPULATIONS = ("all", "active_90")


@pytest.fixture(scope="module")
def figures() -> dict[tuple[str, str, str], Figure]:
    """The figures of a model of 800 accounts and of its baselines, on the 90 days after the cutoff."""
    days, params = order_days(800), params_of("churn")
    known = labelled(days, month_ends(date(2025, 1, 1), date(2025, 11, 30)))
    frame = labelled(days, [CUTOFF])
    fitted = fit_model(CHURN, TRAINED, known, Policy(90, 90), params)
    used = [feature["name"] for feature in fitted.model.features if feature["used"]]
    now = features(days, CUTOFF)
    with one_thread():
        scores = {
            "model": probabilities(fitted.pipeline, frame),
            "recency": frame["days_since_last_order"].to_numpy(),
            "logistic": logistic(known, used, 0.1, 1).predict_proba(frame[used])[:, 1],
            "recency_probability": np.full(len(frame), 0.5),
            "bg_nbd": -bg_nbd(features(days, TRAINED), now, 90, [0.0, 0.001, 0.01]).orders,
        }
    return {
        (one.population, one.estimator, one.metric): one for one in judge(CHURN, frame, scores, 90, params)
    }


def test_the_model_is_above_recency_alone(figures: dict) -> None:
    """Among all, those that have stopped for good are told by recency nearly as well: there it is ahead, no more."""
    assert figures["active_90", "model-recency", "auc"].low > 0
    assert figures["all", "model-recency", "auc"].value > 0


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("baseline", ["bg_nbd", "logistic"])
def test_the_model_is_not_below_other_ways(figures: dict, population: str, baseline: str) -> None:
    assert figures[population, f"model-{baseline}", "auc"].high >= 0


@pytest.mark.parametrize("population", POPULATIONS)
def test_its_probabilities_are_as_high_as_what_came_true(figures: dict, population: str) -> None:
    told, true = (
        figures[population, "model", "mean_probability"].value,
        figures[population, "observed", "churn_rate"],
    )
    assert true.low - 0.05 < told < true.high + 0.05
