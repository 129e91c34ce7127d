"""Tiers are cut once a quarter on a yardstick that stands: equal to pandas, frozen, fair, and made anew by command."""

import random
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

FIRST_DAY = date(2024, 7, 1)
INPUT_DATE = date(2026, 3, 31)
QUARTER = date(2026, 4, 1)
IN_FORCE = date(2026, 4, 5)
"""Five days of grace after the quarter's end."""
LAST_IN_FORCE = date(2026, 7, 4)
LAST_DAY = date(2026, 7, 5)
MEASURES = ["orders_per_quarter", "yearly_net_spend", "days_since_last_order"]


def _lines(accounts: int) -> list[Line]:
    """Orders of accounts of every kind, each known on its own day."""
    chance = random.Random(accounts)
    lines = []
    for account in range(accounts):
        day = FIRST_DAY + timedelta(days=chance.randrange(500))
        gap, size = chance.choice([9, 30, 30, 80, 200]), chance.choice([80, 80, 900, 7000])
        while day <= LAST_DAY and chance.random() > 0.05:
            key = f"{account}-{day}"
            amount = Decimal(size * chance.choice([1, 1, 2]))
            lines.append(Line(key, f"o{key}", f"c{account:03}", at(day), amount, known_on=day))
            day += timedelta(days=chance.randrange(1, 2 * gap))
    return lines


def _build(as_of: date, run_id: str) -> None:
    build("staging", as_of, run_id)
    build("marts", as_of, run_id)


def _tiers(warehouse: Warehouse, as_of: date) -> pd.DataFrame:
    columns = ["tier", "tier_rank", "ranking_score", "tier_scope", "calibrated_for", *MEASURES]
    rows = warehouse.rows(
        f"select account_id, {', '.join(columns)} from marts.account_tiers join marts.account_features "
        "using (as_of_date, account_id) where as_of_date = %s",
        as_of,
    )
    return pd.DataFrame(rows, columns=["account_id", *columns]).set_index("account_id").sort_index()


def _calibration(warehouse: Warehouse) -> tuple[list[tuple], list[dict]]:
    accounts = warehouse.rows("select * from intermediate.int_tier_calibration_accounts order by 1, 4, 5")
    return accounts, [{**each, "run_id": None} for each in calibrations()]


@pytest.fixture(scope="module")
def company(module_warehouse: Warehouse) -> Warehouse:
    """160 accounts, built before, at the beginning and at the end of a calibration, and after it."""
    Orders().land(LAST_DAY, _lines(160))
    for as_of in (IN_FORCE - timedelta(days=1), IN_FORCE, LAST_IN_FORCE, LAST_DAY):
        _build(as_of, f"run-{as_of}")
    return module_warehouse


@pytest.mark.parametrize("as_of", [IN_FORCE, LAST_IN_FORCE])
def test_tiers_of_the_quarter_equal_an_independent_computation(company: Warehouse, as_of: date) -> None:
    lines = pandas_marts.current_lines(company, as_of)
    then = pandas_marts.features(lines[lines["day"] <= INPUT_DATE], INPUT_DATE)
    found = _tiers(company, as_of)
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
        rows = list(_tiers(company, as_of).itertuples())
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


def test_every_account_has_exactly_one_tier_and_ranks_go_by_tier(company: Warehouse) -> None:
    for as_of in (IN_FORCE, LAST_IN_FORCE, LAST_DAY):
        found = _tiers(company, as_of)
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
        orders.land(later, [line for line in _lines(80) if line.day <= INPUT_DATE])
        _build(IN_FORCE, "run-1")
        before = _tiers(warehouse, IN_FORCE)
        others = list(before.index[::2])
        orders.land(
            later,
            [
                Line(f"{account}+{n}", f"+{account}{n}", account, at(IN_FORCE, n), Decimal(90_000), known_on=IN_FORCE)
                for account in others
                for n in range(6)
            ],
        )  # fmt: skip
        _build(IN_FORCE, "run-2")
        after = _tiers(warehouse, IN_FORCE)
        kept = before.index.difference(others)
        pd.testing.assert_series_equal(after.loc[kept, "tier"], before.loc[kept, "tier"])
        assert (after.loc[others, "tier"] != before.loc[others, "tier"]).any()


@pytest.mark.extended
def test_what_is_learned_later_changes_no_calibration_whenever_it_is_made(
    cluster, template: str, tmp_path: Path
) -> None:
    lines = [line for line in _lines(80) if line.day <= INPUT_DATE]
    late_on = IN_FORCE + timedelta(days=30)
    late = [
        Line(f"late{n}", f"late{n}", f"c{n:03}", at(INPUT_DATE - timedelta(days=n)), Decimal(50_000), known_on=late_on)
        for n in range(40)
    ]  # fmt: skip
    found = {}
    with fresh_warehouse(cluster, template, tmp_path / "as_it_came") as warehouse:
        orders = Orders()
        orders.land(IN_FORCE, lines)
        _build(IN_FORCE, "run-1")
        made = _calibration(warehouse)
        orders.land(late_on, late)
        _build(late_on, "run-2")
        assert _calibration(warehouse) == made
        found["as_it_came"] = (made, _tiers(warehouse, late_on))
        build("staging", late_on, "run-3", full_refresh=True)
        assert _calibration(warehouse) == made
    with fresh_warehouse(cluster, template, tmp_path / "at_once") as warehouse:
        Orders().land(late_on, [*lines, *late])
        _build(late_on, "run-1")
        found["at_once"] = (_calibration(warehouse), _tiers(warehouse, late_on))
    assert found["as_it_came"][0] == found["at_once"][0]
    pd.testing.assert_frame_equal(found["as_it_came"][1], found["at_once"][1])
    assert made[0]


@pytest.mark.extended
def test_a_calibration_that_is_taken_away_is_made_anew_from_what_is_there_then(
    cluster, template: str, tmp_path: Path
) -> None:
    with fresh_warehouse(cluster, template, tmp_path / "home") as warehouse:
        orders = Orders()
        orders.land(IN_FORCE, [line for line in _lines(80) if line.day <= INPUT_DATE])
        _build(IN_FORCE, "run-1")
        accounts, (made,) = _calibration(warehouse)
        dropped = next(iter(orders.current))
        orders.correct(IN_FORCE, dropped, amount=Decimal(77_777))
        _build(IN_FORCE, "run-2")
        assert _calibration(warehouse) == (accounts, [made])
        with pytest.raises(StratumError, match="Say why"):
            recalibrate(QUARTER, " ")
        with pytest.raises(StratumError, match=r"no calibration of a quarter that begins on 2025-10-01"):
            recalibrate(date(2025, 10, 1), "a test")
        assert recalibrate(QUARTER, "a line was wrong") == 1
        assert warehouse.rows("select quarter_start, scope, fingerprint, why from audit.recalibrations") == [
            (QUARTER, "all", made["fingerprint"], "a line was wrong")
        ]
        _build(IN_FORCE, "run-3")
        _, (anew,) = _calibration(warehouse)
        assert anew["fingerprint"] != made["fingerprint"]
        assert anew["accounts"] == made["accounts"]
