"""The estimator: one scikit-learn Pipeline of column selection and calibrated gradient boosting.

Categories never enter as such: SHAP is silently wrong with HistGradientBoosting's `categorical_features`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from include.errors import StratumError
from ml.features import recency_of
from ml.frames import KEYS, LABEL, check_columns
from ml.level import Level, forecast, has_year_before, level_of, measure, measured_on, offsets_on
from ml.metrics import auc, once
from ml.params import Params
from ml.targets import Target

Array = NDArray[np.float64]

ABOVE_CHANCE = 1.645
"""Standard deviations above an AUC of 0.5 that a model must reach on later dates: one-sided 95 %."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: sums come out the same on every machine, and a forked task cannot hang.

    (A process forked from one that has run an OpenMP region waits for threads that it did not inherit.)
    """
    with threadpool_limits(limits=1):
        yield


class NothingLearned(StratumError):
    """What a model learned did not hold later, so it is refused. No fault of the data or the code: there is no signal."""


class CalibratedBoosting(ClassifierMixin, BaseEstimator):
    """Gradient boosting whose log-odds pass through a sigmoid: `slope` times them plus `intercept`.

    The slope is learned on later data than the trees that made the predictions were fitted on (`slope_of`), the
    intercept is set to the level of the whole history (`level_of`). A slope above 0 keeps the accounts' order.
    `level`, where there is one, foretells how far a date lies from that: `probabilities`, which knows the date, adds it.
    """

    def __init__(
        self,
        base: HistGradientBoostingClassifier,
        slope: float = 1.0,
        intercept: float = 0.0,
        level: Level | None = None,
    ) -> None:
        self.base = base
        self.slope = slope
        self.intercept = intercept
        self.level = level

    def fit(self, X: pd.DataFrame, y: NDArray[np.int8]) -> "CalibratedBoosting":
        """Fit the trees; returns itself. A column of which no value is known tells nothing: no tree splits on it."""
        blank = X.columns[X.isna().all()]  # scikit-learn finds no bins for them
        self.base_ = clone(self.base).fit(X.assign(**dict.fromkeys(blank, 0.0)), y)
        self.classes_ = self.base_.classes_
        return self

    def margin(self, X: pd.DataFrame) -> Array:
        """Return the trees' own log-odds."""
        return np.asarray(self.base_.decision_function(X), dtype=np.float64)

    def decision_function(self, X: pd.DataFrame) -> Array:
        """Return the calibrated log-odds at the level of the whole history."""
        return self.slope * self.margin(X) + self.intercept

    def predict_proba(self, X: pd.DataFrame) -> Array:
        """Return the probabilities that it does not happen and that it does, one row per account."""
        happens = expit(self.decision_function(X))
        return np.column_stack([1 - happens, happens])

    def predict(self, X: pd.DataFrame) -> NDArray[np.int64]:
        """Return 1 where it is the likelier outcome, else 0."""
        return (self.predict_proba(X)[:, 1] >= 0.5).astype(np.int64)


def make_pipeline(target: Target, params: Params, used: Sequence[str]) -> Pipeline:
    """Return the unfitted Pipeline over the features `used`, in the order of the contract.

    Raises StratumError where `used` names a feature that is none of the target's.
    """
    directions = {feature.name: feature.direction for feature in target.features}
    unknown = sorted(set(used) - set(directions))
    if unknown:
        raise StratumError(f"No feature of the model is called {', '.join(unknown)}: see ml/targets.py.")
    boosting = HistGradientBoostingClassifier(
        **params.boosting.model_dump(),
        monotonic_cst=[directions[name] for name in used],
        early_stopping=False,  # it would hold out rows at random, neighbours in time of those it learns from
        random_state=params.seed,
    )
    select = ColumnTransformer(
        [("used", "passthrough", list(used))], remainder="drop", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    return Pipeline([("select", select), ("boosting", CalibratedBoosting(boosting))])


def used_features(target: Target, frame: pd.DataFrame, share: float) -> list[str]:
    """Return the features that differ between accounts on at least `share` of the frame's dates."""
    varies = frame.groupby("as_of_date")[list(target.names)].nunique(dropna=False) > 1
    return [name for name in target.names if varies[name].mean() >= share]


def margins(pipeline: Pipeline, frame: pd.DataFrame) -> Array:
    """Return the uncalibrated log-odds of each row. Raises StratumError for missing or new features."""
    return pipeline[-1].margin(selected(pipeline, frame))


def probabilities(pipeline: Pipeline, frame: pd.DataFrame) -> Array:
    """Return the calibrated probability of each row on its date. Raises StratumError for missing or new features."""
    log_odds = pipeline[-1].decision_function(selected(pipeline, frame))
    return np.asarray(expit(log_odds + offsets_on(pipeline[-1].level, frame["as_of_date"])))


def level_on(pipeline: Pipeline, date: pd.Timestamp) -> float:
    """Return what `probabilities` adds to the log-odds of every account on a date; 0 where no level is foretold."""
    level = pipeline[-1].level
    return 0.0 if level is None else forecast(level, date)


def selected(pipeline: Pipeline, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns the trees see. Raises StratumError for missing or new features."""
    check_columns(inputs(frame), pipeline[0].feature_names_in_, "the model")
    return pipeline[0].transform(frame[list(pipeline[0].feature_names_in_)])


@dataclass(frozen=True)
class HeldOut:
    """One date as a model that knew nothing of it predicted it.

    `rows` are its accounts with their recency, `margin` (log-odds) and LABEL; `known` are as_of_date, `margin` and
    LABEL of the rows that model was fitted on.
    """

    date: pd.Timestamp
    rows: pd.DataFrame
    known: pd.DataFrame

    def intercept(self, slope: float) -> float:
        """Return the intercept beside a slope that sets the level of what that model was fitted on."""
        return level_of(self.known["margin"].to_numpy(np.float64), slope, float(self.known[LABEL].mean()))


def out_of_time(
    pipeline: Pipeline, frame: pd.DataFrame, horizon_days: int, folds: int, least_month_ends: int
) -> list[HeldOut]:
    """Predict each of the newest `folds` dates of the frame by a model that knew nothing of it.

    A date is predicted by a copy of the pipeline fitted on the dates whose label windows had ended by then,
    at least `least_month_ends` of them; dates with fewer, or with one outcome alone, are left out.
    """
    dates = sorted(frame["as_of_date"].unique())
    predicted = []
    for date in dates[-folds:]:
        learned = [earlier for earlier in dates if earlier + pd.Timedelta(days=horizon_days) <= date]
        known, rows = frame[frame["as_of_date"].isin(learned)], frame[frame["as_of_date"] == date]
        if len(learned) < least_month_ends or known[LABEL].nunique() < 2 or rows[LABEL].nunique() < 2:
            continue
        fitted = fit(clone(pipeline), known)
        kept = rows[["account_id", recency_of(rows), LABEL]].assign(margin=margins(fitted, rows))
        seen = known[["as_of_date", LABEL]].assign(margin=margins(fitted, known))
        predicted.append(HeldOut(pd.Timestamp(date), kept, seen))
    return predicted


def fit(pipeline: Pipeline, frame: pd.DataFrame) -> Pipeline:
    """Fit the pipeline on a labelled frame and return it."""
    return pipeline.fit(frame[inputs(frame)], frame[LABEL].to_numpy())


def slope_of(predicted: Sequence[HeldOut]) -> float:
    """Return how far out-of-time log-odds are to be stretched (above 1) or shrunk (below 1): a sigmoid's slope.

    The sigmoid (Platt's) has one slope and a level for each date, so that the slope tells how well the order of
    the accounts held later, whatever the season did to all of them. Raises NothingLearned where it is not above
    0, or the mean AUC is one that chance reaches: what was learned did not hold later.
    """
    slope = measured_slope(predicted)
    found, needed = _auc_and_chance(predicted)
    if slope <= 0 or found <= needed:
        raise NothingLearned(
            "The model learned nothing that holds later: its out-of-time predictions rank no better than chance "
            f"(mean AUC {found:.3f}, more than {needed:.3f} is needed). No model was kept."
        )
    return slope


def _auc_and_chance(predicted: Sequence[HeldOut]) -> tuple[float, float]:
    """Return the mean AUC of the predicted dates, and what chance alone reaches in one of twenty cases.

    The deviation of a chance AUC is that of the Mann-Whitney statistic, sqrt((n + 1) / (12 a b)) for a rows of one
    outcome, b of the other, n of both. The dates hold much the same accounts, so together they are taken to know no more
    than one of them does.
    """
    found, deviations = [], []
    for one in predicted:
        happened = one.rows[LABEL].to_numpy(np.float64)
        rows, those = len(happened), happened.sum()
        found.append(auc(one.rows["margin"].to_numpy(np.float64), happened, once(rows))[0])
        deviations.append(np.sqrt((rows + 1) / (12 * those * (rows - those))))
    return float(np.mean(found)), 0.5 + ABOVE_CHANCE * float(np.mean(deviations))


def measured_slope(predicted: Sequence[HeldOut]) -> float:
    """Return the slope as it was measured; 0 or below where the order of the accounts did not hold later."""
    level = pd.get_dummies(np.repeat(np.arange(len(predicted)), [len(one.rows) for one in predicted]))
    margin = np.concatenate([one.rows["margin"].to_numpy() for one in predicted])
    happened = np.concatenate([one.rows[LABEL].to_numpy() for one in predicted])
    sigmoid = LogisticRegression(C=np.inf, fit_intercept=False, max_iter=1000)
    sigmoid.fit(np.column_stack([margin, level.to_numpy(np.float64)]), happened)
    return float(sigmoid.coef_[0, 0])


def told_later(predicted: Sequence[HeldOut], horizon_days: int, history_days: int) -> list[HeldOut]:
    """Return the held-out dates whose rows could be told a `probability` then, with it.

    The sigmoid of a date is learned on the predictions whose label windows had ended by it, and whether its level is
    foretold; the first dates have none, nor has one before which nothing held yet: they are left out.
    """
    told = []
    for one in predicted:
        earlier = [e for e in predicted if e.date + pd.Timedelta(days=horizon_days) <= one.date]
        slope = measured_slope(earlier) if earlier else 0.0
        if slope > 0:
            level = one.intercept(slope)
            if foretells(earlier, slope, horizon_days, history_days)[0]:
                level += forecast(measure(one.known, slope, horizon_days, history_days), one.date)
            told.append(
                replace(one, rows=one.rows.assign(probability=expit(slope * one.rows["margin"] + level)))
            )
    return told


def foretells(
    predicted: Sequence[HeldOut], slope: float, horizon_days: int, history_days: int
) -> tuple[bool, str]:
    """Return whether the level of a later date is to be foretold, and why: if it was on held-out dates, from what was known.

    Held-out dates count whose window of the year before was measured, so that their season could be known. The level must
    have come nearer to what came true (root mean square, log-odds) than that of the whole history did.
    """
    missed, moved = [], []
    for one in predicted:
        known = measure(one.known, slope, horizon_days, history_days)
        if has_year_before(known, one.date):
            true, _ = measured_on(one.rows, slope, one.intercept(slope))
            moved.append(true)
            missed.append(true - forecast(known, one.date))
    if not moved:
        return False, "no year before to tell the season of any held-out month-end"
    before, after = (float(np.sqrt(np.mean(np.square(of)))) for of in (moved, missed))
    where = f"on {len(moved)} held-out month-ends whose year before was known"
    if after < before:
        return (
            True,
            f"foretold {where}, it missed by {after:.3f} log-odds, that of the whole history by {before:.3f}",
        )
    return (
        False,
        f"foretold {where}, it missed by {after:.3f} log-odds, that of the whole history by {before:.3f} only",
    )


def inputs(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a frame that are features: all but keys and LABEL."""
    return [name for name in frame.columns if name not in (*KEYS, LABEL)]
