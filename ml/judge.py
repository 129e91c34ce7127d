"""How good ways to tell are on the same rows: the figures of each, and how far the model's lie from those of the others.

Intervals are a bootstrap over accounts: an account's dates are drawn together. Every way is looked at on the same
resamples, so that the differences are paired.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.features import recency_of
from ml.frames import LABEL
from ml.metrics import (
    Metric,
    Weights,
    auc,
    brier,
    ece,
    interval,
    log_loss,
    mean,
    once,
    ranking,
    resamples,
    root_mean_square,
    share_interval,
)
from ml.params import Params
from ml.targets import Target

Array = NDArray[np.float64]

MODEL, RECENCY, OBSERVED = "model", "recency", "observed"
LOGISTIC, BG_NBD, RULES, TRIAL_RULE = "logistic", "bg_nbd", "rules", "trial_rule"
WAYS = (MODEL, RECENCY, RULES, TRIAL_RULE, LOGISTIC, BG_NBD)
"""Ways to tell who comes first: the model, and what stands beside it where it is known."""
RANK_ALONE = (RULES, TRIAL_RULE)
"""Ways that put accounts in order and tell no probability."""
TITLES = {
    MODEL: "model",
    RECENCY: "recency alone",
    RULES: "warning rules",
    TRIAL_RULE: "the trial rule",
    LOGISTIC: "logistic regression",
    BG_NBD: "BG/NBD, expected orders",
}
GAMMA_GAMMA = "gamma_gamma"
VALUED = {MODEL: TITLES[MODEL], GAMMA_GAMMA: "BG/NBD × Gamma-Gamma"}
"""Ways to tell an expected value, and how they are called."""
TOLD_AS = {way: f"{way}_probability" for way in (RECENCY, BG_NBD)}
"""Under which name the probability of a way stands, where that is not the score it ranks by. RANK_ALONE have none."""
ON_DATE = "on the date"
"""The population of all held-out rows of one date: its figures are kept as of that date."""
SHARES = (0.05, 0.10, 0.20)


@dataclass(frozen=True)
class Figure:
    """One figure of one population: its value, and the ends of its 95 % interval where one was drawn."""

    population: str
    estimator: str
    metric: str
    value: float
    low: float | None
    high: float | None
    rows: int


def populations(frame: pd.DataFrame, active_days: int) -> dict[str, pd.DataFrame]:
    """Return the populations every figure is told for: all, and of those who had bought the recent buyers."""
    if recency_of(frame) != "days_since_last_order":
        return {"all": frame}
    return {"all": frame, f"active_{active_days}": frame[frame["days_since_last_order"] < active_days]}


def who(population: str) -> str:
    """Return a population in words: `All`, or `Bought in the last 90 days` of `active_90`, held out or not."""
    _, is_active, days = population.rpartition("active_")
    return f"Bought in the last {days} days" if is_active else "All"


def judge(
    target: Target, frame: pd.DataFrame, scores: Mapping[str, Array], active_days: int, params: Params
) -> Iterator[Figure]:
    """Yield every figure of scores (row by row of a labelled frame) on its populations that have both outcomes.

    `scores` holds MODEL and any other of WAYS, higher where likelier. MODEL and LOGISTIC are probabilities; those of other
    ways stand under TOLD_AS, where they are known.
    """
    frame = frame.reset_index(drop=True)
    for population, part in populations(frame, active_days).items():
        if part[LABEL].nunique() < 2:
            continue
        of_part = {name: values[part.index] for name, values in scores.items()}
        yield from _of_population(population, f"{target.model}_rate", part, of_part, params)


def _of_population(
    population: str, rate_name: str, part: pd.DataFrame, scores: Mapping[str, Array], params: Params
) -> Iterator[Figure]:
    happened, settings = part[LABEL].to_numpy(np.float64), params.evaluation
    every, drawn = once(len(part)), drawn_by_account(part, params)
    yield figure(population, OBSERVED, rate_name, mean, happened, happened, every, drawn)
    told = scores[MODEL]
    yield figure(population, MODEL, "mean_probability", mean, told, told, every, drawn)
    ranked, probable = _ranked_and_probable(scores)
    by_share = [("lift", settings.lift_share), *((f"lift_{percent(share)}", share) for share in SHARES)]
    yield from _compared(
        population, ["auc", "pr_auc", *(name for name, _ in by_share)],
        ranking(*(share for _, share in by_share)), ranked, happened, every, drawn,
    )  # fmt: skip
    bins = settings.reliability_bins
    for name, metric in (("brier", brier), ("log_loss", log_loss), ("ece", ece(bins))):
        yield from _compared(population, [name], metric, probable, happened, every, drawn)
    yield from reliability(population, told, happened, drawn, bins)


def judge_date(
    target: Target, rows: pd.DataFrame, scores: Mapping[str, Array], params: Params
) -> Iterator[Figure]:
    """Yield the figures of all labelled rows of one date, ON_DATE: how often it came true, what was told, AUC and Brier.

    `scores` are those of `judge`, whose interval and differences they have, too: few figures, since each training makes
    them of every held-out date. None where one outcome alone came.
    """
    happened = rows[LABEL].to_numpy(np.float64)
    if not 0 < happened.sum() < len(happened):
        return
    every, drawn = once(len(rows)), drawn_by_account(rows, params)
    told = scores[MODEL]
    yield figure(ON_DATE, OBSERVED, f"{target.model}_rate", mean, happened, happened, every, drawn)
    yield figure(ON_DATE, MODEL, "mean_probability", mean, told, told, every, drawn)
    ranked, probable = _ranked_and_probable(scores)
    yield from _compared(ON_DATE, ["auc"], auc, ranked, happened, every, drawn)
    yield from _compared(ON_DATE, ["brier"], brier, probable, happened, every, drawn)


def _ranked_and_probable(scores: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return what each way ranks by, and the probabilities of those that tell one."""
    ranked = {way: scores[way] for way in WAYS if way in scores}
    names = {way: TOLD_AS.get(way, way) for way in WAYS if way not in RANK_ALONE}
    return ranked, {way: scores[name] for way, name in names.items() if name in scores}


def judge_values(population: str, came: Array, told: Mapping[str, Array], drawn: Weights) -> Iterator[Figure]:
    """Yield how good expected values are: what came on average, and of each way what it told, how far that lies from what
    came (`value_missed`, below 0: too little), its error (root mean square), and the model's error less the others'.

    `told` holds MODEL and any other of VALUED, in reporting currency as `came` is; `drawn` are weights of the rows, a row
    per resample.
    """
    every = once(len(came))
    yield figure(population, OBSERVED, "value", mean, came, came, every, drawn)
    for way, values in told.items():
        yield figure(population, way, "value", mean, values, came, every, drawn)
        yield figure(population, way, "value_missed", mean, values - came, came, every, drawn)
    yield from _compared(population, ["value_error"], root_mean_square, told, came, every, drawn)


def _compared(
    population: str,
    names: list[str],
    metric: Metric,
    scores: Mapping[str, Array],
    happened: Array,
    every: Array,
    drawn: Weights,
) -> Iterator[Figure]:
    """Yield the figures of each way that one metric makes, and the model's less those of the others.

    A gain (the share of all positives that is found) is the lift times the share that is looked at, and stands beside it.
    """
    rows = len(happened)
    values = {way: metric(score, happened, every).reshape(len(names)) for way, score in scores.items()}
    draws = {way: metric(score, happened, drawn).reshape(-1, len(names)) for way, score in scores.items()}
    for way in scores:
        for at, name in enumerate(names):
            value, (low, high) = float(values[way][at]), interval(draws[way][:, at])
            yield Figure(population, way, name, value, low, high, rows)
            if name.startswith("lift_"):
                share = int(name.removeprefix("lift_")) / 100
                gain = name.replace("lift", "gain")
                yield Figure(population, way, gain, share * value, share * low, share * high, rows)
            if way != MODEL:
                difference = float(values[MODEL][at]) - value
                ends = interval(draws[MODEL][:, at] - draws[way][:, at])
                yield Figure(population, f"{MODEL}-{way}", name, difference, *ends, rows)


def reliability(
    population: str, probability: Array, happened: Array, drawn: Weights, bins: int
) -> Iterator[Figure]:
    """Yield mean probability and observed rate, with its interval, of equally many rows, from the lowest up."""
    order = np.argsort(probability, kind="stable")
    for number, part in enumerate(np.array_split(order, bins), start=1):
        if not len(part):
            continue
        weight = drawn[:, part]
        with np.errstate(invalid="ignore"):
            rates = weight @ happened[part] / weight.sum(axis=1)
        name = f"reliability_{number:02d}"
        told, came = float(probability[part].mean()), float(happened[part].mean())
        yield Figure(population, MODEL, f"{name}_predicted", told, None, None, len(part))
        yield Figure(
            population, MODEL, f"{name}_observed", came, *share_interval(rates, happened[part]), len(part)
        )


def figure(
    population: str,
    estimator: str,
    name: str,
    metric: Metric,
    scores: Array,
    happened: Array,
    every: Array,
    drawn: Weights,
) -> Figure:
    """Return one figure of scores, with the interval of the resamples `drawn`; `every` counts each row once."""
    value = float(metric(scores, happened, every)[0])
    return Figure(
        population, estimator, name, value, *interval(metric(scores, happened, drawn)), len(happened)
    )


def drawn_by_account(rows: pd.DataFrame, params: Params) -> Weights:
    """Return weights of the rows in resamples of their accounts: all dates of an account together."""
    accounts, names = pd.factorize(rows["account_id"])
    return resamples(len(names), params.evaluation.bootstrap, params.seed)[:, accounts]


def percent(share: float) -> str:
    """Return a share as it stands in the names of metrics: `05`, `20`."""
    return f"{round(100 * share):02d}"
