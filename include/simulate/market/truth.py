"""What no system knows: how likely each account is to stop ordering, to let its contract lapse, to buy in a new category.

Written apart and never loaded, so that models can be judged against the best that anyone could know. The
probabilities know an account's hidden engagement and whether it has turned away; they do not know what will
happen by chance.
"""

from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from include.simulate.market.crm import CONTRACT_DAYS, CONTRACT_WEEKS, DECIDES_WEEKS
from include.simulate.market.population import (
    BURSTS,
    EXPERIMENT_ORDERS,
    EXPERIMENT_WEEK,
    KEEPS,
    ORDERS_BY,
    SINKS,
    SINKS_WEEKS,
    TRIAL_WEEKS,
    TURNS_AWAY,
    TURNS_AWAY_BY,
    Floats,
    Population,
    season,
    sunk,
)
from include.simulate.market.scales import FIRST_DAY, WEEKS

HORIZON_DAYS = 90
LAPSE_DAYS, GRACE_DAYS = 120, 30
"""Of lapses of contracts: the window, and what of it is the grace after a contract's end, as the policy has them."""
WORKDAYS = 5


def week_of(day: date) -> int:
    """Return the week of the calendar a day falls in, from 0."""
    return (day - FIRST_DAY).days // 7


def workdays(as_of: date) -> list[tuple[int, float]]:
    """Return (weeks after the week of `as_of`, share of its working days) of the HORIZON_DAYS days after it."""
    shares: dict[int, float] = {}
    for ahead in range(1, HORIZON_DAYS + 1):
        day = as_of + timedelta(days=ahead)
        if day.weekday() < WORKDAYS:
            week = week_of(day) - week_of(as_of)
            shares[week] = shares.get(week, 0.0) + 1 / WORKDAYS
    return sorted(shares.items())


def no_order_probability(accounts: Population, as_of: date) -> Floats:
    """Return for each account the probability that it places no order in the HORIZON_DAYS days after `as_of`.

    Of an account that is not there yet, or whose trial did not convert, it is 1.
    """
    now, ahead = week_of(as_of), workdays(as_of)
    steps = np.asarray([step for step, _ in ahead])
    rates, onset = _expected_path(accounts, now, steps)
    rates = rates * np.asarray([share for _, share in ahead], dtype=np.float32)
    stays = np.ones(len(rates), dtype=np.float32)
    found = np.zeros(len(rates), dtype=np.float32)
    for place, step in enumerate(steps):
        found += stays * onset[:, place] * _none(rates * _fading(now + step, now + steps))
        stays *= 1 - onset[:, place]
    found += stays * _none(rates)
    turned = accounts.turns <= now
    fading = np.stack([_fading(int(turn), now + steps) for turn in accounts.turns])
    return np.where(turned, _none(rates * fading), found).astype(np.float32)


def _none(rates: Floats) -> Floats:
    """Return the probability of no order in weeks of these expected numbers (accounts × weeks), which come in bursts."""
    return np.exp(-(BURSTS * np.log1p(rates / BURSTS)).sum(axis=1)).astype(np.float32)


def _fading(turn: int, weeks: NDArray[np.int64]) -> Floats:
    """Return the factor of an account's orders in each of `weeks` that turning away in the week `turn` leaves."""
    lost = SINKS * np.clip(weeks - turn + 1, 0, SINKS_WEEKS)
    return np.exp(-ORDERS_BY * lost).astype(np.float32)


def _expected_path(accounts: Population, now: int, steps: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the expected weekly orders and onset, `steps` weeks ahead, of accounts that never turn away.

    Beyond the calendar the seasons of its second year are repeated.
    """
    deviation = accounts.engagement[:, now] - accounts.mean + sunk(accounts.turns, now)
    yearly = season()
    base = _base_rate(accounts)
    rates, onsets = [], []
    for step in steps:
        left = KEEPS**step
        expected = accounts.mean + deviation * left
        week = now + step
        factor = yearly[week if week < WEEKS else week - 52]
        has_begun = week >= _buys_from(accounts)
        lift = 1 + EXPERIMENT_ORDERS * (accounts.is_treated & (week >= EXPERIMENT_WEEK))
        rates.append(base * factor * lift * has_begun * np.exp(ORDERS_BY * expected))
        onsets.append(1 / (1 + np.exp(-(TURNS_AWAY + TURNS_AWAY_BY * expected))))
    return np.stack(rates, axis=1).astype(np.float32), np.stack(onsets, axis=1).astype(np.float32)


def upsell_probability(accounts: Population, as_of: date, no_order: Floats) -> NDArray[np.float32]:
    """Return, by account and category, the probability of a first purchase in it in the HORIZON_DAYS days after.

    0 where the account buys in the category already. A purchase needs an order too, whose probability is taken to
    be independent of the wish.
    """
    weeks = HORIZON_DAYS / 7
    wishes = 1 - (1 - accounts.adoption) ** weeks
    new = accounts.adopts > week_of(as_of)
    return (wishes * new * (1 - no_order)[:, None]).astype(np.float32)


def lapse_probability(accounts: Population, contract_weeks: NDArray[np.int64], as_of: date) -> Floats:
    """Return for each account the probability that its contract lapses in the LAPSE_DAYS days after `as_of`.

    `contract_weeks` are those in which contracts began, by account and year (crm.contract_weeks). NaN where none ends so
    that its GRACE_DAYS are over in the window. An account lets it lapse where it has turned away DECIDES_WEEKS before the
    end; of one that has not yet, the chance that it will is known. That a signature comes after the grace is left out: it
    takes 39 days, of a median of 3.
    """
    now, day = week_of(as_of), (as_of - FIRST_DAY).days
    over = contract_weeks * 7 + CONTRACT_DAYS + GRACE_DAYS  # the first day after the grace
    account, year = np.nonzero((over > day) & (over <= day + LAPSE_DAYS))
    decides = np.full(len(contract_weeks), -1)
    decides[account] = contract_weeks[account, year] + CONTRACT_WEEKS - DECIDES_WEEKS
    ahead = np.arange(1, LAPSE_DAYS // 7 + 1)
    _, onset = _expected_path(accounts, now, ahead)
    stays = np.where(now + ahead <= decides[:, None], 1 - onset, 1.0).prod(axis=1)
    found = np.where(accounts.turns <= now, accounts.turns <= decides, 1 - stays)
    return np.where(decides < 0, np.nan, found).astype(np.float32)


def _buys_from(accounts: Population) -> NDArray[np.int64]:
    """Return the first week with orders of each account; WEEKS + 52 where its trial did not convert."""
    starts = np.where(accounts.has_trial, accounts.begins + TRIAL_WEEKS, accounts.begins)
    return np.where(accounts.converts, starts, WEEKS + 52)


def _base_rate(accounts: Population) -> Floats:
    """Return an account's weekly orders at engagement 0 in a usual week, from any week in which it buys."""
    yearly = season()
    last = accounts.order_rate[:, WEEKS - 1]
    usual = np.exp(ORDERS_BY * accounts.engagement[:, WEEKS - 1]) * yearly[WEEKS - 1]
    return (last / usual / (1 + EXPERIMENT_ORDERS * accounts.is_treated)).astype(np.float32)
