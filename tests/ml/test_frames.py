"""A frame holds what was known on its dates, and no label whose window has not ended."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from psycopg import sql

from include.errors import StratumError
from include.warehouse.connect import connect
from ml.features import NAMES
from ml.frames import (
    LABEL,
    check_columns,
    features_in_chunks,
    features_on,
    fingerprint,
    label_of,
    of_some_accounts,
    training_dates,
    training_frame,
)
from ml.targets import CHURN, RISE, Policy, policy_on
from tests.conftest import Warehouse
from tests.ml.world import FIRST, add_date, labelled, make_marts, month_ends, order_days

AS_OF = date(2026, 2, 10)
SMALL = pd.DataFrame(
    [
        ("last_day_of_window", date(2025, 1, 10), 10.0),
        ("last_day_of_window", date(2025, 5, 1), 10.0),  # 2025-01-31 + 90 days
        ("day_after_window", date(2025, 1, 10), 10.0),
        ("day_after_window", date(2025, 5, 2), 10.0),
        ("never_again", date(2025, 1, 10), 10.0),
        ("on_the_date", date(2025, 1, 31), 10.0),
    ],
    columns=["account_id", "order_date", "amount"],
)


def frame_as_of(as_of: date, horizon: int = 90) -> pd.DataFrame:
    with connect("scorer") as connection:
        return training_frame(connection, CHURN, as_of, Policy(horizon, 90))


@pytest.mark.parametrize(
    ("as_of", "newest"),
    [
        (date(2026, 2, 10), date(2025, 10, 31)),
        (date(2026, 2, 28), date(2025, 11, 30)),  # 2025-11-30 + 90 days: the window ended that very day
        (date(2026, 2, 27), date(2025, 10, 31)),
    ],
)
def test_the_newest_training_date_is_the_last_whose_label_window_has_ended(
    warehouse: Warehouse, as_of: date, newest: date
) -> None:
    make_marts(order_days(20), month_ends())
    with connect("scorer") as connection:
        dates = training_dates(connection, as_of, 90)
    assert dates == [day for day in month_ends() if day <= newest]


def test_a_label_says_whether_the_account_ordered_within_the_window(warehouse: Warehouse) -> None:
    make_marts(SMALL, [date(2025, 1, 31)])
    frame = frame_as_of(date(2025, 5, 1))
    assert dict(zip(frame["account_id"], frame[LABEL], strict=True)) == {
        "day_after_window": 1,
        "last_day_of_window": 0,
        "never_again": 1,
        "on_the_date": 1,
    }


def test_only_month_ends_are_trained_on(warehouse: Warehouse) -> None:
    make_marts(order_days(20), [*month_ends(FIRST, date(2025, 3, 31)), date(2025, 2, 10)])
    assert set(frame_as_of(date(2025, 7, 10))["as_of_date"].dt.date) == set(
        month_ends(FIRST, date(2025, 3, 31))
    )


def test_a_month_end_that_is_not_kept_is_told_with_the_way_to_make_it(warehouse: Warehouse) -> None:
    make_marts(order_days(20), [day for day in month_ends() if day != date(2025, 6, 30)])
    with pytest.raises(StratumError, match="stratum backfill --from 2025-06-30 --to 2025-06-30"):
        frame_as_of(AS_OF)


def test_what_comes_after_the_as_of_date_changes_no_frame(warehouse: Warehouse) -> None:
    days = order_days()
    make_marts(days, month_ends())
    before = frame_as_of(AS_OF)
    random = np.random.default_rng(1)
    known = days[days["order_date"] <= AS_OF]
    noise = pd.DataFrame(
        {
            "account_id": random.choice([*known["account_id"].unique(), "new_1", "new_2"], 2000),
            "order_date": [AS_OF + timedelta(days=int(day)) for day in 1 + 139 * random.random(2000)],
            "amount": np.round(1e6 * random.random(2000), 2),
        }
    )
    make_marts(pd.concat([known, noise.drop_duplicates(["account_id", "order_date"])]), month_ends())
    after = frame_as_of(AS_OF)
    pd.testing.assert_frame_equal(before, after)
    assert fingerprint(before) == fingerprint(after)


def test_the_database_gives_the_frame_that_is_computed_beside_it(warehouse: Warehouse) -> None:
    make_marts(order_days(30), month_ends(FIRST, date(2025, 4, 30)))
    expected = labelled(order_days(30), month_ends(FIRST, date(2025, 4, 30)))
    found = frame_as_of(date(2025, 8, 10))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_unknown_values_are_nan_and_flags_are_numbers(warehouse: Warehouse) -> None:
    make_marts(order_days(20), [])
    add_date(order_days(20), date(2025, 12, 31))
    warehouse.rows(
        "update marts.account_features set has_decision_maker = true, nps_latest = 9, open_deal_amount = null "
        "where account_id = 'A0003'"
    )
    with connect("scorer") as connection:
        whole = features_on(connection, CHURN, [date(2025, 12, 31)])
        chunks = list(features_in_chunks(connection, CHURN, date(2025, 12, 31), rows=7))
    assert {len(chunk) for chunk in chunks[:-1]} == {7}
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), whole)
    frame = whole.set_index("account_id")
    assert frame.loc["A0003", ["has_decision_maker", "nps_latest"]].tolist() == [1, 9]
    assert np.isnan(frame.loc["A0003", "open_deal_amount"])
    assert np.isnan(frame.loc["A0004", "nps_latest"])
    assert (frame[list(NAMES)].dtypes == "float64").all()


def test_a_column_the_marts_lack_is_an_error_and_not_a_zero(warehouse: Warehouse) -> None:
    make_marts(order_days(20), month_ends())
    warehouse.rows("alter table marts.account_features drop column logins_30d")
    with pytest.raises(StratumError, match=r"does not fit the model's features: .*logins_30d"):
        frame_as_of(AS_OF)
    with connect("scorer") as connection, pytest.raises(StratumError, match=r"features: .*logins_30d"):
        next(features_in_chunks(connection, CHURN, AS_OF))


@pytest.mark.parametrize(
    ("found", "told"), [(["a"], "missing b; new none"), (["a", "b", "c"], "missing none; new c")]
)
def test_missing_and_new_columns_are_told(found: list[str], told: str) -> None:
    for columns in (found, iter(found)):
        with pytest.raises(StratumError, match=told):
            check_columns(columns, iter(["a", "b"]), "the model")


def test_the_policy_is_the_one_in_force_on_the_date(warehouse: Warehouse) -> None:
    make_marts(order_days(20), [])
    warehouse.rows("insert into marts.thresholds values ('churn_horizon_days', 60, '2026-02-11')")
    with connect("scorer") as connection:
        assert policy_on(connection, CHURN, AS_OF).horizon_days == 90
        assert policy_on(connection, CHURN, AS_OF + timedelta(days=1)).horizon_days == 60
        with pytest.raises(StratumError, match="No churn policy is in force on 1999-12-31"):
            policy_on(connection, CHURN, date(1999, 12, 31))


def test_the_fingerprint_sees_every_part_of_a_frame() -> None:
    frame = labelled(order_days(10), [date(2025, 12, 31)])
    seen = {fingerprint(frame)}
    for column, value in (
        ("orders_90d", 99.0),
        (LABEL, 1 - frame[LABEL].iloc[0]),
        ("account_id", "A9999"),
        ("as_of_date", pd.Timestamp(2025, 11, 30)),
    ):
        changed = frame.copy()
        changed.loc[changed.index[0], column] = value
        seen.add(fingerprint(changed))
    assert len(seen) == 5


def test_the_fingerprint_sees_the_last_row_of_a_frame_of_several_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ml.frames.CHUNK", 4)
    frame = labelled(order_days(10), [date(2025, 12, 31)])
    changed = frame.copy()
    changed.loc[changed.index[-1], "orders_90d"] = 99.0
    assert len(frame) > 2 * 4
    assert fingerprint(changed) != fingerprint(frame)


def test_a_sample_is_of_whole_accounts_whatever_order_the_rows_have() -> None:
    frame = labelled(order_days(40), month_ends(FIRST, date(2025, 6, 30)))
    drawn = of_some_accounts(frame, len(frame) // 3, seed=1)
    of_each, drawn_of_each = (rows.groupby("account_id").size() for rows in (frame, drawn))
    assert 0 < len(drawn_of_each) < len(of_each)
    assert (drawn_of_each == of_each[drawn_of_each.index]).all()
    mixed = of_some_accounts(frame.sample(frac=1, random_state=2), len(frame) // 3, seed=1)
    assert set(mixed["account_id"]) == set(drawn["account_id"])


def test_who_is_not_of_the_population_is_not_scored(warehouse: Warehouse) -> None:
    day = date(2025, 12, 31)
    make_marts(order_days(20), [])
    add_date(order_days(20), day)
    warehouse.rows("update marts.account_features set net_revenue_90d = 10")
    warehouse.rows("update marts.account_features set net_revenue_90d = 0 where account_id = 'A0003'")
    with connect("scorer") as connection:
        whole = features_on(connection, RISE, [day])
        chunks = pd.concat(features_in_chunks(connection, RISE, day, rows=7))
    assert "A0003" not in set(whole["account_id"])
    assert len(whole) == warehouse.value("select count(*) from marts.account_features") - 1
    assert list(chunks["account_id"]) == list(whole["account_id"])


@pytest.mark.parametrize(
    ("before", "after", "rose"),
    [(100, 120, True), (100, "119.99", False), (0, 50, False), (-10, 50, False), (100, 0, False)],
)
def test_a_rise_is_of_the_policys_share_at_least_and_of_something(
    warehouse: Warehouse, before: int, after: int | str, rose: bool
) -> None:
    label = label_of(RISE, Policy(90, 90, min_rise=0.2))
    query = sql.SQL(
        "select {} from (select %s::numeric, %s::numeric) as outcomes (net_revenue_before, net_revenue)"
    )
    with connect("scorer") as connection:
        assert connection.execute(query.format(label), [before, after]).fetchone() == (rose,)
