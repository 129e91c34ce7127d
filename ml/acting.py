"""What it would have been worth to contact those that stood highest, under an assumed rate of success.

The value of contacting a share of the accounts, those with the highest scores, is

    sum over them of (value at stake x offer_success_rate, where the account churned) - contact_cost

in the reporting currency. Value at stake is the net revenue of the 365 days up to the cutoff, as much as fits into the
horizon; below 0 it counts as 0. Of an account that pays by a contract it is a year of that, which is what a renewal is
about; where its value or its end is not known, the net revenue of the 365 days. `offer_success_rate` and `contact_cost` are
policy (our defaults): nobody was contacted because of these scores, so the rate is assumed, and a figure says what a
ranking is worth if the rate is true. An experiment with a hold-out group (`published.experiment_readouts`) is what measures
the rate.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray

from ml import judge
from ml.frames import LABEL
from ml.judge import MODEL, SHARES, WAYS, Figure, drawn_by_account, percent, populations
from ml.metrics import Weights, interval, once, top_sums
from ml.params import Params

Array = NDArray[np.float64]

RANDOM, BY_VALUE, POLICY = "random", "model_by_value", "policy"
"""Accounts drawn blindly (the mean over all draws); the model's probability times the value at stake; what is assumed."""
TITLES = {
    MODEL: "model, by probability",
    BY_VALUE: "model, by value",
    **{way: title for way, title in judge.TITLES.items() if way != MODEL},
    RANDOM: "at random",
}
DAYS_OF_SPEND = 365


@dataclass(frozen=True)
class Costs:
    """The policy: which share of those that would churn a contact keeps, and what a contact costs (reporting currency)."""

    success_rate: float
    contact_cost: float


def costs_on(connection: psycopg.Connection, day: date) -> Costs | None:
    """Return the policy in force on a day; None where there is none (marts built by an older version)."""
    rows = connection.execute(
        "select distinct on (name) name, value::float8 from marts.thresholds where effective_from <= %s "
        "and name in ('offer_success_rate', 'contact_cost') order by name, effective_from desc",
        [day],
    ).fetchall()
    values: dict[str, float] = dict(rows)
    return Costs(values["offer_success_rate"], values["contact_cost"]) if len(values) == 2 else None


def at_stake(frame: pd.DataFrame, horizon_days: int) -> Array:
    """Return the value at stake of each row: net_revenue_365d in proportion to the horizon, at least 0.

    Of a frame with yearly_contract_value it is that, whole, and net_revenue_365d, whole too, where it is not known.
    """
    spend = frame["net_revenue_365d"].fillna(0).clip(lower=0)
    if "yearly_contract_value" in frame:
        return frame["yearly_contract_value"].fillna(spend).to_numpy(np.float64)
    return spend.to_numpy(np.float64) * horizon_days / DAYS_OF_SPEND


def worth(
    frame: pd.DataFrame,
    scores: Mapping[str, Array],
    stake: Array,
    costs: Costs,
    active_days: int,
    params: Params,
) -> Iterator[Figure]:
    """Yield `acting_05`, `acting_10` and `acting_20` on the populations of a labelled frame that have both outcomes.

    `scores` holds MODEL (a probability of the loss) and any other of WAYS, row by row of the frame as `stake` is. Where the
    frame has several dates, an account is contacted on each of them on which it stands high enough.
    """
    frame = frame.reset_index(drop=True)
    for population, part in populations(frame, active_days).items():
        if part[LABEL].nunique() < 2:
            continue
        ranked = {way: scores[way][part.index] for way in WAYS if way in scores}
        happened = part[LABEL].to_numpy(np.float64)
        drawn = drawn_by_account(part, params)
        yield from acted_on(population, happened, stake[part.index], ranked, costs, drawn)


def acted_on(
    population: str,
    happened: Array,
    stake: Array,
    scores: Mapping[str, Array],
    costs: Costs,
    drawn: Weights,
) -> Iterator[Figure]:
    """Yield the value of contacting each of SHARES, by each way to rank.

    `scores` holds MODEL (a probability) and other ways to rank, row by row of `happened` (1: churned) and `stake`. Beside
    them stand BY_VALUE and RANDOM, and the model's two ways less the others, on the same resamples of accounts (`drawn`:
    weights of the rows, one row per resample); and the policy, of which each figure is made.
    """
    rows = len(happened)
    gains = happened * stake * costs.success_rate - costs.contact_cost
    # Of equal scores each account counts in proportion, so one score for all is to draw blindly.
    ranked = {**scores, BY_VALUE: scores[MODEL] * stake, RANDOM: np.zeros(rows)}
    for name, number in (("offer_success_rate", costs.success_rate), ("contact_cost", costs.contact_cost)):
        yield Figure(population, POLICY, name, number, None, None, rows)
    metric = top_sums(*SHARES)
    values = {way: metric(score, gains, once(rows))[0] for way, score in ranked.items()}
    draws = {way: metric(score, gains, drawn) for way, score in ranked.items()}
    for at, share in enumerate(SHARES):
        name = f"acting_{percent(share)}"
        for way in ranked:
            yield Figure(population, way, name, float(values[way][at]), *interval(draws[way][:, at]), rows)
        for own in (MODEL, BY_VALUE):
            for other in (way for way in ranked if way not in (own, BY_VALUE)):
                difference = float(values[own][at] - values[other][at])
                ends = interval(draws[own][:, at] - draws[other][:, at])
                yield Figure(population, f"{own}-{other}", name, difference, *ends, rows)
