"""The next best category: of those an account does not buy, the one that accounts like it own most, and how likely it is.

For a category c and one that the account owns, a, the share of a's owners that own c too, drawn towards c's share among
all accounts by `weight` imagined owners: (owners of both + weight × share of c) / (owners of a + weight). An account's
figure for c is the mean over what it owns. Only what was owned on the date counts, so nothing later can move it.

How likely it is told of who buys anything new, for the model of upsell tells how likely that is. The figure of the best
category over the sum of all that it does not own is no such chance: it is of owning, not of buying next, and who buys two
new categories has two chances. So the past is asked: the newest horizon before the date is told anew from what was owned on
its first day, and shares are multiplied by how often those who then bought something new bought what they would have been
told, over the mean of their shares (docs/decisions/0049).
"""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from scipy import sparse

from ml.params import params_of

Array = NDArray[np.float64]

CHUNK = 50_000
"""Accounts whose figures for all categories are held at a time."""


def next_best(connection: psycopg.Connection, as_of: date, horizon_days: int) -> pd.DataFrame:
    """Return account_id, next_best and chance of each account that owns a category on the date and not all of them.

    `chance` is how likely it buys next_best within `horizon_days`, if it buys anything new in them; NaN for all where fewer
    than `next_best_min_buyers` bought anything new in as many days up to the date.
    """
    rows = connection.execute(
        "select account_id, product_category, first_order_date from marts.account_categories where as_of_date = %s",
        [as_of],
    ).fetchall()
    owned = pd.DataFrame(rows, columns=["account_id", "product_category", "first_order_date"])
    knobs = params_of("upsell")
    told = ranked_first(owned, knobs.next_best_weight)
    since = as_of - timedelta(days=horizon_days)
    scale = scale_of_shares(owned, since, knobs.next_best_weight, knobs.next_best_min_buyers)
    chance = (told["share"] * scale).clip(upper=1.0) if scale is not None else np.nan
    return told[["account_id", "next_best"]].assign(chance=chance)


def scale_of_shares(owned: pd.DataFrame, since: date, weight: float, min_buyers: int) -> float | None:
    """Return what the shares of `ranked_first` are multiplied by, as the days after `since` tell.

    `owned` has account_id, product_category and first_order_date, one row per pair. None where fewer than `min_buyers` of
    those who would have been told a category on `since` bought anything new after it.
    """
    is_before = owned["first_order_date"] <= since
    if not is_before.any():
        return None
    bought = owned.loc[~is_before, ["account_id", "product_category"]]
    told = ranked_first(owned[is_before], weight)
    told = told[told["account_id"].isin(bought["account_id"])]
    if len(told) < min_buyers:
        return None
    came_true = told.merge(
        bought, left_on=["account_id", "next_best"], right_on=["account_id", "product_category"]
    )
    return float(len(came_true) / told["share"].sum())


def ranked_first(owned: pd.DataFrame, weight: float) -> pd.DataFrame:
    """Return account_id, next_best and share from account_id and product_category of what is owned, one row per pair.

    `share` is the figure of next_best over the sum of those of all categories that the account does not own. Of equal
    figures the category first by name is told.
    """
    accounts, names = sorted(owned["account_id"].unique()), sorted(owned["product_category"].unique())
    places = (
        pd.Index(accounts).get_indexer(owned["account_id"]),
        pd.Index(names).get_indexer(owned["product_category"]),
    )
    table = sparse.csr_matrix((np.ones(len(owned)), places), shape=(len(accounts), len(names)))
    likely = co_purchases(table, weight)
    best: list[str | None] = []
    shares: list[Array] = []
    for start in range(0, len(accounts), CHUNK):
        part = table[start : start + CHUNK]
        figures = np.asarray(part @ likely) / np.asarray(part.sum(axis=1))
        figures[part.toarray() > 0] = 0.0  # it owns these
        first, sums = figures.argmax(axis=1), figures.sum(axis=1)
        best += [names[at] if total > 0 else None for at, total in zip(first, sums, strict=True)]
        shares.append(figures.max(axis=1) / np.where(sums > 0, sums, 1.0))
    return pd.DataFrame(
        {"account_id": accounts, "next_best": best, "share": np.concatenate(shares) if shares else []}
    ).dropna(ignore_index=True)


def co_purchases(table: sparse.csr_matrix, weight: float) -> Array:
    """Return for each category (row) the drawn-in share of its owners that own each other (column)."""
    both = np.asarray((table.T @ table).toarray(), dtype=np.float64)
    owners = np.diag(both)
    share = owners / max(table.shape[0], 1)
    return (both + weight * share) / (owners[:, None] + weight)
