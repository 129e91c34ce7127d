"""Bad input has the outcome that docs/contracts/sources.md states: no sound row is stopped, and none passes silently."""

import gzip
import logging
from datetime import date
from pathlib import Path

import duckdb
import pytest

from include.errors import StratumError
from include.settings import PROJECT_DIR
from include.sources.config import Sources
from include.sources.orders import ingest_orders
from include.sources.replay import replay
from include.sources.row_sources import Company, Orders
from tests.conftest import Warehouse
from tests.fixtures.books import counts

COLUMNS = {
    "order_id": "no", "customer_id": "buyer", "product_id": "sku", "quantity": "qty::int", "unit_price": "price",
    "currency": "cur", "ordered_at": "placed",
}  # fmt: skip
HEADER = "no,buyer,sku,qty,price,cur,placed\n"
DAY_1, DAY_2 = date(2024, 3, 1), date(2024, 3, 2)


@pytest.fixture
def warehouse(emptied_warehouse: Warehouse) -> Warehouse:
    return emptied_warehouse


def sources(pattern: Path, **changes: object) -> Sources:
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
    given: dict = {"file": str(pattern), "columns": COLUMNS}
    return Sources(company=company, orders=Orders.model_validate(given | changes))


def write_parquet(path: Path, order: str) -> None:
    path.parent.mkdir(exist_ok=True)
    duckdb.execute(
        f"copy (select '{order}' as no, 'A' as buyer, 'P1' as sku, 2 as qty, 10.0 as price, 'CNY' as cur, "
        f"timestamp '2024-03-01 09:00:00' as placed from range(3000)) to '{path}' (format parquet)"
    )


def break_file(path: Path) -> bytes:
    """Overwrite the middle of a file, whose beginning and end stay sound; return what it was."""
    whole = path.read_bytes()
    middle = len(whole) // 4
    path.write_bytes(whole[:middle] + b"\xff" * (len(whole) // 4) + whole[middle + len(whole) // 4 :])
    return whole


def test_a_corrupt_parquet_file_among_good_ones_is_refused_alone_and_tried_again(
    warehouse: Warehouse, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for month in ("01", "02", "03"):
        write_parquet(tmp_path / month / "orders.parquet", f"S{month}")
    bad = tmp_path / "02" / "orders.parquet"
    whole = break_file(bad)
    given = sources(tmp_path / "*" / "orders.parquet")
    with caplog.at_level(logging.WARNING):
        load = ingest_orders(given, DAY_1)
    assert counts(load) == (6001, 6000, 0, 0, 1, 0, 0)
    assert f"{bad} cannot be read as parquet" in caplog.text
    refused = "select reason, source_file, original ->> 'file', resolved_load_id is null from quarantine.rows"
    assert warehouse.rows(refused) == [("unreadable_file", "02/orders.parquet", "02/orders.parquet", True)]
    assert ingest_orders(given, DAY_1) is not None
    assert warehouse.value("select count(*) from quarantine.rows") == 1
    assert replay(given, DAY_1)[0].left == {"unreadable_file": 1}
    bad.write_bytes(whole)
    assert counts(ingest_orders(given, DAY_2)) == (9000, 3000, 0, 6000, 0, 0, 0)
    assert warehouse.rows(refused)[0][3] is False


def test_where_every_file_is_corrupt_the_load_fails(warehouse: Warehouse, tmp_path: Path) -> None:
    for month in ("01", "02"):
        write_parquet(tmp_path / month / "orders.parquet", f"S{month}")
        break_file(tmp_path / month / "orders.parquet")
    with pytest.raises(
        StratumError, match=r"None of the 2 files can be read\. .*01/orders\.parquet cannot be read as"
    ):
        ingest_orders(sources(tmp_path / "*" / "orders.parquet"), DAY_1)
    assert warehouse.value("select count(*) from audit.loads") == 0


@pytest.mark.parametrize("fault", ["cut off", "no gzip", "empty"])
def test_a_corrupt_csv_among_good_ones_is_refused_alone(
    warehouse: Warehouse, tmp_path: Path, fault: str
) -> None:
    lines = "".join(f"S{number},A,P1,1,10.00,CNY,2024-03-01 09:00:00\n" for number in range(5000))
    good = gzip.compress((HEADER + lines).encode())
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((HEADER + lines.replace("S", "T")).encode()))
    content = {"cut off": good[: len(good) // 2], "no gzip": b"no,buyer", "empty": gzip.compress(b"")}[fault]
    (tmp_path / "b.csv.gz").write_bytes(content)
    assert counts(ingest_orders(sources(tmp_path / "*.csv.gz"), DAY_1)) == (5001, 5000, 0, 0, 1, 0, 0)
    assert warehouse.rows("select reason, source_file from quarantine.rows") == [
        ("unreadable_file", "b.csv.gz")
    ]


def test_files_that_differ_in_their_columns_are_a_changed_source_and_no_bad_rows(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "S1,A,P1,1,10.00,CNY,2024-03-01\n")
    (tmp_path / "b.csv").write_text("no,sku\nS1,P1\n")
    with pytest.raises(StratumError, match=r"b\.csv has the columns no, sku, but"):
        ingest_orders(sources(tmp_path / "*.csv"), DAY_1)


ROWS = [
    # (line, the reason it is refused for, or `kept` or `later`)
    ("S1,A,P1,1,10.00,CNY,2024-03-01 09:00:00", "kept"),
    ("S2,A,P1,1,10.00,CNY", "unreadable_row"),
    ('S3,A,"P1,1,10.00,CNY,2024-03-01 09:00:00', "unreadable_row"),
    ("S4,A,P1,1,10.00,CNY,1970-01-01 00:00:00", "implausible_date"),
    ("S5,A,P1,1,10.00,CNY,1970-01-20 17:02:06", "implausible_date"),
    ("S6,A,P1,1,10.00,CNY,1900-01-00", "unreadable_ordered_at"),
    ("S7,A,P1,1,10.00,CNY,1899-12-30", "implausible_date"),
    ("S8,A,P1,1,10.00,CNY,1990-01-01 12:00:00", "kept"),
    ("S9,A,P1,1,10.00,CNY,2099-01-01 00:00:00", "later"),
    ("S10,A,P1,1,10.00,EUR,2024-03-01 09:00:00", "no_exchange_rate"),
    ("S11,nobody knows,P1,1,10.00,CNY,2024-03-01 09:00:00", "kept"),
]


def test_each_bad_row_is_refused_by_its_name_and_the_sound_ones_land(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    lines = [line for line, outcome in ROWS if line != ROWS[2][0]] + [
        ROWS[2][0]
    ]  # an open quote takes the rest
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    load = ingest_orders(sources(path), DAY_1)
    refused = [outcome for _, outcome in ROWS if outcome not in ("kept", "later")]
    assert load is not None
    assert load.reasons == {reason: refused.count(reason) for reason in refused}
    assert (load.rows_new, load.rows_later) == (3, 1)
    assert warehouse.rows("select order_id, customer_id from raw_files.order_lines order by 1") == [
        ("S1", "A"),
        ("S11", "nobody knows"),
        ("S8", "A"),
    ]


def test_an_instant_with_its_own_zone_stands_beside_those_of_the_source(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    times = (
        "2024-03-01 23:00:00",
        "2024-03-01 23:00:00+08",
        "2024-03-01T15:00:00Z",
        "2024-02-29 23:30:00-05:00",
    )
    path.write_text(
        HEADER + "".join(f"S{number},A,P1,1,10.00,CNY,{time}\n" for number, time in enumerate(times))
    )
    ingest_orders(sources(path, timezone="Europe/Berlin"), DAY_2)
    assert warehouse.rows(
        "select order_id, to_char(ordered_at at time zone 'UTC', 'DD HH24:MI'), "
        "(ordered_at at time zone 'Asia/Shanghai')::date from raw_files.order_lines order by 1"
    ) == [
        ("S0", "01 22:00", DAY_2),
        ("S1", "01 15:00", DAY_1),
        ("S2", "01 15:00", DAY_1),
        ("S3", "01 04:30", DAY_1),
    ]


def test_the_contract_lists_every_bad_input_of_these_tests() -> None:
    text = (PROJECT_DIR / "docs" / "contracts" / "sources.md").read_text()
    table = text.partition("## Bad input")[2]
    for reason in {"unreadable_file", *(outcome for _, outcome in ROWS if outcome not in ("kept", "later"))}:
        assert reason.replace("ordered_at", "*column*") in table.replace("`", "")
