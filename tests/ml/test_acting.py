"""What contacting the top would have been worth: by hand, beside chance, and only where the policy is known."""

import numpy as np
import pandas as pd
import pytest

from ml.acting import Costs, acted_on, at_stake
from ml.metrics import once, resamples, top_sums

COSTS = Costs(success_rate=0.1, contact_cost=5.0)


def figures(happened: np.ndarray, stake: np.ndarray, scores: dict[str, np.ndarray]) -> dict:
    found = acted_on("all", happened, stake, scores, COSTS, resamples(len(happened), 500, seed=1))
    return {(one.estimator, one.metric): one for one in found}


def test_the_value_is_what_is_kept_of_those_that_churned_less_a_contact_for_each() -> None:
    happened = np.r_[1.0, 0.0, 1.0, 1.0, np.zeros(36)]
    stake = np.r_[100.0, 5_000.0, 1_000.0, 2_000.0, np.full(36, 10.0)]
    model = np.r_[0.9, 0.8, 0.5, 0.1, np.full(36, 0.01)]
    found = figures(happened, stake, {"model": model, "recency": -model})
    assert found["model", "acting_05"].value == pytest.approx(
        0.1 * 100 - 2 * 5
    )  # the first two: one of them churned
    assert found["model", "acting_10"].value == pytest.approx(0.1 * 3_100 - 4 * 5)
    # By probability times value: 4,000, 500, 200, 90, so the second and the third come first.
    assert found["model_by_value", "acting_05"].value == pytest.approx(0.1 * 1_000 - 2 * 5)
    # Chance contacts each as often: a twentieth of what contacting everybody is worth.
    assert found["random", "acting_05"].value == pytest.approx((0.1 * 3_100 - 40 * 5) / 20)
    difference = found["model_by_value-random", "acting_05"]
    assert difference.value == pytest.approx(90 - (0.1 * 3_100 - 40 * 5) / 20)
    assert difference.low <= difference.value <= difference.high
    assert (found["policy", "offer_success_rate"].value, found["policy", "contact_cost"].value) == (0.1, 5)


def test_the_interval_is_that_of_accounts_drawn_again() -> None:
    random = np.random.default_rng(2)
    happened, stake = (random.random(300) < 0.3).astype(float), random.exponential(500, 300)
    found = figures(happened, stake, {"model": random.random(300)})["model_by_value", "acting_20"]
    assert found.low < found.value < found.high
    weights = resamples(300, 4, seed=5)
    score, gains = random.random(300), happened * stake
    for draw, value in zip(weights, top_sums(0.2)(score, gains, weights), strict=True):
        rows = np.repeat(np.arange(300), draw.astype(int))
        assert value == pytest.approx(top_sums(0.2)(score[rows], gains[rows], once(300))[0])


def test_at_stake_is_the_spend_of_a_year_in_proportion_and_never_below_nothing() -> None:
    frame = pd.DataFrame({"net_revenue_365d": [365.0, -20.0, np.nan]})
    assert at_stake(frame, 90).tolist() == [90.0, 0.0, 0.0]


def test_at_stake_of_a_contract_is_a_year_of_it_and_else_the_spend_of_a_year() -> None:
    frame = pd.DataFrame(
        {
            "net_revenue_365d": [365.0, 365.0, -20.0, np.nan],
            "yearly_contract_value": [1_000.0, np.nan, np.nan, np.nan],
        }
    )
    assert at_stake(frame, 120).tolist() == [1_000.0, 365.0, 0.0, 0.0]
