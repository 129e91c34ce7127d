"""The marts of a date: equal to an independent computation, the same in any order, blind to later days."""

import random
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

import pandas as pd
import pytest

from include.dbt import build
from include.sources.config import Sources
from include.sources.orders import ingest_orders
from tests.conftest import Warehouse
from tests.dbt import pandas_marts
from tests.dbt.raw_rows import Line, Orders, at
from tests.dbt.selections import TIERS

FIRST_DAY = date(2024, 1, 1)
AS_OF = date(2026, 6, 30)
MARTS = ("account_features", "account_profiles", "account_rfm", "account_tiers", "account_lifecycle")
RETAIL_DAY = date(2011, 9, 10)
AGES = (0, 29, 30, 90, 91, 364, 365)
"""Days since the last order, on both sides of each limit of the policy."""


def _lines(seed: int, accounts: int) -> list[Line]:
    """Orders of accounts of every kind: one-time, frequent, dormant, all returned, several alike."""
    chance = random.Random(seed)
    lines = []
    for account in range(accounts):
        start = FIRST_DAY + timedelta(days=chance.randrange((AS_OF - FIRST_DAY).days + 20))
        for order in range(chance.choice([1, 1, 2, 5, 20])):
            day = start + timedelta(days=order * chance.choice([1, 30, 45]))
            amount = Decimal(chance.choice([100, 100, 2500, 40_000, 60_000.5]))
            key = f"{account}-{order}"
            category = [None, "pumps", "tools", "belts"][(account * 3 + order) % 4] if account % 10 else None
            lines.append(Line(key, f"o{key}", f"c{account:03}", at(day), amount, product_category=category))
            if chance.random() < 0.2:
                back = Line(
                    f"{key}r", f"r{key}", f"c{account:03}", at(day + timedelta(days=9)), -amount, -1, "return"
                )
                lines.append(back)
            if chance.random() < 0.2:
                lines.append(
                    Line(f"{key}p", f"o{key}", f"c{account:03}", at(day), Decimal(15), 1, "non_product")
                )
    return lines


def _mart(warehouse: Warehouse, table: str, as_of: date) -> list[tuple]:
    return warehouse.rows(f"select * from marts.{table} where as_of_date = %s order by account_id", as_of)


def _frame(warehouse: Warehouse, table: str, columns: list[str], as_of: date) -> pd.DataFrame:
    rows = warehouse.rows(
        f"select account_id, {', '.join(columns)} from marts.{table} where as_of_date = %s", as_of
    )
    return pd.DataFrame(rows, columns=["account_id", *columns]).set_index("account_id").sort_index()


def _assert_equal_to_pandas(
    warehouse: Warehouse, as_of: date, tiers: Callable[[pd.DataFrame], pd.DataFrame] = pandas_marts.tiers
) -> pd.DataFrame:
    expected = pandas_marts.features(pandas_marts.current_lines(warehouse, as_of), as_of).sort_index()
    found = _frame(warehouse, "account_features", list(expected.columns), as_of)
    assert len(found) > 0
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    for table, frame in (("account_rfm", pandas_marts.rfm(expected)), ("account_tiers", tiers(expected))):
        found_here = _frame(warehouse, table, list(frame.columns), as_of)
        pd.testing.assert_frame_equal(found_here, frame.sort_index(), check_dtype=False, obj=table)
    return found


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse) -> Warehouse:
    """Accounts of every kind, and one whose last order is as old as each age at which a rule changes."""
    at_limits = [
        Line(f"age{age}", f"oage{age}", f"age{age}", at(AS_OF - timedelta(days=age), 23)) for age in AGES
    ]
    Orders().land(AS_OF, _lines(seed=7, accounts=90) + at_limits)
    build("staging", AS_OF, "run-1")
    build("marts", AS_OF, "run-1", only=TIERS)
    return module_warehouse


def test_windows_bands_scores_and_tiers_equal_an_independent_computation(built: Warehouse) -> None:
    found = _assert_equal_to_pandas(built, AS_OF)
    # The set is worth the comparison: it has what the rules tell apart.
    tiers = dict(built.rows("select tier, count(*) from marts.account_tiers group by tier"))
    assert min(tiers.get(tier, 0) for tier in "SABC") >= 5
    assert (found["yearly_net_spend"] < 100).any()
    assert built.value("select count(*) from intermediate.int_account_days where order_date > %s", AS_OF)


def test_the_policy_as_shipped_bands_recency_and_dormancy_at_its_limits(built: Warehouse) -> None:
    bands = built.rows(
        "select days_since_last_order, recency_band, is_dormant, tier = 'C' from marts.account_rfm "
        "join marts.account_features using (as_of_date, account_id) "
        "join marts.account_tiers using (as_of_date, account_id) "
        "where as_of_date = %s and account_id like 'age%%' order by 1",
        AS_OF,
    )
    assert bands == [
        (0, "<30 days", False, False),
        (29, "<30 days", False, False),
        (30, "30-90 days", False, False),
        (90, "30-90 days", False, False),
        (91, ">90 days", False, False),
        (364, ">90 days", False, False),
        (365, ">90 days", True, True),
    ]


@pytest.mark.extended
def test_a_full_refresh_keeps_the_marts_of_other_dates(warehouse: Warehouse) -> None:
    Orders().land(AS_OF, [Line("1", "o1", "c1", at(AS_OF - timedelta(days=9)))])
    dates = [AS_OF - timedelta(days=1), AS_OF]
    for as_of in dates:
        build("staging", as_of, "run-1")
        build("marts", as_of, "run-1", only=TIERS)
    build("marts", AS_OF, "run-2", full_refresh=True, only=TIERS)
    kept = warehouse.rows("select distinct as_of_date from marts.account_tiers order by 1")
    assert [day for (day,) in kept] == dates


@pytest.mark.slow
def test_dates_built_twice_and_in_the_other_order_give_the_same_rows(warehouse: Warehouse) -> None:
    earlier, later = AS_OF - timedelta(days=100), AS_OF
    Orders().land(AS_OF, _lines(seed=3, accounts=40))
    seen: dict[tuple[str, date], list[tuple]] = {}
    for as_of in (earlier, later, later, earlier, later):
        build("staging", as_of, f"run-{as_of}")
        build("marts", as_of, f"run-{as_of}", only=TIERS)
        for table in MARTS:
            rows = _mart(warehouse, table, as_of)
            assert seen.setdefault((table, as_of), rows) == rows, (table, as_of)
    for (table, as_of), rows in seen.items():
        assert _mart(warehouse, table, as_of) == rows, f"{table} of {as_of} changed by another date"
        assert rows
    assert seen["account_tiers", earlier] != seen["account_tiers", later]


@pytest.mark.extended
def test_a_date_is_blind_to_lines_dated_after_it(warehouse: Warehouse) -> None:
    lines = _lines(seed=5, accounts=30)
    orders = Orders()
    as_of = AS_OF - timedelta(days=200)
    orders.land(as_of, [line for line in lines if line.day <= as_of])
    build("staging", as_of, "run-1")
    build("marts", as_of, "run-1", only=TIERS)
    before = {table: _mart(warehouse, table, as_of) for table in MARTS}
    orders.land(AS_OF, [line for line in lines if line.day > as_of])
    build("staging", as_of, "run-2")
    build("marts", as_of, "run-2", only=TIERS)
    assert len(orders.current) > len([line for line in lines if line.day <= as_of])
    assert {table: _mart(warehouse, table, as_of) for table in MARTS} == before


@pytest.mark.extended
def test_an_account_that_lost_its_last_order_leaves_the_marts_of_a_date_built_again(
    warehouse: Warehouse,
) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", "c1", at(AS_OF))])
    build("staging", AS_OF, "run-1")
    build("marts", AS_OF, "run-1", only=TIERS)
    assert [row[1] for row in _mart(warehouse, "account_features", AS_OF)] == ["c1"]
    orders.correct(AS_OF, "1", customer_id=None)
    build("staging", AS_OF, "run-2")
    build("marts", AS_OF, "run-2", only=TIERS)
    assert [_mart(warehouse, table, AS_OF) for table in MARTS] == [[] for _ in MARTS]


@pytest.mark.slow
def test_online_retail_equals_an_independent_computation(
    warehouse: Warehouse, online_retail: Sources
) -> None:
    ingest_orders(online_retail, RETAIL_DAY)
    build("staging", RETAIL_DAY, "run-1")
    build("marts", RETAIL_DAY, "run-1", only=TIERS)
    # The quarter's yardstick: the accounts of the day before it.
    eve = date(RETAIL_DAY.year, (RETAIL_DAY.month - 1) // 3 * 3 + 1, 1) - timedelta(days=1)
    yardstick = pandas_marts.features(pandas_marts.current_lines(warehouse, eve), eve)
    found = _assert_equal_to_pandas(
        warehouse, RETAIL_DAY, lambda rows: pandas_marts.calibrated_tiers(yardstick, rows).to_frame("tier")
    )
    assert len(found) > 5000
