"""How good scores are: AUC, average precision, Brier and lift, of the accounts or of many resamples.

A resample is a row of weights: how often it drew each account. All functions take scores (higher: likelier),
outcomes (1: it happened) and a matrix of weights, one row per resample, and return one value per row (`ranking` and
`top_sums` a row of values); a resample with one outcome alone has no AUC, precision or lift (NaN). Equal scores share
their place. Resamples are looked at a few at a time: the memory that takes does not grow with their number.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = NDArray[Any]
"""Resamples × rows, of any kind of number: those of `resamples` take two bytes each."""
Metric = Callable[[Array, Array, Weights], Array]
Z = 1.959964  # of the 95 % interval
AT_ONCE = 1_000_000
"""Weights (resamples × rows) that a metric looks at in one go: 8 MB an array, of which it needs about six."""


def few_at_a_time(metric: Callable[[Array, Array, Array], Array]) -> Metric:
    """Return the metric of any number of resamples, from one that holds all it is given in memory several times."""

    @wraps(metric)
    def of_all(scores: Array, happened: Array, weights: Weights) -> Array:
        step = max(1, AT_ONCE // max(1, weights.shape[1]))
        parts = (weights[start : start + step] for start in range(0, len(weights), step))
        return np.concatenate([metric(scores, happened, part.astype(np.float64)) for part in parts])

    return of_all


def once(accounts: int) -> Array:
    """Return the weights of the accounts as they are: one row of ones."""
    return np.ones((1, accounts))


def resamples(accounts: int, draws: int, seed: int) -> NDArray[np.uint16]:
    """Return the weights of `draws` bootstrap resamples of the accounts.

    None is near what 16 bits hold: that one account is drawn more than twenty times has a chance of 1 in 10^20.
    """
    random = np.random.default_rng(seed)
    weights = np.empty((draws, accounts), dtype=np.uint16)
    for draw in range(draws):
        weights[draw] = np.bincount(random.integers(0, accounts, accounts), minlength=accounts)
    return weights


@few_at_a_time
def auc(scores: Array, happened: Array, weights: Array) -> Array:
    """Return the area under the ROC curve: how often one it happened to scores above another, ties counting half."""
    return _auc(*_by_score(scores, happened, weights))


@few_at_a_time
def average_precision(scores: Array, happened: Array, weights: Array) -> Array:
    """Return the area under the precision-recall curve as a sum of steps, as scikit-learn does."""
    return _average_precision(*_by_score(scores, happened, weights))


@few_at_a_time
def brier(probabilities: Array, happened: Array, weights: Array) -> Array:
    """Return the mean squared difference of probability and outcome."""
    return weights @ (probabilities - happened) ** 2 / weights.sum(axis=1)


def root_mean_square(told: Array, came: Array, weights: Weights) -> Array:
    """Return the root of the mean squared difference of what was told and what came, in their unit."""
    return np.sqrt(brier(told, came, weights))


@few_at_a_time
def log_loss(probabilities: Array, happened: Array, weights: Array) -> Array:
    """Return the mean surprise -log(probability of what came), in nats; probabilities at most 1e-6 from 0 and 1."""
    told = np.clip(probabilities, 1e-6, 1 - 1e-6)  # scores are kept with six decimals
    return weights @ -np.where(happened == 1, np.log(told), np.log1p(-told)) / weights.sum(axis=1)


@few_at_a_time
def mean(values: Array, _: Array, weights: Array) -> Array:
    """Return the mean of values; outcomes do not matter."""
    return weights @ values / weights.sum(axis=1)


def ece(bins: int) -> Metric:
    """Return the metric: expected calibration error, the mean distance of probability and rate over equal-mass bins."""

    @few_at_a_time
    def metric(probabilities: Array, happened: Array, weights: Array) -> Array:
        order = np.argsort(probabilities, kind="stable")
        distance = np.zeros(len(weights))
        for part in np.array_split(order, bins):
            distance += np.abs(weights[:, part] @ (happened - probabilities)[part])
        return distance / weights.sum(axis=1)

    return metric


def lift(share: float) -> Metric:
    """Return the metric: the rate among the `share` with the highest scores, over the rate among all."""

    @few_at_a_time
    def metric(scores: Array, happened: Array, weights: Array) -> Array:
        return _lifts((share,), *_by_score(scores, happened, weights)[2:])[:, 0]

    return metric


def ranking(*shares: float) -> Metric:
    """Return the metric of several columns: `auc`, `average_precision` and `lift` at each of the shares.

    The accounts are put in order once for all of them, which is what takes the time.
    """

    @few_at_a_time
    def metric(scores: Array, happened: Array, weights: Array) -> Array:
        counted = _by_score(scores, happened, weights)
        return np.column_stack([_auc(*counted), _average_precision(*counted), _lifts(shares, *counted[2:])])

    return metric


def top_sums(*shares: float) -> Metric:
    """Return the metric of a column per share: the sum of a value over the highest scores; the outcomes given are values."""

    @few_at_a_time
    def metric(scores: Array, values: Array, weights: Array) -> Array:
        ordered, of_values = _summed_by_score(scores, values, weights)
        return _sums_at(shares, np.cumsum(ordered, axis=1), np.cumsum(of_values, axis=1))

    return metric


def interval(values: Array) -> tuple[float, float]:
    """Return the middle 95 % of the resamples' values."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927), which holds also where none or all came true."""
    share, z2 = successes / trials, Z**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z / (1 + z2 / trials) * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def share_interval(values: Array, happened: Array) -> tuple[float, float]:
    """Return the interval of the share of rows that something happened to; `values` are the resamples' shares.

    Where it happened to none or to all, every resample says so too, and would seem sure: then it is Wilson's.
    """
    if 0 < happened.sum() < len(happened):
        return interval(values)
    return wilson(float(happened.sum()), len(happened))


def _summed_by_score(scores: Array, values: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weight and the weighted sum of values per distinct score, the highest first: two matrices."""
    order = np.argsort(-scores, kind="stable")
    ordered = weights[:, order]
    of_values = ordered * values[order]
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    if len(starts) == len(order):  # no two are equal: there is nothing to sum
        return ordered, of_values
    return np.add.reduceat(ordered, starts, axis=1), np.add.reduceat(of_values, starts, axis=1)


def _by_score(scores: Array, happened: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Return per distinct score, the highest first, the weight of those it happened to and of the others, and the sums of
    the first and of both up to there: four matrices.
    """
    every, positives = _summed_by_score(scores, happened, weights)
    return positives, every - positives, np.cumsum(positives, axis=1), np.cumsum(every, axis=1)


def _auc(positives: Array, negatives: Array, found: Array, _: Array) -> Array:
    above = found - positives  # of higher scores
    with np.errstate(invalid="ignore"):
        return ((above + positives / 2) * negatives).sum(axis=1) / (
            positives.sum(axis=1) * negatives.sum(axis=1)
        )


def _average_precision(positives: Array, _: Array, found: Array, seen: Array) -> Array:
    with np.errstate(invalid="ignore"):
        precision = np.where(seen > 0, found / seen, 0.0)
        return (precision * positives).sum(axis=1) / positives.sum(axis=1)


def _lifts(shares: Sequence[float], found: Array, seen: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return _sums_at(shares, seen, found) / (np.asarray(shares) * found[:, -1:])


def _sums_at(shares: Sequence[float], seen: Array, found: Array) -> Array:
    """Return what is found among the first of each share: resamples × shares.

    `seen` and `found` are sums up to each distinct score, the highest first. Where a cut falls among equal scores, they
    count in proportion.
    """
    return np.array(
        [
            np.interp(np.asarray(shares) * of[-1], np.r_[0, of], np.r_[0, sums])
            for of, sums in zip(seen, found, strict=True)
        ]
    )
