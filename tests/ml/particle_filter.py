"""The most that orders and sessions can tell of a simulated company: a particle filter that knows how it is made.

It knows every constant of the simulation and each account's size, begin and variant, and sees what the systems saw: orders
and sessions by week up to the week before the cutoff. What it does not see is the engagement and whether the account has
turned away, which the truth knows. So its AUC is what no model of the same records can be above, but for chance and for what
tickets and answers add.
"""

import warnings
from collections.abc import Callable
from datetime import date
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from include.simulate.market import population as rules
from include.simulate.market.crm import DECIDES_WEEKS, NEVER, contract_weeks
from include.simulate.market.orders import labels, order_lines
from include.simulate.market.scales import WEEKS, Scale, stream
from include.simulate.market.truth import (
    lapse_probability,
    no_order_probability,
    week_of,
)

Floats = NDArray[np.float32]
Told = Callable[[SimpleNamespace, NDArray[np.int64]], Floats]
"""What is told of imagined accounts, which stand for the real ones of these numbers."""
Drawn = tuple[Floats, Floats, Floats, NDArray[np.int64]]
"""What accounts may be like, as their records up to the cutoff leave it open (accounts × DRAWN): the mean of their
engagement, how often they order (a logarithm), their deviation from the mean, the week in which they turned away."""
BLOCK, AT_A_TIME, DRAWN = 1, 100, 200
JITTER = 0.05
"""What a resampling moves the constants of a particle by, in standard deviations (Liu and West 2001)."""


def drawn_from_records(
    scale: Scale, seed: int, cutoff: date, particles: int, who: NDArray[np.int64] | None = None
) -> Drawn:
    """Return what each account, or those of `who`, may be like by `cutoff`."""
    accounts = rules.populate(scale, seed, BLOCK, 0, scale.accounts)
    _, placed = order_lines(accounts, labels("C", accounts.number, 7), seed, BLOCK, 1)
    orders = np.zeros((scale.accounts, WEEKS), np.float32)
    np.add.at(orders, (placed.account, placed.day // 7), 1)
    # The first draw of behavior.events: the sessions without an order.
    sessions = stream(seed, BLOCK, 20).poisson(accounts.session_rate).astype(np.float32)
    random = np.random.default_rng(seed)
    who = np.arange(scale.accounts) if who is None else who
    parts = [
        _of_some(accounts, who[at : at + AT_A_TIME], orders, sessions, scale, cutoff, particles, random)
        for at in range(0, len(who), AT_A_TIME)
    ]
    mean, often, away, turns = (np.concatenate(part) for part in zip(*parts, strict=True))
    return mean, often, away, turns


def no_order_from_records(scale: Scale, seed: int, cutoff: date, drawn: Drawn) -> Floats:
    """Return each account's probability of no order in the 90 days after `cutoff`, from what it may be like."""
    accounts = rules.populate(scale, seed, BLOCK, 0, scale.accounts)

    def told(imagined: SimpleNamespace, whose: NDArray[np.int64]) -> Floats:
        return no_order_probability(imagined, cutoff)

    return _mean_of(accounts, np.arange(scale.accounts), scale, cutoff, drawn, told)


def lapse_from_records(scale: Scale, seed: int, cutoff: date, particles: int) -> Floats:
    """Return each account's probability that its contract lapses in the window after `cutoff`; NaN where none is due.

    Who has renewed before had not turned away by then: the draws that had are left out. Whether the next contract was sent
    is on record, too, and not known to the filter: it is for renewals that are still to come.
    """
    accounts = rules.populate(scale, seed, BLOCK, 0, scale.accounts)
    weeks = contract_weeks(accounts, seed, BLOCK)
    renewed = np.where(
        (weeks[:, 1:] < NEVER) & (weeks[:, 1:] <= week_of(cutoff)), weeks[:, 1:] - DECIDES_WEEKS, -1
    )
    stayed_until = renewed.max(axis=1)

    def told(imagined: SimpleNamespace, whose: NDArray[np.int64]) -> Floats:
        found = lapse_probability(imagined, weeks[whose], cutoff)
        return np.where(imagined.turns > stayed_until[whose], found, np.nan)

    due = np.flatnonzero(~np.isnan(lapse_probability(accounts, weeks, cutoff)))
    found = np.full(scale.accounts, np.nan, np.float32)
    drawn = drawn_from_records(scale, seed, cutoff, particles, due)
    found[due] = _mean_of(accounts, due, scale, cutoff, drawn, told)
    return found


def _mean_of(
    accounts: rules.Population,
    who: NDArray[np.int64],
    scale: Scale,
    cutoff: date,
    drawn: Drawn,
    told: Told,
) -> Floats:
    """Return the mean of what is told of all that each account may be like; NaN where nothing is of any."""
    found, draws = [], drawn[0].shape[1]
    for at in range(0, len(who), AT_A_TIME):
        some = who[at : at + AT_A_TIME]
        whose = np.repeat(some, draws)
        states = (one[at : at + AT_A_TIME].ravel() for one in drawn)
        values = told(_imagined(accounts, whose, scale, cutoff, *states), whose).reshape(len(some), draws)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of who has no draw left: NaN, as it should be
            found.append(np.nanmean(values, axis=1))
    return np.concatenate(found)


def _imagined(
    accounts: rules.Population,
    whose: NDArray[np.int64],
    scale: Scale,
    cutoff: date,
    mean: Floats,
    often: Floats,
    away: Floats,
    turns: NDArray[np.int64],
) -> SimpleNamespace:
    """Return accounts that are like this on `cutoff`, as the truth reads them; each stands for the one of `whose`."""
    now, per_order = week_of(cutoff), scale.orders / scale.accounts / rules._expected()[0]
    engagement, rates = (np.zeros((len(whose), WEEKS), np.float32) for _ in range(2))
    engagement[:, now] = mean + away - rules.sunk(turns, now)
    lifted = 1 + rules.EXPERIMENT_ORDERS * accounts.is_treated[whose]
    rates[:, -1] = (
        per_order * np.exp(often + rules.ORDERS_BY * engagement[:, -1]) * rules.season()[-1] * lifted
    )
    return SimpleNamespace(
        engagement=engagement, mean=mean, turns=turns, order_rate=rates, is_treated=accounts.is_treated[whose],
        has_trial=accounts.has_trial[whose], begins=accounts.begins[whose], converts=accounts.converts[whose],
    )  # fmt: skip


def _of_some(
    accounts: rules.Population,
    who: NDArray[np.int64],
    orders: Floats,
    sessions: Floats,
    scale: Scale,
    cutoff: date,
    particles: int,
    random: np.random.Generator,
) -> Drawn:
    shape, now = (len(who), particles), week_of(cutoff)
    usual_orders, usual_sessions = rules._expected()
    browsing = max(scale.events - rules.EVENTS_OF_AN_ORDER * scale.orders, 0) / rules.EVENTS_OF_A_SESSION
    per_order, per_session = (
        total / scale.accounts / usual
        for total, usual in ((scale.orders, usual_orders), (browsing, usual_sessions))
    )
    season, begins = rules.season(), accounts.begins[who][:, None]
    buys_from = begins + rules.TRIAL_WEEKS * accounts.has_trial[who][:, None]
    mean = rules.MEAN_SPREAD * random.standard_normal(shape)
    often = rules.RATE_SPREAD * random.standard_normal(shape) + 0.25 * np.log(accounts.size[who])[:, None]
    away, turns, weight = np.zeros(shape), np.full(shape, WEEKS), np.zeros(shape)
    never = random.random(shape) < rules.NEVER_LOGS_IN
    for week in range(now):
        away = rules.KEEPS * away + rules.WANDERS * random.standard_normal(shape)
        onset = 1 / (1 + np.exp(-(rules.TURNS_AWAY + rules.TURNS_AWAY_BY * (mean + away))))
        turns[(turns == WEEKS) & (week >= begins) & (random.random(shape) < onset)] = week
        engaged = mean + away - rules.sunk(turns, week)
        lift = 1 + rules.EXPERIMENT_ORDERS * (accounts.is_treated[who] & (week >= rules.EXPERIMENT_WEEK))
        rate = per_order * np.exp(often + rules.ORDERS_BY * engaged) * season[week] * lift[:, None]
        seen = orders[who, week][:, None]  # a gamma factor of a Poisson rate: negative binomial
        of_orders = seen * np.log(rate / (rate + rules.BURSTS)) - rules.BURSTS * np.log1p(rate / rules.BURSTS)
        alone = rules.UNSEEN * random.standard_normal(shape)
        logs_in = per_session * np.exp(0.5 * often + rules.LOGS_IN_BY * engaged + alone)
        logins = sessions[who, week][:, None]
        of_sessions = np.where(never, np.where(logins > 0, -50.0, 0.0), logins * np.log(logs_in) - logs_in)
        weight += np.where(week >= buys_from, of_orders, 0) + np.where(week >= begins, of_sessions, 0)
        share = np.exp(weight - weight.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        for row in np.flatnonzero((1 / (share**2).sum(axis=1) < particles / 2) | (week == now - 1)):
            steps = (random.random() + np.arange(particles)) / particles
            kept = np.searchsorted(np.cumsum(share[row]), steps).clip(0, particles - 1)
            for constant in (mean, often):
                values = constant[row][kept]
                pull = np.sqrt(1 - JITTER**2)
                constant[row] = pull * values + (1 - pull) * values.mean()
                constant[row] += JITTER * values.std() * random.standard_normal(particles)
            for state in (away, turns, never):
                state[row] = state[row][kept]
            weight[row] = 0
    drawn = random.integers(0, particles, (len(who), DRAWN))
    mean, often, away, turns = (
        np.take_along_axis(values, drawn, axis=1) for values in (mean, often, away, turns)
    )
    return mean, often, away, turns
