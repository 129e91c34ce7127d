"""The map of clusters: the plane that shows most, every account in the color of its own cluster, the same each time."""

import matplotlib.colors
import numpy as np
import pytest

from ml import cluster_card, plots
from ml.cluster_card import drawings, map_of
from ml.clusters import Fit, assign, fit_clusters, scaled
from ml.params import ClusterParams, section_of
from tests.ml.planted import three_kinds

FRAME = three_kinds()


@pytest.fixture(scope="module")
def fit() -> Fit:
    found = fit_clusters(FRAME, section_of("clusters", ClusterParams), None, 4)
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
    assert drawings(FRAME, fit) == drawings(FRAME, fit)
    every = map_of(FRAME, fit)
    monkeypatch.setattr(cluster_card, "SHOWN", 50)
    some = map_of(FRAME, fit)
    assert len(some.points) == len(some.places) == 50
    assert some.shares == every.shares
    assert {tuple(point) for point in some.points} <= {tuple(point) for point in every.points}
    assert (map_of(FRAME, fit).points == some.points).all()
