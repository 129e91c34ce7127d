"""Rules and history of tiers on companies by chance, dates built again, builds that fail and policies that change."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from include.dbt import build, invoke
from tests.conftest import fresh_warehouse
from tests.dbt import pandas_marts
from tests.dbt.raw_rows import Orders
from tests.dbt.tier_company import (
    IN_FORCE,
    INPUT_DATE,
    LAST_DAY,
    LAST_IN_FORCE,
    MEASURES,
    QUARTER,
    assert_history_is_that_of_the_kept_dates,
    assert_twins_stand_no_lower,
    build_date,
    order_lines,
    tiers_on,
    twins_of,
)


@pytest.mark.extended
def test_the_history_stays_that_of_the_kept_dates_when_one_is_built_again_or_a_build_fails(
    cluster, template: str, tmp_path: Path
) -> None:
    first, between, last = IN_FORCE, IN_FORCE + timedelta(days=3), IN_FORCE + timedelta(days=6)
    with fresh_warehouse(cluster, template, tmp_path / "home") as warehouse:
        orders = Orders()
        orders.land(last, [line for line in order_lines(60) if line.day <= last])
        build_date(first, "run-1")
        build_date(last, "run-2")
        before = assert_history_is_that_of_the_kept_dates(warehouse)
        dear = sorted(orders.current)[:20]
        orders.land(last, [replace(orders.current[key], amount=Decimal(800_000)) for key in dear])
        build_date(first, "run-3")
        again = assert_history_is_that_of_the_kept_dates(warehouse)
        assert again != before
        build_date(first, "run-4")
        assert assert_history_is_that_of_the_kept_dates(warehouse) == again
        # A build that stops after the tiers leaves a date that never stood; the next goes on from what did.
        build("staging", between, "run-5")
        invoke(["run", "--select", "+account_tier_changes,path:models/marts"], between, "run-5")
        assert warehouse.value(
            "select count(*) from marts.account_tier_changes where as_of_date = %s", between
        )
        warehouse.rows("delete from marts.account_tiers where as_of_date = %s", between)
        build_date(last, "run-6")
        assert_history_is_that_of_the_kept_dates(warehouse)


@pytest.mark.extended
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_rules_of_tiers_hold_for_companies_by_chance(
    cluster, template: str, tmp_path: Path, seed: int
) -> None:
    """A failure names its seed: the company is made by it alone."""
    with fresh_warehouse(cluster, template, tmp_path / "home") as warehouse:
        lines = order_lines(90, seed)
        Orders().land(
            LAST_IN_FORCE, [line for line in [*lines, *twins_of(lines, seed)] if line.day <= LAST_IN_FORCE]
        )
        build_date(LAST_IN_FORCE, "run-1")
        found = tiers_on(warehouse, LAST_IN_FORCE)
        assert found.index.is_unique
        assert len(found) == warehouse.value(
            "select count(*) from marts.account_features where as_of_date = %s", LAST_IN_FORCE
        )
        assert_twins_stand_no_lower(found)
        yardstick = pd.DataFrame(
            warehouse.rows(
                "select account_id, orders_per_quarter, yearly_net_spend, days_since_last_order "
                "from intermediate.int_tier_calibration_accounts where quarter_start = %s",
                QUARTER,
            ),
            columns=["account_id", *MEASURES],
        ).set_index("account_id")
        assert len(yardstick) >= 50
        shares = pandas_marts.calibrated_tiers(yardstick, yardstick).value_counts()
        assert shares["S"] == int(len(yardstick) * 15 / 80 + 0.5)
        assert shares["S"] + shares["A"] == int(len(yardstick) * 40 / 80 + 0.5)
        expected = pandas_marts.calibrated_tiers(
            yardstick,
            pandas_marts.features(pandas_marts.current_lines(warehouse, LAST_IN_FORCE), LAST_IN_FORCE),
        )
        pd.testing.assert_series_equal(found["tier"], expected, check_names=False)


LATER_POLICY = (
    "insert into marts.value_bands values ('yearly_arpu', 'low', null, 1, '2026-07-01'), "
    "('yearly_arpu', 'middle', 1, 2, '2026-07-01'), ('yearly_arpu', 'high', 2, null, '2026-07-01')",
    "insert into marts.thresholds values ('paying_window_days', 1, '2026-07-01'), ('lost_days', 1, '2026-07-01'), "
    "('enterprise_yearly_spend', 1, '2026-07-01')",
    "insert into marts.dedicated_manager_rules values ('top_share', '0.90', true, '2026-07-01')",
    "insert into marts.age_actions select stage, 'something else', '2026-07-01' from marts.age_actions",
)


@pytest.mark.extended
def test_a_policy_of_a_later_date_changes_no_earlier_one(cluster, template: str, tmp_path: Path) -> None:
    tables = ("value_tiers", "relationships", "journeys", "kinds", "care", "lifecycle")
    with fresh_warehouse(cluster, template, tmp_path / "home") as warehouse:
        Orders().land(LAST_DAY, order_lines(60))
        found = []
        for statements in ((), LATER_POLICY):
            for statement in statements:
                warehouse.rows(statement)
            for as_of in (INPUT_DATE, LAST_DAY):
                build_date(as_of, f"run-{as_of}")
            found.append(
                {
                    (table, as_of): sorted(
                        warehouse.rows(f"select * from marts.account_{table} where as_of_date = %s", as_of),
                        key=str,
                    )
                    for table in tables
                    for as_of in (INPUT_DATE, LAST_DAY)
                }
            )
        before, after = found
        assert [table for table in tables if before[table, INPUT_DATE] != after[table, INPUT_DATE]] == []
        assert [table for table in tables if before[table, LAST_DAY] == after[table, LAST_DAY]] == []
        assert len(before["care", INPUT_DATE]) > 30
