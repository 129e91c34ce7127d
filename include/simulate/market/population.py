"""Who the accounts are, and the engagement that nobody sees and that decides what they do.

Engagement is a number around 0, week by week: it wanders back to the account's own mean (an AR(1) process), and
once an account turns away it sinks for good. Orders, logins, tickets, answers and the turning away all follow it.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from include.simulate.market.scales import FIRST_DAY, WEEKS, Scale, stream

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

INDUSTRIES = ("Manufacturing", "Retail", "Medical", "Finance", "Electronics", "Construction")
GROWTH = (0.06, 0.03, 0.18, 0.09, 0.16, 0.02)
"""Yearly growth of each industry."""
COUNTRIES = ("China", "Vietnam", "Thailand", "Malaysia", "Singapore")
COUNTRY_SHARES = (0.72, 0.08, 0.08, 0.07, 0.05)
CHANNELS = ("organic_search", "paid_search", "referral", "trade_fair", "e_mail", "partner")
CHANNEL_SHARES = (0.24, 0.20, 0.14, 0.18, 0.12, 0.12)
CATEGORIES = 12
# Share of a week's usual orders, January first: the spring festival, mid-year and year-end.
SEASON = (0.78, 0.62, 0.95, 0.98, 1.00, 1.08, 0.95, 0.94, 1.04, 1.02, 1.12, 1.10)

SIZE_SPREAD = 1.3
"""Standard deviation of the logarithm of an account's size: the top fifth spends most (C4's reference: 80 %)."""
RATE_SPREAD = 1.0
"""Standard deviation of the logarithm of how often accounts order, size apart."""
KEEPS = 0.90
"""What is left of a deviation from the mean engagement after a week."""
WANDERS = 0.20
"""Standard deviation of a week's step of engagement."""
MEAN_SPREAD = 0.45
"""Standard deviation of the accounts' own mean engagement."""
SINKS = 0.2
"""What engagement loses in each week after an account has turned away,"""
SINKS_WEEKS = 9
"""for so many weeks: then it orders a fraction of what it did, and seldom enough to look lost."""
TURNS_AWAY = -5.35
TURNS_AWAY_BY = -1.6
"""Log-odds of turning away in a week at engagement 0, and what each unit of engagement adds to them."""
BURSTS = 0.15
"""Shape of the gamma factor of each week's orders: the smaller, the more they come in bursts with silence between."""
ORDERS_BY, LOGS_IN_BY = 0.9, 1.1
"""What a unit of engagement adds to the logarithm of the rates of orders and of sessions."""
TRIAL_SHARE, CONVERTS_AT = 0.35, 0.0
"""Accounts that begin with a trial, and the log-odds at engagement 0 that a trial becomes a customer."""
TRIAL_WEEKS = 4
NEVER_LOGS_IN = 0.06
EXPERIMENT_WEEK = 60
"""From it on half of the accounts see another page to compare prices on:"""
EXPERIMENT_ORDERS, EXPERIMENT_STAYS = 0.06, 0.30
"""what it adds to their orders, and which share of those who left at the comparison it keeps."""
TAKES_TO, TAKES_TO_BY = -6.2, 0.9
"""Log-odds of beginning to buy in a category in a week at mean engagement 0, and what each unit of it adds."""
TASTE_SPREAD = 0.8
"""Standard deviation of what an account's own taste adds to them, category by category;"""
FITS = 1.8
"""what is added where the category fits the industry."""
UNSEEN = 0.25
"""Standard deviation of a week's logins, as a logarithm, that engagement does not explain."""


@dataclass(frozen=True)
class Population:
    """A block of accounts; arrays are by account, or by account and week (of categories: by account and category).

    `number` counts all accounts of the company from 0. `begins` is the first week with an account, `turns` the
    week it turns away (WEEKS: never within the calendar), `has_trial` that it begins with TRIAL_WEEKS of trial,
    `converts` that the trial became a customer (always, where there was none), `is_treated` that it is in the
    variant of the experiment. `order_rate` and `session_rate` are
    expected counts of a week, 0 outside an account's time; `onset` is the probability that an account that has
    not turned away does so in that week. `adopts` is the week from which an account buys in a category, WEEKS for
    never, and `adoption` the weekly probability that led to it.
    """

    number: Ints
    size: Floats
    industry: Ints
    country: Ints
    channel: Ints
    begins: Ints
    turns: Ints
    is_treated: NDArray[np.bool_]
    has_trial: NDArray[np.bool_]
    converts: NDArray[np.bool_]
    mean: Floats
    engagement: Floats
    onset: Floats
    order_rate: Floats
    session_rate: Floats
    adopts: Ints
    adoption: Floats


def season() -> Floats:
    """Return the factor of each week, by the month of its Thursday."""
    months = [(FIRST_DAY + timedelta(days=7 * week + 3)).month - 1 for week in range(WEEKS)]
    return np.asarray([SEASON[month] for month in months], dtype=np.float32)


def _populate(seed: int, block: int, first: int, count: int) -> Population:
    who, path = stream(seed, block, 1), stream(seed, block, 2)
    size = np.exp(SIZE_SPREAD * who.standard_normal(count, dtype=np.float32))
    industry = who.integers(0, len(INDUSTRIES), count)
    country = who.choice(len(COUNTRIES), count, p=COUNTRY_SHARES)
    channel = who.choice(len(CHANNELS), count, p=CHANNEL_SHARES)
    # Half were there before the calendar began; the others come evenly until 8 weeks before its end.
    begins = np.where(who.random(count) < 0.5, 0, (who.random(count) * (WEEKS - 8)).astype(np.int64))
    mean = MEAN_SPREAD * who.standard_normal(count, dtype=np.float32)
    has_trial = (begins > 0) & (who.random(count) < TRIAL_SHARE)
    is_treated = who.random(count) < 0.5
    converts = ~has_trial | (who.random(count) < _sigmoid(CONVERTS_AT + 1.5 * mean))
    engagement, onset, turns = _engagement(path, mean, begins)
    weeks = np.arange(WEEKS)
    starts = np.where(has_trial, begins + TRIAL_WEEKS, begins)
    buys = (weeks >= starts[:, None]) & converts[:, None]
    there = (weeks >= begins[:, None]) & (converts[:, None] | (weeks < begins[:, None] + TRIAL_WEEKS))
    often = np.exp(
        RATE_SPREAD * who.standard_normal(count, dtype=np.float32) + 0.25 * np.log(size), dtype=np.float32
    )
    lift = 1 + EXPERIMENT_ORDERS * (is_treated[:, None] & (weeks >= EXPERIMENT_WEEK))
    order_rate = often[:, None] * np.exp(ORDERS_BY * engagement) * season() * lift * buys
    alone = np.exp(UNSEEN * path.standard_normal((count, WEEKS), dtype=np.float32))
    logs_in = np.where(who.random(count) < NEVER_LOGS_IN, 0.0, np.sqrt(often)).astype(np.float32)
    session_rate = logs_in[:, None] * np.exp(LOGS_IN_BY * engagement) * alone * there
    adopts, adoption = _adoption(stream(seed, block, 3), industry, mean, starts)
    return Population(
        number=np.arange(first, first + count),
        size=size,
        industry=industry,
        country=country,
        channel=channel,
        begins=begins,
        turns=turns,
        is_treated=is_treated,
        has_trial=has_trial,
        converts=converts,
        mean=mean,
        engagement=engagement,
        onset=onset,
        order_rate=order_rate.astype(np.float32),
        session_rate=session_rate.astype(np.float32),
        adopts=adopts,
        adoption=adoption,
    )


def populate(scale: Scale, seed: int, block: int, first: int, count: int) -> Population:
    """Make `count` accounts, numbered from `first`; `block` names their random numbers."""
    raw = _populate(seed, block, first, count)
    orders, sessions = _expected()
    browsing = max(scale.events - EVENTS_OF_AN_ORDER * scale.orders, 0) / EVENTS_OF_A_SESSION
    return replace(
        raw,
        order_rate=raw.order_rate * np.float32(scale.orders / scale.accounts / orders),
        session_rate=raw.session_rate * np.float32(browsing / scale.accounts / sessions),
    )


EVENTS_OF_AN_ORDER, EVENTS_OF_A_SESSION = 3.0, 5.2
"""Events that an order leaves on average, and a session without one, by the rates in behavior.py; a test holds them."""
REFERENCE = 20_000
"""Accounts of which the average rates are taken, once: the same for every seed and scale."""


@lru_cache(maxsize=1)
def _expected() -> tuple[float, float]:
    """Return the orders and the sessions of an account in two years, on average, before they are scaled."""
    raw = _populate(0, 0, 0, REFERENCE)
    return float(raw.order_rate.sum() / REFERENCE), float(raw.session_rate.sum() / REFERENCE)


def _engagement(path: np.random.Generator, mean: Floats, begins: Ints) -> tuple[Floats, Floats, Ints]:
    """Return engagement and onset by account and week, and the week in which each account turns away."""
    count = len(mean)
    steps = WANDERS * path.standard_normal((count, WEEKS), dtype=np.float32)
    chances = path.random((count, WEEKS), dtype=np.float32)
    deviation = np.zeros(count, dtype=np.float32)
    turns = np.full(count, WEEKS)
    engagement = np.empty((count, WEEKS), dtype=np.float32)
    onset = np.empty((count, WEEKS), dtype=np.float32)
    for week in range(WEEKS):
        deviation = KEEPS * deviation + steps[:, week]
        onset[:, week] = _sigmoid(TURNS_AWAY + TURNS_AWAY_BY * (mean + deviation))
        turned = (turns == WEEKS) & (week >= begins) & (chances[:, week] < onset[:, week])
        turns[turned] = week
        engagement[:, week] = mean + deviation - sunk(turns, week)
    return engagement, onset, turns


def sunk(turns: Ints, week: int) -> Floats:
    """Return what accounts that turn away in the weeks `turns` have lost of their engagement by a week."""
    return (SINKS * np.clip(week - turns + 1, 0, SINKS_WEEKS)).astype(np.float32)


def _adoption(random: np.random.Generator, industry: Ints, mean: Floats, starts: Ints) -> tuple[Ints, Floats]:
    """Return the week from which each account buys in each category, and the weekly probability of beginning to."""
    taste = TASTE_SPREAD * random.standard_normal((len(mean), CATEGORIES), dtype=np.float32)
    adoption = _sigmoid(TAKES_TO + fits()[industry] + taste + TAKES_TO_BY * mean[:, None])
    waits = random.geometric(np.maximum(adoption, 1e-6))
    adopts = np.minimum(starts[:, None] + waits, WEEKS)
    # Everybody begins with the category it likes most.
    favourite = np.argmax(adoption + 1e-4 * random.random(adoption.shape), axis=1)
    adopts[np.arange(len(mean)), favourite] = np.minimum(starts, WEEKS)
    return adopts, adoption


def fits() -> Floats:
    """Return what is added to the log-odds of beginning to buy in a category (industries × categories)."""
    return np.asarray(
        [[FITS if (category + 2 * place) % 5 == 0 else 0.0 for category in range(CATEGORIES)]
         for place in range(len(INDUSTRIES))],
        dtype=np.float32,
    )  # fmt: skip


def _sigmoid(value: NDArray[np.floating] | float) -> Floats:
    return (1 / (1 + np.exp(-np.asarray(value)))).astype(np.float32)
