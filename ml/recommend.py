"""Which products to recommend to whom: item-item neighbours (`implicit`) beside popularity, chosen in the order of time.

An account's purchases weigh by how long ago they were; a product scores by how near it is to what the account bought.
On the newest weeks a method must be above popularity, else popularity serves and says so.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd
from implicit.nearest_neighbours import BM25Recommender, TFIDFRecommender
from implicit.utils import ParameterWarning
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ml.estimators import one_thread
from ml.params import RecommendationParams

Array = NDArray[np.float64]
Places = NDArray[np.intp]

NEIGHBOURS = {"bm25": BM25Recommender, "tfidf": TFIDFRecommender}
POPULARITY = "popularity"
# A method with the suffix also weighs a product by how popular it is now.
METHODS = tuple(f"{name}{suffix}" for name in NEIGHBOURS for suffix in ("", "+popularity"))
SCORES_AT_ONCE = 2_000_000  # of 8 bytes each
PLACES = 10  # of a list, and the k of recall@k


class Recommendation(NamedTuple):
    """One place of an account's list."""

    account_id: str
    place: int
    product_id: str
    score: float
    reason: str
    method: str


class Figure(NamedTuple):
    """What a method reached on the purchases of the window after a cutoff; `low` to `high` is the 95 % interval."""

    cutoff: date
    method: str
    target: str
    metric: str
    value: float
    low: float | None
    high: float | None
    accounts: int


@dataclass(frozen=True)
class Matrix:
    """What had been bought by the end of a day.

    `bought` is accounts by products, 1 where bought, `weights` the same with the weight of the newest purchase,
    `popular` the number of accounts that bought each product in the days of popularity, `is_sold` whether a product
    is still bought and so may be recommended.
    """

    as_of: date
    accounts: pd.Index
    products: pd.Index
    bought: csr_matrix
    weights: csr_matrix
    popular: Array
    is_sold: NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """The method that serves, why in words, and all figures."""

    method: str
    why: str
    figures: tuple[Figure, ...]


def too_little(purchases: pd.DataFrame, params: RecommendationParams) -> str | None:
    """Return why purchases are too few to recommend from, in words; None where they suffice."""
    accounts, products = purchases["account_id"].nunique(), purchases["product_id"].nunique()
    if accounts < params.min_accounts or products < params.min_products:
        return (
            f"too few purchases: {accounts} accounts bought {products} products, {params.min_accounts} accounts and "
            f"{params.min_products} products are needed"
        )
    return None


def matrix_of(purchases: pd.DataFrame, as_of: date, params: RecommendationParams) -> Matrix:
    """Return what had been bought by the end of a day, of purchases (account_id, product_id, order_date; days)."""
    first = pd.Timestamp(as_of - timedelta(days=params.history_days))
    known = purchases[(purchases["order_date"] <= pd.Timestamp(as_of)) & (purchases["order_date"] > first)]
    newest = known.groupby(["account_id", "product_id"], sort=True)["order_date"].max().reset_index()
    accounts, products = (
        pd.Index(np.sort(newest[name].unique()), name=name) for name in ("account_id", "product_id")
    )
    rows, columns = (
        accounts.get_indexer(pd.Index(newest["account_id"])),
        products.get_indexer(pd.Index(newest["product_id"])),
    )
    ago = (pd.Timestamp(as_of) - newest["order_date"]).dt.days.to_numpy()
    shape = (len(accounts), len(products))
    return Matrix(
        as_of=as_of,
        accounts=accounts,
        products=products,
        bought=csr_matrix((np.ones(len(newest)), (rows, columns)), shape=shape),
        weights=csr_matrix((0.5 ** (ago / params.half_life_days), (rows, columns)), shape=shape),
        popular=np.bincount(columns[ago < params.popular_days], minlength=shape[1]).astype(float),
        is_sold=np.bincount(columns[ago < params.sold_within_days], minlength=shape[1]) > 0,
    )


def similarity_of(matrix: Matrix, method: str, params: RecommendationParams) -> csr_matrix:
    """Return products by products: how near each product is to its nearest neighbours; of those that are sold alone."""
    model = NEIGHBOURS[method.partition("+")[0]](K=params.neighbours, num_threads=1)
    with one_thread(), warnings.catch_warnings():
        # It weighs the matrix into another form itself, and then warns of that form.
        warnings.simplefilter("ignore", ParameterWarning)
        model.fit(matrix.bought, show_progress=False)
    similarity = model.similarity.tocsr().astype(np.float64)
    # A product is its own nearest; it says nothing about others.
    similarity.setdiag(0)
    similarity.eliminate_zeros()
    similarity.sort_indices()
    return similarity


def scores_of(
    matrix: Matrix, similarity: csr_matrix | None, method: str, rows: Places
) -> Iterator[tuple[int, Array]]:
    """Return each of the accounts (rows of the matrix) with the score of every product; not sold is -inf.

    `similarity` is None for popularity. Several accounts are multiplied at a time, as many as SCORES_AT_ONCE allows.
    """
    tilt = (
        np.sqrt(matrix.popular + 0.5) if method.endswith(f"+{POPULARITY}") else np.ones(len(matrix.products))
    )
    popular = np.where(matrix.is_sold, matrix.popular, -np.inf)
    at_once = max(1, SCORES_AT_ONCE // max(1, len(matrix.products)))
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        if similarity is None:
            scores = np.tile(popular, (len(part), 1))
        else:
            scores = (matrix.weights[part] @ similarity).toarray() * tilt
            scores[:, ~matrix.is_sold] = -np.inf
        yield from zip(part.tolist(), scores, strict=True)


def best(scores: Array, most: int) -> Places:
    """Return the places of the highest scores above 0, the highest first, equal ones by their place."""
    # Most scores are 0, and a partition of equals is slow.
    high = np.flatnonzero(scores > 0)
    if len(high) > most:
        limit = np.partition(scores[high], -most)[-most]
        high = high[scores[high] >= limit]
    return high[np.argsort(-scores[high], kind="stable")[:most]]


def choose(purchases: pd.DataFrame, as_of: date, params: RecommendationParams) -> Choice:
    """Choose a method by what it would have said of the weeks before a day.

    Of `windows` stretches of `window_days` that end on `as_of`, the earlier ones choose among METHODS; on the newest,
    which has chosen nothing, the chosen one must be above popularity (the 95 % interval of the paired difference over
    accounts lies above 0), else popularity serves.
    """
    cutoffs = [as_of - timedelta(days=params.window_days * back) for back in range(params.windows, 0, -1)]
    recalls = {cutoff: _recalls(purchases, cutoff, params) for cutoff in cutoffs}
    judged = recalls[cutoffs[-1]]["new"]
    figures = tuple(figure for cutoff in cutoffs for figure in _figures(cutoff, recalls[cutoff], params))
    if len(judged[POPULARITY]) < params.min_evaluated:
        return Choice(
            POPULARITY,
            f"only {len(judged[POPULARITY])} accounts bought a product new to them in the {params.window_days} days up "
            f"to {as_of}, {params.min_evaluated} are needed to tell another method from popularity",
            figures,
        )
    earlier = {
        method: np.concatenate([recalls[cutoff]["new"][method] for cutoff in cutoffs[:-1]])
        for method in METHODS
    }
    chosen = max(METHODS, key=lambda method: (_mean(earlier[method]), -METHODS.index(method)))
    gain = judged[chosen] - judged[POPULARITY]
    low, high = _interval(gain, params)
    figures += (
        Figure(
            cutoffs[-1],
            f"{chosen} - {POPULARITY}",
            "new",
            f"recall@{PLACES}",
            _mean(gain),
            low,
            high,
            len(gain),
        ),
    )
    told = (
        f"recall@{PLACES} of products new to the account, {params.window_days} days up to {as_of}: "
        f"{_mean(judged[chosen]):.3f} against {_mean(judged[POPULARITY]):.3f} of popularity "
        f"(difference {_mean(gain):+.3f}, 95 % {low:+.3f} to {high:+.3f})"
    )
    if low <= 0:
        return Choice(POPULARITY, f"no method is above popularity: {chosen} has {told}", figures)
    return Choice(chosen, told, figures)


def lists_of(matrix: Matrix, method: str, params: RecommendationParams) -> Iterator[Recommendation]:
    """Return up to `kept` products for every account of a matrix that it has not bought, the best first.

    Places that a method leaves empty are filled by popularity, and marked as such.
    """
    similarity = None if method == POPULARITY else similarity_of(matrix, method, params)
    buyers = matrix.bought.tocsc()
    sold = np.diff(buyers.indptr)
    product_ids, account_ids = matrix.products.to_numpy(), matrix.accounts.to_numpy()
    for row, scores in scores_of(matrix, similarity, method, np.arange(len(account_ids))):
        own = matrix.bought.indices[matrix.bought.indptr[row] : matrix.bought.indptr[row + 1]]
        scores[own] = -np.inf
        near = best(scores, params.kept)
        places = [(int(product), float(scores[product]), method) for product in near]
        if len(places) < params.kept and similarity is not None:
            left = np.where(matrix.is_sold, matrix.popular, -np.inf)
            left[own], left[near] = -np.inf, -np.inf
            places += [(int(product), 0.0, POPULARITY) for product in best(left, params.kept - len(places))]
        because = _because(matrix, similarity, row, near) if similarity is not None else {}
        for place, (product, score, by) in enumerate(places, start=1):
            reason = (
                popular_reason(matrix.popular[product], params)
                if by == POPULARITY
                else _bought_too(buyers, sold, because[product], product, product_ids)
            )
            yield Recommendation(account_ids[row], place, product_ids[product], round(score, 6), reason, by)


def popular_in(
    purchases: pd.DataFrame, industries: pd.Series, as_of: date, params: RecommendationParams
) -> list[tuple[str, int, str, float, str]]:
    """Return industry, place, product_id, score and reason of what accounts of each industry buy most now.

    `industries` is the industry by account_id. '' stands for all accounts; an industry with fewer buyers than
    `industry_min_accounts` has no list of its own.
    """
    first = pd.Timestamp(as_of - timedelta(days=params.popular_days))
    now = purchases[(purchases["order_date"] <= pd.Timestamp(as_of)) & (purchases["order_date"] > first)]
    pairs = now[["account_id", "product_id"]].drop_duplicates()
    pairs = pairs.assign(industry=pairs["account_id"].map(industries))
    enough = pairs.groupby("industry")["account_id"].nunique()
    parts = {"": pairs} | {
        str(industry): pairs[pairs["industry"] == industry]
        for industry in sorted(enough[enough >= params.industry_min_accounts].index)
    }
    rows = []
    for industry, part in parts.items():
        counts = part.groupby("product_id").size().rename("accounts").reset_index()
        counts = counts.sort_values(["accounts", "product_id"], ascending=[False, True])
        for place, (product, accounts) in enumerate(
            counts.head(params.kept).itertuples(index=False, name=None), start=1
        ):
            reason = popular_reason(accounts, params, industry)
            rows.append((industry, place, product, float(accounts), reason))
    return rows


def popular_reason(accounts: float, params: RecommendationParams, industry: str = "") -> str:
    """Return why a popular product is recommended, in words."""
    who = f"accounts of the industry {industry}" if industry else "accounts"
    return f"popular: {int(accounts)} {who} bought this in the last {params.popular_days} days"


def fingerprint(purchases: pd.DataFrame) -> str:
    """Return the sha256 (hex) of purchases, which must be ordered."""
    digest = hashlib.sha256()
    for name in ("account_id", "product_id"):
        digest.update("\n".join(purchases[name]).encode())
    digest.update(purchases["order_date"].to_numpy("datetime64[D]").tobytes())
    return digest.hexdigest()


def _because(matrix: Matrix, similarity: csr_matrix, row: int, products: Places) -> dict[int, int]:
    """Return of each recommended product the bought one that brought it most of its score."""
    if not len(products):
        return {}
    start, end = matrix.weights.indptr[row], matrix.weights.indptr[row + 1]
    own = matrix.weights.indices[start:end]
    near = similarity[own]
    place = np.full(similarity.shape[1], -1)
    place[products] = np.arange(len(products))
    told = place[near.indices] >= 0
    from_own = np.repeat(np.arange(len(own)), np.diff(near.indptr))[told]
    brought = np.zeros((len(own), len(products)))
    brought[from_own, place[near.indices[told]]] = near.data[told] * matrix.weights.data[start:end][from_own]
    return dict(zip(products.tolist(), own[brought.argmax(axis=0)].tolist(), strict=True))


def _bought_too(
    buyers: csr_matrix, sold: NDArray[np.intp], bought: int, product: int, product_ids: NDArray
) -> str:
    both = np.intersect1d(
        buyers.indices[buyers.indptr[bought] : buyers.indptr[bought + 1]],
        buyers.indices[buyers.indptr[product] : buyers.indptr[product + 1]],
        assume_unique=True,
    )
    return f"accounts that bought {product_ids[bought]} also bought this: {len(both)} of {int(sold[bought])}"


def _recalls(
    purchases: pd.DataFrame, cutoff: date, params: RecommendationParams
) -> dict[str, dict[str, Array]]:
    """Return by target (`new`, `any`) and method the recall@PLACES of each judged account, in the same order.

    Judged is who had bought something by the cutoff and bought again (for `new`: something else) in the window after;
    recall is the share of these products that the list holds. Products nobody had bought by the cutoff count
    in neither.
    """
    matrix = matrix_of(purchases, cutoff, params)
    end = pd.Timestamp(cutoff + timedelta(days=params.window_days))
    later = purchases[(purchases["order_date"] > pd.Timestamp(cutoff)) & (purchases["order_date"] <= end)]
    rows = matrix.accounts.get_indexer(pd.Index(later["account_id"]))
    columns = matrix.products.get_indexer(pd.Index(later["product_id"]))
    known = (rows >= 0) & (columns >= 0)
    bought = csr_matrix(
        (np.ones(known.sum()), (rows[known], columns[known])),
        shape=(len(matrix.accounts), len(matrix.products)),
    )
    bought.sum_duplicates()
    judged = np.flatnonzero(np.diff(bought.indptr))
    if len(judged) > params.evaluated_accounts:
        random = np.random.default_rng(params.seed)
        judged = np.sort(random.choice(judged, params.evaluated_accounts, replace=False))
    recalls: dict[str, dict[str, Array]] = {"new": {}, "any": {}}
    similarities = {name: similarity_of(matrix, name, params) for name in NEIGHBOURS} if len(judged) else {}
    for method in (POPULARITY, *METHODS):
        found: dict[str, list[float]] = {"new": [], "any": []}
        for row, scores in scores_of(matrix, similarities.get(method.partition("+")[0]), method, judged):
            own = matrix.bought.indices[matrix.bought.indptr[row] : matrix.bought.indptr[row + 1]]
            true = bought.indices[bought.indptr[row] : bought.indptr[row + 1]]
            found["any"].append(float(np.isin(true, best(scores, PLACES)).mean()))
            new = np.setdiff1d(true, own)
            if len(new):
                scores[own] = -np.inf
                found["new"].append(float(np.isin(new, best(scores, PLACES)).mean()))
        for target, values in found.items():
            recalls[target][method] = np.array(values)
    return recalls


def _figures(
    cutoff: date, recalls: dict[str, dict[str, Array]], params: RecommendationParams
) -> Iterator[Figure]:
    for target, by_method in recalls.items():
        for method, values in by_method.items():
            if len(values):
                low, high = _interval(values, params)
                yield Figure(
                    cutoff, method, target, f"recall@{PLACES}", _mean(values), low, high, len(values)
                )


def _interval(values: Array, params: RecommendationParams) -> tuple[float, float]:
    random = np.random.default_rng(params.seed)
    drawn = values[random.integers(0, len(values), (params.bootstrap, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: Sequence[float] | Array) -> float:
    return float(np.mean(values)) if len(values) else 0.0
