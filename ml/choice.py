"""Which setting of the boosting a training uses: the best of a few on dates before those that the model is judged on.

Every candidate predicts the same month-ends, each by month-ends whose label windows had ended by then, and the least
mean log loss wins. The month-ends that choose lie so early that their label windows had ended before the first one that
the model is validated on: its validation, calibration and comparison with the champion look at those alone.
The choice follows from the frame, the knobs and the seed. So does what is tried within its budget of time: a setting's
seconds are reckoned from what it computes (`reckoned_s`), at a measured pace. A clock would let a busy machine choose
another model of the same data than an idle one; the seconds it shows are told in the log and decide nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pandas as pd
from scipy.special import expit

from ml.estimators import HeldOut, make_pipeline, out_of_time
from ml.frames import LABEL, of_some_accounts
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


def reckoned_s(setting: Boosting, params: Params, rows: int, features: int) -> float:
    """Return the seconds of processor time that trying a setting takes at most, at the pace of the knobs.

    Each of the folds learns from the `rows` or fewer; a tree looks at each of them once for each of the `features`.
    """
    return params.choice.folds * rows * features * setting.max_iter / 1e9 * params.choice.s_per_billion


def within_budget(params: Params, rows: int, features: int) -> list[str]:
    """Return the names of the settings that are tried: one by one in the order of the knobs, while the budget lasts."""
    spent, names = 0.0, []
    for name, setting in settings(params).items():
        spent += reckoned_s(setting, params, rows, features)
        if spent > params.choice.budget_s:
            break
        names.append(name)
    return names


def choose(
    target: Target, frame: pd.DataFrame, horizon_days: int, params: Params, used: Sequence[str]
) -> Chosen:
    """Return which candidate serves for a labelled frame. Call it within `one_thread`."""
    dates = sorted(frame["as_of_date"].unique())
    judged = pd.Timestamp(dates[-params.validation_folds :][0])
    early = frame[frame["as_of_date"] + pd.Timedelta(days=horizon_days) <= judged]
    sample = of_some_accounts(early, params.choice.rows, params.seed)
    tried = within_budget(params, len(sample), len(used))
    left = [name for name in settings(params) if name not in tried]
    over = f"; the budget of {params.choice.budget_s:g} s is over before {', '.join(left)}" if left else ""
    if len(tried) < 2 and left:
        return Chosen(STANDARD, f"nothing was tried{over}", {}, (), 0)
    began, losses, predicted_on = perf_counter(), {}, []
    for name in tried:
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
        f"another than {STANDARD} must be better by {params.choice.margin:g}{over}"
    )
    return Chosen(name, why, losses, predicted_on, len(sample))


def _loss(one: HeldOut) -> float:
    """Return the log loss of one predicted date, the level set on what was learned from."""
    margin, happened = one.rows["margin"].to_numpy(np.float64), one.rows[LABEL].to_numpy(np.float64)
    return float(log_loss(expit(margin + one.intercept(1.0)), happened, once(len(happened)))[0])
