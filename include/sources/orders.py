"""Order lines: their contract, and the load of the user's files or database up to an as-of date."""

import csv
from datetime import date
from pathlib import Path

import duckdb

from include.errors import StratumError
from include.settings import PROJECT_DIR
from include.sources.columns import SourceColumns, check_columns, column_types
from include.sources.config import Sources
from include.sources.cursors import Position, keep_position, mapping_id, position_of
from include.sources.databases import read_database, reading
from include.sources.file_loads import land, require_kept, source_rows, timed
from include.sources.files import lock, open_engine
from include.sources.loads import Load, record_absent
from include.sources.mapping import MAPPED, Contract, check_mapping, map_rows, named_columns
from include.sources.order_cursor import check_kinds, kind_of_cursor, next_position, read_from
from include.sources.plausible import plausible
from include.sources.row_sources import Company, DatabaseOrders, OrderColumns, Orders

RATES = PROJECT_DIR / "dbt_project" / "seeds" / "policy" / "exchange_rates.csv"
MEMORY = "500MB"
"""What the rows of a database may take of it at once: measured, a load of 2 million rows then stays below 1 GB."""
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
    is written in one transaction. Raises StratumError, nothing being written, where the source is missing or
    cannot be read, the mapping does not fit it, or there is no order up to the as-of date.
    """
    orders = sources.orders
    if orders is None:
        record_absent(ORDER_LINES.source, ORDER_LINES.entity, as_of)
        return None
    if isinstance(orders, DatabaseOrders):
        return _ingest_database(orders, sources.company, as_of)
    return _ingest_files(orders, sources.company, as_of)


def _ingest_files(orders: Orders, company: Company, as_of: date) -> Load:
    files = orders.files()
    position = Position(mapping_id(orders, RATES))
    with source_rows(ORDER_LINES, orders, company, files) as (engine, columns):
        with timed(ORDER_LINES, "mapped its rows to the contract"):
            load_rates(engine, RATES, company.currency)
            map_rows(engine, plausible(ORDER_LINES, as_of), orders, as_of, company.timezone)
        _require_orders(engine, orders.origin, as_of)
        return land(
            engine,
            ORDER_LINES,
            company,
            as_of,
            files,
            columns,
            # A database that is read after these files begins anew: they may have changed what it had said.
            lambda load: keep_position(load, position),
        )


def _ingest_database(orders: DatabaseOrders, company: Company, as_of: date) -> Load:
    """Land what the database has from the last position on, and move the position in the same transaction."""
    before = position_of(ORDER_LINES.source, ORDER_LINES.entity, mapping_id(orders, RATES))
    start = None if before.value is None else read_from(before.value, kind_of_cursor(orders, before), orders)
    with open_engine(orders.timezone or company.timezone) as engine:
        engine.execute(f"set memory_limit = '{MEMORY}'")  # the rest goes to disk, below STRATUM_HOME
        from_where = "whole" if start is None else f"from {orders.cursor} {start} on"
        with timed(ORDER_LINES, f"read {orders.origin} {from_where}"), reading(orders) as source:
            read = read_database(engine, source, orders, start)
        lock(engine)
        named = named_columns(engine, ORDER_LINES, orders)
        columns = SourceColumns("database", column_types(engine), frozenset(named))
        check_columns(columns, named, ORDER_LINES.source, ORDER_LINES.entity, orders.origin)
        used = check_mapping(engine, ORDER_LINES, orders, read.columns, binary=read.binary)
        check_kinds(orders, before, read.kinds, used | {(orders.cursor or "").lower()})
        with timed(ORDER_LINES, f"mapped {read.rows} rows to the contract"):
            load_rates(engine, RATES, company.currency)
            map_rows(engine, plausible(ORDER_LINES, as_of), orders, as_of, company.timezone)
        if start is None:
            _require_orders(engine, orders.origin, as_of)
        if orders.cursor is not None:
            _require_own_keys(engine, orders)
        after = next_position(engine, orders, before, read.kinds, as_of)

        def finish(load: Load) -> None:
            if start is not None:
                _require_held(load, orders, company)
            keep_position(load, after, before)

        return land(engine, ORDER_LINES, company, as_of, [orders.origin], columns, finish)


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


def _require_own_keys(engine: duckdb.DuckDBPyConnection, orders: DatabaseOrders) -> None:
    """Raise StratumError where a key names two rows: of one that changed, nobody could tell which it is."""
    doubled = engine.execute(
        f"select count(*), min(row_key) from {MAPPED} where reason is null and not ends_with(row_key, '|1')"  # noqa: S608
    ).fetchall()
    ((rows, example),) = doubled
    if rows:
        raise StratumError(
            f"orders.key ({', '.join(orders.key)}) names more than one row of {orders.origin} for {rows} rows, such as "
            f"{example.rpartition('|')[0]!r}: with a cursor each row needs a key of its own. Name the table's primary "
            "key, or more columns."
        )


def _require_held(load: Load, orders: DatabaseOrders, company: Company) -> None:
    """Raise StratumError where no order up to the load's date is held: what `_require_orders` does of a whole read."""
    ((first,),) = load.connection.execute(
        "select (min(ordered_at) at time zone %s)::date from raw_files.order_lines", [company.timezone]
    ).fetchall()
    if first is None or first > load.as_of:
        raise StratumError(
            f"As of {load.as_of} there are no orders: the first order in {orders.origin} is "
            f"{'of ' + str(first) if first else 'yet to come'}. Choose a later date."
        )
