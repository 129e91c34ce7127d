"""The next best category: of those an account does not buy, the one that accounts like it own most often.

For a category c and one that the account owns, a, the share of a's owners that own c too, drawn towards c's share among
all accounts by `weight` imagined owners: (owners of both + weight × share of c) / (owners of a + weight). An account's
figure for c is the mean over what it owns. Only what was owned on the date counts, so nothing later can move it.
"""

from datetime import date

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from scipy import sparse

from ml.params import params_of

Array = NDArray[np.float64]

CHUNK = 50_000
"""Accounts whose figures for all categories are held at a time."""


def next_best(connection: psycopg.Connection, as_of: date) -> pd.DataFrame:
    """Return account_id and next_best of each account that owns a category on the date and not all of them."""
    rows = connection.execute(
        "select account_id, product_category from marts.account_categories where as_of_date = %s", [as_of]
    ).fetchall()
    owned = pd.DataFrame(rows, columns=["account_id", "product_category"])
    return ranked_first(owned, params_of("upsell").next_best_weight)


def ranked_first(owned: pd.DataFrame, weight: float) -> pd.DataFrame:
    """Return account_id and next_best from account_id and product_category of what is owned, one row per pair.

    Of equal figures the category first by name is told.
    """
    accounts, names = sorted(owned["account_id"].unique()), sorted(owned["product_category"].unique())
    places = (
        pd.Index(accounts).get_indexer(owned["account_id"]),
        pd.Index(names).get_indexer(owned["product_category"]),
    )
    table = sparse.csr_matrix((np.ones(len(owned)), places), shape=(len(accounts), len(names)))
    likely = co_purchases(table, weight)
    best = []
    for start in range(0, len(accounts), CHUNK):
        part = table[start : start + CHUNK]
        figures = np.asarray(part @ likely) / np.asarray(part.sum(axis=1))
        figures[part.toarray() > 0] = -1.0  # it owns these
        first = figures.argmax(axis=1)
        best += [names[at] if figures[row, at] >= 0 else None for row, at in enumerate(first)]
    return pd.DataFrame({"account_id": accounts, "next_best": best}).dropna(ignore_index=True)


def co_purchases(table: sparse.csr_matrix, weight: float) -> Array:
    """Return for each category (row) the drawn-in share of its owners that own each other (column)."""
    both = np.asarray((table.T @ table).toarray(), dtype=np.float64)
    owners = np.diag(both)
    share = owners / max(table.shape[0], 1)
    return (both + weight * share) / (owners[:, None] + weight)
