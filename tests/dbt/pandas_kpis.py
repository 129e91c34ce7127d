"""KPIs and cohorts computed a second time, in pandas and plain Python, from raw rows: to hold dbt's to.

An account is a customer here: what it reads has no merges. It shares no code with the models; where an account stood
(its tier before a window) is given to it.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from zoneinfo import ZoneInfo

import pandas as pd

from tests.conftest import Warehouse
from tests.dbt import pandas_marts

WEIGHTS = (Fraction(35, 100), Fraction(25, 100), Fraction(40, 100))
FULL_FREQUENCY = 3
MIN_RISE = Fraction(20, 100)
MAX_YEARS = 5
WINDOW, SELLING = 90, 30
NEEDS_DAYS = dict.fromkeys(("repurchases_yearly", "arpu_yearly", "pareto_share"), 365) | dict.fromkeys(
    ("retention_yearly", "churn_yearly", "ltv", "upsell_rate", "cross_sell_rate"), 730
)
"""How many days the orders must go back for a KPI to be told."""
OF_WHOLE_MONTHS = ("retention_monthly", "churn_monthly")
Value = Fraction | None
Accounts = set[str]


@dataclass(frozen=True)
class Days:
    """What every customer did on which day, all days: orders, lines and events, as frames with a column `day`."""

    lines: pd.DataFrame
    orders: pd.DataFrame
    """customer_id, order_id, day: an order counts on the first day of a sale line."""
    events: pd.DataFrame
    """customer_id, name, feature, minutes, day."""
    core_features: set[str]

    def until(self, as_of: date) -> "Days":
        """Return the same without anything dated after a day."""
        frames = (frame[frame["day"] <= as_of] for frame in (self.lines, self.orders, self.events))
        return Days(*frames, self.core_features)


def read_days(warehouse: Warehouse) -> Days:
    """Return the current rows of the warehouse."""
    lines = pandas_marts.current_lines(warehouse, date.max)
    category = dict(warehouse.rows("select row_key, product_category from raw_files.order_lines"))
    lines = lines.assign(category=lines["row_key"].map(category))
    sales = lines[lines["line_type"] == "sale"]
    orders = sales.groupby(["customer_id", "order_id"], as_index=False)["day"].min()
    zone = ZoneInfo(str(warehouse.value("select timezone from audit.company")))
    rows = warehouse.rows(
        "select customer_id, event_name, feature, coalesce(duration_s, 0), event_at from raw_files.events "
        "where customer_id is not null "
        "and (file_id, source_row) not in (select file_id, source_row from raw_files.superseded_events)"
    )
    events = pd.DataFrame(
        [(*row[:3], Fraction(row[3]) / 60, row[4].astimezone(zone).date()) for row in rows],
        columns=["customer_id", "name", "feature", "minutes", "day"],
    )
    core = {feature for (feature,) in warehouse.rows("select feature from marts.core_features where is_core")}
    return Days(lines, orders, events, core)


def _share(part: Accounts | int, whole: Accounts | int) -> Value:
    sizes = [len(each) if isinstance(each, set) else each for each in (part, whole)]
    return Fraction(sizes[0], sizes[1]) if sizes[1] else None


def _mean(values: list[Fraction]) -> Value:
    return sum(values, Fraction(0)) / len(values) if values else None


class Kpis:
    """The KPIs of a date, from what is dated up to it."""

    def __init__(self, days: Days, as_of: date) -> None:
        self.days, self.as_of = days.until(as_of), as_of
        self.first_order = self.days.orders.groupby("customer_id")["day"].min().to_dict()
        self.frequency = (
            pandas_marts.features(self.days.lines, as_of)["orders_per_quarter"].to_dict()
            if self.first_order
            else {}
        )
        product = self.days.lines[self.days.lines["line_type"] != "non_product"]
        self.product = product[product["customer_id"].isin(self.first_order)]

    def had_ordered_by(self, day: date) -> Accounts:
        return {account for account, first in self.first_order.items() if first <= day}

    def ordered(self, first: date, last: date) -> Accounts:
        orders = self.days.orders
        return set(orders[(orders["day"] >= first) & (orders["day"] <= last)]["customer_id"])

    def active(self, first: date, last: date) -> Accounts:
        events = self.days.events
        logins = events[(events["name"] == "login") & (events["day"] >= first) & (events["day"] <= last)]
        return (self.ordered(first, last) | set(logins["customer_id"])) & set(self.first_order)

    def ago(self, days: int) -> date:
        return self.as_of - timedelta(days=days)

    def revenue(self, first: date, last: date) -> dict[str, Decimal]:
        rows = self.product[(self.product["day"] >= first) & (self.product["day"] <= last)]
        sums = rows.groupby("customer_id")["amount"].sum().to_dict()
        return {account: sums.get(account, Decimal(0)) for account in self.first_order}

    def retention_sets(self, days: int) -> tuple[Accounts, Accounts]:
        """Return who was active in the `days` before the last `days`, and who of them is again."""
        before = self.active(self.ago(2 * days - 1), self.ago(days)) & self.had_ordered_by(self.ago(days))
        return before & self.active(self.ago(days - 1), self.as_of), before

    def is_told(self, kpi: str) -> bool:
        """Return whether the orders go back far enough for a KPI, and its month is over where it needs all of it."""
        is_month_end = (self.as_of + timedelta(days=1)).day == 1
        if kpi in OF_WHOLE_MONTHS and not is_month_end:
            return False
        return min(self.first_order.values(), default=date.min) <= self.ago(NEEDS_DAYS.get(kpi, 1) - 1)

    def of_company(self) -> dict[str, Value]:
        """Return every KPI of orders and behavior, null where it has no value or it is too early to tell it."""
        return {kpi: value if self.is_told(kpi) else None for kpi, value in self._measured().items()}

    def _measured(self) -> dict[str, Value]:
        month_begin = self.as_of.replace(day=1)
        before_begin = (month_begin - timedelta(days=1)).replace(day=1)
        begin = date.min
        active_now = self.active(month_begin, self.as_of)
        active_before = self.active(before_begin, month_begin - timedelta(days=1)) & self.had_ordered_by(
            month_begin - timedelta(days=1)
        )
        year, prior_year = (self.ago(364), self.as_of), (self.ago(729), self.ago(365))
        buyers, prior_buyers = self.ordered(*year), self.ordered(*prior_year)
        revenue, prior_revenue = self.revenue(*year), self.revenue(*prior_year)
        total = self.revenue(begin, self.as_of)
        kept, prior = self.retention_sets(30)
        kept_90, prior_90 = self.retention_sets(90)
        recent = self.active(self.ago(29), self.as_of)
        depth = _mean([self._depth(account) for account in recent]) if len(self.days.events) else None
        frequency = _mean([min(Fraction(self.frequency[a]) / FULL_FREQUENCY, Fraction(1)) for a in recent])
        parts = (_share(kept, prior), depth, frequency)
        index = None
        if parts[0] is not None and parts[1] is not None and parts[2] is not None:
            index = 100 * (parts[0] * WEIGHTS[0] + parts[1] * WEIGHTS[1] + parts[2] * WEIGHTS[2])
        month_orders = self.days.orders[self.days.orders["day"] >= self.ago(29)]
        sales = self.days.lines[
            (self.days.lines["line_type"] == "sale") & (self.days.lines["day"] >= self.ago(29))
        ]
        orders_of_year = self.days.orders[self.days.orders["day"] >= self.ago(364)]
        first_of_year = [first for first in self.first_order.values() if first >= self.ago(364)]
        could_rise = {account for account in prior_buyers if prior_revenue[account] > 0}
        rose = {a for a in could_rise if revenue[a] >= Fraction(prior_revenue[a]) * (1 + MIN_RISE)}
        by_90 = self.had_ordered_by(self.ago(90))
        return {
            "monthly_active_accounts": Fraction(len(active_now)),
            "minutes_a_day": self._minutes_a_day(month_begin),
            "retention_monthly": _share(active_before & active_now, active_before),
            "churn_monthly": _share(active_before - active_now, active_before),
            "retention_30d": parts[0],
            "retention_90d": _share(kept_90, prior_90),
            "retention_yearly": _share(prior_buyers & buyers, prior_buyers),
            "churn_yearly": _share(prior_buyers - buyers, prior_buyers),
            "feature_depth": depth,
            "order_frequency": frequency,
            "retention_index": index,
            "repurchases_yearly": _share(len(orders_of_year) - len(first_of_year), len(buyers)),
            "arpu_yearly": _over(sum(revenue.values()), len(buyers)),
            "average_order_value": _over(sum(sales["amount"]), len(month_orders)),
            "ltv_historic": _over(sum(total.values()), len(total)),
            "ltv": self._lifetime_value(total, revenue, prior_buyers, buyers),
            "pareto_share": _pareto({account: revenue[account] for account in buyers}),
            "upsell_rate": _share(rose, could_rise),
            "cross_sell_rate": self._cross_sell(prior_buyers),
            "repurchase_rate": _share(by_90 & self.ordered(self.ago(89), self.as_of), by_90),
        }

    def _depth(self, account: str) -> Fraction:
        events = self.days.events
        own = events[(events["customer_id"] == account) & (events["day"] >= self.ago(29))]
        used = set(own[own["name"] == "feature_use"]["feature"]) & self.days.core_features
        return Fraction(len(used), len(self.days.core_features))

    def _minutes_a_day(self, month_begin: date) -> Value:
        events = self.days.events
        own = events[(events["day"] >= month_begin) & events["customer_id"].isin(self.first_order)]
        minutes = sum(own["minutes"], Fraction(0))
        return minutes / len(own[["customer_id", "day"]].drop_duplicates()) if minutes else None

    def _lifetime_value(
        self, total: dict[str, Decimal], revenue: dict[str, Decimal], prior: Accounts, buyers: Accounts
    ) -> Value:
        if not prior:
            return None
        lost = prior - buyers
        years = min(Fraction(len(prior), len(lost)), Fraction(MAX_YEARS)) if lost else Fraction(MAX_YEARS)
        return (Fraction(sum(total.values())) + Fraction(sum(revenue.values())) * years) / len(total)

    def _cross_sell(self, prior_buyers: Accounts) -> Value:
        lines = self.days.lines[self.days.lines["category"].notna()]
        sales = lines[(lines["line_type"] == "sale")]
        known = set(lines["customer_id"])
        if not known & set(self.first_order):
            return None
        first = sales.groupby(["customer_id", "category"])["day"].min()
        new = {
            account
            for (account, _), day in first.items()
            if day >= self.ago(364) and day > first[account].min()
        }
        could = prior_buyers & known
        return _share(could & new, could)

    def by_group(self, groups: dict[str, str], retained: Accounts, before: Accounts) -> dict[str, Value]:
        """Return a rate by the group that each account was in."""
        members: dict[str, Accounts] = {}
        for account, group in groups.items():
            members.setdefault(group, set()).add(account)
        return {group: _share(retained & own, before & own) for group, own in members.items()}


def _over(amount: Decimal | int, count: int) -> Value:
    return Fraction(amount) / count if count else None


def _pareto(revenue: dict[str, Decimal]) -> Value:
    places = sorted(revenue, key=lambda account: (-revenue[account], account))
    top = places[: ceil(len(places) * Fraction(20, 100))]
    positive = {account: max(amount, Decimal(0)) for account, amount in revenue.items()}
    whole = sum(positive.values())
    return Fraction(sum(positive[account] for account in top)) / Fraction(whole) if whole else None


def cohorts(days: Days, as_of: date) -> dict[tuple[date, int], tuple[int, int, int]]:
    """Return accounts, those that ordered and those that were active, by cohort month and months since."""
    kpis = Kpis(days, as_of)
    by_cohort: dict[date, Accounts] = {}
    for account, first in kpis.first_order.items():
        by_cohort.setdefault(first.replace(day=1), set()).add(account)
    found = {}
    for cohort, accounts in by_cohort.items():
        begin, since = cohort, 0
        while begin <= as_of:
            following = (begin + timedelta(days=31)).replace(day=1)
            last = min(following - timedelta(days=1), as_of)
            found[cohort, since] = (
                len(accounts),
                len(accounts & kpis.ordered(begin, last)),
                len(accounts & kpis.active(begin, last)),
            )
            begin, since = following, since + 1
    return found


def newcomers(created: dict[str, date], days: Days, as_of: date) -> dict[str, dict[str, Value]]:
    """Return the rates and times of accounts by `all` and cohort month, from the day each was created in the CRM."""
    kpis = Kpis(days, as_of)
    first_event = kpis.days.events.groupby("customer_id")["day"].min().to_dict()
    oldest = (as_of.replace(day=1) - timedelta(days=360)).replace(day=1)
    groups: dict[str, list[tuple[date, date, str]]] = {}
    for account, day in created.items():
        is_customer = account in kpis.first_order and kpis.first_order[account] < day
        if oldest <= day <= as_of and not is_customer:
            row = (day, day + timedelta(days=WINDOW - 1), account)
            for group in ("all", str(day.replace(day=1))):
                groups.setdefault(group, []).append(row)
    found = {}
    for group, rows in groups.items():
        over = [row for row in rows if row[1] <= as_of]
        if group != "all":
            following = (date.fromisoformat(group) + timedelta(days=31)).replace(day=1)
            if following + timedelta(days=WINDOW - 2) > as_of:
                over = []
        live = [
            max((first_event[a] - d).days, 0) for d, end, a in over if first_event.get(a, date.max) <= end
        ]
        sold = [
            (kpis.first_order[a] - d).days for d, end, a in over if kpis.first_order.get(a, date.max) <= end
        ]
        selling = [a for _, end, a in over if a in kpis.ordered(end - timedelta(days=SELLING - 1), end)]
        found[group] = {
            "go_live_rate": _share(len(live), len(over)),
            "go_live_days": _share(sum(live), len(live)),
            "first_sale_rate": _share(len(sold), len(over)),
            "first_sale_days": _share(sum(sold), len(sold)),
            "active_selling_rate": _share(len(selling), len(over)),
        }
    return found
