"""Tiers are cut once a quarter on a yardstick that stands: equal to pandas, frozen, fair, and made anew by command."""

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from include.dbt import build
from include.errors import StratumError
from include.warehouse.tiers import calibrations, recalibrate
from tests.conftest import Warehouse, fresh_warehouse
from tests.dbt import pandas_marts
from tests.dbt.raw_rows import Line, Orders, at
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
    direction,
    kept_tiers,
    order_lines,
    refunds_of_the_last,
    tiers_on,
    twins_of,
)

DATES = (IN_FORCE - timedelta(days=1), LAST_IN_FORCE, IN_FORCE, LAST_DAY)
"""The dates that the company is built for, one of them after a later one."""


def _calibration(warehouse: Warehouse) -> tuple[list[tuple], list[dict]]:
    accounts = warehouse.rows("select * from intermediate.int_tier_calibration_accounts order by 1, 4, 5")
    return accounts, [{**each, "run_id": None} for each in calibrations()]


@pytest.fixture(scope="module")
def company(module_warehouse: Warehouse) -> Warehouse:
    """160 accounts and their twins, built before, at the beginning and at the end of a calibration, and after it."""
    lines = order_lines(160)
    Orders().land(LAST_DAY, [*lines, *twins_of(lines, 160), *refunds_of_the_last(lines)])
    for as_of in DATES:
        build_date(as_of, f"run-{as_of}")
    return module_warehouse


@pytest.mark.parametrize("as_of", [IN_FORCE, LAST_IN_FORCE])
def test_tiers_of_the_quarter_equal_an_independent_computation(company: Warehouse, as_of: date) -> None:
    lines = pandas_marts.current_lines(company, as_of)
    then = pandas_marts.features(lines[lines["day"] <= INPUT_DATE], INPUT_DATE)
    found = tiers_on(company, as_of)
    expected = pandas_marts.calibrated_tiers(then, pandas_marts.features(lines, as_of))
    pd.testing.assert_series_equal(found["tier"], expected, check_names=False)
    assert set(found[found["tier"] != "C"]["calibrated_for"]) == {QUARTER}
    assert found["tier"].value_counts().min() >= 5


def test_a_calibration_is_in_force_from_the_end_of_its_grace_to_the_next(company: Warehouse) -> None:
    quarters = {
        as_of: company.rows(
            "select distinct calibrated_for from marts.account_tiers where as_of_date = %s and tier <> 'C'",
            as_of,
        )
        for as_of in (IN_FORCE - timedelta(days=1), IN_FORCE, LAST_IN_FORCE, LAST_DAY)
    }
    assert list(quarters.values()) == [
        [(date(2026, 1, 1),)], [(QUARTER,)], [(QUARTER,)], [(date(2026, 7, 1),)],
    ]  # fmt: skip


def test_on_the_day_of_the_calibration_s_a_and_b_share_its_accounts_15_to_25_to_40(
    company: Warehouse,
) -> None:
    ((accounts, points, spend, days, last),) = company.rows(
        "select accounts, last_s_rank_points, last_s_yearly_net_spend, last_s_days_since_last_order, "
        "last_s_account_id from intermediate.int_tier_calibrations where quarter_start = %s",
        QUARTER,
    )
    yardstick = company.rows(
        "select account_id, orders_per_quarter, yearly_net_spend, days_since_last_order "
        "from intermediate.int_tier_calibration_accounts where quarter_start = %s",
        QUARTER,
    )
    assert len(yardstick) == accounts
    frame = pd.DataFrame(yardstick, columns=["account_id", *MEASURES]).set_index("account_id")
    tiers = pandas_marts.calibrated_tiers(frame, frame).value_counts()
    assert tiers["S"] == round(accounts * 15 / 80 + 1e-9)
    assert tiers["S"] + tiers["A"] == round(accounts * 40 / 80 + 1e-9)
    # And the last S account is the one written down.
    assert frame.loc[last, "yearly_net_spend"] == spend
    assert frame.loc[last, "days_since_last_order"] == days
    assert points > 0


def test_an_account_that_orders_more_and_spends_more_is_never_in_a_lower_tier(company: Warehouse) -> None:
    for as_of in (IN_FORCE, LAST_IN_FORCE):
        rows = list(tiers_on(company, as_of).itertuples())
        compared = 0
        for better in rows:
            for worse in rows:
                if (
                    better.orders_per_quarter >= worse.orders_per_quarter
                    and better.yearly_net_spend > worse.yearly_net_spend
                    and better.days_since_last_order <= worse.days_since_last_order
                ):
                    compared += 1
                    assert "SABC".index(better.tier) <= "SABC".index(worse.tier), (better, worse)
        assert compared > 1000


@pytest.mark.parametrize("as_of", [IN_FORCE, LAST_IN_FORCE, LAST_DAY])
def test_who_does_all_that_another_does_and_more_stands_no_lower(company: Warehouse, as_of: date) -> None:
    assert_twins_stand_no_lower(tiers_on(company, as_of))


def test_refunds_larger_than_orders_leave_an_account_with_a_tier_and_negative_spend(
    company: Warehouse,
) -> None:
    rows = company.rows(
        "select tier, monetary_band, value_tier, yearly_net_spend < 0, owes_dedicated_manager "
        "from marts.account_features "
        "join marts.account_tiers using (as_of_date, account_id) "
        "join marts.account_rfm using (as_of_date, account_id) "
        "join marts.account_value_tiers using (as_of_date, account_id) "
        "join marts.account_care using (as_of_date, account_id) where as_of_date = %s and account_id = 'c159'",
        LAST_DAY,
    )
    assert [row[1:] for row in rows] == [("low", "low", True, False)]
    assert rows[0][0] in "BC"


def test_the_history_tells_each_kept_date_its_tiers_though_one_was_built_after_a_later_one(
    company: Warehouse,
) -> None:
    history = assert_history_is_that_of_the_kept_dates(company)
    assert {span[2] for span in history} >= {IN_FORCE, LAST_DAY}
    assert len(history) > 400


def test_a_build_makes_its_own_date_and_no_month_end_a_second_time(company: Warehouse) -> None:
    made = company.rows(
        "select count(*), count(*) filter (where run_id = 'run-2026-07-05') from marts.built_dates"
    )
    assert made == [(28, 1)]
    assert company.rows("select as_of_date from intermediate.int_dates_due") == [(LAST_DAY,)]
    assert company.rows("select * from intermediate.int_tier_dates") == [(LAST_DAY, LAST_IN_FORCE)]


def test_movements_are_those_since_the_month_end_before(company: Warehouse) -> None:
    kept = kept_tiers(company)
    for day, before in (
        (IN_FORCE, date(2026, 3, 31)),
        (date(2026, 3, 31), date(2026, 2, 28)),
        (date(2025, 1, 31), date(2024, 12, 31)),
        (date(2024, 7, 31), date(2024, 6, 30)),
    ):
        then, now = kept.get(before, {}), kept[day]
        expected = {
            (account, then.get(account), now.get(account), direction(then.get(account), now.get(account)))
            for account in then.keys() | now.keys()
        }
        found = company.rows(
            "select account_id, tier_before, tier, direction from marts.account_tier_movements "
            "where as_of_date = %s and date_before = %s",
            day,
            before,
        )
        assert set(found) == expected
        assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("day", "eve"), [(date(2026, 3, 31), date(2025, 12, 31)), (IN_FORCE, date(2026, 3, 31))]
)
def test_the_migrations_of_a_quarter_add_up_to_the_accounts_of_its_days(
    company: Warehouse, day: date, eve: date
) -> None:
    kept = kept_tiers(company)
    rows = company.rows(
        "select tier_before, tier, accounts, share::float from marts.tier_migrations where as_of_date = %s",
        day,
    )
    matrix = {(before, tier): accounts for before, tier, accounts, _ in rows}
    assert len(matrix) == len(rows) == 24
    for tier in "SABC":
        assert sum(n for (before, _), n in matrix.items() if before == tier) == list(
            kept[eve].values()
        ).count(tier)
        assert sum(n for (_, after), n in matrix.items() if after == tier) == list(kept[day].values()).count(
            tier
        )
        assert sum(share for before, _, _, share in rows if before == tier) == pytest.approx(1, abs=0.0004)
    stayed = [account for account, tier in kept[eve].items() if (tier, kept[day].get(account)) == ("A", "A")]
    assert matrix["A", "A"] == len(stayed) > 0


def test_every_account_has_exactly_one_tier_and_ranks_go_by_tier(company: Warehouse) -> None:
    for as_of in (IN_FORCE, LAST_IN_FORCE, LAST_DAY):
        found = tiers_on(company, as_of)
        assert found.index.is_unique
        assert len(found) == company.value(
            "select count(*) from marts.account_features where as_of_date = %s", as_of
        )
        assert sorted(found["tier_rank"]) == list(range(1, len(found) + 1))
        by_rank = "".join(found.sort_values("tier_rank")["tier"])
        assert by_rank == "".join(sorted(by_rank, key="SABC".index))


@pytest.mark.extended
def test_between_calibrations_an_account_keeps_its_tier_whatever_others_do(
    cluster, template: str, tmp_path: Path
) -> None:
    later = IN_FORCE + timedelta(days=40)
    with fresh_warehouse(cluster, template, tmp_path / "home") as warehouse:
        orders = Orders()
        orders.land(later, [line for line in order_lines(80) if line.day <= INPUT_DATE])
        build_date(IN_FORCE, "run-1")
        before = tiers_on(warehouse, IN_FORCE)
        others = list(before.index[::2])
        orders.land(
            later,
            [
                Line(f"{account}+{n}", f"+{account}{n}", account, at(IN_FORCE, n), Decimal(90_000), known_on=IN_FORCE)
                for account in others
                for n in range(6)
            ],
        )  # fmt: skip
        build_date(IN_FORCE, "run-2")
        after = tiers_on(warehouse, IN_FORCE)
        kept = before.index.difference(others)
        pd.testing.assert_series_equal(after.loc[kept, "tier"], before.loc[kept, "tier"])
        assert (after.loc[others, "tier"] != before.loc[others, "tier"]).any()


@pytest.mark.extended
def test_what_is_learned_later_changes_no_calibration_whenever_it_is_made(
    cluster, template: str, tmp_path: Path
) -> None:
    lines = [line for line in order_lines(80) if line.day <= INPUT_DATE]
    late_on = IN_FORCE + timedelta(days=30)
    late = [
        Line(f"late{n}", f"late{n}", f"c{n:03}", at(INPUT_DATE - timedelta(days=n)), Decimal(50_000), known_on=late_on)
        for n in range(40)
    ]  # fmt: skip
    found = {}
    with fresh_warehouse(cluster, template, tmp_path / "as_it_came") as warehouse:
        orders = Orders()
        orders.land(IN_FORCE, lines)
        build_date(IN_FORCE, "run-1")
        made = _calibration(warehouse)
        orders.land(late_on, late)
        build_date(late_on, "run-2")
        assert _calibration(warehouse) == made
        found["as_it_came"] = (made, tiers_on(warehouse, late_on))
        build("staging", late_on, "run-3", full_refresh=True)
        assert _calibration(warehouse) == made
    with fresh_warehouse(cluster, template, tmp_path / "at_once") as warehouse:
        Orders().land(late_on, [*lines, *late])
        build_date(late_on, "run-1")
        found["at_once"] = (_calibration(warehouse), tiers_on(warehouse, late_on))
    assert found["as_it_came"][0] == found["at_once"][0]
    pd.testing.assert_frame_equal(found["as_it_came"][1], found["at_once"][1])
    assert made[0]


@pytest.mark.extended
def test_a_calibration_that_is_taken_away_is_made_anew_from_what_is_there_then(
    cluster, template: str, tmp_path: Path
) -> None:
    with fresh_warehouse(cluster, template, tmp_path / "home") as warehouse:
        orders = Orders()
        orders.land(IN_FORCE, [line for line in order_lines(80) if line.day <= INPUT_DATE])
        build_date(IN_FORCE, "run-1")
        accounts, calibrated = _calibration(warehouse)
        made = calibrated[0]
        assert made["quarter_start"] == QUARTER
        dropped = next(iter(orders.current))
        orders.correct(IN_FORCE, dropped, amount=Decimal(77_777))
        build_date(IN_FORCE, "run-2")
        assert _calibration(warehouse) == (accounts, calibrated)
        with pytest.raises(StratumError, match="Say why"):
            recalibrate(QUARTER, " ")
        with pytest.raises(StratumError, match=r"no calibration of a quarter that begins on 2020-10-01"):
            recalibrate(date(2020, 10, 1), "a test")
        assert recalibrate(QUARTER, "a line was wrong") == 1
        assert warehouse.rows("select quarter_start, scope, fingerprint, why from audit.recalibrations") == [
            (QUARTER, "all", made["fingerprint"], "a line was wrong")
        ]
        build_date(IN_FORCE, "run-3")
        _, (anew, *others) = _calibration(warehouse)
        assert others == calibrated[1:]
        assert anew["fingerprint"] != made["fingerprint"]
        assert anew["accounts"] == made["accounts"]


@pytest.mark.extended
def test_the_first_build_makes_every_month_end_as_a_build_of_that_day_would_have(
    cluster, template: str, tmp_path: Path
) -> None:
    dates = [date(2025, 6, 30), date(2026, 3, 31), date(2026, 6, 30)]
    tables = (
        *("account_tiers", "account_rfm", "account_segments", "account_lifecycle", "account_memberships"),
        *(
            "account_value_tiers",
            "account_relationships",
            "account_journeys",
            "account_kinds",
            "account_care",
        ),
        *("account_tier_movements", "tier_migrations"),
    )
    found: dict[str, list[list[tuple]]] = {}
    for kind, built in (("at once", [LAST_DAY]), ("day by day", [*dates, LAST_DAY])):
        with fresh_warehouse(cluster, template, tmp_path / kind) as warehouse:
            Orders().land(LAST_DAY, order_lines(160))
            for as_of in built:
                build_date(as_of, f"run-{as_of}")
            found[kind] = [
                warehouse.rows(
                    f"select * from marts.{table} where as_of_date = any(%s) order by 1, 2, 3, 4", dates
                )
                for table in (*tables, "account_profiles")
            ]
            months = warehouse.value("select count(distinct as_of_date) from marts.account_tiers")
            assert months == warehouse.value("select count(*) from marts.built_dates") == 25
    assert found["at once"] == found["day by day"]
    assert len({row[0] for row in found["at once"][0]}) == len(dates)
