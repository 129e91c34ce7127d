"""What is told comes true on a large simulated company, on a date 90 days later than the newest outcome learned from.

Ten parts of equally many accounts, from the lowest probability up: the observed rate of a part lies in the 95 % binomial
interval of the probability it was told. An account stands in one part, once. One part in twenty misses by chance; nine
of ten must hold, as told: nothing is set to what came true.

The company has two years, with seasons and without. The autumn that is judged was there once in what was learned from.
"""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from include.simulate.market import population
from include.simulate.market.scales import WEEKS
from ml.estimators import one_thread, probabilities
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


@pytest.mark.parametrize("target", [CHURN, REPURCHASE, NEW_CATEGORY], ids=lambda target: target.model)
@pytest.mark.parametrize("company", ["even", "seasonal"])
def test_what_is_told_comes_true(request: pytest.FixtureRequest, company: str, target: Target) -> None:
    probability, happened = told(request.getfixturevalue(company), target)
    assert parts_that_hold(probability, happened) >= HOLD
