"""A cluster card: one HTML page on the clusters of a quarter, with the map of its accounts, without network or script."""

from collections.abc import Iterable
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
from ml.card_parts import drawing, number, shown_percent, table
from ml.cluster_names import MEASURES
from ml.cluster_runs import features_of, fit_of
from ml.clusters import Fit, nearest, scaled

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
        drawn = drawings(frame, fit)
        page = folder / f"{fit_id}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        for name, text in drawn.items():
            page.with_name(f"{page.stem}-{name}.svg").write_text(text, encoding="utf-8")
        page.write_text(render(fit_id, quarter, before, fit, drawn), encoding="utf-8")
        pages.append(page)
    return pages


def drawings(frame: pd.DataFrame, fit: Fit) -> dict[str, str]:
    """Return the SVG of the map by its name."""
    clusters = [(cluster.cluster_id, cluster.name) for cluster in fit.clusters]
    return {"map": plots.svg(plots.map_plot(map_of(frame, fit), clusters), "map")}


def render(fit_id: str, quarter: date, fitted_on: date, fit: Fit, drawn: dict[str, str]) -> str:
    """Return the page."""
    title = f"Clusters of the quarter from {quarter}"
    measures = [scale.name for scale in fit.scales]
    left_out = [name for name in MEASURES if name not in measures]
    parts = [
        f"<h1>{escape(title)}</h1>",
        table(
            (),
            [
                ("Fit", fit_id),
                ("Fitted on", f"the features of {fitted_on}"),
                ("Accounts", f"{fit.accounts:,}"),
                ("Features", ", ".join(measures)),
                ("Left out, hardly any account differs", ", ".join(left_out) or "none"),
                ("Silhouette", number(fit.silhouette)),
                ("Stability (mean adjusted Rand index with other samples)", number(fit.stability)),
                ("Data fingerprint", fit.fingerprint),
            ],
            head_column=True,
        ),
        "<h2>The map</h2>",
        f"<p>Each point is an account, at most {SHOWN:,} of them, in the plane that shows most of how accounts differ; the "
        "clusters are made in all features, so that two that overlap here may lie apart in another.</p>",
        drawing(drawn, "map"),
        "<h2>The clusters</h2>",
        table(
            ("id", "name", "what sets it apart now", "accounts", "share", "moved since the quarter before (spreads)"),
            [
                (
                    one.cluster_id, one.name, one.description, f"{one.accounts:,}", shown_percent(one.share),
                    "new" if one.moved is None else number(one.moved),
                )
                for one in fit.clusters
            ],
        ),
        "<h2>How many there could be</h2>",
        table(
            ("clusters", "silhouette", "stability", "smallest share", ""),
            [
                (
                    int(one["k"]), number(one["silhouette"]), number(one["stability"]),
                    shown_percent(one["smallest_share"]), "taken" if one["k"] == len(fit.clusters) else "",
                )
                for one in fit.tried
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


def _words(names: list[str], direction: NDArray[np.float64]) -> str:
    weights = [round(float(weight), 6) for weight in direction]
    order = sorted(range(len(names)), key=lambda place: (-abs(weights[place]), place))[:STRONGEST]
    return ", ".join(
        MEASURES[names[place]][0 if weights[place] > 0 else 1]
        for place in order
        if abs(weights[place]) >= TOLD
    )
