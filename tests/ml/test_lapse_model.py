"""The lapse model where little is known: few contracts give none, and only who is due is of its population."""

import csv
from datetime import date, timedelta

import numpy as np
import pytest

from include.dbt import DBT_PROJECT
from include.errors import StratumError
from include.sources.loads import bind_company, landing
from include.warehouse.connect import connect
from ml.champion import settle
from ml.copies import write_rows
from ml.features import LAPSE_NAMES
from ml.frames import features_on, labelled_frame, training_dates, training_frame
from ml.score import score_accounts
from ml.targets import CHURN, LAPSE, Policy
from tests.conftest import Warehouse
from tests.ml.world import FIRST, make_marts, month_ends, order_days

DAY = date(2026, 3, 10)
DUE, NOT_DUE = 18, 6
POLICY = Policy(120, 90)
OTHER = 90
"""A horizon of another policy, whose outcomes are kept beside and are the reverse of those of POLICY."""


@pytest.fixture(scope="module")
def planted(module_warehouse: Warehouse) -> Warehouse:
    """A company of 25 accounts that order; 24 of them are under a contract, of which 18 are due on every date."""
    with landing("orders", "order_lines", DAY) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    dates = [*month_ends(FIRST, date(2026, 2, 28)), DAY]
    days = order_days(25)
    make_marts(days, dates)
    random, features, outcomes = np.random.default_rng(1), [], []
    for day in dates:
        for number, account in enumerate(sorted(days["account_id"].unique())[: DUE + NOT_DUE]):
            values = dict.fromkeys(LAPSE_NAMES, 1) | {"has_renewal_sent": False, "has_decision_maker": False}
            values["logins_90d"] = int(random.integers(0, 20))
            features.append((day, account, number < DUE, *values.values()))
            has_passed = day + timedelta(days=POLICY.horizon_days) <= DAY
            lapsed = values["logins_90d"] < 5
            outcomes.append((day, account, POLICY.horizon_days, lapsed if has_passed else None))
            outcomes.append((day, account, OTHER, not lapsed))
    with connect("transformer") as connection:
        columns = ("as_of_date", "account_id", "is_due", *LAPSE_NAMES)
        write_rows(connection, "marts.lapse_features", columns, features)
        write_rows(
            connection,
            "marts.lapse_outcomes",
            ("as_of_date", "account_id", "horizon_days", "has_lapsed"),
            outcomes,
        )
    return module_warehouse


def test_few_contracts_are_too_little_history_and_no_model_is_fitted(planted: Warehouse) -> None:
    assert settle("lapse", DAY) == []
    found = score_accounts("lapse", DAY, "few")
    assert found.status == "absent"
    assert found.reason is not None
    rows = 10 * DUE  # month-ends of January to October 2025
    ((happened, had_it, had_not),) = planted.rows(
        "select count(*) filter (where has_lapsed), count(distinct account_id) filter (where has_lapsed), "
        "count(distinct account_id) filter (where not has_lapsed) from marts.lapse_outcomes "
        "join marts.lapse_features using (as_of_date, account_id) "
        "where is_due and horizon_days = 120 and as_of_date <= '2025-10-31'"
    )
    assert found.reason == (
        f"too little history: {rows} accounts × month-ends before {DAY}, of which {happened} with the outcome "
        f"(contract lapse in 120 days); {had_it} different accounts had it, {had_not} had not. 300 are needed, 50 of each "
        "outcome, and 30 different accounts of each"
    )
    assert had_it < happened


def test_the_two_models_of_churn_speak_of_no_account_both(planted: Warehouse) -> None:
    with connect("scorer") as connection:
        lapse, churn = (set(features_on(connection, one, [DAY])["account_id"]) for one in (LAPSE, CHURN))
        known = {account for (account,) in planted.rows("select account_id from marts.account_features")}
    assert len(lapse) == DUE
    assert len(churn) == len(known) - DUE - NOT_DUE
    assert not lapse & churn


def test_it_learns_from_the_outcomes_of_its_own_horizon_once_the_window_has_passed(
    planted: Warehouse,
) -> None:
    """Of 120 days as of 2026-03-10 the newest window that has passed is that of 2025-10-31."""
    with connect("scorer") as connection:
        dates = training_dates(connection, DAY, POLICY.horizon_days)
        frame = training_frame(connection, LAPSE, DAY, POLICY)
    assert dates == month_ends(FIRST, date(2025, 10, 31))
    assert sorted(frame["as_of_date"].dt.date.unique()) == dates
    assert len(frame) == DUE * len(dates)
    assert (frame["happened"] == (frame["logins_90d"] < 5)).all()
    assert 0 < frame["happened"].sum() < len(frame)


def test_a_window_that_has_not_passed_is_nobodys_label(planted: Warehouse) -> None:
    with (
        connect("scorer") as connection,
        pytest.raises(
            StratumError, match=r"120 days after 2025-11-30 .* end on 2026-03-30, and no build has reached"
        ),
    ):
        labelled_frame(connection, LAPSE, [date(2025, 10, 31), date(2025, 11, 30)], POLICY)


def test_outcomes_that_lack_accounts_are_no_open_window(planted: Warehouse) -> None:
    planted.rows(
        "create table marts.kept as select * from marts.lapse_outcomes where as_of_date = '2025-09-30'"
    )
    planted.rows("delete from marts.lapse_outcomes where as_of_date = '2025-09-30' and account_id = 'A0000'")
    try:
        with (
            connect("scorer") as connection,
            pytest.raises(StratumError, match=r"lacks rows of marts\.lapse_features: build the marts anew"),
        ):
            labelled_frame(connection, LAPSE, [date(2025, 9, 30)], POLICY)
    finally:
        planted.rows("delete from marts.lapse_outcomes where as_of_date = '2025-09-30'")
        planted.rows("insert into marts.lapse_outcomes select * from marts.kept")
        planted.rows("drop table marts.kept")


def test_our_default_horizon_is_three_months_of_ends_and_their_grace() -> None:
    """A shorter one would leave out contracts whose grace is not over in it; decision 0034 says 90 and 30 days."""
    with (DBT_PROJECT / "seeds" / "policy" / "thresholds.csv").open(encoding="utf-8") as file:
        policy = {row["name"]: int(row["value"]) for row in csv.DictReader(file) if row["value"].isdigit()}
    assert policy["lapse_horizon_days"] == policy["churn_horizon_days"] + policy["renewal_grace_days"]
    assert policy["lapse_horizon_days"] == POLICY.horizon_days
