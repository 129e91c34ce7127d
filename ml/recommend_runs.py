"""The recommendations of a run: fit them where they are due, and say whose lists the run shows."""

import logging
from datetime import date, timedelta

import pandas as pd
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from include.warehouse.connect import connect
from include.warehouse.lock import code_version
from ml.copies import read_rows, write_rows
from ml.params import RecommendationParams, section_of
from ml.recommend import choose, fingerprint, lists_of, matrix_of, popular_in, too_little
from ml.train import due_date

log = logging.getLogger(__name__)

PURCHASES = sql.SQL(
    "from marts.account_purchases where order_date <= {day} "
    "and (valid_from_date <= {day} or valid_from_date is null) "
    "and (valid_until_date > {day} or valid_until_date is null)"
)
"""What was bought by the end of a day, by customers that were the account on that day."""


def fit_recommendations_if_due(as_of: date) -> str | None:
    """Make the lists that a date shows, as of the day `due_date` names; return their id, None where there are none to make.

    Which lists a date shows depends on the date alone, as with the models: dates may run in any order.
    """
    params = section_of("recommendations", RecommendationParams)
    due = due_date(as_of, params.retrain_days)
    with connect("scorer") as connection:
        found = _newest(connection, as_of)
        if found is not None and found[1] >= due:
            log.info("Recommendations are not due as of %s: %s is there.", as_of, found[0])
            return None
        purchases = purchases_on(connection, due, params)
        reason = too_little(purchases, params)
        if reason is not None:
            log.info("No recommendations are made as of %s: %s", due, reason)
            return None
        choice = choose(purchases, due, params)
        matrix = matrix_of(purchases, due, params)
        digest = fingerprint(purchases)
        fit_id = f"recommendations_{due:%Y%m%d}_{digest[:8]}"
        connection.execute(
            "insert into ml.recommendation_fits (fit_id, fitted_as_of, method, why, accounts, products, purchases, "
            "parameters, data_fingerprint, code_version) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                fit_id,
                due,
                choice.method,
                choice.why,
                len(matrix.accounts),
                len(matrix.products),
                matrix.bought.nnz,
                Jsonb(params.model_dump(mode="json")),
                digest,
                code_version(),
            ],
        )
        write_rows(
            connection,
            "ml.recommendation_metrics",
            ("fit_id", "cutoff", "method", "target", "metric", "value", "low", "high", "accounts"),
            ((fit_id, *figure) for figure in choice.figures),
        )
        write_rows(
            connection,
            "ml.recommendations",
            ("fit_id", "as_of_date", "account_id", "place", "product_id", "score", "reason", "method"),
            ((fit_id, due, *one) for one in lists_of(matrix, choice.method, params)),
        )
        write_rows(
            connection,
            "ml.popular_products",
            ("fit_id", "as_of_date", "industry", "place", "product_id", "score", "reason"),
            ((fit_id, due, *row) for row in popular_in(purchases, _industries(connection, due), due, params)),
        )
    log.info("Recommendations %s: %s.", fit_id, choice.why)
    return fit_id


def name_recommendations(as_of: date, run_id: str) -> str | None:
    """Write down whose lists a run shows: those of the newest fit as of its date or before, or why none; return the fit."""
    params = section_of("recommendations", RecommendationParams)
    with connect("scorer") as connection:
        found = _newest(connection, as_of)
        reason = None if found else _why_none(connection, due_date(as_of, params.retrain_days), params)
        connection.execute("delete from ml.recommendation_runs where run_id = %s", [run_id])
        connection.execute(
            "insert into ml.recommendation_runs (run_id, as_of_date, fit_id, reason) values (%s, %s, %s, %s)",
            [run_id, as_of, found[0] if found else None, reason],
        )
    return found[0] if found else None


def purchases_on(connection: psycopg.Connection, as_of: date, params: RecommendationParams) -> pd.DataFrame:
    """Return account_id, product_id and order_date of every purchase of the `history_days` up to a date, ordered.

    One row per account, product and day, of customers that are the account on that date and are not internal. The
    windows of validation lie within it, so that the first of them knows `history_days` less the windows.
    """
    query = sql.SQL("select distinct account_id, product_id, order_date {} and order_date > {}").format(
        PURCHASES.format(day=sql.Literal(as_of)), sql.Literal(as_of - timedelta(days=params.history_days))
    )
    names = ["account_id", "product_id", "order_date"]
    purchases = read_rows(connection, query, dict.fromkeys(names, "str"))
    purchases["order_date"] = pd.to_datetime(purchases["order_date"])
    return purchases.sort_values(names, ignore_index=True)


def _newest(connection: psycopg.Connection, as_of: date) -> tuple[str, date] | None:
    return connection.execute(
        "select fit_id, fitted_as_of from ml.recommendation_fits where fitted_as_of <= %s "
        "order by fitted_as_of desc, fitted_at desc, fit_id limit 1",
        [as_of],
    ).fetchone()


def _industries(connection: psycopg.Connection, as_of: date) -> pd.Series:
    """Return the industry by account on the newest month-end up to a date: month-ends alone are kept whatever was run."""
    rows = connection.execute(
        "select account_id, industry from marts.account_profiles where industry is not null and as_of_date = ("
        "select max(as_of_date) from marts.account_profiles where as_of_date <= %s "
        "and extract(day from as_of_date + 1) = 1)",
        [as_of],
    ).fetchall()
    return pd.Series(dict(rows), dtype="object")


def _why_none(connection: psycopg.Connection, due: date, params: RecommendationParams) -> str:
    short = too_little(purchases_on(connection, due, params), params)
    return short or f"no recommendations are made as of {due}: see the runs of train_models"
