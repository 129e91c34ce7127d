"""Clusters: a structure that is there is found, the same each time, and keeps its names; without one there are none."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans

from ml.cluster_names import unique_names
from ml.clusters import Fit, _chosen, assign, fit_clusters, medians, quarter_in_force, scales_of, too_few
from ml.params import ClusterParams, section_of
from tests.ml.planted import KINDS, three_kinds

PARAMS = section_of("clusters", ClusterParams)


def fitted(frame: pd.DataFrame, before: Fit | None = None, new_id: int = 1) -> Fit:
    found = fit_clusters(frame, PARAMS, before, new_id)
    assert isinstance(found, Fit), found
    return found


@pytest.fixture(scope="module")
def fit() -> Fit:
    return fitted(three_kinds())


def test_three_kinds_of_accounts_are_found_as_three_clusters(fit: Fit) -> None:
    clusters = assign(three_kinds(), fit)["cluster_id"].to_numpy()
    by_kind = [set(clusters[place::3]) for place in range(3)]
    assert [len(kind) for kind in by_kind] == [1, 1, 1]
    assert set.union(*by_kind) == {1, 2, 3}
    assert fit.stability > 0.99
    assert [round(cluster.share, 4) for cluster in fit.clusters] == [0.3333] * 3


def test_names_tell_what_sets_a_cluster_apart(fit: Fit) -> None:
    clusters = assign(three_kinds(), fit)["cluster_id"].to_numpy()
    names = {cluster.cluster_id: cluster.name for cluster in fit.clusters}
    frequent, middle, rare = (names[clusters[place]] for place in range(3))
    assert {"frequent buyers", "high spend", "ordered lately"} == set(frequent.split(", "))
    assert middle == "typical accounts"
    assert {"rare buyers", "low spend", "long without an order"} == set(rare.split(", "))


def test_the_same_data_give_the_same_clusters_in_whatever_order_they_come(fit: Fit) -> None:
    assert fitted(three_kinds().sample(frac=1, random_state=1)) == fit


def test_a_cluster_that_stays_where_it_was_keeps_its_id_and_name(fit: Fit) -> None:
    later = fitted(three_kinds(400, seed=8, swell=1.2), before=fit, new_id=4)
    before = assign(three_kinds(), fit)["cluster_id"].to_numpy()[:3]
    assert list(assign(three_kinds(400, seed=8, swell=1.2), later)["cluster_id"][:3]) == list(before)
    assert {(one.cluster_id, one.name) for one in later.clusters} == {
        (one.cluster_id, one.name) for one in fit.clusters
    }
    assert all(one.moved is not None and one.moved < PARAMS.max_move for one in later.clusters)


def test_a_cluster_far_from_any_before_it_has_a_new_id_and_a_name_of_its_own(fit: Fit) -> None:
    frame = three_kinds()
    # The frequent ones stop buying and use the product instead.
    frame.loc[::3, ["orders_per_quarter", "yearly_net_spend"]] = [1.0, 900.0]
    frame["logins_90d"] = np.where(np.arange(len(frame)) % 3 == 0, 500.0, 2.0)
    later = fitted(frame, before=fit, new_id=4)
    ids = {one.cluster_id: one for one in later.clusters}
    new = assign(frame, later)["cluster_id"].iloc[0]
    assert new == 4
    assert ids[4].moved is None
    assert "many logins" in ids[4].name
    assert len({one.name for one in later.clusters}) == 3
    assert len({1, 2, 3} & set(ids)) == 2


def test_how_far_a_cluster_moved_is_told_in_the_spreads_of_the_fit_before(fit: Fit) -> None:
    frame = three_kinds()
    for name in frame.columns[1:]:
        frame[name] = 1.5 * frame[name] ** 1.2  # all lie elsewhere, and further apart
    params = PARAMS.model_copy(update={"max_move": 9.0})
    later = fit_clusters(frame, params, fit, 4)
    assert isinstance(later, Fit)
    assert [one.spread for one in later.scales] != pytest.approx([one.spread for one in fit.scales], rel=0.1)
    for one in later.clusters:
        (before,) = (other for other in fit.clusters if other.cluster_id == one.cluster_id)
        then, now = (
            np.array(
                [
                    value * scale.spread + scale.center
                    for value, scale in zip(of.centroid, scales, strict=True)
                ]
            )
            for of, scales in ((before, fit.scales), (one, later.scales))
        )
        apart = (now - then) / np.array([scale.spread for scale in fit.scales])
        assert one.moved == pytest.approx(np.sqrt((apart**2).mean()))


def test_clusters_come_in_an_order_of_their_own_whatever_the_random_starts(fit: Fit) -> None:
    for seed in range(3):
        again = fit_clusters(three_kinds(), PARAMS.model_copy(update={"seed": seed}), None, 1)
        assert isinstance(again, Fit)
        np.testing.assert_allclose(
            [one.centroid for one in again.clusters], [one.centroid for one in fit.clusters]
        )


def test_a_sample_is_fitted_on_and_all_are_counted(fit: Fit) -> None:
    few = fit_clusters(three_kinds(), PARAMS.model_copy(update={"fit_accounts": 100}), None, 1)
    assert isinstance(few, Fit)
    assert [one.accounts for one in few.clusters] == [100] * 3
    assert few.accounts == 300
    centroids, of_all = ([one.centroid for one in of.clusters] for of in (few, fit))
    np.testing.assert_allclose(centroids, of_all, atol=0.15)
    assert centroids != of_all


def test_groups_smaller_than_the_least_share_are_none() -> None:
    found = fit_clusters(three_kinds(), PARAMS.model_copy(update={"min_share": 0.34}), None, 1)
    assert str(found).startswith("no clusters stand out: of 3 to 8 none gives groups of at least 34%")


def test_a_feature_that_few_accounts_have_is_left_out() -> None:
    for accounts, is_used in ((14, False), (16, True)):  # of 300: one in twenty are 15
        frame = three_kinds()
        frame.loc[: accounts - 1, "logins_90d"] = np.arange(1.0, accounts + 1)
        assert ("logins_90d" in {one.name for one in scales_of(frame, PARAMS)}) is is_used


def test_what_is_not_known_and_net_returns_count_as_none_and_a_giant_as_large(fit: Fit) -> None:
    frame = three_kinds()[:5]
    frame.loc[1:4, frame.columns[1:]] = frame.loc[[0] * 4, frame.columns[1:]].to_numpy()
    frame["yearly_net_spend"] = [0.0, np.nan, -500.0, 1e9, 1e12]
    of_none, unknown, returns, large, giant = assign(frame, fit)["distance"]
    assert of_none == unknown == returns
    assert large == giant
    assert of_none != large


def test_the_number_of_clusters_is_kept_while_it_is_hardly_worse() -> None:
    figures = [{"k": k, "silhouette": silhouette} for k, silhouette in ((3, 0.50), (4, 0.54), (5, 0.54))]
    stable = [(KMeans(int(one["k"])), one) for one in figures]
    assert [_chosen(stable, k, PARAMS)[1]["k"] for k in (None, 3, 5, 8)] == [4, 3, 5, 4]
    assert _chosen(stable, 3, PARAMS.model_copy(update={"keep_k": 0.03}))[1]["k"] == 4


def test_a_later_date_only_assigns(fit: Fit) -> None:
    """An account that changes moves to another cluster; the others stay, since the centroids do."""
    frame = three_kinds()
    before = assign(frame, fit).set_index("account_id")["cluster_id"]
    frame.loc[0, list(frame.columns[1:])] = frame.loc[2, list(frame.columns[1:])]
    after = assign(frame, fit).set_index("account_id")["cluster_id"]
    assert list(after.index[after != before]) == ["A0000"]
    assert after["A0000"] == before["A0002"]
    # Where all buy as the rarest do, all are with the rarest: what is much and little stays as it was fitted.
    frame[list(frame.columns[1:])] = frame.loc[[2] * len(frame), list(frame.columns[1:])].to_numpy()
    assert set(assign(frame, fit)["cluster_id"]) == {before["A0002"]}


def test_medians_stand_beside_those_of_the_company(fit: Fit) -> None:
    frame = three_kinds()
    told = medians(frame, assign(frame, fit), fit).set_index(["cluster_id", "measure"])
    frequent = assign(frame, fit)["cluster_id"].iloc[0]
    row = told.loc[(frequent, "orders_per_quarter")]
    assert row["median"] == frame["orders_per_quarter"][::3].median()
    assert row["company_median"] == frame["orders_per_quarter"].median()
    assert set(told.index.get_level_values("measure")) == {
        "orders_per_quarter",
        "yearly_net_spend",
        "days_since_last_order",
    }
    assert len(told) == 3 * len(KINDS)


def test_too_few_accounts_or_features_give_no_clusters_and_the_reason() -> None:
    assert too_few(three_kinds(199), PARAMS) == "too few accounts: 199 have ordered, 200 are needed"
    assert too_few(three_kinds(200), PARAMS) is None
    same = three_kinds().assign(yearly_net_spend=1.0, days_since_last_order=1.0)
    assert fit_clusters(same, PARAMS, None, 1) == (
        "too few features differ between accounts: 1 of 9, 2 are needed"
    )


def test_accounts_without_groups_give_no_clusters_and_the_reason() -> None:
    random = np.random.default_rng(2)
    frame = three_kinds()
    for name in frame.columns[1:]:
        frame[name] = random.lognormal(3, 1, len(frame))
    found = fit_clusters(frame, PARAMS, None, 1)
    assert isinstance(found, str)
    assert found.startswith("no clusters stand out: of 3 to 8 none")


@pytest.mark.parametrize(
    ("as_of", "quarter"),
    [
        (date(2026, 4, 4), date(2026, 1, 1)),
        (date(2026, 4, 5), date(2026, 4, 1)),
        (date(2026, 6, 30), date(2026, 4, 1)),
        (date(2026, 1, 3), date(2025, 10, 1)),
    ],
)
def test_a_quarters_clusters_are_in_force_when_its_tiers_are(as_of: date, quarter: date) -> None:
    assert quarter_in_force(as_of, 5) == quarter


def test_names_that_are_taken_get_more_words_and_then_a_number() -> None:
    words = ["one", "two", "three", "four"]
    assert unique_names([words, words, words], ["x"]) == [
        "one, two, three",
        "one, two, three, four",
        "one, two, three (2)",
    ]
    assert unique_names([["x"]], ["x"]) == ["x (2)"]
