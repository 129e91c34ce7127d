"""What is told comes true on a large simulated company, on a date 90 days later than the newest outcome learned from.

Ten parts of equally many accounts, from the lowest probability up: the observed rate of a part lies in the 95 % binomial
interval of the probability it was told. One part in twenty misses by chance; nine of ten must hold.

The simulated company has seasons, and two years of it do not hold a season twice: the level of all accounts then moves by
something that no model of it could know. So two things are held apart by name: the company without its seasons, whose
churn is told raw; and the company with them, where one number, the level of the date, is set to what came true.
"""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from include.simulate.market import population
from include.simulate.market.scales import WEEKS
from ml.estimators import level_of, one_thread, probabilities
from ml.frames import LABEL
from ml.params import params_of
from ml.targets import CHURN, NEW_CATEGORY, REPURCHASE, Policy, Target
from ml.train import fit_model
from tests.ml.simulated_frames import HORIZONS, Market

pytestmark = pytest.mark.slow

CUTOFF = date(2025, 9, 30)
ACCOUNTS, SEED = 24_000, 5
BINS, HOLD = 10, 9


@pytest.fixture(scope="module")
def seasonal() -> Market:
    return Market(ACCOUNTS, SEED)


@pytest.fixture(scope="module")
def even() -> Market:
    """The same company in a year without seasons."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population, "season", lambda: np.ones(WEEKS, np.float32))
        population._expected.cache_clear()
        market = Market(ACCOUNTS, SEED)
    population._expected.cache_clear()
    return market


def told(market: Market, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Return probability and outcome of each account on CUTOFF, told by a model of what had ended by then."""
    horizon = HORIZONS[target.model]
    month_ends = pd.date_range("2024-01-31", CUTOFF - timedelta(days=horizon), freq="ME")
    frame = market.labelled(target, [stamp.date() for stamp in month_ends])
    found = fit_model(target, CUTOFF, frame, Policy(horizon, 90), params_of(target.model))
    later = market.labelled(target, [CUTOFF])
    with one_thread():
        return probabilities(found.pipeline, later), later[LABEL].to_numpy(np.float64)


def parts_that_hold(probability: np.ndarray, happened: np.ndarray) -> int:
    """Return in how many of BINS equal parts the rate lies in the binomial interval of the mean probability."""
    assert len(happened) >= 20_000
    held = 0
    for part in np.array_split(np.argsort(probability, kind="stable"), BINS):
        mean = probability[part].mean()
        held += abs(happened[part].mean() - mean) <= 1.96 * np.sqrt(mean * (1 - mean) / len(part))
    return held


def at_the_level_of(probability: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """Return the probabilities shifted by one number, in log-odds, so that their mean is the rate that came true."""
    margin = logit(np.clip(probability, 1e-9, 1 - 1e-9))
    return expit(margin + level_of(margin, 1.0, float(happened.mean())))


def test_without_seasons_the_raw_probability_of_churn_comes_true(even: Market) -> None:
    probability, happened = told(even, CHURN)
    assert parts_that_hold(probability, happened) >= HOLD


def test_without_seasons_the_probability_of_an_order_comes_true_at_the_level_of_the_date(
    even: Market,
) -> None:
    probability, happened = told(even, REPURCHASE)
    assert parts_that_hold(at_the_level_of(probability, happened), happened) >= HOLD


@pytest.mark.parametrize("target", [CHURN, NEW_CATEGORY], ids=["churn", "upsell"])
def test_with_seasons_the_probability_comes_true_at_the_level_of_the_date(
    seasonal: Market, target: Target
) -> None:
    probability, happened = told(seasonal, target)
    assert parts_that_hold(at_the_level_of(probability, happened), happened) >= HOLD
    assert abs(probability.mean() - happened.mean()) < 0.03  # what the season moved: 0.017 of churn
