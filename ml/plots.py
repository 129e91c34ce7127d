"""The plots of a model card: matplotlib figures of the card's own numbers, and their SVG.

Each takes points that `ml/card.py` also writes as a table. The SVG holds its text as text, no script and no reference to
elsewhere, and is the same for the same points.
"""

import io
import re
from collections.abc import Mapping, Sequence
from datetime import date
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from ml.cluster_card import Map

BLUE, GREY, ORANGE = "#0b5cad", "#8a949e", "#b35900"
# Told apart by most people who see colors differently: Okabe and Ito, "Color Universal Design" (2008).
_CLUSTERS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e8ec",
    "axes.axisbelow": True,
    "legend.frameon": False,
}

Point = tuple[float, float]
Ranged = tuple[float, float, float, float]
"""x, y and the ends of y's interval."""
Caption = tuple[str, str, bool]
"""How a feature is called, its unit, and whether its values are shares."""


def reliability_plot(points: Sequence[Ranged]) -> Figure:
    """Return the plot of told probability against observed rate, with intervals; on the diagonal what is told comes true."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(4.6, 4.0)
        top = min(1.0, 1.05 * max(max(x, high) for x, _, _, high in points))
        axes.plot([0, top], [0, top], color=GREY, linewidth=1, linestyle="--", label="told = true")
        x, y = [point[0] for point in points], [point[1] for point in points]
        below = [max(point[1] - point[2], 0.0) for point in points]
        above = [max(point[3] - point[1], 0.0) for point in points]
        axes.errorbar(x, y, yerr=[below, above], fmt="none", ecolor=BLUE, elinewidth=1, capsize=2)
        axes.plot(x, y, "o-", color=BLUE, markersize=4, linewidth=1, label="held-out dates")
        axes.set(xlabel="mean probability told", ylabel="share that came true", xlim=(0, top), ylim=(0, top))
        _percent(axes, "xy")
        axes.legend(loc="upper left")
    return figure


def gain_plot(points: Sequence[Point], rate: float) -> Figure:
    """Return the plot of the share of accounts looked at, from the highest score down, against the share of positives found.

    `rate` is the share of positives: what a perfect order finds is drawn beside.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(4.6, 4.0)
        axes.plot([0, rate, 1], [0, 1, 1], color=ORANGE, linewidth=1, linestyle=":", label="perfect order")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="by chance")
        axes.plot(
            [x for x, _ in points], [y for _, y in points], "o-", color=BLUE, markersize=3, label="model"
        )
        axes.set(xlabel="accounts looked at, highest first", ylabel="of those it happened to, found")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _percent(axes, "xy")
        axes.legend(loc="lower right")
    return figure


def drift_plot(series: Mapping[str, Mapping[str, Sequence[tuple[date, float]]]]) -> Figure:
    """Return the plots of monthly figures over time: one panel per title, in it one line per name."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.4, 2.5), layout="constrained")
        panels = figure.subplots(1, len(series), squeeze=False)[0]
        for axes, (title, of) in zip(panels, series.items(), strict=True):
            months = sorted({f"{day:%Y-%m}" for points in of.values() for day, _ in points})
            for (name, points), color in zip(of.items(), (BLUE, ORANGE, GREY), strict=False):
                at = [months.index(f"{day:%Y-%m}") for day, _ in points]
                axes.plot(at, [value for _, value in points], "o-", color=color, markersize=3, label=name)
            axes.set_title(title, fontsize=9, loc="left")
            shown = months[:: -(-len(months) // 4) or 1]
            axes.set_xticks([months.index(month) for month in shown], shown)
            if (
                not months
            ):  # a figure may be unknown of every month, such as the Brier score where nothing is calibrated
                axes.set_yticks([])
                axes.text(0.5, 0.5, "not known", ha="center", va="center", transform=axes.transAxes)
            axes.margins(y=0.15)
            if len(of) > 1:
                axes.legend(fontsize=8)
    return figure


def effects_plot(effects: Mapping[str, Sequence[Point]], captions: Mapping[str, Caption]) -> Figure:
    """Return a panel per feature: its value against the mean probability if every account had it.

    All have the same scale from 0 on, so that what hardly moves the probability looks so.
    """
    with matplotlib.rc_context(_STYLE):
        rows = -(-len(effects) // 3)
        figure = Figure(figsize=(9.4, 2.5 * rows), layout="constrained")
        panels = figure.subplots(rows, 3, sharey=True, squeeze=False).ravel()
        top = min(1.0, 1.1 * max(y for points in effects.values() for _, y in points))
        for axes, (name, points) in zip(panels, effects.items(), strict=False):
            title, unit, is_share = captions[name]
            axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=BLUE, markersize=3)
            axes.set_title(fill(title, 40), fontsize=9, loc="left")
            axes.set(xlabel=unit, ylim=(0, top))
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter("{x:,g}")
            _percent(axes, "xy" if is_share else "y")
        for axes in panels[::3]:
            axes.set_ylabel("mean probability")
        for axes in panels[len(effects) :]:
            axes.set_visible(False)
    return figure


def looks(cluster_ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Return the color and the marker of each cluster, by its id: a cluster that goes on keeps them from quarter to quarter.

    Where two of a fit would share them, the later one takes the next that is free. There are as many as clusters at most.
    """
    taken: dict[int, int] = {}
    for cluster_id in sorted(cluster_ids):
        wanted = [(cluster_id - 1 + step) % len(_CLUSTERS) for step in range(len(_CLUSTERS))]
        taken[cluster_id] = next(place for place in wanted if place not in taken.values())
    return {cluster_id: (_CLUSTERS[place], _MARKERS[place]) for cluster_id, place in taken.items()}


def map_plot(shown: "Map", clusters: Sequence[tuple[int, str]]) -> Figure:
    """Return the map of clusters: accounts in two components, a color, a marker and a number for each cluster, their names
    below.

    `clusters` are their ids and names in the order of the fit.
    """
    with matplotlib.rc_context(_STYLE):
        rows = -(-len(clusters) // 2)
        figure = Figure(figsize=(9.4, 5.0 + 0.25 * rows), layout="constrained")
        axes = figure.subplots()
        look = looks([cluster_id for cluster_id, _ in clusters])
        for place, (cluster_id, name) in enumerate(clusters):
            own, (color, marker) = shown.points[shown.places == place], look[cluster_id]
            axes.plot(
                own[:, 0], own[:, 1], marker, color=color, markersize=4, alpha=0.6, markeredgewidth=0,
                label=f"{cluster_id}  {name}",
            )  # fmt: skip
        for (cluster_id, _), (x, y) in zip(clusters, shown.centroids, strict=True):
            axes.annotate(
                str(cluster_id), (x, y), ha="center", va="center", fontsize=10, fontweight="bold",
                bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": look[cluster_id][0], "linewidth": 2},
            )  # fmt: skip
        for which, share, words in zip(("x", "y"), shown.shares, shown.words, strict=True):
            axes.set(**{f"{which}label": f"→ {words} ({share:.0%} of the variance)"})
        legend = figure.legend(loc="outside lower left", ncols=2, fontsize=9, markerscale=1.8)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    return figure


def choice_plot(tried: Sequence[Mapping[str, float]], taken: int, min_stability: float) -> Figure:
    """Return the silhouette and the stability of each number of clusters that was tried; a ring is around the one taken."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.4, 2.6), layout="constrained")
        numbers = [int(one["k"]) for one in tried]
        for axes, name in zip(figure.subplots(1, 2), ("silhouette", "stability"), strict=True):
            values = [one[name] for one in tried]
            axes.plot(numbers, values, "o-", color=BLUE, markersize=4)
            axes.plot(
                [taken], [values[numbers.index(taken)]], "o", color=ORANGE, markersize=11, fillstyle="none",
                markeredgewidth=2, label=f"taken: {taken}",
            )  # fmt: skip
            if name == "stability":
                axes.axhline(min_stability, color=GREY, linestyle="--", linewidth=1, label="needed")
            axes.set_title(name, fontsize=9, loc="left")
            axes.set(xlabel="number of clusters", ylim=(min(0.0, *values), 1.05))
            axes.set_xticks(numbers)
            axes.legend(fontsize=8)
    return figure


def svg(figure: Figure, name: str) -> str:
    """Return a figure as an <svg> element; `name` tells its parts from those of the page's other plots."""
    written = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name, "svg.id": name}):
        FigureCanvasSVG(figure).print_svg(
            written, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = written.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _percent(axes: Axes, which: str) -> None:
    for name in which:
        getattr(axes, f"{name}axis").set_major_formatter(PercentFormatter(1, decimals=0))
