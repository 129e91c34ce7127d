"""The level of a date: how far the outcomes of all accounts lie together above or below what the model tells of them.

Season, trend and the working days of a window move everybody at once. No feature of an account shows it, and a model whose
level is that of its whole history tells each season the average of all. So the level of each month-end of the training is
measured (`measure`), and that of another date is foretold from them (`forecast`): by the mean of a Gaussian process over
dates (Rasmussen and Williams 2006, eq. 2.25) with few, named parts. Nothing later than the training enters.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq
from scipy.special import expit

from ml.frames import LABEL

Array = NDArray[np.float64]
Level = Mapping[str, Any]
"""What was measured: `horizon_days`, and by date `days` (since 1970), `offsets` and `variances` (of log-odds)."""

YEAR, MONTH = 365.25, 30.4
SEASONS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Standard deviations (log-odds, as all below) that a season may have; data weigh them, none among them."""
WANDERS = (0.01, 0.03, 0.1)
"""Those of a month's step of the level, which stays."""
WHOLE, DRIFT, SHOCK, WORKDAYS = 0.3, 0.01, 0.03, 2.0
"""Those of the level on the whole, of its drift in a month, of what befalls one window alone, and of the effect of one more
(natural) logarithm of working days."""
OF_EACH_OUTCOME = 10
"""Accounts of each outcome without which a month-end tells nothing of its level."""


def level_of(margin: Array, slope: float, rate: float) -> float:
    """Return the sigmoid's intercept at which the mean probability of the rows is `rate`, between 0 and 1."""
    return float(brentq(lambda level: expit(slope * margin + level).mean() - rate, -50, 50))


def measure(known: pd.DataFrame, slope: float, horizon_days: int, history_days: int) -> dict[str, Any]:
    """Return the level of each date of what a model was fitted on: as_of_date, `margin` (log-odds) and LABEL by row.

    It is the shift of the calibrated log-odds at which the date's mean probability is the rate that came true. Dates less
    than `history_days` after the first, where windows of the features are still empty, and dates with few outcomes are
    left out.
    """
    filled = known["as_of_date"].min() + pd.Timedelta(days=history_days)
    intercept = level_of(known["margin"].to_numpy(np.float64), slope, float(known[LABEL].mean()))
    days, offsets, variances = [], [], []
    for date, rows in known[known["as_of_date"] >= filled].groupby("as_of_date"):
        happened = int(rows[LABEL].sum())
        if min(happened, len(rows) - happened) < OF_EACH_OUTCOME:
            continue
        offset, variance = measured_on(rows, slope, intercept)
        days.append(_day(date))
        offsets.append(offset)
        variances.append(variance)
    return {"horizon_days": horizon_days, "days": days, "offsets": offsets, "variances": variances}


def measured_on(rows: pd.DataFrame, slope: float, intercept: float) -> tuple[float, float]:
    """Return the level of the rows (`margin`, LABEL) of one date above `intercept`, and its variance by chance."""
    log_odds = slope * rows["margin"].to_numpy(np.float64) + intercept
    offset = level_of(log_odds, 1.0, float(rows[LABEL].mean()))
    told = expit(log_odds + offset)
    return offset, float(1 / (told * (1 - told)).sum())


def by_date(level: Level) -> dict[str, float]:
    """Return what was measured, by date as text."""
    days = (str(np.datetime64(day, "D")) for day in level["days"])
    return dict(zip(days, level["offsets"], strict=True))


def has_year_before(level: Level, date: pd.Timestamp) -> bool:
    """Whether the window a year before a date was measured, by a month-end at most half a month off."""
    return any(abs(_day(date) - day - YEAR) <= MONTH / 2 + 1 for day in level["days"])


def offsets_on(level: Level | None, dates: pd.Series) -> Array:
    """Return the foretold level of each row's date; 0 where no level is foretold (None)."""
    if level is None:
        return np.zeros(len(dates))
    by_date = {date: forecast(level, pd.Timestamp(date)) for date in dates.unique()}
    return dates.map(by_date).to_numpy(np.float64)


def forecast(level: Level, date: pd.Timestamp) -> float:
    """Return the level of a date (log-odds) as what was measured foretells it; 0 where nothing was.

    The mean over all combinations of SEASONS and WANDERS, each weighted by how well it explains what was measured (its
    marginal likelihood): what has not shown itself moves little.
    """
    if not level["days"]:
        return 0.0
    return _forecast(
        tuple(level["days"]),
        tuple(level["offsets"]),
        tuple(level["variances"]),
        int(level["horizon_days"]),
        _day(date),
    )


@lru_cache(maxsize=256)
def _forecast(
    days: Sequence[int], offsets: Sequence[float], variances: Sequence[float], horizon_days: int, on: int
) -> float:
    at, seen = np.asarray([*days, on], dtype=np.float64), np.asarray(offsets)
    apart = np.abs(at[:, None] - at[None, :])
    around = apart % YEAR
    around = np.minimum(around, YEAR - around)
    # The share of days that two windows have in common; of the season, by the day of the year.
    shared = np.clip(1 - apart / horizon_days, 0, None)
    season = np.clip(1 - around / horizon_days, 0, None)
    month = (at - at[:-1].mean()) / MONTH
    steps = np.minimum(month[:, None], month[None, :]) - month.min() + 1
    work = np.log([workdays(int(day), horizon_days) * 7 / 5 / horizon_days for day in at])
    always = (
        WHOLE**2 + DRIFT**2 * np.outer(month, month) + SHOCK**2 * shared + WORKDAYS**2 * np.outer(work, work)
    )
    found, evidence = [], []
    for of_season, of_step in product(SEASONS, WANDERS):
        covariance = always + of_season**2 * season + of_step**2 * steps
        factor = cho_factor(covariance[:-1, :-1] + np.diag(variances), lower=True)
        solved = cho_solve(factor, seen)
        found.append(float(covariance[-1, :-1] @ solved))
        evidence.append(float(-0.5 * seen @ solved - np.log(np.diag(factor[0])).sum()))
    weight = np.exp(np.asarray(evidence) - max(evidence))
    return float(weight @ np.asarray(found) / weight.sum())


def workdays(day: int, days_after: int) -> int:
    """Return how many of the days after a day (since 1970) are Mondays to Fridays. Holidays are not known."""
    first = np.datetime64(day + 1, "D")
    return int(np.busday_count(first, first + days_after))


def _day(date: Any) -> int:
    return int((pd.Timestamp(date) - pd.Timestamp(0)).days)
