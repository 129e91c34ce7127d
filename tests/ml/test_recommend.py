"""Recommendations: what is bought together is recommended, after no look ahead, and only where it beats popularity."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from ml import recommend
from ml.params import RecommendationParams, section_of
from ml.recommend import (
    METHODS,
    POPULARITY,
    Matrix,
    best,
    choose,
    lists_of,
    matrix_of,
    popular_in,
    scores_of,
    similarity_of,
    too_little,
)
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


WEEKS = PARAMS.model_copy(
    update={"history_days": 100, "half_life_days": 10, "popular_days": 30, "sold_within_days": 40}
)


def days_ago(*rows: tuple[str, str, int]) -> pd.DataFrame:
    """Purchases of accounts and products so many days before DAY."""
    return pd.DataFrame(
        [(account, product, pd.Timestamp(DAY - timedelta(days=ago))) for account, product, ago in rows],
        columns=["account_id", "product_id", "order_date"],
    )


def test_what_was_bought_weighs_by_its_newest_day_and_windows_hold_their_first_day() -> None:
    matrix = matrix_of(
        days_ago(
            ("A", "p", 0), ("A", "p", 20), ("A", "q", 10), ("B", "q", 29), ("C", "q", 30), ("B", "r", 39), ("C", "s", 40),
            ("D", "t", 99), ("D", "u", 100), ("E", "v", -1),
        ),
        DAY,
        WEEKS,
    )  # fmt: skip
    assert list(matrix.accounts) == ["A", "B", "C", "D"]
    assert list(matrix.products) == ["p", "q", "r", "s", "t"]
    ago = np.array([[0, 10, np.inf, np.inf, np.inf], [np.inf, 29, 39, np.inf, np.inf],
                    [np.inf, 30, np.inf, 40, np.inf], [np.inf, np.inf, np.inf, np.inf, 99]])  # fmt: skip
    np.testing.assert_allclose(matrix.weights.toarray(), 0.5 ** (ago / 10))
    assert (matrix.bought.toarray() == np.isfinite(ago)).all()
    assert matrix.popular.tolist() == [1, 2, 0, 0, 0]
    assert matrix.is_sold.tolist() == [True, True, True, False, False]


def by_hand() -> tuple[Matrix, csr_matrix]:
    """Two accounts that have bought p and q, one of them p long ago; near p is r, near q less so r, and s."""
    matrix = matrix_of(
        days_ago(("A", "p", 0), ("A", "q", 0), ("B", "p", 30), ("B", "q", 0), ("C", "r", 0), ("C", "s", 0), ("D", "s", 0)),
        DAY,
        WEEKS,
    )  # fmt: skip
    near = np.zeros((4, 4))
    near[0, 2], near[1, 2], near[1, 3] = 0.9, 0.6, 0.5
    return matrix, csr_matrix(near)


def test_a_score_is_what_is_near_to_what_was_bought_lately_and_is_tilted_by_popularity() -> None:
    matrix, near = by_hand()
    rows = np.array([0, 1])
    plain = {row: scores.tolist() for row, scores in scores_of(matrix, near, "bm25", rows)}
    assert plain[0] == pytest.approx([0, 0, 0.9 + 0.6, 0.5])
    assert plain[1] == pytest.approx([0, 0, 0.9 / 8 + 0.6, 0.5])
    tilted = {row: scores.tolist() for row, scores in scores_of(matrix, near, "bm25+popularity", rows)}
    assert tilted[0] == pytest.approx([0, 0, 1.5 * np.sqrt(1.5), 0.5 * np.sqrt(2.5)])
    assert [scores.tolist() for _, scores in scores_of(matrix, None, POPULARITY, rows)] == [[1, 2, 1, 2]] * 2


def test_the_reason_is_the_purchase_that_brought_most_of_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, near = by_hand()
    monkeypatch.setattr(recommend, "similarity_of", lambda *_: near)
    first = {one.account_id: one for one in lists_of(matrix, "bm25", WEEKS) if one.place == 1}
    assert (first["A"].product_id, first["B"].product_id) == ("r", "r")
    assert first["A"].reason == "accounts that bought p also bought this: 0 of 2"
    assert first["B"].reason == "accounts that bought q also bought this: 0 of 2"  # p is too long ago


def test_accounts_scored_a_few_at_a_time_get_the_same_scores(
    bought: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = matrix_of(bought, DAY, PARAMS)
    rows, near = np.arange(len(matrix.accounts)), similarity_of(matrix, "bm25", PARAMS)
    whole = [(row, scores.tolist()) for row, scores in scores_of(matrix, near, "bm25", rows)]
    monkeypatch.setattr(recommend, "SCORES_AT_ONCE", 7 * len(matrix.products))
    assert [(row, scores.tolist()) for row, scores in scores_of(matrix, near, "bm25", rows)] == whole
    assert [row for row, _ in whole] == rows.tolist()
    assert not near.diagonal().any()  # a product says nothing of itself


def test_recall_is_of_what_is_bought_in_the_window_after_and_of_what_is_new_among_it() -> None:
    """Product 00 is the most popular and 10 the eleventh, which stands on the list of who has bought the others."""
    crowd = [
        (f"{account:02d}", f"{product:02d}", 30) for product in range(11) for account in range(30 - product)
    ]
    cutoff = DAY - timedelta(days=28)
    whole = [("Z", f"{product:02d}", 29) for product in range(10)]
    later = [("Z", "10", 0), ("Z", "00", 27), ("29", "01", -1), ("28", "10", 28)]
    found = recommend._recalls(days_ago(*crowd, *whole, *later), cutoff, PARAMS)
    # 29 buys a day after the window, 28 on the day of the cutoff: nobody but Z is judged.
    assert found["new"][POPULARITY].tolist() == [1.0]
    assert found["any"][POPULARITY].tolist() == [0.5]


def test_so_many_accounts_are_judged_at_most_and_each_time_the_same(bought: pd.DataFrame) -> None:
    few = PARAMS.model_copy(update={"evaluated_accounts": 20})
    cutoff = DAY - timedelta(days=PARAMS.window_days)
    first, again, all_of_them = (recommend._recalls(bought, cutoff, one) for one in (few, few, PARAMS))
    assert len(first["any"]["bm25"]) == 20 < len(all_of_them["any"]["bm25"])
    for target in ("new", "any"):
        for method in (POPULARITY, *METHODS):
            assert first[target][method].tolist() == again[target][method].tolist()


def choice_of(
    monkeypatch: pytest.MonkeyPatch, earlier: dict[str, float], newest: dict[str, float], judged: int = 60
) -> recommend.Choice:
    """The choice where every account has these recalls, 0.2 where none is given, on the windows before and on the newest."""

    def recalls(_: pd.DataFrame, cutoff: date, __: RecommendationParams) -> dict[str, dict[str, np.ndarray]]:
        given = newest if cutoff == DAY - timedelta(days=PARAMS.window_days) else earlier
        told = {one: np.full(judged, given.get(one, 0.2)) for one in (POPULARITY, *METHODS)}
        return {"new": told, "any": told}

    monkeypatch.setattr(recommend, "_recalls", recalls)
    return choose(pd.DataFrame(), DAY, PARAMS)


def test_the_windows_before_choose_and_the_newest_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice_of(monkeypatch, {"tfidf": 0.5}, {"bm25": 0.9, "tfidf": 0.4}).method == "tfidf"
    lucky = choice_of(monkeypatch, {"tfidf": 0.5}, {"bm25": 0.9})
    assert lucky.method == POPULARITY
    assert lucky.why.startswith("no method is above popularity: tfidf has ")
    assert choice_of(monkeypatch, {}, dict.fromkeys(METHODS, 0.4)).method == METHODS[0]  # of equals the first
    assert choice_of(monkeypatch, {"tfidf": 0.5}, {"tfidf": 0.4}, PARAMS.min_evaluated).method == "tfidf"
    assert (
        choice_of(monkeypatch, {"tfidf": 0.5}, {"tfidf": 0.4}, PARAMS.min_evaluated - 1).method == POPULARITY
    )


def test_an_interval_holds_95_of_100_means_and_is_the_same_each_time() -> None:
    values = np.random.default_rng(8).normal(0.4, 0.2, 400)
    low, high = recommend._interval(values, PARAMS.model_copy(update={"bootstrap": 4000}))
    apart = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - apart, values.mean() + apart), abs=0.08 * apart)
    assert recommend._interval(values, PARAMS) == recommend._interval(values, PARAMS)


def test_popular_is_what_most_accounts_bought_lately_however_often_each_did() -> None:
    params = WEEKS.model_copy(update={"industry_min_accounts": 2})
    rows = popular_in(
        days_ago(("A", "p", 0), ("A", "p", 1), ("A", "p", 2), ("A", "q", 0), ("B", "q", 29), ("C", "r", 30), ("C", "p", -1)),
        pd.Series({"A": "mining", "B": "mining", "C": "media"}),
        DAY,
        params,
    )  # fmt: skip
    assert [row[:4] for row in rows] == [
        ("", 1, "q", 2.0), ("", 2, "p", 1.0), ("mining", 1, "q", 2.0), ("mining", 2, "p", 1.0),
    ]  # fmt: skip
