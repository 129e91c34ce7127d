"""What is measured of each account at the edges of its windows: days, months, years, midnights, money, merges."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from include.dbt import build
from include.sources import identities
from tests.conftest import Warehouse
from tests.dbt import pandas_marts
from tests.dbt.raw_rows import Event, Events, Line, Orders, at

AS_OF = date(2024, 2, 29)
MERGED_ON = AS_OF - timedelta(days=10)
LONG_AGO = AS_OF - timedelta(days=800)
AGES = (0, 28, 29, 30, 31, 59, 60, 89, 90, 91, 364, 365, 366, 729, 730)
"""Days before AS_OF on both sides of every window; 28 is 1 February, the month's first day."""
EVENT_AGES = AGES[:-5]
NEW_YORK = ZoneInfo("America/New_York")


def _edges(ages: tuple[int, ...]) -> list[tuple[str, datetime]]:
    """The first and the last second of each of these days in the company's time zone."""
    edges = []
    for age in ages:
        day = AS_OF - timedelta(days=age)
        edges += [(f"{age}-first", at(day, 0)), (f"{age}-last", at(day, 23, 59) + timedelta(seconds=59))]
    return edges


def _lines() -> list[Line]:
    lines: list[Line] = []

    def order(
        account: str, when: datetime, amount: str = "10", category: str | None = "pumps", **more: Any
    ) -> None:
        key = f"{account}-{len(lines)}"
        back = {"line_type": "return", "quantity": -1} if amount.startswith("-") else {}
        lines.append(
            Line(key, f"o{key}", account, when, Decimal(amount), product_category=category, **back, **more)
        )

    for name, moment in _edges(AGES):
        order(f"once-{name}", moment)
        order(f"again-{name}", at(LONG_AGO), category="tools")
        order(f"again-{name}", moment)
    # More came back than was bought, and a category that only came back.
    order("refund", at(AS_OF - timedelta(days=5)), "12.34")
    order("refund", at(AS_OF - timedelta(days=3)), "-500")
    order("refund", at(AS_OF - timedelta(days=3)), "-7", category="belts")
    order("unsorted", at(AS_OF - timedelta(days=3)), category=None)
    order("two-at-once", at(AS_OF - timedelta(days=3)), category="tools")
    order("two-at-once", at(AS_OF - timedelta(days=3), 1))
    # A source of another time zone: the last second of AS_OF in the company's, and the first after it.
    order("abroad", datetime(2024, 2, 29, 10, 59, 59, tzinfo=NEW_YORK), "10.33", currency="EUR")
    order("abroad", datetime(2024, 2, 29, 11, 0, 0, tzinfo=NEW_YORK), "9999", category="belts")
    order("abroad", at(date(2024, 1, 31)), "3.15", category="tools", currency="EUR")
    order("abroad", at(date(2023, 12, 31)), "1", category="tools", currency="USD")
    # Two customers, one account from MERGED_ON on.
    order("one", at(LONG_AGO), category="tools")
    order("one", at(AS_OF - timedelta(days=20)), "4")
    order("other", at(AS_OF - timedelta(days=400)), "5")
    order("other", at(AS_OF - timedelta(days=2)), "6", category="belts")
    return lines


def _events() -> list[Event]:
    events: list[Event] = []

    def use(account: str, when: datetime, feature: str | None, seconds: str | None = "61") -> None:
        name = "feature_use" if feature else "login"
        lasted = Decimal(seconds) if seconds else None
        events.append(Event(str(len(events)), account, when, name, feature, duration_s=lasted))

    for name, moment in _edges(EVENT_AGES):
        use(f"once-{name}", moment, None)
        use(f"again-{name}", moment, "quick_order")
        use(f"again-{name}", moment, "approval_flow", None)
    # reorder_template is no longer core, and price_list is, since 1 February.
    for day in (date(2024, 1, 31), date(2024, 2, 1)):
        for feature in ("reorder_template", "price_list", "quick_order", "unknown"):
            use("unsorted", at(day), feature, "100.7")
    use("two-at-once", at(AS_OF + timedelta(days=1), 0), "quick_order")
    use("one", at(AS_OF - timedelta(days=20)), "approval_flow", "30")
    use("other", at(AS_OF - timedelta(days=20)), "quick_order", "31")
    return events


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse) -> Warehouse:
    """The company as of AS_OF, with rates of two currencies, core features that have changed, and a merge."""
    orders, lines = Orders(), _lines()
    merged = [line for line in lines if line.customer_id in ("one", "other")]
    orders.land(AS_OF, merged)
    build("staging", AS_OF, "run-ground")
    module_warehouse.rows(
        "insert into marts.exchange_rates (currency, reporting_currency, rate, effective_from) values "
        "('EUR', 'CNY', 7.5, '2024-01-01'), ('EUR', 'CNY', 7.777, '2024-02-29'), ('USD', 'CNY', 7.1, '2023-12-31')"
    )
    module_warehouse.rows(
        "insert into marts.core_features (feature, feature_bit, is_core, effective_from) values "
        "('reorder_template', 1, false, '2024-02-01'), ('price_list', 62, true, '2024-02-01')"
    )
    orders.land(AS_OF, [line for line in lines if line not in merged])
    Events().land(AS_OF, _events())
    identities.merge("one", "other", MERGED_ON, "bought it")
    for layer in ("staging", "marts"):
        build(layer, AS_OF, "run-1")
    return module_warehouse


def _expected(warehouse: Warehouse, as_of: date) -> pd.DataFrame:
    merged = {"one": "other"} if as_of >= MERGED_ON else {}
    lines = pandas_marts.current_lines(warehouse, as_of)
    lines["customer_id"] = lines["customer_id"].replace(merged)
    orders = pandas_marts.features(lines, as_of).sort_index()
    return orders.join(pandas_marts.usage(warehouse, orders.index, as_of, merged))


def test_every_kept_date_equals_an_independent_computation(built: Warehouse) -> None:
    dates = [
        day for (day,) in built.rows("select distinct as_of_date from marts.account_features order by 1")
    ]
    assert dates == pd.date_range(LONG_AGO, AS_OF, freq="ME").date.tolist()
    for as_of in dates:
        expected = _expected(built, as_of)
        rows = built.rows(
            f"select account_id, {', '.join(expected.columns)} from marts.account_features where as_of_date = %s",
            as_of,
        )
        found = (
            pd.DataFrame(rows, columns=["account_id", *expected.columns]).set_index("account_id").sort_index()
        )
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, obj=f"features of {as_of}")


def _of(warehouse: Warehouse, columns: str, *accounts: str, as_of: date = AS_OF) -> list[tuple]:
    return warehouse.rows(
        f"select account_id, {columns} from marts.account_features where as_of_date = %s and account_id = any(%s) "
        "order by 1",
        as_of,
        list(accounts),
    )


@pytest.mark.parametrize("edge", ["first", "last"])
def test_windows_of_orders_hold_both_midnights_of_their_days(built: Warehouse, edge: str) -> None:
    columns = (
        "orders_mtd, orders_prior_30d, orders_prior_365d, net_revenue_prior_365d::int, new_categories_mtd, "
    )
    columns += "new_categories_365d, categories_365d, categories_total"
    rows = _of(built, columns, *(f"again-{age}-{edge}" for age in AGES))
    assert {int(account.split("-")[1]): tuple(values) for account, *values in rows} == {
        0: (1, 0, 0, 0, 1, 1, 1, 2),
        28: (1, 0, 0, 0, 1, 1, 1, 2),
        29: (0, 0, 0, 0, 0, 1, 1, 2),
        30: (0, 1, 0, 0, 0, 1, 1, 2),
        31: (0, 1, 0, 0, 0, 1, 1, 2),
        59: (0, 1, 0, 0, 0, 1, 1, 2),
        60: (0, 0, 0, 0, 0, 1, 1, 2),
        89: (0, 0, 0, 0, 0, 1, 1, 2),
        90: (0, 0, 0, 0, 0, 1, 1, 2),
        91: (0, 0, 0, 0, 0, 1, 1, 2),
        364: (0, 0, 0, 0, 0, 1, 1, 2),
        365: (0, 0, 1, 10, 0, 0, 0, 2),
        366: (0, 0, 1, 10, 0, 0, 0, 2),
        729: (0, 0, 1, 10, 0, 0, 0, 2),
        730: (0, 0, 0, 0, 0, 0, 0, 2),
    }


@pytest.mark.parametrize("edge", ["first", "last"])
def test_windows_of_use_hold_both_midnights_of_their_days(built: Warehouse, edge: str) -> None:
    columns = "core_features_used_30d, core_features_used_90d, active_days_mtd, active_minutes_30d, active_minutes_mtd"
    rows = _of(built, columns, *(f"again-{age}-{edge}" for age in EVENT_AGES))
    minute, none = Decimal("1.02"), Decimal(0)
    assert {int(account.split("-")[1]): tuple(values) for account, *values in rows} == {
        0: (2, 2, 1, minute, minute),
        28: (2, 2, 1, minute, minute),
        29: (2, 2, 0, minute, none),
        **dict.fromkeys((30, 31, 59, 60, 89), (0, 2, 0, none, none)),
        **dict.fromkeys((90, 91), (0, 0, 0, none, none)),
    }


def test_a_first_category_is_not_new_and_an_account_without_any_has_none(built: Warehouse) -> None:
    columns = (
        "categories_total, categories_365d, new_categories_mtd, new_categories_365d, last_new_category_date"
    )
    found = _of(built, columns, "once-0-last", "refund", "two-at-once", "unsorted", "again-365-first")
    assert found == [
        ("again-365-first", 2, 0, 0, 0, AS_OF - timedelta(days=365)),
        ("once-0-last", 1, 1, 0, 0, None),
        ("refund", 1, 1, 0, 0, None),
        ("two-at-once", 2, 2, 0, 0, None),
        ("unsorted", None, None, None, None, None),
    ]


def test_a_refund_larger_than_the_orders_leaves_a_negative_month(built: Warehouse) -> None:
    assert _of(built, "orders_mtd, net_revenue_mtd", "refund") == [("refund", 1, Decimal("-494.66"))]


def test_amounts_of_a_month_are_converted_by_the_rate_of_their_own_day(built: Warehouse) -> None:
    """10.33 EUR at 7.777; the order of the next second in New York is of the next day in the company's time zone."""
    assert _of(built, "orders_mtd, net_revenue_mtd, categories_total", "abroad") == [
        ("abroad", 1, Decimal("80.34"), 2)
    ]
    assert _of(built, "orders_mtd, net_revenue_mtd", "abroad", as_of=date(2024, 1, 31)) == [
        ("abroad", 1, Decimal("23.63"))
    ]


def test_features_are_core_by_the_policy_of_the_day_of_their_use(built: Warehouse) -> None:
    """On 31 January quick_order and reorder_template were core, from 1 February on quick_order and price_list."""
    columns = "core_features_used_30d, core_features_used_90d, core_features_in_force, active_minutes_mtd"
    assert _of(built, columns, "unsorted") == [("unsorted", 3, 3, 3, Decimal("6.71"))]


def test_a_merged_account_has_the_categories_and_features_of_both(built: Warehouse) -> None:
    columns = "categories_total, categories_365d, new_categories_365d, last_new_category_date, core_features_used_30d, "
    columns += "active_minutes_30d, orders_prior_365d"
    two_days_ago = AS_OF - timedelta(days=2)
    assert _of(built, columns, "one", "other") == [
        # tools 800 days ago (one), pumps 400 (other) and 20 (one), belts 2 days ago.
        ("other", 3, 2, 1, two_days_ago, 2, Decimal("1.02"), 1)
    ]
    assert _of(built, "categories_total", "one", "other", as_of=date(2024, 1, 31)) == [
        ("one", 1),
        ("other", 1),
    ]
