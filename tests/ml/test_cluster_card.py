"""The map of clusters: the plane that shows most, every account in the color of its own cluster, the same each time."""

import math
from dataclasses import replace
from datetime import date

import matplotlib.colors
import numpy as np
import pytest

from ml import cluster_card, plots
from ml.cluster_card import drawings, map_of, profile, render, why_taken
from ml.clusters import Fit, assign, fit_clusters, scaled
from ml.params import ClusterParams, section_of
from tests.ml.planted import three_kinds

FRAME = three_kinds()
PARAMS = section_of("clusters", ClusterParams)
KNOBS = PARAMS.model_dump(mode="json")


@pytest.fixture(scope="module")
def fit() -> Fit:
    found = fit_clusters(FRAME, PARAMS, None, 4)
    assert isinstance(found, Fit)
    return found


def test_the_plane_holds_as_much_of_the_variance_as_any_plane_can(fit: Fit) -> None:
    shown = map_of(FRAME, fit)
    points = scaled(FRAME, fit.scales, fit.clip)
    sizes = np.sort(np.linalg.eigvalsh(np.cov(points.T)))[::-1]
    assert shown.shares == pytest.approx(tuple(sizes[:2] / sizes.sum()))
    assert shown.points.var(axis=0, ddof=1) == pytest.approx(sizes[:2])


def test_every_account_is_drawn_in_the_color_of_its_cluster_and_named_by_its_id(fit: Fit) -> None:
    shown = map_of(FRAME, fit)
    clusters = [(one.cluster_id, one.name) for one in fit.clusters]
    assert min(cluster_id for cluster_id, _ in clusters) == 4
    (axes,) = plots.map_plot(shown, clusters).axes
    counted = assign(FRAME, fit).groupby("cluster_id").size()
    assert {line.get_label(): len(line.get_xdata()) for line in axes.lines} == {
        f"{cluster_id}  {name}": counted[cluster_id] for cluster_id, name in clusters
    }
    colors = [matplotlib.colors.to_hex(str(line.get_color())) for line in axes.lines]
    assert len(set(colors)) == len(clusters)
    for text, line in zip(axes.texts, axes.lines, strict=True):
        middle = np.asarray(line.get_xydata()).mean(axis=0)
        assert str(line.get_label()).startswith(f"{text.get_text()}  ")
        assert np.linalg.norm(np.subtract(text.xy, middle)) < 0.001  # type: ignore[attr-defined]  # an Annotation's


def test_a_direction_is_named_by_what_grows_along_it(fit: Fit) -> None:
    shown = map_of(FRAME, fit)
    along = np.corrcoef(shown.points[:, 0], FRAME["orders_per_quarter"])[0, 1]
    assert ("frequent buyers" if along > 0 else "rare buyers") in shown.words[0]
    assert "return" not in " ".join(shown.words)


def test_the_same_accounts_give_the_same_map_and_many_are_a_sample(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawings(FRAME, fit, KNOBS) == drawings(FRAME, fit, KNOBS)
    every = map_of(FRAME, fit)
    monkeypatch.setattr(cluster_card, "SHOWN", 50)
    some = map_of(FRAME, fit)
    assert len(some.points) == len(some.places) == 50
    assert some.shares == every.shares
    assert {tuple(point) for point in some.points} <= {tuple(point) for point in every.points}
    assert (map_of(FRAME, fit).points == some.points).all()


def test_a_cluster_keeps_its_color_and_marker_and_no_two_of_a_fit_share_one() -> None:
    before, after = plots.looks([1, 2, 3]), plots.looks([2, 3, 5, 10])
    assert (after[2], after[3]) == (before[2], before[3])
    for ids in ([1, 2, 3], [2, 3, 5, 10], [8, 16, 24, 32, 40, 48, 56, 64]):
        look = plots.looks(ids)
        assert (
            len({color for color, _ in look.values()}) == len({mark for _, mark in look.values()}) == len(ids)
        )


def page_of(fit: Fit) -> str:
    profiled = profile(FRAME, fit)
    return render(
        "f1", date(2026, 4, 1), date(2026, 3, 31), fit, KNOBS, profiled, drawings(FRAME, fit, KNOBS)
    )


def test_the_page_shows_each_cluster_by_its_badge_in_the_color_of_the_map(fit: Fit) -> None:
    page, look = page_of(fit), plots.looks([one.cluster_id for one in fit.clusters])
    drawn = page.partition("<h2>The map</h2>")[2].partition("</figure>")[0]
    for one in fit.clusters:
        color, _ = look[one.cluster_id]
        badge = f'<span class=badge style="border-color:{color}">{one.cluster_id}</span>'
        assert f"<tr><td>{badge}</td><td>{one.name}</td>" in page
        assert f"<th>{badge}</th>" in page
        assert color in drawn


def test_the_profile_is_the_median_of_each_cluster_in_plain_words(fit: Fit) -> None:
    assigned = FRAME.merge(assign(FRAME, fit))
    rows = {row[0]: row[1:] for row in profile(FRAME, fit)}
    name = "days since the last order <small>days_since_last_order</small>"
    of_clusters = [
        assigned.loc[assigned["cluster_id"] == one.cluster_id, "days_since_last_order"].median()
        for one in fit.clusters
    ]
    days = [FRAME["days_since_last_order"].median(), *of_clusters]
    assert rows[name] == tuple(f"{math.floor(value + 0.5)} days" for value in days)
    assert len(rows) == len(fit.scales)


def tried(k: int, silhouette: float, stability: float = 0.9, smallest: float = 0.2) -> dict[str, float]:
    return {"k": k, "silhouette": silhouette, "stability": stability, "smallest_share": smallest}


def test_the_page_says_why_so_many_clusters_were_taken(fit: Fit) -> None:
    others = (tried(4, 0.9, stability=0.5), tried(5, 0.8, smallest=0.01), tried(6, 0.3))
    best = replace(fit, tried=(tried(3, 0.5), *others), silhouette=0.5)
    why, verdicts = why_taken(best, KNOBS)
    assert verdicts == [
        "taken",
        "no: less stable than 0.75",
        "no: its smallest has less than 3% of the accounts",
        "could be, stands behind the one taken",
    ]
    assert "Of 3 to 6 clusters 2 could be taken" in why
    assert why.endswith("Of these 3 tell the groups apart best (silhouette 0.500).")
    kept = replace(best, tried=(tried(3, 0.5), tried(4, 0.54)))
    assert why_taken(kept, KNOBS)[0].endswith(
        "4 would tell the groups apart best (silhouette 0.540); 3, as many as in the quarter before, do so nearly as well "
        "(0.500), and their names stay."
    )
    page = page_of(best)
    assert why in page
    assert all(f"<td>{verdict}</td>" in page for verdict in verdicts)


def test_the_choice_is_drawn_with_the_numbers_of_its_table(fit: Fit) -> None:
    silhouette, stability = plots.choice_plot(fit.tried, len(fit.clusters), 0.75).axes
    for axes, name in ((silhouette, "silhouette"), (stability, "stability")):
        drawn, ring, *_ = axes.lines
        assert list(drawn.get_xdata()) == [one["k"] for one in fit.tried]
        assert list(drawn.get_ydata()) == [one[name] for one in fit.tried]
        assert (list(ring.get_xdata()), axes.get_ylim()[0] <= 0) == ([len(fit.clusters)], True)
