"""Recommendations: what is bought together is recommended, after no look ahead, and only where it beats popularity."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from ml.params import RecommendationParams, section_of
from ml.recommend import POPULARITY, best, choose, lists_of, matrix_of, popular_in, too_little
from tests.ml.planted import purchases

DAY = date(2026, 3, 9)
PARAMS = section_of("recommendations", RecommendationParams).model_copy(update={"popular_days": 90})


@pytest.fixture(scope="module")
def bought() -> pd.DataFrame:
    return purchases(DAY)


def lists(frame: pd.DataFrame, method: str) -> dict[str, list]:
    found: dict[str, list] = {}
    for one in lists_of(matrix_of(frame, DAY, PARAMS), method, PARAMS):
        found.setdefault(one.account_id, []).append(one)
    return found


def test_products_bought_together_are_recommended_with_the_count_behind_them(bought: pd.DataFrame) -> None:
    found = lists(bought, "bm25")
    own = bought.groupby("account_id")["product_id"].agg(set)
    buyers = bought.groupby("product_id")["account_id"].agg(set)
    some_missing = [account for account in own.index if len(own[account]) < 7]
    assert len(some_missing) > 30
    for account in some_missing:
        first = found[account][0]
        assert first.product_id[:2] in {product[:2] for product in own[account]}
        because, _, counts = first.reason.removeprefix("accounts that bought ").partition(
            " also bought this: "
        )
        assert because in own[account]
        both = len(buyers[because] & buyers[first.product_id])
        assert counts == f"{both} of {len(buyers[because])}"


def test_nothing_an_account_has_bought_is_on_its_list_and_places_run_from_1(bought: pd.DataFrame) -> None:
    own = bought.groupby("account_id")["product_id"].agg(set)
    for account, places in lists(bought, "tfidf+popularity").items():
        products = [one.product_id for one in places]
        assert not own[account] & set(products)
        assert len(set(products)) == len(products) == PARAMS.kept
        assert [one.place for one in places] == list(range(1, PARAMS.kept + 1))


def test_places_that_no_neighbour_fills_are_popular_products_and_say_so(bought: pd.DataFrame) -> None:
    for places in lists(bought, "bm25").values():
        kinds = [one.method for one in places]
        assert kinds == sorted(kinds)  # bm25 before popularity
        assert kinds[-1] == POPULARITY
        assert places[-1].reason.startswith("popular: ")


def test_a_method_above_popularity_serves_and_tells_by_how_much(bought: pd.DataFrame) -> None:
    choice = choose(bought, DAY, PARAMS)
    figures = {(one.cutoff, one.method, one.target): one for one in choice.figures}
    newest = DAY - timedelta(days=PARAMS.window_days)
    assert choice.method != POPULARITY
    gain = figures[newest, f"{choice.method} - {POPULARITY}", "new"]
    assert gain.low is not None
    assert gain.low > 0.3
    assert figures[newest, choice.method, "new"].value > 0.9
    assert f"{gain.value:+.3f}" in choice.why


def test_where_no_method_is_above_popularity_it_serves_and_says_so() -> None:
    """Everybody buys at random: what was bought tells nothing of what will be."""
    random = np.random.default_rng(6)
    frame = pd.DataFrame(
        {
            "account_id": [f"A{number % 100:03d}" for number in range(1500)],
            "product_id": [f"P{number:02d}" for number in random.integers(0, 60, 1500)],
            "order_date": pd.Timestamp(DAY) - pd.to_timedelta(random.integers(0, 200, 1500), "D"),
        }
    ).sort_values(["account_id", "product_id", "order_date"], ignore_index=True)
    choice = choose(frame, DAY, PARAMS)
    assert choice.method == POPULARITY
    assert choice.why.startswith("no method is above popularity: ")
    assert {one.method for one in next(iter(lists(frame, POPULARITY).values()))} == {POPULARITY}


def test_too_few_accounts_to_judge_leave_popularity(bought: pd.DataFrame) -> None:
    few = bought[bought["account_id"] < "A0012"]
    choice = choose(few, DAY, PARAMS)
    assert choice.method == POPULARITY
    assert "30 are needed to tell another method from popularity" in choice.why


def test_too_few_purchases_are_told(bought: pd.DataFrame) -> None:
    assert too_little(bought, PARAMS) is None
    assert too_little(bought[bought["account_id"] < "A0049"], PARAMS) == (
        "too few purchases: 49 accounts bought 37 products, 50 accounts and 20 products are needed"
    )


def test_what_is_bought_after_the_day_changes_nothing(bought: pd.DataFrame) -> None:
    later = bought.assign(
        order_date=pd.Timestamp(DAY + timedelta(days=1)),
        product_id=bought["product_id"].sample(frac=1, random_state=1).to_numpy(),
    )
    both = pd.concat([bought, later]).sort_values(list(bought.columns), ignore_index=True)
    assert lists(both, "bm25+popularity") == lists(bought, "bm25+popularity")
    assert choose(both, DAY, PARAMS) == choose(bought, DAY, PARAMS)
    nobody = pd.Series(dtype="object")
    assert popular_in(both, nobody, DAY, PARAMS) == popular_in(bought, nobody, DAY, PARAMS)


def test_a_product_nobody_buys_any_more_is_not_recommended(bought: pd.DataFrame) -> None:
    long_ago = pd.Timestamp(DAY) - pd.Timedelta(days=PARAMS.sold_within_days)
    gone = bought.assign(order_date=bought["order_date"].where(bought["product_id"] != "B0-0", long_ago))
    for method in ("bm25", "bm25+popularity", POPULARITY):
        recommended = {one.product_id for places in lists(gone, method).values() for one in places}
        assert "B0-0" not in recommended
        assert "B0-1" in recommended


def test_an_industry_with_enough_buyers_has_a_list_of_its_own(bought: pd.DataFrame) -> None:
    accounts = sorted(bought["account_id"].unique())
    # Of bundles 0 and 1: 40 accounts are enough for a list, 10 are not.
    industries = {account: "mining" for account in accounts if int(account[1:]) % 6 < 2}
    industries |= dict.fromkeys(accounts[2:60:6], "media")
    rows = popular_in(bought, pd.Series(industries), DAY, PARAMS)
    assert {row[0] for row in rows} == {"", "mining"}
    assert {row[2][:2] for row in rows if row[0] == "mining"} <= {"C0", "B0", "B1"}
    assert rows[0][:3] == ("", 1, "C0")
    assert "accounts of the industry mining bought this" in next(row[4] for row in rows if row[0] == "mining")


def test_equal_scores_are_placed_by_product() -> None:
    assert list(best(np.array([1.0, 3.0, 0.0, 3.0, 1.0, -np.inf, 1.0]), 4)) == [1, 3, 0, 4]
