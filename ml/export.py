"""What was bought, by whom, and what there is to buy, as files that an outside recommender imports.

The files are those of Amazon Personalize's custom dataset groups; docs/contracts/recommenders.md has their columns.
"""

from datetime import date
from pathlib import Path

import psycopg
from psycopg import sql

from include.errors import StratumError
from include.warehouse.connect import connect
from ml.recommend_runs import PURCHASES

# File: role that may read it, and its rows as of {day}. Upper-case names without quotation marks are the format's.
FILES: dict[str, tuple[str, sql.Composable]] = {
    "interactions.csv": (
        "scorer",
        sql.SQL(
            'select account_id as "USER_ID", product_id as "ITEM_ID", '
            'extract(epoch from ordered_at)::bigint as "TIMESTAMP", \'Purchase\' as "EVENT_TYPE" '
        )
        + PURCHASES
        + sql.SQL(" order by 3, 1, 2"),
    ),
    "items.csv": (
        "scorer",
        sql.SQL(
            'select product_id as "ITEM_ID", max(product_category) as "CATEGORY_L1", '
            'extract(epoch from min(ordered_at))::bigint as "CREATION_TIMESTAMP" '
        )
        + PURCHASES
        + sql.SQL(" group by product_id order by product_id"),
    ),
    "users.csv": (
        "bi_reader",
        sql.SQL(
            'select account_id as "USER_ID", industry as "INDUSTRY", country as "COUNTRY", tier as "TIER", '
            'cluster_name as "CLUSTER" from published.customer_360 left join published.account_clusters '
            "using (account_id) order by account_id"
        ),
    ),
}


def export_for_recommenders(folder: Path) -> tuple[date, dict[str, int]]:
    """Write FILES as of the published date into a folder; return the date and the rows of each.

    The folder is made where it is missing; files that are there are replaced. Raises StratumError where nothing is
    published.
    """
    with connect("bi_reader") as connection:
        row = connection.execute("select as_of_date from published.current_run").fetchone()
    if row is None:
        raise StratumError("Nothing is published yet. Run a date: stratum run --as-of DATE")
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, (role, query) in FILES.items():
        with connect(role) as connection:
            rows[name] = _copied(connection, query, row[0], folder / name)
    return row[0], rows


def _copied(connection: psycopg.Connection, query: sql.Composable, day: date, path: Path) -> int:
    filled = sql.SQL(query.as_string(connection)).format(day=sql.Literal(day))
    statement = sql.SQL("copy ({}) to stdout (format csv, header)").format(filled)
    with path.open("wb") as file, connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for block in copy:
                file.write(block)
        return cursor.rowcount
