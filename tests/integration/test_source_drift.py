"""Columns that come, go or change their type from load to load are kept, told, or stop the load by name."""

import json
import logging
from datetime import date
from pathlib import Path

import duckdb
import pytest

from include.errors import StratumError
from include.local import condition
from include.local.summary import _load, _load_lines
from include.sources.behavior import ingest_behavior
from include.sources.columns import accept_column, is_wider
from include.sources.config import Sources
from include.sources.orders import ingest_orders
from include.sources.retract import retract
from include.sources.row_sources import Behavior, Company, Orders
from include.warehouse.connect import connect
from tests.conftest import Warehouse

COLUMNS = {
    "order_id": "no", "customer_id": "buyer", "product_id": "sku", "quantity": "qty", "unit_price": "price",
    "currency": "'CNY'", "ordered_at": "placed",
}  # fmt: skip
DAY_1, DAY_2, DAY_3 = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)
COMPANY = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
BASE = {"no": "'S1'", "buyer": "'A'", "sku": "'P1'", "qty": "2", "price": "10.00::decimal(10, 2)",
        "placed": "timestamp '2024-03-01 09:00:00'"}  # fmt: skip


@pytest.fixture
def warehouse(emptied_warehouse: Warehouse) -> Warehouse:
    return emptied_warehouse


@pytest.fixture
def parquet(tmp_path: Path):
    """Write one order of the columns given (name → SQL; None leaves a column of BASE out) and return its sources."""

    def write(mapping: dict | None = None, **columns: str | None) -> Sources:
        path = tmp_path / "orders.parquet"
        chosen = {name: value for name, value in (BASE | columns).items() if value is not None}
        values = ", ".join(f'{value} as "{name}"' for name, value in chosen.items())
        duckdb.execute(f"copy (select {values}) to '{path}' (format parquet)")
        given = {"file": str(path), "columns": COLUMNS | (mapping or {})}
        return Sources(company=COMPANY, orders=Orders.model_validate(given))

    return write


def extras(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows("select order_id, extras from raw_files.order_lines order by load_seq, source_row")


def told(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows(
        "select column_name, change, type_before, type_now from audit.column_changes order by load_seq, column_name"
    )


def test_a_new_column_is_kept_and_told_wherever_loads_are_shown(
    warehouse: Warehouse, parquet, caplog: pytest.LogCaptureFixture
) -> None:
    ingest_orders(parquet(note="'known from the first load on'"), DAY_1)
    assert extras(warehouse) == [("S1", None)]
    with caplog.at_level(logging.WARNING):
        load = ingest_orders(parquet(note="'n'", no="'S2'", channel="'web'", weight="'NaN'::double"), DAY_2)
    assert "the column 'channel' (VARCHAR) is new since the load of 2024-03-01; no expression" in caplog.text
    assert extras(warehouse)[1] == ("S2", {"channel": "web", "weight": "nan"})
    assert told(warehouse) == [("channel", "new", None, "VARCHAR"), ("weight", "new", None, "DOUBLE")]
    assert warehouse.rows(
        "select first_as_of_date, is_current from audit.source_columns where column_name = 'channel'"
    ) == [(DAY_2, True)]
    assert load is not None
    lines = condition._source_lines(condition.books())
    assert lines[1] == "Columns        orders.order_lines: 'channel' is new since the load of 2024-03-02"
    with connect("auditor") as connection:
        from psycopg.rows import dict_row

        connection.row_factory = dict_row  # type: ignore[assignment]
        (books,) = connection.execute(
            "select * from audit.loads where load_id = %s", [load.load_id]
        ).fetchall()
        summed = _load(connection, books)  # type: ignore[arg-type]
    assert "              column 'channel' is new" in _load_lines("orders", summed)


def test_a_new_column_stays_an_extra_until_it_is_mapped(warehouse: Warehouse, parquet) -> None:
    ingest_orders(parquet(), DAY_1)
    ingest_orders(parquet(no="'S2'", land="'CN'", channel="'web'"), DAY_2)
    ingest_orders(parquet({"country": "LAND"}, no="'S3'", land="'CN'", channel="null::text"), DAY_3)
    ingest_orders(parquet({"country": "LAND"}, no="'S4'", land="'CN'", channel="'app'"), DAY_3)
    assert extras(warehouse) == [
        ("S1", None),
        ("S2", {"land": "CN", "channel": "web"}),
        ("S3", None),
        ("S4", {"channel": "app"}),
    ]


def test_text_columns_that_are_new_are_kept_too(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    head, row = "no,buyer,sku,qty,price,placed", "S1,A,P1,2,10,2024-03-01"
    path.write_text(f"{head}\n{row}\n")
    sources = Sources(company=COMPANY, orders=Orders.model_validate({"file": str(path), "columns": COLUMNS}))
    ingest_orders(sources, DAY_1)
    odd = 'S2,A,P1,2,10,2024-03-01,"say ""hi"",\nyou"'
    path.write_text(f"{head},it's odd\n{row},\n{odd}\n")
    ingest_orders(sources, DAY_1)
    assert extras(warehouse) == [("S1", None), ("S2", {"it's odd": 'say "hi",\nyou'})]


def test_a_mapped_column_that_is_gone_stops_the_load_and_one_that_nobody_reads_is_told(
    warehouse: Warehouse, parquet
) -> None:
    ingest_orders(parquet(note="'n'"), DAY_1)
    ingest_orders(parquet(), DAY_2)
    assert told(warehouse) == [("note", "gone", "VARCHAR", None)]
    said = (
        r"orders\.parquet no longer has the column 'qty', which orders\.columns\.quantity of the sources reads: "
        r"it was there from the load of 2024-03-01 to that of 2024-03-02\."
    )
    with pytest.raises(StratumError, match=said):
        ingest_orders(parquet(qty=None), DAY_3)
    assert warehouse.value("select count(*) from audit.loads") == 2


def test_a_column_that_never_was_is_a_wrong_mapping(warehouse: Warehouse, parquet) -> None:
    ingest_orders(parquet(), DAY_1)
    with pytest.raises(
        StratumError, match=r"names the column 'quantity', which .* does not have\. Its columns are"
    ):
        ingest_orders(parquet({"quantity": "quantity"}), DAY_2)


def test_a_mapped_column_of_another_type_stops_the_load_until_a_person_accepts_it(
    warehouse: Warehouse, parquet
) -> None:
    ingest_orders(parquet(), DAY_1)
    said = (
        r"the column 'qty' is VARCHAR and was INTEGER up to the load of 2024-03-01 .* "
        r"stratum loads accept-column orders order_lines 'qty' 'VARCHAR' --why TEXT"
    )
    text = {"no": "'S2'", "qty": "'2'"}
    with pytest.raises(StratumError, match=said):
        ingest_orders(parquet(**text), DAY_2)
    assert warehouse.value("select count(*) from audit.loads") == 1
    accept_column("orders", "order_lines", "QTY", "varchar", "the ERP\nwrites text now")
    ingest_orders(parquet(**text), DAY_2)
    assert told(warehouse) == [("qty", "retyped", "INTEGER", "VARCHAR")]
    assert warehouse.rows("select column_name, why from audit.accepted_columns") == [
        ("qty", "the ERP writes text now")
    ]
    with pytest.raises(StratumError, match="'qty' is INTEGER and was VARCHAR"):
        ingest_orders(parquet(), DAY_3)


def test_wider_types_and_those_that_nobody_reads_pass_and_are_told(warehouse: Warehouse, parquet) -> None:
    ingest_orders(parquet(note="1"), DAY_1)
    wider = parquet(qty="2::bigint", price="10.00::decimal(12, 3)", note="'n'")
    ingest_orders(wider, DAY_2)
    assert told(warehouse) == [
        ("note", "retyped", "INTEGER", "VARCHAR"),
        ("price", "retyped", "DECIMAL(10,2)", "DECIMAL(12,3)"),
        ("qty", "retyped", "INTEGER", "BIGINT"),
    ]


def test_another_kind_of_file_is_told_and_its_types_are_the_mappings_to_check(
    warehouse: Warehouse, parquet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest_orders(parquet(), DAY_1)
    path = tmp_path / "orders.csv"
    path.write_text("no,buyer,sku,qty,price,placed\nS2,A,P1,2,10,2024-03-02\n")
    ingest_orders(
        Sources(company=COMPANY, orders=Orders.model_validate({"file": str(path), "columns": COLUMNS})), DAY_2
    )
    assert "the source is csv and was parquet since the load of 2024-03-01" in caplog.text
    assert told(warehouse) == []


def test_a_retracted_load_is_no_measure_of_the_columns(warehouse: Warehouse, parquet) -> None:
    ingest_orders(parquet(), DAY_1)
    bad = ingest_orders(parquet({"quantity": "qty::int"}, qty="2::bigint", no="'S2'"), DAY_2)
    assert bad is not None
    with pytest.raises(StratumError, match="'qty' is INTEGER and was BIGINT"):
        ingest_orders(parquet(), DAY_2)
    retract(str(bad.load_id), "a wrong export")
    ingest_orders(parquet(), DAY_2)
    assert told(warehouse) == []


def test_events_tell_what_is_new_and_stop_at_what_is_gone(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    event = {"who": "A", "what": "login", "at": "2024-03-01T09:00:00"}
    columns = {"customer_id": "who", "event_name": "what", "event_at": '"at"'}
    sources = Sources(
        company=COMPANY, behavior=Behavior.model_validate({"file": str(path), "columns": columns})
    )
    path.write_text(json.dumps(event))
    ingest_behavior(sources, DAY_1)
    path.write_text(json.dumps(event | {"device": "phone"}))
    ingest_behavior(sources, DAY_2)
    assert told(warehouse) == [("device", "new", None, "VARCHAR")]
    path.write_text(json.dumps({"who": "A", "at": "2024-03-01T09:00:00"}))
    # A key that no line of jsonl has is null in all of them: no row is left, and the load says why.
    with pytest.raises(StratumError, match="1 missing_event_name"):
        ingest_behavior(sources, DAY_3)


def test_who_accepts_a_type_says_why_and_names_a_column_that_is_there(warehouse: Warehouse, parquet) -> None:
    ingest_orders(parquet(), DAY_1)
    with pytest.raises(StratumError, match="Say why"):
        accept_column("orders", "order_lines", "qty", "VARCHAR", " ")
    with pytest.raises(StratumError, match=r"has no column 'quantity'\. Its columns are: no, buyer"):
        accept_column("orders", "order_lines", "quantity", "VARCHAR", "because")


@pytest.mark.parametrize(
    ("new", "old", "wider"),
    [
        ("BIGINT", "INTEGER", True),
        ("INTEGER", "BIGINT", False),
        ("INTEGER", "UINTEGER", False),
        ("BIGINT", "UINTEGER", True),
        ("DOUBLE", "FLOAT", True),
        ("DOUBLE", "BIGINT", False),
        ("DECIMAL(18,4)", "DECIMAL(10,2)", True),
        ("DECIMAL(10,4)", "DECIMAL(10,2)", False),
        ("DECIMAL(18,1)", "DECIMAL(10,2)", False),
        ("TIMESTAMP", "TIMESTAMP_MS", True),
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", False),
        ("VARCHAR", "INTEGER", False),
    ],
)
def test_a_type_is_wider_where_it_can_lose_nothing(new: str, old: str, wider: bool) -> None:
    assert is_wider(new, old) == wider
