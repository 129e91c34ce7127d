"""Three reasons are three different things, in plain words, and they move with the score."""

import numpy as np
import pandas as pd
import pytest
import shap
from sklearn.ensemble import HistGradientBoostingClassifier

from include.errors import StratumError
from ml.estimators import margins, probabilities, selected
from ml.explain import check_additive, contributions, importances, reasons, shapley_values
from ml.features import FEATURES, NAMES
from ml.phrases import PHRASES, written
from ml.targets import CHURN
from ml.train import Fitted

ORDERED_AGAIN = "(typical of accounts that ordered again: "
NOT_AGAIN = "(typical of accounts that did not order again: "


def told(fitted: Fitted, frame: pd.DataFrame) -> list[list[str]]:
    return reasons(
        frame,
        contributions(fitted.pipeline, selected(fitted.pipeline, frame)),
        fitted.model.features,
        CHURN.words,
    )


def group_of(sentence: str) -> str:
    """The group a sentence speaks for, found by its words."""
    fact = sentence.split(": ", 1)[1]
    matches = {
        phrase.group
        for phrase in PHRASES.values()
        if fact.startswith(phrase.words.split("{")[0]) or fact == phrase.without
    }
    assert len(matches) == 1, sentence
    return matches.pop()


def test_every_feature_has_a_phrase_and_nothing_else_has() -> None:
    assert set(PHRASES) == {feature.name for feature in FEATURES}
    assert {phrase.more for phrase in PHRASES.values()} == {1, -1}
    for phrase in PHRASES.values():
        assert "{" in phrase.words
        assert phrase.without


def test_more_of_a_feature_is_read_the_way_it_may_move_the_risk() -> None:
    for feature in FEATURES:
        assert feature.direction in (0, PHRASES[feature.name].more), feature.name


def test_no_two_groups_share_their_words() -> None:
    for said in (lambda phrase: phrase.words.split("{")[0], lambda phrase: phrase.without):
        groups: dict[str, set[str]] = {}
        for name, phrase in PHRASES.items():
            if name != "gap_ratio":  # it speaks for the recency that days_since_last_order tells
                groups.setdefault(said(phrase), set()).add(phrase.group)
        assert all(len(found) == 1 for found in groups.values()), groups


def test_every_account_has_three_different_reasons_in_plain_text(fitted: Fitted, later: pd.DataFrame) -> None:
    for sentences in told(fitted, later):
        assert len(sentences) == 3
        assert len({group_of(sentence) for sentence in sentences}) == 3
        for sentence in sentences:
            assert sentence.startswith(("Raises risk: ", "Lowers risk: "))
            assert not set("<>\n\r\t{}") & set(sentence)
            assert "nan" not in sentence
            assert sentence.isascii()


def test_the_first_reason_speaks_for_the_side_the_account_is_on(fitted: Fitted, later: pd.DataFrame) -> None:
    contributed = contributions(fitted.pipeline, selected(fitted.pipeline, later)).sum(axis=1).to_numpy()
    for pull, sentences in zip(contributed, told(fitted, later), strict=True):
        if abs(pull) > 0.5:  # near the average both sides are about equal
            assert sentences[0].startswith("Raises" if pull > 0 else "Lowers"), (pull, sentences)


def test_contributions_and_the_average_sum_to_the_score(fitted: Fitted, later: pd.DataFrame) -> None:
    used = selected(fitted.pipeline, later)
    contributed = contributions(fitted.pipeline, used)
    slope = fitted.pipeline[-1].slope
    average = slope * margins(fitted.pipeline, later) - contributed.sum(axis=1)
    assert np.ptp(average) < 1e-9


@pytest.mark.parametrize("most_leaves", [2, 6, 64])
def test_accounts_that_a_tree_cannot_tell_apart_have_the_reasons_shap_gives_each(
    fitted: Fitted, most_leaves: int
) -> None:
    """With unknown values on either side of the splits, and up to 63 splits a tree."""
    random, rows = np.random.default_rng(7), 600
    frame = pd.DataFrame(random.poisson(6, (rows, len(NAMES))).astype(np.float64), columns=list(NAMES))
    frame = frame.mask(random.random(frame.shape) < 0.2)
    frame["gap_ratio"] = frame["days_since_last_order"] / (frame["mean_order_gap_days"] + 1)
    happened = frame.fillna(9).to_numpy()[:, :6].sum(axis=1) + random.normal(0, 9, rows) > 40
    trees = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=most_leaves, min_samples_leaf=3)
    explainer = shap.TreeExplainer(trees.fit(frame, happened))
    assert {tree.children_left.size for tree in explainer.model.trees} == {2 * most_leaves - 1}
    of_each = explainer.shap_values(frame, check_additivity=False)
    together = shapley_values(explainer, frame.to_numpy())
    np.testing.assert_allclose(together, of_each, rtol=0, atol=1e-12)
    told_by = [
        reasons(frame, pd.DataFrame(pulls, columns=list(NAMES)), fitted.model.features, CHURN.words)
        for pulls in (together, of_each)
    ]
    assert told_by[0] == told_by[1]
    assert len({tuple(sentences) for sentences in told_by[0]}) > rows / 2


def test_a_tree_without_a_split_adds_nothing() -> None:
    values = np.arange(40.0).reshape(20, 2)
    trees = HistGradientBoostingClassifier(max_iter=2).fit(
        values, np.arange(20) % 2
    )  # too few rows for a leaf of 20
    assert (shapley_values(shap.TreeExplainer(trees), values) == 0).all()


def test_contributions_that_miss_the_score_are_refused() -> None:
    values, margin = np.array([[0.5, -0.2]]), np.array([0.4])
    check_additive(values, 0.1, margin)
    with pytest.raises(StratumError, match=r"miss the score by 0\.001 log-odds"):
        check_additive(values, 0.1, margin + 0.001)


def test_a_longer_silence_moves_score_and_sentence_together(fitted: Fitted, later: pd.DataFrame) -> None:
    busy = later.sort_values("orders_90d").tail(1)
    silent = busy.assign(
        days_since_last_order=200.0,
        gap_ratio=200 / busy["mean_order_gap_days"],
        orders_90d=0.0,
        orders_180d=0.0,
        net_revenue_90d=0.0,
    )
    before, after = probabilities(fitted.pipeline, busy)[0], probabilities(fitted.pipeline, silent)[0]
    assert after > before + 0.2
    (of_busy,), (of_silent,) = told(fitted, busy), told(fitted, silent)
    assert of_busy[0].startswith("Lowers risk: ")
    assert of_silent[0].startswith("Raises risk: ")
    recency = next(sentence for sentence in of_silent if group_of(sentence) == "recency")
    assert "last order 200 days ago" in recency
    assert recency.startswith("Raises risk: ")


def test_a_typical_value_is_the_median_of_all_the_accounts_that_the_sentence_names(
    fitted: Fitted, later: pd.DataFrame, frame: pd.DataFrame
) -> None:
    """Not of like accounts, and no sentence says so."""
    newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
    medians = {
        named: newest.loc[newest["happened"] == happened, list(NAMES)].median()
        for named, happened in ((ORDERED_AGAIN, 0), (NOT_AGAIN, 1))
    }
    of_fact = {phrase.words.split("{")[0]: name for name, phrase in PHRASES.items() if name != "gap_ratio"}
    kinds = {feature.name: feature.kind for feature in FEATURES}
    compared = set()
    for sentence in (one for sentences in told(fitted, later) for one in sentences):
        fact, named, _ = sentence.split(": ", 1)[1].partition(" (typical of ")
        if named:
            whose = ORDERED_AGAIN if ORDERED_AGAIN in sentence else NOT_AGAIN
            (name,) = {of_fact[words] for words in of_fact if fact.startswith(words)}
            expected = written(medians[whose][name], kinds[name])
            assert sentence.endswith(f"{whose}{expected})"), sentence
            compared.add((name, whose))
    assert len(compared) > 5
    assert {whose for _, whose in compared} == {ORDERED_AGAIN, NOT_AGAIN}


def contract(**typical: tuple[float | None, float | None]) -> list[dict[str, object]]:
    return [
        {
            "name": feature.name,
            "kind": feature.kind,
            "typical_not_happened": typical.get(feature.name, (None, None))[0],
            "typical_happened": typical.get(feature.name, (None, None))[1],
        }
        for feature in CHURN.features
    ]


def account(**values: float) -> pd.DataFrame:
    return pd.DataFrame([{name: values.get(name, np.nan) for name in NAMES}])


def of(values: pd.DataFrame, typical: list[dict[str, object]], **pulls: float) -> list[str]:
    return reasons(values, pd.DataFrame([pulls]), typical, CHURN.words)[0]


def test_a_reason_tells_the_value_and_the_typical_one_of_the_other_outcome() -> None:
    typical = contract(
        days_since_last_order=(31.0, 200.0), orders_365d=(6.0, 1.0), net_revenue_90d=(1500.0, 0.0)
    )
    values = account(days_since_last_order=84, orders_365d=2, net_revenue_90d=90.4)
    assert of(values, typical, days_since_last_order=0.9, orders_365d=0.5, net_revenue_90d=0.2) == [
        f"Raises risk: last order 84 days ago {ORDERED_AGAIN}31 days)",
        f"Raises risk: orders in the last 365 days: 2 {ORDERED_AGAIN}6)",
        f"Raises risk: net revenue of the last 90 days: 90 {ORDERED_AGAIN}1,500)",
    ]
    assert of(values, typical, days_since_last_order=-0.2, orders_365d=-0.5, net_revenue_90d=-0.9) == [
        f"Lowers risk: net revenue of the last 90 days: 90 {NOT_AGAIN}0)",
        f"Lowers risk: orders in the last 365 days: 2 {NOT_AGAIN}1)",
        f"Lowers risk: last order 84 days ago {NOT_AGAIN}200 days)",
    ]


def test_how_overdue_an_account_is_is_told_by_its_own_rhythm() -> None:
    values = account(
        days_since_last_order=84, mean_order_gap_days=31, gap_ratio=84 / 31, orders_365d=2, contacts=1
    )
    sentences = of(
        values, contract(), gap_ratio=0.9, days_since_last_order=0.1, orders_365d=0.2, contacts=0.1
    )
    overdue = "Raises risk: last order 84 days ago, and it orders every 31 days on average"
    assert sentences[0] == overdue
    # Not overdue, and still a pull upwards: told, after what compares.
    early = values.assign(days_since_last_order=20.0, gap_ratio=20 / 31)
    sentences = of(early, contract(contacts=(4.0, 2.0)), gap_ratio=0.9, contacts=0.1)
    assert sentences[:2] == [
        f"Raises risk: contacts known: 1 {ORDERED_AGAIN}4)",
        "Raises risk: last order 20 days ago, and it orders every 31 days on average",
    ]


def test_the_day_itself_is_today_and_ten_days_are_ten_days() -> None:
    for days, told_as in ((0, "last order today"), (10, "last order 10 days ago")):
        values = account(days_since_last_order=days)
        typical = contract(days_since_last_order=(31.0, 200.0))
        assert (
            of(values, typical, days_since_last_order=-0.5)[0]
            == f"Lowers risk: {told_as} {NOT_AGAIN}200 days)"
        )


def test_a_value_that_does_not_differ_in_the_way_it_pulls_is_told_last_and_not_compared() -> None:
    typical = contract(orders_365d=(3.0, 1.0), days_since_last_order=(31.0, 200.0), contacts=(4.0, 2.0))
    values = account(orders_365d=9, days_since_last_order=84, contacts=1)
    sentences = of(values, typical, orders_365d=2.0, days_since_last_order=0.3, contacts=-0.1)
    # Nine orders against three cannot be a reason to worry, and one contact against two none to be calm.
    assert sentences == [
        f"Raises risk: last order 84 days ago {ORDERED_AGAIN}31 days)",
        "Raises risk: orders in the last 365 days: 9",
        "Lowers risk: contacts known: 1",
    ]


def test_an_account_below_the_average_is_told_what_raises_its_risk_too() -> None:
    typical = contract(
        orders_365d=(3.0, 1.0),
        days_since_last_order=(31.0, 200.0),
        net_revenue_90d=(1500.0, 0.0),
        active_days_30d=(9.0, 1.0),
        contacts=(4.0, 2.0),
        open_tickets=(0.0, 2.0),
    )
    values = account(
        orders_365d=9,
        days_since_last_order=3,
        net_revenue_90d=900,
        active_days_30d=7,
        contacts=1,
        open_tickets=0,
    )
    pulls = {
        "orders_365d": -0.9,
        "days_since_last_order": -0.8,
        "net_revenue_90d": -0.7,
        "active_days_30d": -0.6,
    }
    lowering = [
        f"Lowers risk: orders in the last 365 days: 9 {NOT_AGAIN}1)",
        f"Lowers risk: last order 3 days ago {NOT_AGAIN}200 days)",
        f"Lowers risk: net revenue of the last 90 days: 900 {NOT_AGAIN}0)",
    ]
    # The strongest that raises and compares: tickets pull harder, but none open is no reason to worry.
    assert of(values, typical, **pulls, contacts=0.1, open_tickets=0.2) == [
        *lowering[:2],
        f"Raises risk: contacts known: 1 {ORDERED_AGAIN}4)",
    ]
    assert of(values, typical, **pulls, open_tickets=0.2) == lowering
    assert of(values, typical, **pulls) == lowering


def test_features_of_one_group_speak_once_by_the_strongest() -> None:
    typical = contract(
        orders_90d=(3.0, 0.0), orders_180d=(6.0, 0.0), orders_365d=(9.0, 1.0), contacts=(4.0, 2.0)
    )
    values = account(orders_90d=0, orders_180d=1, orders_365d=2, contacts=1)
    assert of(values, typical, orders_90d=0.2, orders_180d=0.6, orders_365d=0.3, contacts=0.1) == [
        f"Raises risk: orders in the last 180 days: 1 {ORDERED_AGAIN}6)",
        f"Raises risk: orders in the last 365 days: 2 {ORDERED_AGAIN}9)",
        f"Raises risk: contacts known: 1 {ORDERED_AGAIN}4)",
    ]


def test_accounts_that_are_told_together_are_told_what_each_is_told_alone() -> None:
    """Unknown values, equal pulls, pulls of nothing and values near the typical ones among them."""
    random, names, rows = np.random.default_rng(5), CHURN.names, 200
    values = pd.DataFrame(random.poisson(3, (rows, len(names))) / random.choice([1, 4, 20], rows)[:, None])
    values.columns = pd.Index(names)
    values = values.mask(random.random(values.shape) < 0.1).assign(
        days_since_last_order=random.poisson(30, rows)
    )
    values["gap_ratio"] = values["days_since_last_order"] / (values["mean_order_gap_days"] + 1)
    typical = contract(**dict.fromkeys(names[1:], (2.0, 0.25)))
    pulls = pd.DataFrame(random.normal(0, 0.3, values.shape).round(1), columns=values.columns)
    pulls[:50] = -pulls[:50].abs()  # nothing raises: the third gives way where something does
    pulls["contacts"] = 0.1
    together = reasons(values, pulls, typical, CHURN.words)
    assert len({tuple(sentences) for sentences in together}) > rows / 2
    for row, sentences in enumerate(together):
        alone = slice(row, row + 1)
        assert reasons(values[alone], pulls[alone], typical, CHURN.words) == [sentences]


def test_an_account_of_one_order_has_three_reasons(fitted: Fitted, later: pd.DataFrame) -> None:
    once_only = later[later["order_days_total"] == 1]
    assert len(once_only) or later["order_days_total"].min() > 1
    single = later.head(1).assign(
        order_days_total=1.0, orders_total=1.0, gap_ratio=np.nan, mean_order_gap_days=np.nan, orders_365d=1.0
    )
    (sentences,) = told(fitted, single)
    assert len({group_of(sentence) for sentence in sentences}) == 3


def test_groups_without_any_pull_fill_up_and_say_so() -> None:
    sentences = of(account(orders_365d=2, contacts=1), contract(), orders_365d=0.3)
    assert sentences[0] == "Raises risk: orders in the last 365 days: 2"
    assert len(set(sentences)) == 3
    assert all(sentence.startswith("Hardly matters: ") for sentence in sentences[1:])


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (84.4, "days", "84 days"),
        (0.6, "days", "1 day"),
        (1250.0, "days", "1,250 days"),
        (2.0, "count", "2"),
        (2.5, "count", "2.5"),
        (-0.01, "count", "0"),
        (12345.6, "amount", "12,346"),
        (3.25, "amount", "3.2"),
        (-1500.0, "amount", "-1,500"),
        (0.125, "share", "12 %"),
        (9.0, "score", "9"),
        (1.0, "flag", "yes"),
        (0.0, "flag", "no"),
    ],
)
def test_a_value_is_written_as_a_reader_expects_it(value: float, kind, text: str) -> None:
    assert written(value, kind) == text


def test_importances_name_every_feature_the_greatest_first(fitted: Fitted) -> None:
    assert set(fitted.importances) == set(NAMES)
    weights = list(fitted.importances.values())
    assert weights == sorted(weights, reverse=True)
    assert fitted.importances["contacts"] == 0
    assert importances(pd.DataFrame({"contacts": [1.0, -3.0]}), NAMES)["contacts"] == 2
