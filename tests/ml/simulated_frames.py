"""The simulated company as frames, straight from its generator: no file, no warehouse, so that it can be large.

Accounts, orders and their lines are the simulation's own; sessions are drawn from its rates. Features are those of orders,
revenue, logins and categories; what the models also read (tickets, answers, deals) is 0 here and therefore left out.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.simulate.market.orders import first_purchases, labels, order_lines
from include.simulate.market.population import populate
from include.simulate.market.scales import DAYS, FIRST_DAY, Scale, stream
from ml.frames import LABEL
from ml.targets import Target

Counts = NDArray[np.int32]
HORIZONS = {"churn": 90, "repurchase": 30, "upsell": 90}
BLOCK = 1


class Market:
    """A company of `accounts`; arrays are by account and day of the calendar, sums up to and with a day begin with a 0."""

    def __init__(self, accounts: int, seed: int) -> None:
        scale = Scale("frames", accounts, 50 * accounts, 300 * accounts)  # as test_simulated's
        self.made = populate(scale, seed, BLOCK, 0, accounts)
        lines, placed = order_lines(self.made, labels("C", self.made.number, 7), seed, BLOCK, 1)
        self.orders = _sums(
            np.bincount(placed.account * DAYS + placed.day, minlength=accounts * DAYS), accounts
        )
        days = np.diff(self.orders, axis=1) > 0
        self.order_days = _sums(days, accounts)
        self.last_order = _last(days)
        self.first_order = np.where(days.any(axis=1), days.argmax(axis=1), DAYS)
        random = stream(seed, BLOCK, 99)
        sessions = random.poisson(self.made.session_rate).ravel()
        day = np.repeat(np.arange(sessions.size), sessions) * 7 + random.integers(0, 6, int(sessions.sum()))
        online = random.random(len(placed.account)) < 0.6
        at = np.r_[day, (placed.account * DAYS + placed.day)[online]]
        self.logins = _sums(np.bincount(at, minlength=accounts * DAYS), accounts)
        logged_in = np.diff(self.logins, axis=1) > 0
        self.login_days, self.last_login = _sums(logged_in, accounts), _last(logged_in)
        self.first_in_category = first_purchases(lines, accounts)

    def labelled(self, target: Target, dates: Sequence[date]) -> pd.DataFrame:
        """Return keys, the target's features and LABEL of each account that had ordered, as ml.frames does."""
        return pd.concat([self._on(target, one) for one in dates], ignore_index=True)

    def _on(self, target: Target, on: date) -> pd.DataFrame:
        now, ahead = (on - FIRST_DAY).days, HORIZONS[target.model]
        assert now + ahead < DAYS
        who = np.flatnonzero(self.first_order <= now)
        tenure = now - self.first_order[who] + 1
        since = now - self.last_order[who, now]
        days = self.order_days[who, now + 1]
        gap = np.where(days > 1, (tenure - 1 - since) / np.maximum(days - 1, 1), np.nan)
        size = self.made.size[who]
        first = self.first_in_category[who]

        def in_days(sums: Counts, length: int, ago: int = 0) -> Counts:
            return sums[who, now + 1 - ago] - sums[who, max(now + 1 - ago - length, 0)]

        year, total = in_days(self.orders, 365), self.orders[who, now + 1]
        frame = pd.DataFrame({
            "as_of_date": pd.Timestamp(on), "account_id": [f"C{number:07d}" for number in who],
            **dict.fromkeys(target.names, 0.0),
            "days_since_last_order": since, "gap_ratio": since / np.maximum(gap, 1), "mean_order_gap_days": gap,
            "orders_total": total, "order_days_total": days, "orders_90d": in_days(self.orders, 90),
            "orders_180d": in_days(self.orders, 180), "orders_365d": year,
            "orders_per_quarter": year * 91.25 / np.clip(tenure, 91.25, 365),
            "net_revenue_90d": size * in_days(self.orders, 90), "net_revenue_365d": size * year,
            "net_revenue_prior_90d": size * in_days(self.orders, 90, 90),
            "yearly_net_spend": size * total * 365 / np.maximum(tenure, 365), "average_order_value": size,
            "logins_30d": in_days(self.logins, 30), "logins_prior_30d": in_days(self.logins, 30, 30),
            "logins_90d": in_days(self.logins, 90), "sessions_90d": in_days(self.logins, 90),
            "days_since_last_login": np.where(self.last_login[who, now] < 0, np.nan, now - self.last_login[who, now]),
            "active_days_30d": in_days(self.login_days, 30),
        })  # fmt: skip
        if "categories_total" in target.names:
            frame["categories_total"] = (first <= now).sum(axis=1)
            frame["new_categories_365d"] = ((first <= now) & (first > now - 365)).sum(axis=1)
        later = self.orders[who, now + 1 + ahead] - self.orders[who, now + 1]
        came = {
            "churn": later == 0,
            "repurchase": later > 0,
            "upsell": ((first > now) & (first <= now + ahead)).any(axis=1),
        }
        columns = ["as_of_date", "account_id", *target.names]
        return frame[columns].astype(dict.fromkeys(target.names, np.float64)).assign(
            **{LABEL: came[target.model].astype(np.int8)}
        )  # fmt: skip


def _sums(counts: NDArray[np.generic], accounts: int) -> Counts:
    """Return the sums up to each day, a row per account, 0 first."""
    sums = np.zeros((accounts, DAYS + 1), np.int32)
    np.cumsum(counts.reshape(accounts, DAYS), axis=1, out=sums[:, 1:])
    return sums


def _last(days: NDArray[np.bool_]) -> Counts:
    """Return the newest day up to each day that is true; -1 where none is."""
    return np.maximum.accumulate(np.where(days, np.arange(DAYS), -1), axis=1).astype(np.int32)
