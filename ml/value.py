"""How much an account that orders in the window buys there: the value that stands beside a probability.

A straight line through what the account bought before, fitted on the rows that ordered: net revenue of the window as a
sum of non-negative shares of three rates, each as much as fits into the window. It is data, not an estimator: the
intercept and a share per feature in the model's parameters, so that anyone can do the sum.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression

Array = NDArray[np.float64]

DAYS = {"net_revenue_90d": 90, "yearly_net_spend": 365, "average_order_value": None}
"""What the line is made of, and the days it was earned in (None: it is that of one order)."""


def fit(ordered: pd.DataFrame, revenue: Array, horizon_days: int) -> dict[str, float]:
    """Return the line's intercept and shares, fitted on rows that ordered and their net revenue of the window.

    Rows count by the inverse of their size, so that a few large accounts do not decide alone (the spread of revenue
    grows with it); then all shares are scaled until the rows' sum is met.
    """
    rates = _rates(ordered, horizon_days)
    line = LinearRegression(positive=True).fit(rates, revenue, sample_weight=1 / (1 + rates.max(axis=1)))
    told = np.maximum(line.intercept_ + rates @ line.coef_, 0)
    scale = revenue.sum() / told.sum() if told.sum() > 0 and revenue.sum() > 0 else 0.0
    shares = dict(zip(DAYS, map(float, scale * line.coef_), strict=True))
    return {"intercept": float(scale * line.intercept_), **shares}


def expected(line: Mapping[str, float], frame: pd.DataFrame, probability: Array, horizon_days: int) -> Array:
    """Return each row's expected net revenue of the window: its probability times its value if it orders, 0 at least."""
    shares = np.asarray([line[name] for name in DAYS])
    if_ordered = line["intercept"] + _rates(frame, horizon_days) @ shares
    return probability * np.maximum(if_ordered, 0.0)


def _rates(frame: pd.DataFrame, horizon_days: int) -> Array:
    """Return what each feature comes to in the window, 0 where it is unknown or below."""
    columns = [
        frame[name].fillna(0).clip(lower=0) * (horizon_days / days if days else 1.0)
        for name, days in DAYS.items()
    ]
    return np.column_stack(columns).astype(np.float64)
