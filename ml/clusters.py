"""Clusters of accounts (K-means), fitted once a quarter and frozen until the next, as tiers are.

Fitted on the features of the last day of the quarter before; any later date only assigns each account to the
nearest centroid. A cluster keeps its id and name from fit to fit where its centroid has stayed near. A fit is
plain numbers in a JSON column: nothing is loaded that could run code.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ml.cluster_names import MEASURES, describe, unique_names
from ml.estimators import one_thread
from ml.params import ClusterParams

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """How a feature is made comparable: log(1 + x) of what lies above 0, less `center`, by `spread`."""

    name: str
    center: float
    spread: float


@dataclass(frozen=True)
class Cluster:
    """One cluster of a fit.

    `centroid` is one number per feature of the fit, in scaled units. `moved` is how far it lies from the centroid
    whose id it took over, None for a new id. `description` tells what sets it apart now, `name` what did when it
    was first found.
    """

    cluster_id: int
    name: str
    description: str
    accounts: int
    share: float
    centroid: tuple[float, ...]
    moved: float | None


@dataclass(frozen=True)
class Fit:
    """The clusters of a quarter, with what they were chosen by.

    `tried` has for each k: `k`, `silhouette`, `stability` and `smallest_share`.
    """

    scales: tuple[Scale, ...]
    clip: float
    clusters: tuple[Cluster, ...]
    accounts: int
    silhouette: float
    stability: float
    tried: tuple[dict[str, float], ...]
    fingerprint: str


def quarter_in_force(as_of: date, grace_days: int) -> date:
    """Return the first day of the quarter whose fit is in force: its own from `grace_days` - 1 days into it.

    It is the rule of the tiers' calibrations (dbt_project/macros/tier_calibration.sql).
    """
    day = as_of - timedelta(days=grace_days - 1)
    return day.replace(month=day.month - (day.month - 1) % 3, day=1)


def too_few(frame: pd.DataFrame, params: ClusterParams) -> str | None:
    """Return why a frame of one date has too few accounts for clusters, in words; None where they suffice."""
    if len(frame) < params.min_accounts:
        return f"too few accounts: {len(frame)} have ordered, {params.min_accounts} are needed"
    return None


def fit_clusters(frame: pd.DataFrame, params: ClusterParams, before: Fit | None, new_id: int) -> Fit | str:
    """Return the clusters of a frame of one date (account_id and the columns of MEASURES), or in words why they form none.

    `before` is the fit of the quarter before, whose ids are kept where centroids stay near; ids from `new_id` on
    are free. The same frame, knobs and fit before give the same clusters.
    """
    frame = frame.sort_values("account_id", ignore_index=True)
    scales = scales_of(frame, params)
    if len(scales) < 2:
        return f"too few features differ between accounts: {len(scales)} of {len(MEASURES)}, 2 are needed"
    points = scaled(frame, scales, params.clip)
    random = np.random.default_rng(params.seed)
    fitted_on = _sample(random, len(points), params.fit_accounts)
    with one_thread():
        tried = [_try(k, points[fitted_on], params, random) for k in range(params.k_from, params.k_to + 1)]
        good = [one for one in tried if one[1]["smallest_share"] >= params.min_share]
        stable = [one for one in good if one[1]["stability"] >= params.min_stability]
        if not stable:
            best = max((one[1]["stability"] for one in good), default=0.0)
            return (
                f"no clusters stand out: of {params.k_from} to {params.k_to} none gives groups of at least "
                f"{params.min_share:.0%} that are found again in other samples of the accounts "
                f"(agreement {best:.2f}, {params.min_stability:.2f} is needed)"
            )
        model, figures = _chosen(stable, len(before.clusters) if before else None, params)
    # In an order of its own, not that of the random starts.
    order = np.lexsort(np.round(model.cluster_centers_, 9).T[::-1])
    centroids = model.cluster_centers_[order]
    sizes = np.bincount(nearest(points, centroids)[0], minlength=len(centroids))
    return Fit(
        scales=scales,
        clip=params.clip,
        clusters=_named(centroids, sizes, scales, params, before, new_id),
        accounts=len(frame),
        silhouette=figures["silhouette"],
        stability=figures["stability"],
        tried=tuple(one[1] for one in tried),
        fingerprint=_fingerprint(frame),
    )


def assign(frame: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """Return account_id, cluster_id and distance (Euclidean, scaled units) of each account of a frame of one date."""
    centroids = np.array([cluster.centroid for cluster in fit.clusters])
    place, distance = nearest(scaled(frame, fit.scales, fit.clip), centroids)
    ids = np.array([cluster.cluster_id for cluster in fit.clusters])
    return pd.DataFrame(
        {
            "account_id": frame["account_id"].to_numpy(),
            "cluster_id": ids[place],
            "distance": np.round(distance, 6),
        }
    )


def medians(frame: pd.DataFrame, assigned: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """Return cluster_id, measure, median and company_median: of each cluster that has accounts, each measure of the fit."""
    names = [scale.name for scale in fit.scales]
    values = frame[["account_id", *names]].merge(assigned, on="account_id", validate="one_to_one")
    company = values[names].median()
    long = values.groupby("cluster_id")[names].median().reset_index()
    long = long.melt("cluster_id", var_name="measure", value_name="median")
    return long.assign(company_median=long["measure"].map(company))


def scales_of(frame: pd.DataFrame, params: ClusterParams) -> tuple[Scale, ...]:
    """Return the scales of the measures that differ between accounts.

    Left out is one that is the same (mostly: none at all) for more than 1 - `varies_on_share` of the accounts, such
    as use in a company without events. The spread is the distance between the quartiles over 1.349, which is a
    standard deviation's size for normal values; where the quartiles are one, the standard deviation itself.
    """
    scales = []
    for name in MEASURES:
        values = _logged(frame[name])
        most_common = float(np.unique(values, return_counts=True)[1].max()) / len(values)
        if most_common > 1 - params.varies_on_share:
            continue
        low, center, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
        spread = (high - low) / 1.349 or float(values.std())
        scales.append(Scale(name, center, spread))
    return tuple(scales)


def scaled(frame: pd.DataFrame, scales: Sequence[Scale], clip: float) -> Array:
    """Return the accounts (rows) by the features of the scales (columns), cut off at `clip` spreads from the center.

    The cut keeps a few giants from being a cluster of their own.
    """
    return np.column_stack(
        [np.clip((_logged(frame[one.name]) - one.center) / one.spread, -clip, clip) for one in scales]
    )


def nearest(points: Array, centroids: Array) -> tuple[NDArray[np.intp], Array]:
    """Return the place of the nearest centroid of each point (of equals the first), and its distance."""
    distances = np.column_stack([np.sqrt(((points - centroid) ** 2).sum(axis=1)) for centroid in centroids])
    place = distances.argmin(axis=1)
    return place, distances[np.arange(len(points)), place]


def _chosen(
    stable: Sequence[tuple[KMeans, dict[str, float]]], k_before: int | None, params: ClusterParams
) -> tuple[KMeans, dict[str, float]]:
    """Return the fit of the highest silhouette, of equals that of the fewest clusters.

    That of as many clusters as the quarter before had goes first where it is hardly worse (`keep_k`): a number that
    goes up and down by the third decimal would take names away and bring them back.
    """
    best = max(stable, key=lambda one: (one[1]["silhouette"], -one[1]["k"]))
    limit = best[1]["silhouette"] - params.keep_k
    same = [one for one in stable if one[1]["k"] == k_before and one[1]["silhouette"] >= limit]
    return same[0] if same else best


def _try(
    k: int, points: Array, params: ClusterParams, random: np.random.Generator
) -> tuple[KMeans, dict[str, float]]:
    """Return K-means of k clusters and its figures.

    `stability` is the mean agreement (adjusted Rand index) of its labels with those of fits on bootstrap samples.
    """
    model = KMeans(k, n_init=params.starts, random_state=params.seed).fit(points)
    labels, _ = nearest(points, model.cluster_centers_)
    shown = _sample(np.random.default_rng(params.seed), len(points), params.silhouette_accounts)
    agreements = []
    for _ in range(params.resamples):
        drawn = random.integers(0, len(points), len(points))
        again = KMeans(k, n_init=1, random_state=int(random.integers(2**31))).fit(points[drawn])
        agreements.append(adjusted_rand_score(labels, nearest(points, again.cluster_centers_)[0]))
    counts = np.bincount(labels, minlength=k)
    several = len(np.unique(labels[shown])) > 1
    return model, {
        "k": k,
        "silhouette": float(silhouette_score(points[shown], labels[shown])) if several else -1.0,
        "stability": float(np.mean(agreements)),
        "smallest_share": float(counts.min() / len(points)),
    }


def _named(
    centroids: Array,
    sizes: NDArray[np.intp],
    scales: tuple[Scale, ...],
    params: ClusterParams,
    before: Fit | None,
    new_id: int,
) -> tuple[Cluster, ...]:
    kept = _matched(centroids, scales, before, params) if before else {}
    descriptions = [describe([one.name for one in scales], centroid) for centroid in centroids]
    taken = [one.name for one, _ in kept.values()]
    fresh = iter(
        unique_names([words for place, words in enumerate(descriptions) if place not in kept], taken)
    )
    clusters = []
    for place, centroid in enumerate(centroids):
        earlier, moved = kept.get(place, (None, None))
        if earlier is None:
            cluster_id, name, new_id = new_id, next(fresh), new_id + 1
        else:
            cluster_id, name = earlier.cluster_id, earlier.name
        clusters.append(
            Cluster(
                cluster_id=cluster_id,
                name=name,
                description=", ".join(descriptions[place]),
                accounts=int(sizes[place]),
                share=float(sizes[place] / sizes.sum()),
                centroid=tuple(float(value) for value in centroid),
                moved=moved,
            )
        )
    return tuple(clusters)


def _matched(
    centroids: Array, scales: tuple[Scale, ...], before: Fit, params: ClusterParams
) -> dict[int, tuple[Cluster, float]]:
    """Return by place the earlier cluster each centroid goes on from, and how far it has moved from it.

    Pairs are chosen so that all distances together are least (Hungarian method); one farther than `max_move` is
    none. A distance is the root mean square over the features that both fits have, in spreads of the fit before.
    """
    here = {one.name: (place, one) for place, one in enumerate(scales)}
    shared = [(here[one.name], (place, one)) for place, one in enumerate(before.scales) if one.name in here]
    if not shared:
        return {}
    now = np.column_stack(
        [
            (centroids[:, place] * one.spread + one.center - old.center) / old.spread
            for (place, one), (_, old) in shared
        ]
    )
    then = np.array([cluster.centroid for cluster in before.clusters])[:, [place for _, (place, _) in shared]]
    distances = np.sqrt(((now[:, None, :] - then[None, :, :]) ** 2).mean(axis=2))
    return {
        int(place): (before.clusters[old], float(distances[place, old]))
        for place, old in zip(*linear_sum_assignment(distances), strict=True)
        if distances[place, old] <= params.max_move
    }


def _logged(values: pd.Series) -> Array:
    # What is not known (no ticket system, no login yet) counts as none of it; net returns as no spend.
    return np.log1p(values.fillna(0).clip(lower=0).to_numpy(np.float64))


def _sample(random: np.random.Generator, rows: int, most: int) -> NDArray[np.intp]:
    return np.arange(rows) if rows <= most else np.sort(random.choice(rows, most, replace=False))


def _fingerprint(frame: pd.DataFrame) -> str:
    digest = hashlib.sha256(json.dumps(list(MEASURES)).encode())
    digest.update("\n".join(frame["account_id"]).encode())
    digest.update(np.ascontiguousarray(frame[list(MEASURES)].to_numpy(np.float64)).tobytes())
    return digest.hexdigest()
