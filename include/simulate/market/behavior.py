"""What the tracking of the ordering site recorded: sessions of logins, pages, features and steps of purchases."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.simulate.market.orders import Orders, instants, labels, named
from include.simulate.market.population import EXPERIMENT_STAYS, EXPERIMENT_WEEK, Ints, Population
from include.simulate.market.scales import DAYS, WEEKS, stream

FEATURES = (
    "quick_order", "price_list", "stock_check", "invoice_download",
    "reorder_template", "approval_flow", "delivery_tracking",
)  # fmt: skip
FLOW = ("flow_search", "flow_compare", "flow_cart", "flow_checkout")
"""The steps of a purchase, in their order; the last belongs to an order that was placed."""
NAMES = ("login", "page_view", "feature_use", *FLOW)
LOGIN, PAGE, FEATURE, FIRST_STEP = 0, 1, 2, 3
ONLINE_SHARE = 0.6
"""Of orders: the others come by phone or mail and leave no session."""
ABANDONED_RATE = 0.10
"""Of sessions without an order: a purchase that is begun and not ended."""
LEAVES_AT = (0.15, 0.55, 0.30)
"""Where those that are not ended stop: after the search, the comparison of prices, or the cart."""
AT_COMPARE = 2
STEPS_MEAN = 4.0
"""Pages and features of a session, on average."""
MOST_USERS = 5
"""Of an account."""
NO_ACCOUNT_RATE, REPEATED_RATE, NO_NAME_RATE = 0.01, 0.003, 0.001
LATE_RATE = 0.004
"""Of sessions: delivered up to LATE_DAYS days after they happened, since a device was offline."""
LATE_DAYS = 12


def events(
    accounts: Population, orders: Orders, codes: pa.Array, seed: int, block: int, first_event: int
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the events of a block by the day of their delivery, faults included, and that day of each.

    Columns: event_no, account_no (null: signed in on another device), user_no, session_no, event (null: broken),
    feature, seconds, occurred_at. One row per delivered event.
    """
    random = stream(seed, block, 20)
    session = _sessions(accounts, orders, random)
    free = random.poisson(STEPS_MEAN, len(session.account)) * (session.reach < len(FLOW)) + 1
    count = free + session.reach
    whose = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(whose)) - np.repeat(np.cumsum(count) - count, count)
    is_flow = step >= free[whose]
    is_feature = random.random(len(whose)) < 0.45
    name = np.where(
        step == 0,
        LOGIN,
        np.where(is_flow, FIRST_STEP + step - free[whose], np.where(is_feature, FEATURE, PAGE)),
    )
    account = session.account[whose]
    # Each account has favourites of its own, the first used most.
    favourite = accounts.number[account] * 7 + (len(FEATURES) * random.random(len(whose)) ** 2).astype(
        np.int64
    )
    second = session.second[whose] + step * 35 + random.integers(0, 30, len(whose))
    length = (count * 45)[whose] + random.integers(0, 60, len(whose))
    broken = random.random(len(whose)) < NO_NAME_RATE
    repeats = np.flatnonzero(random.random(len(whose)) < REPEATED_RATE)
    late = (random.random(len(count)) < LATE_RATE) * random.integers(1, LATE_DAYS + 1, len(count))
    delivered = np.minimum(session.day + late, DAYS - 1)[whose]
    rows = np.concatenate([np.arange(len(whose)), repeats])
    rows = rows[np.argsort(delivered[rows], kind="stable")]
    who = account[rows]
    is_named = ~broken[rows]
    users = 1 + np.minimum(MOST_USERS - 1, accounts.size.astype(np.int64))
    user = who * MOST_USERS + session.number[whose[rows]] % users[who]
    user_codes = labels("U", np.arange(len(codes) * MOST_USERS) + accounts.number[0] * MOST_USERS, 8)
    table = pa.table(
        {
            "event_no": labels("E", rows + first_event, 10),
            "account_no": pa.DictionaryArray.from_arrays(
                pa.array(
                    who.astype(np.int32), mask=(session.number % 100 < NO_ACCOUNT_RATE * 100)[whose[rows]]
                ),
                codes,
            ),
            "user_no": named(user, user_codes),
            "session_no": named(whose[rows], labels("N", session.number + first_event, 10)),
            "event": pa.DictionaryArray.from_arrays(
                pa.array(name[rows].astype(np.int32), mask=~is_named), pa.array(NAMES)
            ),
            "feature": pa.DictionaryArray.from_arrays(
                pa.array((favourite[rows] % len(FEATURES)).astype(np.int32), mask=name[rows] != FEATURE),
                pa.array(FEATURES),
            ),
            "seconds": pa.array(length[rows].astype(np.float64), mask=name[rows] != LOGIN),
            "occurred_at": instants(session.day[whose[rows]], second[rows]),
        }
    )
    return table, delivered[rows]


@dataclass(frozen=True)
class Sessions:
    """Sessions of a block: whose, on which day, from which second, and how many steps of a purchase it reached."""

    account: Ints
    day: Ints
    second: Ints
    reach: Ints

    @property
    def number(self) -> Ints:
        """The place of each session in the block."""
        return np.arange(len(self.account))


def _sessions(accounts: Population, orders: Orders, random: np.random.Generator) -> Sessions:
    count = random.poisson(accounts.session_rate).ravel()
    cell = np.repeat(np.arange(count.size), count)
    weekday = np.minimum((6.2 * random.random(len(cell))).astype(np.int64), 6)  # few on a Sunday
    abandons = random.random(len(cell)) < ABANDONED_RATE
    reach = np.where(abandons, 1 + random.choice(len(LEAVES_AT), len(cell), p=LEAVES_AT), 0)
    week = cell % WEEKS
    kept = (
        (reach == AT_COMPARE)
        & accounts.is_treated[cell // WEEKS]
        & (week >= EXPERIMENT_WEEK)
        & (random.random(len(cell)) < EXPERIMENT_STAYS)
    )
    reach = np.where(kept, len(FLOW) - 1, reach)  # they reach the cart, and leave there
    second = 8 * 3600 + (11 * 3600 * random.random(len(cell))).astype(np.int64)
    online = np.flatnonzero(random.random(len(orders.account)) < ONLINE_SHARE)
    # The checkout, three steps after the login and the search, falls on the order.
    begin = orders.second[online] - 4 * 35
    return Sessions(
        np.concatenate([cell // WEEKS, orders.account[online]]),
        np.concatenate([week * 7 + weekday, orders.day[online]]),
        np.concatenate([second, begin]),
        np.concatenate([reach, np.full(len(online), len(FLOW))]),
    )
