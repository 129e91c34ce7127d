"""Which setting of the boosting a training uses: the best of a few on dates before those that the model is judged on.

Every candidate predicts the same month-ends, each by month-ends whose label windows had ended by then, and the least
mean log loss wins. The month-ends that choose lie so early that their label windows had ended before the first one that
the model is validated on: its validation, calibration and comparison with the champion look at those alone.
The choice follows from the frame, the knobs and the seed; the clock is told in the log and decides nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pandas as pd
from scipy.special import expit

from ml.estimators import HeldOut, make_pipeline, out_of_time
from ml.frames import LABEL
from ml.metrics import log_loss, once
from ml.params import Boosting, Params
from ml.targets import Target

log = logging.getLogger(__name__)

STANDARD = "standard"
"""The setting `boosting` of the knobs, which serves where no other is better by the margin."""


@dataclass(frozen=True)
class Chosen:
    """The setting that serves and why; mean log loss of each candidate over the dates, none where nothing was tried."""

    name: str
    why: str
    log_loss: Mapping[str, float]
    dates: Sequence[pd.Timestamp]
    rows: int


def settings(params: Params) -> dict[str, Boosting]:
    """Return the candidates by name, STANDARD first."""
    return {STANDARD: params.boosting, **params.choice.others}


def with_setting(params: Params, name: str) -> Params:
    """Return the knobs with a candidate as `boosting`. Raises KeyError where there is none of that name."""
    return params.model_copy(update={"boosting": settings(params)[name]})


def choose(
    target: Target, frame: pd.DataFrame, horizon_days: int, params: Params, used: Sequence[str]
) -> Chosen:
    """Return which candidate serves for a labelled frame. Call it within `one_thread`."""
    dates = sorted(frame["as_of_date"].unique())
    judged = pd.Timestamp(dates[-params.validation_folds :][0])
    early = frame[frame["as_of_date"] + pd.Timedelta(days=horizon_days) <= judged]
    sample = _at_most(early, params.choice.rows, params.seed)
    began, losses, predicted_on = perf_counter(), {}, []
    for name in settings(params):
        pipeline = make_pipeline(target, with_setting(params, name), used)
        predicted = out_of_time(
            pipeline, sample, horizon_days, params.choice.folds, params.validation_month_ends
        )
        if not predicted:
            why = f"too few month-ends lie before {judged.date()}, the first one it is validated on: nothing was tried"
            return Chosen(STANDARD, why, {}, (), 0)
        losses[name] = float(np.mean([_loss(one) for one in predicted]))
        predicted_on = [one.date for one in predicted]
    best = min(losses, key=lambda name: (losses[name], name))
    better_by = losses[STANDARD] - losses[best]
    name = best if best != STANDARD and better_by >= params.choice.margin else STANDARD
    log.info(
        "%d settings on %d rows in %.1f s: %s serves.", len(losses), len(sample), perf_counter() - began, name
    )
    told = ", ".join(f"{one} {loss:.5f}" for one, loss in losses.items())
    why = (
        f"log loss on {len(predicted_on)} month-ends up to {predicted_on[-1].date()}: {told}; "
        f"another than {STANDARD} must be better by {params.choice.margin:g}"
    )
    return Chosen(name, why, losses, predicted_on, len(sample))


def _loss(one: HeldOut) -> float:
    """Return the log loss of one predicted date, the level set on what was learned from."""
    margin, happened = one.rows["margin"].to_numpy(np.float64), one.rows[LABEL].to_numpy(np.float64)
    return float(log_loss(expit(margin + one.intercept(1.0)), happened, once(len(happened)))[0])


def _at_most(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """Return the rows of so many accounts, drawn at random, that they are about `rows`; all where they are fewer."""
    if len(frame) <= rows:
        return frame
    accounts = frame["account_id"].drop_duplicates().sort_values()
    return frame[frame["account_id"].isin(accounts.sample(frac=rows / len(frame), random_state=seed))]
