"""A cluster card: one HTML page on the clusters of a quarter, with the map of its accounts, without network or script."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.warehouse.connect import connect
from ml import plots
from ml.card import STYLE
from ml.card_parts import Html, drawing, feature, number, shown_percent, table
from ml.cluster_names import MEASURES
from ml.cluster_runs import features_of, fit_of, knobs_of
from ml.clusters import Fit, assign, medians, nearest, scaled
from ml.features import FEATURES
from ml.phrases import written

SHOWN = 1500  # accounts on a map at most, so that the page stays small: our default
SEED = 20260101
STRONGEST = 3  # features that name a direction of the map, at most
TOLD = 0.3  # weight in a direction (of length 1) from which a feature is told: our default


@dataclass(frozen=True)
class Map:
    """Accounts in the plane that shows most of how they differ.

    `points` are accounts (rows) by two components, in spreads; `places` the place of each one's cluster in the fit;
    `centroids` the clusters in the same plane; `shares` how much of the variance each component holds (0 to 1), and
    `words` what more of it means.
    """

    points: NDArray[np.float64]
    places: NDArray[np.intp]
    centroids: NDArray[np.float64]
    shares: tuple[float, float]
    words: tuple[str, str]


def map_of(frame: pd.DataFrame, fit: Fit) -> Map:
    """Return the map of a frame of one date: the first two principal components of its scaled features.

    A component points to where its strongest feature grows, so that the same accounts give the same map. Of more than
    SHOWN accounts a sample is drawn, always the same; components are those of all.
    """
    points = scaled(frame, fit.scales, fit.clip)
    centroids = np.array([cluster.centroid for cluster in fit.clusters])
    middle = points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(points - middle, full_matrices=False)
    strongest = np.abs(np.round(directions, 9)).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), strongest])[:, None]
    plane = directions[:2].T
    shares = sizes**2 / (sizes**2).sum()
    places = nearest(points, centroids)[0]
    shown = np.arange(len(points))
    if len(points) > SHOWN:
        shown = np.sort(np.random.default_rng(SEED).choice(len(points), SHOWN, replace=False))
    names = [scale.name for scale in fit.scales]
    return Map(
        points=(points[shown] - middle) @ plane,
        places=places[shown],
        centroids=(centroids - middle) @ plane,
        shares=(float(shares[0]), float(shares[1])),
        words=(_words(names, directions[0]), _words(names, directions[1])),
    )


def write_missing_cluster_cards(folder: Path) -> list[Path]:
    """Write the card of each fit that has none and whose features are still kept; return the pages."""
    with connect("scorer") as connection:
        fits = connection.execute(
            "select fit_id from ml.cluster_fits where exists ("
            "select from marts.account_features where as_of_date = fitted_on) order by quarter_start"
        ).fetchall()
    return write_cluster_cards((fit for (fit,) in fits if not (folder / f"{fit}.html").exists()), folder)


def write_cluster_cards(fit_ids: Iterable[str], folder: Path) -> list[Path]:
    """Write the card of each fit, `FIT_ID.html`, and its map beside it; return the pages."""
    pages = []
    for fit_id in fit_ids:
        with connect("scorer") as connection:
            quarter, fit, before = fit_of(connection, fit_id)
            frame = features_of(connection, before)
            knobs = knobs_of(connection, fit_id)
        drawn = drawings(frame, fit, knobs)
        page = folder / f"{fit_id}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        for name, text in drawn.items():
            page.with_name(f"{page.stem}-{name}.svg").write_text(text, encoding="utf-8")
        text = render(fit_id, quarter, before, fit, knobs, profile(frame, fit), drawn)
        page.write_text(text, encoding="utf-8")
        pages.append(page)
    return pages


def drawings(frame: pd.DataFrame, fit: Fit, knobs: Mapping[str, float]) -> dict[str, str]:
    """Return the SVG of the map, and of what the number of clusters was chosen by, by their names."""
    clusters = [(cluster.cluster_id, cluster.name) for cluster in fit.clusters]
    chosen = plots.choice_plot(fit.tried, len(fit.clusters), knobs["min_stability"])
    return {
        "map": plots.svg(plots.map_plot(map_of(frame, fit), clusters), "map"),
        "choice": plots.svg(chosen, "choice"),
    }


def profile(frame: pd.DataFrame, fit: Fit) -> list[tuple[str, ...]]:
    """Return the median of each feature, a row each: of all accounts, then of each cluster in the order of the fit."""
    told = medians(frame, assign(frame, fit), fit).set_index(["measure", "cluster_id"])
    kinds = {one.name: one.kind for one in FEATURES}
    rows = []
    for scale in fit.scales:
        of = told.loc[scale.name]
        values = [of["company_median"].iloc[0], *(of["median"].get(one.cluster_id) for one in fit.clusters)]
        cells = ("" if value is None else written(float(value), kinds[scale.name]) for value in values)
        rows.append((feature(scale.name), *cells))
    return rows


def why_taken(fit: Fit, knobs: Mapping[str, float]) -> tuple[str, list[str]]:
    """Return why there are so many clusters, in a sentence, and of each number that was tried what became of it."""
    taken = len(fit.clusters)
    verdicts, eligible = [], []
    for one in fit.tried:
        if one["smallest_share"] < knobs["min_share"]:
            verdicts.append(f"no: its smallest has less than {knobs['min_share']:.0%} of the accounts")
        elif one["stability"] < knobs["min_stability"]:
            verdicts.append(f"no: less stable than {knobs['min_stability']:g}")
        else:
            eligible.append(one)
            verdicts.append("taken" if one["k"] == taken else "could be, stands behind the one taken")
    best = max(eligible, key=lambda one: (one["silhouette"], -one["k"]))
    asked = (
        f"Of {int(fit.tried[0]['k'])} to {int(fit.tried[-1]['k'])} clusters {len(eligible)} could be taken: their smallest "
        f"has {knobs['min_share']:.0%} of the accounts at least, and other samples of the accounts give the same groups "
        f"(stability of {knobs['min_stability']:g} or more)."
    )
    if best["k"] == taken:
        return (
            f"{asked} Of these {taken} tell the groups apart best (silhouette {fit.silhouette:.3f}).",
            verdicts,
        )
    return (
        f"{asked} {int(best['k'])} would tell the groups apart best (silhouette {best['silhouette']:.3f}); {taken}, as many "
        f"as in the quarter before, do so nearly as well ({fit.silhouette:.3f}), and their names stay.",
        verdicts,
    )


def render(
    fit_id: str,
    quarter: date,
    fitted_on: date,
    fit: Fit,
    knobs: Mapping[str, float],
    profiled: Sequence[tuple[str, ...]],
    drawn: Mapping[str, str],
) -> str:
    """Return the page; `knobs` are those of the fit, `profiled` is `profile` of its accounts."""
    title = f"Clusters of the quarter from {quarter}"
    measures = [scale.name for scale in fit.scales]
    left_out = [feature(name) for name in MEASURES if name not in measures]
    badges = badges_of(fit)
    why, verdicts = why_taken(fit, knobs)
    parts = [
        f"<h1>{escape(title)}</h1>",
        table(
            (),
            [
                ("Fit", fit_id),
                ("Fitted on", f"the features of {fitted_on}"),
                ("Accounts", f"{fit.accounts:,}"),
                ("Features", Html("<br>".join(feature(name) for name in measures))),
                ("Left out, hardly any account differs", Html("<br>".join(left_out) or "none")),
                ("Silhouette (1: groups lie far apart, 0: they touch)", number(fit.silhouette)),
                ("Stability (mean adjusted Rand index with other samples; 1: the same groups)", number(fit.stability)),
                ("Data fingerprint", fit.fingerprint),
            ],
            head_column=True,
        ),
        "<h2>The map</h2>",
        f"<p>Each point is an account, at most {SHOWN:,} of them, in the plane that shows most of how accounts differ; the "
        "clusters are made in all features, so that two that overlap here may lie apart in another. A cluster that goes on "
        "from the quarter before keeps its number, its color and its marker.</p>",
        drawing(drawn, "map"),
        "<h2>The clusters</h2>",
        table(
            ("", "name", "what sets it apart now", "accounts", "share", "moved since the quarter before (spreads)"),
            [
                (
                    badges[one.cluster_id], one.name, one.description, f"{one.accounts:,}", shown_percent(one.share),
                    "new" if one.moved is None else number(one.moved),
                )
                for one in fit.clusters
            ],
        ),
        f"<p>Medians of the accounts on {fitted_on}, amounts in the reporting currency.</p>",
        table(("feature", "all accounts", *(badges[one.cluster_id] for one in fit.clusters)), profiled),
        "<h2>Why so many</h2>",
        f"<p>{escape(why)}</p>",
        drawing(drawn, "choice"),
        table(
            ("clusters", "silhouette", "stability", "smallest share", ""),
            [
                (
                    int(one["k"]), number(one["silhouette"]), number(one["stability"]),
                    shown_percent(one["smallest_share"]), verdict,
                )
                for one, verdict in zip(fit.tried, verdicts, strict=True)
            ],
        ),
        "<h2>Limits</h2>",
        "<ul><li>Clusters group what accounts did up to the day they were fitted on; they foretell nothing.</li>"
        "<li>A name says what set the cluster apart when it was first found.</li></ul>",
    ]  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def badges_of(fit: Fit) -> dict[int, Html]:
    """Return the badge of each cluster by its id: its number in a ring of its color, as on the map."""
    look = plots.looks([one.cluster_id for one in fit.clusters])
    return {
        cluster_id: Html(f'<span class=badge style="border-color:{color}">{cluster_id}</span>')
        for cluster_id, (color, _) in look.items()
    }


def _words(names: list[str], direction: NDArray[np.float64]) -> str:
    weights = [round(float(weight), 6) for weight in direction]
    order = sorted(range(len(names)), key=lambda place: (-abs(weights[place]), place))[:STRONGEST]
    return ", ".join(
        MEASURES[names[place]][0 if weights[place] > 0 else 1]
        for place in order
        if abs(weights[place]) >= TOLD
    )
