"""KPIs, retention windows and cohorts: equal to an independent computation, restated with what they are made of."""

import random
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pandas as pd
import pytest

from include.dbt import build
from include.errors import StratumError
from tests.conftest import Warehouse
from tests.dbt import pandas_kpis
from tests.dbt.raw_rows import Event, Events, Line, Orders, at, land_company

FIRST_DAY = date(2023, 8, 28)
AS_OF = date(2026, 3, 20)
ACCOUNTS = 24
NEWCOMER_KPIS = {"go_live_rate", "go_live_days", "first_sale_rate", "first_sale_days", "active_selling_rate"}
LOOK_BACK = {"retention_30d": 1, "retention_90d": 3, "retention_yearly": 12}
"""Rates by tier, and how many month-ends back the tier is looked up."""


class Company:
    """A random company of two years and more: repeat buyers, one-time buyers, sleepers and newcomers of a CRM."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.orders, self.events = Orders(), Events()
        self.created: dict[str, date] = {}
        lines, uses = [], []
        for number in range(ACCOUNTS):
            account = f"c{number:02}"
            start = FIRST_DAY + timedelta(days=chance.randrange((AS_OF - FIRST_DAY).days + 5))
            self.created[account] = start - timedelta(days=chance.choice([0, 5, 60, 100, -9]))
            day = start
            for order in range(chance.choice([1, 1, 6, 15, 40])):
                key = f"{account}-{order}"
                amount = Decimal(chance.randrange(100, 90_000)) / 100
                lines.append(Line(key, f"o{key}", account, at(day, chance.randrange(24)), amount))
                if chance.random() < 0.2:  # now and then more comes back than was bought
                    back = at(day + timedelta(days=9))
                    lines.append(Line(f"{key}r", f"r{key}", account, back, -2 * amount, -1, "return"))
                day += timedelta(days=chance.choice([1, 20, 30, 45, 90]))
            for use in range(chance.choice([0, 5, 60])):
                moment = at(start + timedelta(days=chance.randrange(-20, 500)), chance.randrange(24))
                name = chance.choice(["login", "feature_use", "page_view"])
                feature = (
                    chance.choice(["quick_order", "approval_flow", "other"])
                    if name == "feature_use"
                    else None
                )
                uses.append(Event(f"{account}-{use}", account, moment, name, feature))
        # One that begins on the very day, one that only the CRM knows, and both sides of the edges of 30 and 90 days: who
        # first ordered on the last day of the earlier window had been there to be kept, who did a day later had not.
        lines.append(Line("first", "ofirst", "new", at(AS_OF), Decimal("5.00")))
        self.created |= {"new": AS_OF, "prospect": date(2025, 9, 30)}
        for days in (29, 30, 89, 90):
            account, before = f"edge{days}", at(AS_OF - timedelta(days=days + 9))
            lines.append(
                Line(account, f"o{account}", account, at(AS_OF - timedelta(days=days)), Decimal("5.00"))
            )
            uses.append(Event(account, account, before))
            self.created[account] = AS_OF - timedelta(days=days)
        self.orders.land(AS_OF, lines)
        self.events.land(AS_OF, uses)
        for record, (account, day) in enumerate(self.created.items()):
            land_company(AS_OF, str(record), account, at(day), name=account, industry="Electronics")


RECOMPUTED = ["C1", "C2", "C4", "C9", "C10"]
"""The requirements whose KPIs are computed a second time here."""


def _add_what_the_loaders_would(warehouse: Warehouse) -> None:
    """Categories of three quarters of the customers' lines, and whole minutes of every event."""
    warehouse.rows(
        "update raw_files.order_lines set product_category = 'k' || length(order_id) || right(row_key, 1) "
        "where customer_id > 'c05'"
    )
    warehouse.rows("update raw_files.events set duration_s = 60 * (1 + source_row % 7)")


def _build(warehouse: Warehouse, as_of: date) -> None:
    run_id = f"run-{warehouse.value('select count(*) from audit.dbt_nodes')}"
    build("staging", as_of, run_id)
    build("marts", as_of, run_id)


@pytest.fixture(scope="module")
def company(module_warehouse: Warehouse) -> Company:
    """All of it landed and built as of AS_OF: more than two years of month-ends at once."""
    company = Company(seed=3)
    _add_what_the_loaders_would(module_warehouse)
    _build(module_warehouse, AS_OF)
    return company


def _values(warehouse: Warehouse, as_of: date, dimension: str) -> dict[str, dict[str, Decimal | None]]:
    found: dict[str, dict[str, Decimal | None]] = {}
    for kpi, group, value in warehouse.rows(
        "select kpi, dimension_value, value from marts.kpis where as_of_date = %s and dimension = %s",
        as_of,
        dimension,
    ):
        found.setdefault(group, {})[kpi] = value
    return found


def _assert_equal(found: dict[str, Decimal | None], expected: dict[str, Fraction | None], what: str) -> None:
    assert set(found) >= set(expected), what
    for kpi, value in expected.items():
        if value is None or found[kpi] is None:
            assert found[kpi] is value, f"{kpi} of {what}"
        else:
            # Six decimals; the last may be rounded twice.
            assert abs(Fraction(found[kpi]) - value) < Fraction(2, 10**6), f"{kpi} of {what}"


def _assert_kpis_equal_pandas(warehouse: Warehouse, days: pandas_kpis.Days) -> list[date]:
    dates = [d for (d,) in warehouse.rows("select distinct as_of_date from marts.kpis order by 1")]
    tiers = warehouse.rows("select as_of_date, account_id, tier from marts.account_tiers")
    for as_of in dates:
        kpis = pandas_kpis.Kpis(days, as_of)
        found = _values(warehouse, as_of, "company")["all"]
        _assert_equal(found, kpis.of_company(), str(as_of))
        by_tier = _values(warehouse, as_of, "tier")
        for kpi, months in LOOK_BACK.items():
            month_end = (pd.Timestamp(as_of) - pd.offsets.MonthEnd(months)).date()
            groups = {account: tier for day, account, tier in tiers if day == month_end}
            if kpi == "retention_yearly":
                before = kpis.ordered(kpis.ago(729), kpis.ago(365))
                retained = before & kpis.ordered(kpis.ago(364), as_of)
            else:
                retained, before = kpis.retention_sets(30 if kpi == "retention_30d" else 90)
            for tier, value in kpis.by_group(groups, retained, before).items():
                told = value if kpis.is_told(kpi) else None
                _assert_equal(by_tier[tier], {kpi: told}, f"{tier} on {as_of}")
    return dates


def test_every_months_kpis_equal_an_independent_computation(
    module_warehouse: Warehouse, company: Company
) -> None:
    dates = _assert_kpis_equal_pandas(module_warehouse, pandas_kpis.read_days(module_warehouse))
    assert dates == [*pd.date_range(dates[0], AS_OF, freq="ME").date, AS_OF]
    assert len(dates) > 24
    assert date(2024, 2, 29) in dates
    # The company is worth the comparison: every KPI has a value and differs from month to month.
    spread = module_warehouse.rows(
        "select kpi, count(distinct value) from marts.kpis join marts.kpi_definitions using (kpi) "
        "where dimension = 'company' and requirement = any(%s) group by kpi",
        RECOMPUTED,
    )
    assert len(spread) == module_warehouse.value(
        "select count(distinct kpi) from marts.kpi_definitions where requirement = any(%s)", RECOMPUTED
    )
    # Those that need two years are told of few months.
    least = {kpi: 2 if pandas_kpis.NEEDS_DAYS.get(kpi) == 730 else 3 for kpi, _ in spread}
    assert {kpi for kpi, values in spread if values < least[kpi]} == set()


def test_cohorts_equal_an_independent_computation_and_months_to_come_have_no_row(
    module_warehouse: Warehouse, company: Company
) -> None:
    rows = module_warehouse.rows(
        "select cohort_month, months_since, accounts, accounts_ordered, accounts_active, ordered_share "
        "from marts.retention_cohorts"
    )
    found = {(row[0], row[1]): row[2:5] for row in rows}
    assert len(found) == len(rows)
    assert found == pandas_kpis.cohorts(pandas_kpis.read_days(module_warehouse), AS_OF)
    assert any(ordered == 0 and accounts for accounts, ordered, _ in found.values())
    assert all(share == pytest.approx(Decimal(row[3]) / row[2], abs=Decimal("1e-6")) for *row, share in rows)


def test_newcomers_are_measured_once_their_window_is_over(
    module_warehouse: Warehouse, company: Company
) -> None:
    days = pandas_kpis.read_days(module_warehouse)
    censored = 0
    for as_of in (date(2025, 2, 28), date(2025, 12, 31), AS_OF):
        expected = pandas_kpis.newcomers(company.created, days, as_of)
        found = _values(module_warehouse, as_of, "cohort_month") | _values(module_warehouse, as_of, "company")
        assert set(found) == set(expected)
        for group, values in expected.items():
            _assert_equal(found[group], values, f"{group} on {as_of}")
        reasons = module_warehouse.rows(
            "select no_value_reason from marts.kpis where as_of_date = %s and dimension = 'cohort_month' "
            "and kpi = 'first_sale_rate' and value is null",
            as_of,
        )
        censored += len(reasons)
        assert all("not over: it ends on" in reason for (reason,) in reasons)
    assert censored >= 3


def test_a_value_is_missing_exactly_where_a_reason_is_told(
    module_warehouse: Warehouse, company: Company
) -> None:
    assert (
        module_warehouse.value(
            "select count(*) from marts.kpis where (value is null) <> (no_value_reason is not null)"
        )
        == 0
    )
    # Every KPI has the company's row on every date, with or without a value; what is lost at a step has steps alone.
    counts = module_warehouse.rows(
        "select count(*) from marts.kpis where dimension = 'company' group by as_of_date"
    )
    assert {count for (count,) in counts} == {
        module_warehouse.value(
            "select count(distinct kpi) from marts.kpi_definitions where kpi <> 'purchase_flow_lost_share'"
        )
    }


def test_a_value_of_too_little_time_is_not_told_and_says_since_when_data_are_there(
    module_warehouse: Warehouse, company: Company
) -> None:
    begin = module_warehouse.value("select min(first_order_date) from marts.account_features")
    for kpi, days in pandas_kpis.NEEDS_DAYS.items():
        rows = module_warehouse.rows(
            "select as_of_date, value, no_value_reason from marts.kpis where kpi = %s and dimension = 'company'",
            kpi,
        )
        reason = f"data begin on {begin}, and it takes {days} days of them"
        assert {day for day, _, told in rows if told == reason} == {
            day for day, _, _ in rows if (day - begin).days + 1 < days
        }
        assert all(value is not None for day, value, _ in rows if (day - begin).days + 1 >= days), kpi
        assert {value is None for _, value, _ in rows} == {True, False}, kpi
    partial = module_warehouse.rows(
        "select distinct as_of_date, kpi, value from marts.kpis where no_value_reason = 'the month is not over'"
    )
    assert set(partial) == {(AS_OF, kpi, None) for kpi in (*pandas_kpis.OF_WHOLE_MONTHS, "cac")}


@pytest.mark.extended
def test_a_baseline_stays_as_it_was_stored_and_kpis_follow_late_rows_even_after_a_failed_build(
    module_warehouse: Warehouse, company: Company
) -> None:
    """Runs after the tests above, on their warehouse."""
    warehouse = module_warehouse
    baselines = warehouse.rows("select * from marts.repurchase_baselines order by 3, 4")
    baseline_date = warehouse.value("select min(baseline_date) from marts.repurchase_baselines")
    first = warehouse.value("select min(order_date) from intermediate.int_account_days where orders > 0")
    assert baseline_date == (pd.Timestamp(first + timedelta(days=365)) + pd.offsets.MonthEnd(0)).date()
    changes = dict(
        warehouse.rows(
            "select as_of_date, value from marts.kpis where kpi = 'repurchase_change' and dimension = 'company'"
        )
    )
    assert changes[baseline_date] == 0
    assert all(value is None for day, value in changes.items() if day < baseline_date)
    assert changes[AS_OF] is not None

    # An order of long ago, in the baseline's window; then a build that fails between features and KPIs.
    late = baseline_date - timedelta(days=40)
    query = "select * from marts.kpis where as_of_date < %s order by 1, 3, 4, 5"
    month_begin = late.replace(day=1)
    untouched = warehouse.rows(query, month_begin)
    sleeper = warehouse.value(
        "select account_id from marts.account_months where as_of_date = %s and had_ordered_before_90d = 1 "
        "and has_ordered_90d = 0 order by 1 limit 1",
        baseline_date,
    )
    company.orders.land(AS_OF, [Line("late", "olate", sleeper, at(late), Decimal("77.00"))])
    warehouse.rows(
        "alter table marts.kpis add constraint refuse check (as_of_date <> '2025-12-31') not valid"
    )
    with pytest.raises(StratumError, match=r"kpis \(error\): .*refuse"):
        _build(warehouse, AS_OF)
    warehouse.rows("alter table marts.kpis drop constraint refuse")
    _build(warehouse, AS_OF)
    _assert_kpis_equal_pandas(warehouse, pandas_kpis.read_days(warehouse))
    assert warehouse.rows(query, month_begin) == untouched
    assert warehouse.rows("select * from marts.repurchase_baselines order by 3, 4") == baselines
    rate = warehouse.value(
        "select value from marts.kpis where as_of_date = %s and kpi = 'repurchase_change' and dimension = 'company'",
        baseline_date,
    )
    assert rate > 0
    assert warehouse.value("select bool_and(kpis_stand) from marts.built_dates")


def test_a_company_without_events_has_no_index_and_an_empty_month_no_retention(warehouse: Warehouse) -> None:
    day, end = date(2026, 1, 25), date(2026, 4, 30)
    again = Line("3", "o3", "c1", at(date(2026, 2, 10)))
    Orders().land(end, [Line("1", "o1", "c1", at(day)), Line("2", "o2", "c2", at(day, 13)), again])
    _build(warehouse, end)
    found = {
        (as_of.month, kpi): (value, reason)
        for as_of, kpi, value, reason in warehouse.rows(
            "select as_of_date, kpi, value, no_value_reason from marts.kpis where dimension = 'company'"
        )
    }
    # Half came back in February, nobody in March: no part of the index is left out for want of another.
    assert found[2, "retention_30d"] == (Decimal("0.5"), None)
    assert found[2, "order_frequency"] == (Decimal("0.666667"), None)
    unknown = "no behavior event is known up to the date, or no core feature is in force"
    assert found[2, "feature_depth"] == found[2, "retention_index"] == (None, unknown)
    assert found[3, "retention_index"] == (None, "no account was active in the last 30 days")
    assert found[3, "retention_monthly"] == (0, None)
    assert found[3, "monthly_active_accounts"] == (0, None)
    assert found[4, "retention_monthly"] == (None, "no account was active in the month before")
    assert found[4, "go_live_rate"][0] is None
    cohorts = warehouse.rows(
        "select months_since, accounts, accounts_ordered from marts.retention_cohorts order by 1"
    )
    assert cohorts == [(0, 2, 2), (1, 2, 1), (2, 2, 0), (3, 2, 0)]
