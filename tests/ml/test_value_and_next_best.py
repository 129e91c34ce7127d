"""The line of values and the next best category: sums that a reader can check by hand."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from include.warehouse.connect import connect
from ml import next_best, value
from ml.next_best import ranked_first, scale_of_shares
from ml.params import params_of
from tests.conftest import Warehouse


def accounts(*owned: str) -> pd.DataFrame:
    """Each text is what one account owns, a letter per category."""
    pairs = [(f"A{place}", letter) for place, letters in enumerate(owned) for letter in letters]
    return pd.DataFrame(pairs, columns=["account_id", "product_category"])


def told(owned: pd.DataFrame, weight: float) -> dict[str, str]:
    found = ranked_first(owned, weight)
    return dict(zip(found["account_id"], found["next_best"], strict=True))


def test_the_next_best_category_is_what_owners_of_the_same_own_too() -> None:
    # Most own c; those that own a own b too.
    owned = accounts("a", "ab", "ab", "ab", "c", "c", "c", "c", "c", "c")
    assert told(owned, 0.0)["A0"] == "b"
    assert told(owned, 1000.0)["A0"] == "c"  # so heavy a weight leaves the share of all alone


def test_what_is_owned_is_not_told_again_and_who_owns_all_is_told_nothing() -> None:
    found = told(accounts("abc", "ab", "a"), 1.0)
    assert "A0" not in found
    assert found["A1"] == "c"
    assert found["A2"] == "b"


def test_of_equal_categories_the_first_by_name_is_told() -> None:
    assert told(accounts("a", "ac", "ab"), 0.0)["A0"] == "b"


def test_a_share_is_the_figure_over_those_of_all_that_is_not_owned() -> None:
    # Of the four owners of a two own b too, one c: figures 1/2 and 1/4.
    found = ranked_first(accounts("a", "ab", "ab", "ac"), 0.0).set_index("account_id")
    assert found.loc["A0", "share"] == pytest.approx((1 / 2) / (1 / 2 + 1 / 4))
    assert found.loc["A1", "share"] == 1.0  # c alone is left to it


FIRST_DAY, SINCE, LATER = date(2026, 1, 1), date(2026, 3, 31), date(2026, 4, 20)


def bought(before: list[str], after: list[str]) -> pd.DataFrame:
    """What accounts owned on SINCE and bought first after it, a letter per category."""
    return pd.concat(
        [
            accounts(*before).assign(first_order_date=FIRST_DAY),
            accounts(*after).assign(first_order_date=LATER),
        ],
        ignore_index=True,
    )


def test_shares_are_scaled_by_how_often_what_would_have_been_told_was_bought() -> None:
    # All who own a alone would have been told b, by a share of 2/3; of the three that bought anything new one bought it.
    owned = bought(["a", "ab", "ab", "ac", "a", "a"], ["b", "", "", "", "c", "d"])
    told = ranked_first(owned[owned["first_order_date"] == FIRST_DAY], 0.0)
    share = told.set_index("account_id").loc["A0", "share"]
    assert scale_of_shares(owned, SINCE, 0.0, 3) == pytest.approx((1 / 3) / share)
    assert scale_of_shares(owned, SINCE, 0.0, 4) is None, "three bought anything new"
    assert scale_of_shares(owned, LATER, 0.0, 1) is None, "nobody bought anything after the last day"
    assert scale_of_shares(owned, date(2025, 1, 1), 0.0, 1) is None, "nobody owned anything yet"


def test_what_was_owned_on_the_first_day_is_known_and_not_bought_anew() -> None:
    owned = bought(["a", "ab", "ab", "ac", "a", "a"], ["b", "", "", "", "c", "d"])
    owned["first_order_date"] = owned["first_order_date"].replace(FIRST_DAY, SINCE)
    assert scale_of_shares(owned, SINCE, 0.0, 3) is not None


def test_accounts_told_a_few_at_a_time_are_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    owned = accounts(
        *("".join(random.permutation(list("abcde"))[: random.integers(1, 6)]) for _ in range(40))
    )
    whole = ranked_first(owned, 2.0)
    assert whole["next_best"].nunique() > 2
    monkeypatch.setattr(next_best, "CHUNK", 7)
    pd.testing.assert_frame_equal(ranked_first(owned, 2.0), whole)


def test_what_is_told_of_a_date_comes_of_its_own_rows_and_of_the_horizon_before_it(
    warehouse: Warehouse,
) -> None:
    """Sixty that owned a alone bought b within the horizon, as they would have been told: now c is left."""
    day, since, long_ago = date(2026, 3, 31), date(2025, 12, 31), date(2025, 1, 1)
    rows = [
        *((f"A{number:02d}", "a", date(2025, 11, 15)) for number in range(60)),
        *((f"A{number:02d}", "b", date(2026, 2, 1)) for number in range(60)),
        *((f"B{number:02d}", category, long_ago) for number in range(20) for category in ("a", "b")),
        *((f"C{number:02d}", category, long_ago) for number in range(9) for category in ("a", "c")),
        ("D", "c", long_ago),
    ]
    with connect("transformer") as connection, connection.cursor() as cursor:
        cursor.execute(
            "create table marts.account_categories "
            "(as_of_date date, account_id text, product_category text, first_order_date date)"
        )
        cursor.executemany(
            "insert into marts.account_categories values (%s, %s, %s, %s)",
            [(day, *row) for row in rows] + [(date(2026, 2, 28), "Z", "a", long_ago)],
        )
    owned = pd.DataFrame(rows, columns=["account_id", "product_category", "first_order_date"])
    knobs = params_of("upsell")
    told = ranked_first(owned, knobs.next_best_weight).set_index("account_id")
    scale = scale_of_shares(owned, since, knobs.next_best_weight, knobs.next_best_min_buyers)
    assert scale is not None
    assert scale > 1
    with connect("scorer") as connection:
        found = next_best.next_best(connection, day, 90).set_index("account_id")
        pd.testing.assert_series_equal(found["next_best"], told["next_best"])
        np.testing.assert_allclose(found["chance"], np.minimum(told["share"] * scale, 1))
        assert found.loc["A00"].tolist() == ["c", 1.0]
        assert 0 < found.loc["D", "chance"] < 1
        assert found.loc["D", "chance"] != pytest.approx(
            scale * ranked_first(owned, 0.0).set_index("account_id").loc["D", "share"]
        )
    warehouse.rows("delete from marts.account_categories where account_id < 'A11'")
    with connect("scorer") as connection:
        assert next_best.next_best(connection, day, 90)["chance"].isna().all()  # 49 bought anything new


def rows(accounts: int) -> pd.DataFrame:
    random = np.random.default_rng(4)
    spend = 100 * np.exp(random.normal(0, 1, accounts))
    return pd.DataFrame(
        {"net_revenue_90d": spend, "yearly_net_spend": 4 * spend, "average_order_value": spend / 10}
    )


def test_the_line_meets_what_the_rows_bought_together_and_keeps_their_order() -> None:
    ordered = rows(500)
    bought = ordered["net_revenue_90d"].to_numpy() ** 1.5 / 30 * np.random.default_rng(5).gamma(2, 0.5, 500)
    line = value.fit(ordered, bought, 30)
    expected = value.expected(line, ordered, np.ones(500), 30)
    assert expected.sum() == pytest.approx(bought.sum())
    assert (np.diff(expected[np.argsort(ordered["net_revenue_90d"])]) >= 0).all()
    np.testing.assert_allclose(value.expected(line, ordered, np.full(500, 0.5), 30), expected / 2)


def test_returns_and_unknown_values_give_no_negative_expectation() -> None:
    line = {"intercept": -50.0, "net_revenue_90d": 1.0, "yearly_net_spend": 0.0, "average_order_value": 0.0}
    frame = pd.DataFrame(
        {"net_revenue_90d": [-900.0, np.nan, 900.0], "yearly_net_spend": 0.0, "average_order_value": 0.0}
    )
    assert value.expected(line, frame, np.ones(3), 30).tolist() == [0.0, 0.0, 250.0]
