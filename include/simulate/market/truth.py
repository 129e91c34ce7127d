"""What no system knows: how likely each account is to stop ordering, to let its contract lapse, to buy in a new category.

Written apart and never loaded, so that models can be judged against the best that anyone could know. The
probabilities know an account's hidden engagement and whether it has turned away; they do not know what will
happen by chance.
"""

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from include.simulate.market.crm import CONTRACT_DAYS, CONTRACT_WEEKS, DECIDES_WEEKS
from include.simulate.market.orders import LIKED_BY, LINES
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
    found = np.zeros(len(accounts.mean), dtype=np.float32)
    for share, rates in _paths(accounts, as_of):
        found += share * np.exp(_log_none(rates).sum(axis=1))
    return found


def _paths(accounts: Population, as_of: date) -> Iterator[tuple[Floats, Floats]]:
    """Yield every way the window after `as_of` may go: its probability by account, and the orders expected in each week.

    An account turns away in one of the weeks or in none; one that has done so already goes the last way alone.
    """
    now, ahead = week_of(as_of), workdays(as_of)
    steps = np.asarray([step for step, _ in ahead])
    rates, onset = _expected_path(accounts, now, steps)
    rates = rates * np.asarray([share for _, share in ahead], dtype=np.float32)
    has_turned = accounts.turns <= now
    stays = np.where(has_turned, 0, 1).astype(np.float32)
    for place, step in enumerate(steps):
        yield stays * onset[:, place], rates * _fading(now + step, now + steps)
        stays = stays * (1 - onset[:, place])
    fading = np.stack([_fading(int(turn), now + steps) for turn in accounts.turns])
    yield (
        np.where(has_turned, 1, stays).astype(np.float32),
        np.where(has_turned[:, None], rates * fading, rates),
    )


def _log_none(rates: Floats) -> Floats:
    """Return the log-probability that a week of so many expected orders has none: they come in bursts."""
    return -BURSTS * np.log1p(rates / BURSTS)


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


def new_category_probability(
    accounts: Population, has_bought: NDArray[np.bool_], as_of: date
) -> tuple[Floats, Floats]:
    """Return the probability of a first purchase in the HORIZON_DAYS days after: by account and category, and in any.

    `has_bought` tells the categories (accounts × categories) that an account has bought in by the end of `as_of`, where it
    is 0. A line of an order falls on each category that the account has taken to by its weight; to one that it has not
    taken to yet it may take in any week, and buy from then on. What the weights of the others grow to, and what turning
    away in the window leaves of the orders, enter by their means.
    """
    now = week_of(as_of)
    steps = np.asarray([step for step, _ in workdays(as_of)])
    ways = [share[:, None] * rates for share, rates in _paths(accounts, as_of)]
    rates = np.sum(ways, axis=0)[:, None, :]
    takes = accounts.adoption[:, :, None]
    has_taken = (accounts.adopts <= now)[:, :, None]
    taken_by = np.where(has_taken, 1, 1 - (1 - takes) ** steps)  # accounts × categories × weeks, as all below
    weight = takes**LIKED_BY
    total = np.maximum((weight * taken_by).sum(axis=1, keepdims=True), np.float32(1e-9))  # 0 before it buys
    waits = np.where(has_taken & ~has_bought[:, :, None], weight, 0).sum(axis=1, keepdims=True) / total
    own = weight / (total + weight * (1 - taken_by))  # the category's share of lines, once it is taken to
    of_own, of_waiting = _log_none(rates * _in_an_order(own)), _log_none(rates * _in_an_order(waits))
    beside = _log_none(rates * _in_an_order(np.minimum(waits + own, 1))) - of_waiting
    bought = np.where(has_taken[:, :, 0], 1 - np.exp(of_own.sum(axis=2)), _once_taken(of_own, taken_by))
    none_yet = np.where(has_taken[:, :, 0], 1, 1 - _once_taken(beside, taken_by)).prod(axis=1)
    in_any = 1 - np.exp(of_waiting.sum(axis=(1, 2))) * none_yet
    return np.where(has_bought, 0, bought).astype(np.float32), in_any.astype(np.float32)


def _in_an_order(share: Floats) -> Floats:
    """Return the probability that an order has a line among those that fall on a share of what the account buys."""
    found = [of_orders * (1 - (1 - share) ** lines) for lines, of_orders in enumerate(LINES, start=1)]
    return np.asarray(np.sum(found, axis=0), dtype=np.float32)


def _once_taken(log_none: Floats, taken_by: Floats) -> Floats:
    """Return the probability of a purchase in what is taken to in some week; `log_none` is that of none in each week."""
    from_then = np.cumsum(log_none[:, :, ::-1], axis=2)[:, :, ::-1]
    taken_in = np.diff(taken_by, axis=2, prepend=0)
    return (taken_in * (1 - np.exp(from_then))).sum(axis=2)


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
