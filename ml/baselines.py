"""What a model is compared with: recency alone, logistic regression, and BG/NBD.

Each is fitted on what was known on the day the model was trained, as the model was.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from include.errors import StratumError
from ml.frames import LABEL

log = logging.getLogger(__name__)

Array = NDArray[np.float64]


def logistic(frame: pd.DataFrame, features: Sequence[str], c: float, seed: int) -> Pipeline:
    """Return a logistic regression fitted on a labelled frame, over the given features.

    Amounts and counts are skewed, so each feature enters as the signed logarithm of 1 + its size; an unknown
    value enters as the median, with a mark that it was unknown. With days_since_last_order alone it is recency
    as a probability.
    """
    model = make_pipeline(
        FunctionTransformer(signed_log),
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=c, max_iter=1000, random_state=seed),
    )
    return model.fit(frame[list(features)], frame[LABEL].to_numpy())


def signed_log(values: pd.DataFrame) -> Array:
    """Return the logarithm of 1 + the size of each value, with its sign."""
    numbers = values.to_numpy(np.float64)
    return np.sign(numbers) * np.log1p(np.abs(numbers))


@dataclass(frozen=True)
class Foretold:
    """What BG/NBD tells of each account: how many orders to expect, and the probability of one or more."""

    orders: Array
    probability: Array


def bg_nbd(known: pd.DataFrame, now: pd.DataFrame, days: int, penalizers: Sequence[float]) -> Foretold:
    """Return what BG/NBD tells of each account of `now` and the next `days` days.

    Fader, Hardie and Lee, "Counting your customers the easy way" (2005). Both frames hold order_days_total,
    days_since_last_order and tenure_days; the parameters are fitted on `known`, those known when the model was
    trained, and applied to `now`. The penalizers are tried in turn until the fit converges. Raises
    StratumError where none does.

    An account that is still there orders at a rate that is gamma-distributed after its history, with shape r + frequency
    and rate alpha + age, and stops after an order alone: it has not ordered after t days with the probability
    ((alpha + age) / (alpha + age + t)) ** (r + frequency).
    """
    from lifetimes import BetaGeoFitter  # takes two seconds to import, and only a report needs it
    from lifetimes.utils import ConvergenceError

    frequency, _, age = _history(now)
    for penalizer in penalizers:
        fitter = BetaGeoFitter(penalizer_coef=penalizer)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # overflows on the way; the result is checked
                fitter.fit(*_history(known))
                expected = fitter.conditional_expected_number_of_purchases_up_to_time(days, *_history(now))
                is_there = np.asarray(fitter.conditional_probability_alive(*_history(now)), dtype=np.float64)
        except ConvergenceError:
            log.info("BG/NBD does not converge with penalizer %s.", penalizer)
            continue
        shape, rate = fitter.params_["r"] + frequency, fitter.params_["alpha"] + age
        orders = np.asarray(expected, dtype=np.float64)
        probability = is_there * (1 - (rate / (rate + days)) ** shape)
        if np.isfinite(orders).all() and np.isfinite(probability).all():
            return Foretold(orders, probability)
        log.info("BG/NBD with penalizer %s expects no finite number of orders.", penalizer)
    raise StratumError(
        f"BG/NBD does not converge with any of the penalizers {list(penalizers)}: add a greater one to "
        "bg_nbd_penalizers in ml/params.yaml."
    )


def expected_spend(
    known: pd.DataFrame, now: pd.DataFrame, orders: Array, penalizers: Sequence[float]
) -> Array:
    """Return the sales expected of each account of `now`: expected orders times the Gamma-Gamma mean of one.

    Fader and Hardie, "The Gamma-Gamma model of monetary value" (2013). Both frames hold order_days_total and
    average_order_value; the parameters are fitted on those of `known` that ordered again, in units of their mean, else the
    fit does not converge in some currencies. The penalizers are tried in turn until it does, to a finite mean. Raises
    StratumError where none does.
    """
    from lifetimes import GammaGammaFitter
    from lifetimes.utils import ConvergenceError

    again = known[(known["order_days_total"] > 1) & (known["average_order_value"] > 0)]
    unit = again["average_order_value"].mean()
    value = now["average_order_value"].clip(lower=0).fillna(0) / unit
    for penalizer in penalizers:
        fitter = GammaGammaFitter(penalizer_coef=penalizer)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # overflows on the way; the result is checked
                fitter.fit(again["order_days_total"] - 1, again["average_order_value"] / unit)
                mean = fitter.conditional_expected_average_profit(now["order_days_total"] - 1, value)
        except ConvergenceError:
            log.info("Gamma-Gamma does not converge with penalizer %s.", penalizer)
            continue
        found = orders * unit * np.asarray(mean, dtype=np.float64)
        if np.isfinite(found).all() and fitter.params_["q"] > 1:
            return found
        log.info("Gamma-Gamma with penalizer %s has no finite mean.", penalizer)
    raise StratumError(f"Gamma-Gamma does not converge with any of the penalizers {list(penalizers)}.")


def _history(frame: pd.DataFrame) -> tuple[Array, Array, Array]:
    """Return BG/NBD's frequency (days with a repeat order), recency and T (days from the first to the last, to now)."""
    age = frame["tenure_days"].to_numpy(np.float64) - 1  # tenure counts both ends
    return (
        frame["order_days_total"].to_numpy(np.float64) - 1,
        age - frame["days_since_last_order"].to_numpy(np.float64),
        age,
    )
