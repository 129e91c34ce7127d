"""Order lines: their contract, and the load of the user's files up to an as-of date."""

import csv
from datetime import date
from pathlib import Path

import duckdb

from include.errors import StratumError
from include.settings import PROJECT_DIR
from include.sources.config import OrderColumns, Sources
from include.sources.file_loads import land, require_kept, source_rows, timed
from include.sources.loads import Load, record_absent
from include.sources.mapping import MAPPED, Contract, map_rows

RATES = PROJECT_DIR / "dbt_project" / "seeds" / "policy" / "exchange_rates.csv"
PRODUCT = (
    "quantity::decimal(38, 4) * unit_price"  # 38: the product of two decimals of 18 digits overflows at 18
)
ORDER_LINES = Contract(
    source="orders",
    entity="order_lines",
    table="raw_files.order_lines",
    types={
        "order_id": "text",
        "customer_id": "text",
        "product_id": "text",
        "product_name": "text",
        "product_category": "text",
        "country": "text",
        "quantity": "decimal(18, 4)",
        "unit_price": "decimal(18, 4)",
        "amount": "decimal(18, 2)",
        "currency": "text",
        "ordered_at": "timestamptz",
    },
    required=("order_id", "product_id", "quantity", "unit_price", "amount", "currency", "ordered_at"),
    at="ordered_at",
    queue="intermediate.account_day_queue",
    queue_day="order_date",
    forms={"currency": "[A-Z]{3}"},
    computed={"amount": PRODUCT},
    derived={
        "line_type": "case when rule_non_product_when then 'non_product' when rule_return_when then 'return' "
        "else 'sale' end"
    },
    rules=("return_when", "non_product_when"),
    refused=(
        ("price_not_positive", "unit_price <= 0"),
        (
            "sign_contradicts_type",
            "quantity = 0 or (quantity < 0) <> rule_return_when or (amount <> 0 and (amount < 0) <> rule_return_when)",
        ),
    ),
    refused_last=(
        (
            "no_exchange_rate",
            "not coalesce((select min(effective_from) from rates where rates.currency = computed.currency) "
            "<= local_day, false)",
        ),
    ),
)

assert tuple(ORDER_LINES.types) == tuple(OrderColumns.model_fields)  # noqa: S101 - one contract, written twice


def ingest_orders(sources: Sources, as_of: date) -> Load | None:
    """Land the order lines dated up to the end of `as_of` in the company's time zone.

    Returns the books of the load, or None where sources.yml has no orders: that is recorded as absent. All
    is written in one transaction. Raises StratumError, nothing being written, where the file is missing or
    cannot be read, the mapping does not fit it, or it holds no order up to the as-of date.
    """
    orders, company = sources.orders, sources.company
    if orders is None:
        record_absent(ORDER_LINES.source, ORDER_LINES.entity, as_of)
        return None
    files = orders.files()
    with source_rows(ORDER_LINES, orders, company, files) as (engine, columns):
        with timed(ORDER_LINES, "mapped its rows to the contract"):
            load_rates(engine, RATES, company.currency)
            map_rows(engine, ORDER_LINES, orders, as_of, company.timezone)
        _require_orders(engine, orders.file, as_of)
        return land(engine, ORDER_LINES, company, as_of, files, columns)


def load_rates(engine: duckdb.DuckDBPyConnection, path: Path, currency: str) -> None:
    """Fill the table rates with the days from which rates into the reporting currency hold; no file is none.

    The reporting currency itself needs no rate: its row holds on every day.
    """
    engine.execute("create table rates (currency varchar, effective_from date)")
    engine.execute("insert into rates values (?, '-infinity')", [currency])
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reporting_currency"] == currency]
    try:
        for row in rows:
            engine.execute(
                "insert into rates values (?, ?)",
                [row["currency"], date.fromisoformat(row["effective_from"])],
            )
    except ValueError as error:
        raise StratumError(f"{path}: {error}.") from error


def _require_orders(engine: duckdb.DuckDBPyConnection, origin: str, as_of: date) -> None:
    require_kept(engine, origin, "orders")
    (first,) = engine.execute(f"select min(local_day) from {MAPPED} where reason is null").fetchall()[0]  # noqa: S608
    if first > as_of:
        raise StratumError(
            f"As of {as_of} there are no orders: the first order in {origin} is of {first}. Choose {first} or later."
        )
