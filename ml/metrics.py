"""How good scores are: AUC, average precision, Brier and lift, of the accounts or of many resamples at once.

A resample is a row of weights: how often it drew each account. All functions take scores (higher: likelier to
churn), outcomes (1: churned) and a matrix of weights, one row per resample, and return one value per row; a
resample with one outcome alone has no AUC, precision or lift (NaN). Equal scores share their place.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Metric = Callable[[Array, Array, Array], Array]


def once(accounts: int) -> Array:
    """Return the weights of the accounts as they are: one row of ones."""
    return np.ones((1, accounts))


def resamples(accounts: int, draws: int, seed: int) -> Array:
    """Return the weights of `draws` bootstrap resamples of the accounts."""
    random = np.random.default_rng(seed)
    weights = np.empty((draws, accounts))
    for draw in range(draws):
        weights[draw] = np.bincount(random.integers(0, accounts, accounts), minlength=accounts)
    return weights


def auc(scores: Array, churned: Array, weights: Array) -> Array:
    """Return the area under the ROC curve: how often a churner scores above a stayer, ties counting half."""
    positives, negatives = _by_score(scores, churned, weights)
    above = np.cumsum(positives, axis=1) - positives  # churners of higher scores
    with np.errstate(invalid="ignore"):
        return ((above + positives / 2) * negatives).sum(axis=1) / (
            positives.sum(axis=1) * negatives.sum(axis=1)
        )


def average_precision(scores: Array, churned: Array, weights: Array) -> Array:
    """Return the area under the precision-recall curve as a sum of steps, as scikit-learn does."""
    positives, negatives = _by_score(scores, churned, weights)
    found, seen = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.where(seen > 0, found / seen, 0.0)
        return (precision * positives).sum(axis=1) / positives.sum(axis=1)


def brier(probabilities: Array, churned: Array, weights: Array) -> Array:
    """Return the mean squared difference of probability and outcome."""
    return weights @ (probabilities - churned) ** 2 / weights.sum(axis=1)


def lift(share: float) -> Metric:
    """Return the metric: churn among the `share` with the highest scores, over churn among all."""

    def metric(scores: Array, churned: Array, weights: Array) -> Array:
        positives, negatives = _by_score(scores, churned, weights)
        found = np.cumsum(positives, axis=1)
        seen = np.cumsum(positives + negatives, axis=1)
        values = np.empty(len(weights))
        for row in range(len(weights)):  # where the cut falls among equal scores, they count in proportion
            values[row] = np.interp(share * seen[row, -1], np.r_[0, seen[row]], np.r_[0, found[row]])
        with np.errstate(invalid="ignore"):
            return values / (share * found[:, -1])

    return metric


def interval(values: Array) -> tuple[float, float]:
    """Return the middle 95 % of the resamples' values."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _by_score(scores: Array, churned: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weight of churners and of stayers per distinct score, the highest first: two matrices."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    ordered, outcome = weights[:, order], churned[order]
    positives = np.add.reduceat(ordered * outcome, starts, axis=1)
    return positives, np.add.reduceat(ordered, starts, axis=1) - positives
