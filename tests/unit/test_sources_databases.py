"""What a database says becomes text without a loss, and its connection is read without showing a password."""

import sqlite3
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from include.connections import database_url
from include.errors import StratumError, TransientError
from include.settings import get_settings
from include.sources.databases import Read, _as_text, _fault, read_database, reading
from include.sources.files import SOURCE, open_engine
from include.sources.order_cursor import read_from
from tests.fixtures.erp import database_orders

VALUES = [
    (Decimal("12345678901234567890.000000001"), "12345678901234567890.000000001", "number"),
    (Decimal("1E+2"), "100", "number"),
    (Decimal("NaN"), "NaN", "number"),
    (0.1, "0.1", "number"),
    (10**30, "1" + "0" * 30, "number"),
    (True, "true", "true or false"),
    (date(2024, 2, 29), "2024-02-29", "date"),
    (datetime(2024, 2, 29, 1, 2, 3, 4), "2024-02-29 01:02:03.000004", "time"),
    (datetime(2024, 2, 29, 1, tzinfo=UTC), "2024-02-29 01:00:00+00:00", "time with zone"),
    (
        datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=8))),
        "2024-02-29 01:00:00+08:00",
        "time with zone",
    ),
    ("Zoë\n北京", "Zoë\n北京", "text"),
    (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007", "UUID"),
    ({"ä": [1, None]}, '{"ä": [1, null]}', "dict"),
    (b"\xff", None, "binary"),
]


@pytest.mark.parametrize(
    ("value", "text", "kind"), VALUES, ids=[str(type(value[0]).__name__) for value in VALUES]
)
def test_a_value_becomes_text_and_says_its_kind(value: object, text: str | None, kind: str) -> None:
    kinds: set[str] = set()
    assert _as_text([None, value, value], kinds) == [None, text, text]
    assert kinds == {kind}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A SQLite file with order lines; returns its path."""
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    path = tmp_path / "a shop?.db"
    with sqlite3.connect(path) as db:
        db.execute("create table lines (id integer, no text, price, changed text, photo blob)")
        db.executemany(
            "insert into lines values (?, ?, ?, ?, ?)",
            [
                (1, "S1", 1.5, "2024-03-01 10:00:00", b"x"),
                (2, "S2", "dear", "2024-03-01 11:00:00.5", None),
                (3, None, None, None, None),
            ],
        )
    db.close()
    monkeypatch.setenv("AIRFLOW_CONN_ERP", f'{{"conn_type": "sqlite", "host": "{path}"}}')
    yield path
    get_settings.cache_clear()


def read(start: object = None, **changes: object) -> tuple[Read, list[tuple]]:
    orders = database_orders(**{"table": "lines", "cursor": "changed"} | changes).orders
    with open_engine("UTC") as engine, reading(orders) as connection:
        found = read_database(engine, connection, orders, start)
        return found, engine.execute(f"select * from {SOURCE} order by stratum_row").fetchall()


def test_a_table_is_read_as_text_and_its_binary_columns_are_left_out(shop: Path) -> None:
    found, rows = read()
    assert rows == [
        ("1", "S1", "1.5", "2024-03-01 10:00:00", "lines", 1),
        ("2", "S2", "dear", "2024-03-01 11:00:00.5", "lines", 2),
        ("3", None, None, None, "lines", 3),
    ]
    assert (found.columns, found.binary, found.rows) == (["id", "no", "price", "changed"], {"photo"}, 3)
    assert found.kinds["price"] == ["number", "text"]


def test_a_cursor_reads_from_its_start_on_and_rows_without_a_value(shop: Path) -> None:
    assert [row[0] for row in read("2024-03-01 10:30:00")[1]] == ["2", "3"]
    found, rows = read("2024-03-02", query="select * from lines where id < 3", table=None)
    assert (rows, found.columns) == ([], ["id", "no", "price", "changed", "photo"])


def test_a_sqlite_file_is_opened_for_reading_alone_and_never_made(shop: Path) -> None:
    with (
        reading(database_orders(table="lines").orders) as connection,
        pytest.raises(Exception, match="readonly"),
    ):
        connection.exec_driver_sql("delete from lines")
    shop.unlink()
    with pytest.raises(StratumError, match="'erp' does not let Stratum in: unable to open database file"):
        read()
    assert not shop.exists()


def test_a_driver_that_repeats_the_password_is_not_repeated() -> None:
    orders = database_orders().orders
    for said in ("login failed for 'u' with p@ss:word", "the host of u:p@ss:word is gone\nand more"):
        error = OperationalError("select 1", {}, Exception(said))
        fault = _fault(error, orders, "p@ss:word")
        assert "p@ss:word" not in str(fault)
        assert "\n" not in str(fault)
        assert isinstance(fault, TransientError) == ("gone" in said)


STARTS = [
    ("17", "number", 5, 12),
    ("17.5", "number", 0, 17),
    ("-0.5", "number", 0, -1),
    ("2024-03-01", "date", 0, date(2024, 3, 1)),
    ("2024-03-01", "date", 1, date(2024, 2, 29)),
    ("2024-03-01 00:00:01.5", "time", 2, datetime(2024, 2, 29, 23, 59, 59, 500000)),
    ("2024-03-01 00:00:01+08:00", "time with zone", 1, datetime(2024, 2, 29, 16, tzinfo=UTC)),
    ("2024-03-01 01:00:00.25", "text", 3600, "2024-03-01 00:00:00"),
    ("2024-03-01T01:00:00Z", "text", 60, "2024-03-01T00:59:00"),
    ("2024-03-01", "text", 3600, "2024-02-29"),
]


@pytest.mark.parametrize(("value", "kind", "overlap", "start"), STARTS)
def test_a_load_reads_from_the_overlap_before_the_position(
    value: str, kind: str, overlap: int, start: object
) -> None:
    orders = database_orders(overlap=overlap).orders
    assert read_from(value, kind, orders) == start


URLS = {
    "a URL": ("postgresql://u:p%40w@h:5/d?sslmode=require", "postgresql://u:p%40w@h:5/d?sslmode=require"),
    "JSON": (
        '{"conn_type": "postgres", "login": "u", "password": "p@/w", "host": "h", "port": 5, "schema": "d", '
        '"extra": {"sslmode": "require"}}',
        "postgres://u:p%40%2Fw@h:5/d?sslmode=require",
    ),
    "JSON with its extra as text": (
        '{"conn_type": "generic", "host": "h", "schema": "d", "extra": "{\\"sqlalchemy_scheme\\": \\"mssql+pymssql\\"}"}',
        "mssql+pymssql://h/d",
    ),
    "a file": ('{"conn_type": "sqlite", "host": "/data/a.db"}', "sqlite:////data/a.db"),
}


@pytest.mark.parametrize(("text", "url"), URLS.values(), ids=URLS.keys())
def test_a_connection_is_a_url_or_json(monkeypatch: pytest.MonkeyPatch, text: str, url: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ERP", text)
    assert database_url("erp") == url
    make_url(url)


def test_a_connection_that_is_not_there_or_no_json_is_named_without_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(StratumError, match=r"No connection 'erp'. Set AIRFLOW_CONN_ERP to a URL"):
        database_url("erp")
    monkeypatch.setenv("AIRFLOW_CONN_ERP", '{"password": "hidden-word"')
    with pytest.raises(StratumError, match="AIRFLOW_CONN_ERP is not a connection") as fault:
        database_url("erp")
    assert "hidden" not in str(fault.value)
