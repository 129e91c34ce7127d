"""Order lines of a real MariaDB server land as those of PostgreSQL do: nothing lost, nothing twice, nothing changed."""

import gc
from collections.abc import Iterator
from datetime import date, datetime

import pytest

from include.errors import StratumError, TransientError
from include.sources import databases
from include.sources.loads import Load
from include.sources.orders import ingest_orders
from include.sources.survey import survey
from tests.conftest import Warehouse
from tests.fixtures.books import counts
from tests.fixtures.erp import database_orders
from tests.fixtures.mariadb import PASSWORD, MariaErp, line, running_mariadb

pytestmark = pytest.mark.extended

DAY_1, DAY_2, DAY_3 = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaErp]:
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as erp:
        yield erp


@pytest.fixture
def erp(running: MariaErp) -> MariaErp:
    running.reset()
    return running


def load(as_of: date, **changes: object) -> Load:
    given = {"table": "order_lines", "overlap": 0, "return_when": "is_return::integer = 1"} | changes
    done = ingest_orders(database_orders(**given), as_of)
    assert done is not None
    return done


def three_days(erp: MariaErp) -> None:
    erp.add(
        line(1, "2024-03-01 09:00"),
        line(2, "2024-03-01 09:00", sku="P2", order_no="S1"),
        line(3, "2024-03-02 10:00", buyer="B"),
        line(4, "2024-03-03 08:00"),
    )


def test_the_first_pull_lands_all_and_the_second_nothing_new(warehouse: Warehouse, erp: MariaErp) -> None:
    three_days(erp)
    assert counts(load(DAY_2)) == (3, 3, 0, 0, 0, 0, 1)
    assert counts(load(DAY_3)) == (1, 1, 0, 0, 0, 0, 0)  # from the first row on that had to wait
    assert counts(load(DAY_3)) == (1, 0, 0, 1, 0, 0, 0)  # the row at the position itself is read once more
    erp.add(line(5, "2024-03-03 09:00"))
    erp.run("update order_lines set qty = 9, updated_at = '2024-03-04 00:00' where id = 1")
    assert counts(load(DAY_3)) == (3, 1, 1, 1, 0, 0, 0)
    assert warehouse.rows(
        "select quantity::int from raw_files.order_lines where order_id = 'S1' and product_id = 'P1' order by load_seq"
    ) == [(2,), (9,)]
    assert warehouse.value("select count(distinct row_key) from raw_files.order_lines") == 5


def test_values_arrive_exactly(warehouse: Warehouse, erp: MariaErp) -> None:
    erp.add(
        line(
            2**64 - 1,
            "2024-03-01 00:30:00.5",
            price="12345678901234.5678",
            qty=1,
            buyer=" Zoë 北京 😀",
            sku='P,"1"',
            is_gift=1,
        )
    )
    erp.add(line(2, "2024-03-01 09:00", price="0.00005", qty=4_294_967_295, buyer=None))
    columns = database_orders().orders.columns.model_dump(exclude_none=True)  # type: ignore[union-attr]
    more = {"product_name": "updated_at", "product_category": "is_return || '/' || is_gift", "country": "id"}
    done = load(DAY_1, columns=columns | more)
    assert counts(done) == (2, 2, 0, 0, 0, 1, 0)
    rows = warehouse.rows(
        "select country, customer_id, product_id, quantity::text, unit_price::text, ordered_at at time zone 'UTC', "
        "product_name, product_category from raw_files.order_lines order by 1"
    )
    assert rows == [
        ("18446744073709551615", "Zoë 北京 😀", 'P,"1"', "1.0000", "12345678901234.5678",
         datetime(2024, 2, 29, 16, 30, 0, 500000), "2024-02-29 16:30:00+00:00", "0/1"),
        ("2", None, "P1", "4294967295.0000", "0.0001", datetime(2024, 3, 1, 1, 0),
         "2024-03-01 01:00:00+00:00", "0/0"),
    ]  # fmt: skip


def test_a_timestamp_keeps_its_instant_in_the_hour_that_comes_twice(
    warehouse: Warehouse, erp: MariaErp
) -> None:
    # The server is at +02:00, the ERP writes in Shanghai's time: an instant is neither's.
    erp.add(line(1, "2024-10-27 08:30"), line(2, "2024-10-27 09:30"))  # 02:30 in Berlin, both of them
    columns = database_orders().orders.columns.model_dump(exclude_none=True) | {"ordered_at": "updated_at"}  # type: ignore[union-attr]
    load(date(2024, 10, 27), columns=columns, timezone="Europe/Berlin")
    assert warehouse.rows(
        "select ordered_at at time zone 'UTC' from raw_files.order_lines order by order_id"
    ) == [(datetime(2024, 10, 27, 0, 30),), (datetime(2024, 10, 27, 1, 30),)]


def test_zero_dates_are_no_dates_and_refuse_their_row_alone(warehouse: Warehouse, erp: MariaErp) -> None:
    three_days(erp)
    erp.add(
        line(5, "0000-00-00 00:00", updated="2024-03-03 09:00"),
        line(6, "2024-03-00 00:00", updated="2024-03-03 09:00"),
        line(7, "2024-03-01 10:00", updated="0000-00-00 00:00:00"),
    )
    first = load(DAY_3)
    assert counts(first) == (7, 5, 0, 0, 2, 0, 0)
    assert warehouse.rows(
        "select original ->> 'id', original ->> 'placed' from quarantine.rows order by 1"
    ) == [("5", None), ("6", "2024-03-00 00:00:00.000")]
    erp.add(line(8, "2024-03-01 11:00", updated="0000-00-00 00:00:00"))
    assert counts(load(DAY_3)) == (4, 1, 0, 1, 2, 0, 0)  # 5 and 6 stand at the position; 7 and 8 at none
    assert warehouse.value("select position from audit.cursors order by load_seq desc limit 1") == (
        "2024-03-03 01:00:00+00:00"
    )


# PyMySQL's cursor tries to read on from the closed connection when it is let go, and Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_cut_off_between_two_chunks_lands_nothing(
    warehouse: Warehouse, erp: MariaErp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than the buffers between the two hold, so that the server has not sent all when it is cut off.
    big = "x" * 1_000_000
    erp.run("alter table order_lines add column note longtext")
    erp.add(*(line(number, "2024-03-01 09:00", note=big) for number in range(40)))
    sizes = []

    def cut_off(engine, texts, *rest) -> None:
        sizes.append(len(texts[0]))
        if len(sizes) == 1:
            assert erp.cut_off_readers() == 1

    monkeypatch.setattr(databases, "CHUNK_ROWS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(databases, "_append", cut_off)
        with pytest.raises(TransientError, match="'erp' did not answer to the end: Lost connection") as fault:
            load(DAY_1)
    assert "\n" not in str(fault.value)
    del fault
    gc.collect()
    assert 1 <= len(sizes) < 20
    for table in ("raw_files.order_lines", "audit.loads", "audit.cursors"):
        assert warehouse.value(f"select count(*) from {table}") == 0
    assert counts(load(DAY_1)) == (40, 40, 0, 0, 0, 0, 0)


FAULTS = {
    "a wrong password": ({}, "mysql://erp_reader:wr0ng-word@{place}", StratumError, "not let Stratum in: Access denied"),
    "an unknown host": ({}, "mysql://erp_reader:wr0ng-word@no.such.host.invalid/x", TransientError, "did not answer"),
    "a port nobody listens on": ({}, "mariadb://erp_reader:wr0ng-word@127.0.0.1:1/x", TransientError, "did not answer"),
    "a database that is not there": ({}, "mysql://root@{place}_not", StratumError, "let Stratum in: Unknown database"),
    "a missing table": ({"table": "lines"}, "mysql://root@{place}", StratumError, "cannot be read: Table 'sales.lines'"),
    "a table that is not granted": ({"table": "secrets"}, None, StratumError, "cannot be read: SELECT command denied"),
    "a missing cursor": ({"cursor": "changed"}, None, StratumError, "'changed', which order_lines at erp does"),
    "a query of bad words": ({"table": None, "query": "select from"}, None, StratumError, "error in your SQL syntax"),
    "binary data": ({"return_when": "photo is not null"}, None, StratumError, "'photo', which holds binary data"),
    "a query that writes, to MariaDB by name": (
        {"table": None, "query": "select order_lines.*, write_line() as written from order_lines"}, "mariadb://root@{place}",
        StratumError, "Cannot execute statement in a READ ONLY transaction",
    ),
    "a query that writes": (
        {"table": None, "query": "select order_lines.*, write_line() as written from order_lines"}, "mysql://root@{place}",
        StratumError, "Cannot execute statement in a READ ONLY transaction",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "url", "kind", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_read_is_one_line_without_a_password_and_leaves_no_trace(
    warehouse: Warehouse,
    erp: MariaErp,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict,
    url: str | None,
    kind: type,
    said: str,
) -> None:
    three_days(erp)
    erp.run("update order_lines set photo = 'x'")
    erp.run("create table if not exists secrets (a int)")
    erp.run("drop function if exists write_line")
    erp.run(
        "create function write_line() returns int modifies sql data "
        "begin insert into order_lines (id, qty) values (99, 1); return 1; end"
    )
    if url is not None:
        monkeypatch.setenv("AIRFLOW_CONN_ERP", url.format(place=erp.place))
    with pytest.raises(StratumError, match=said) as fault:
        load(DAY_3, **changes)
    assert type(fault.value) is kind
    for secret in ("\n", "erp_reader:", PASSWORD, "p%40ss", "wr0ng-word"):
        assert secret not in str(fault.value)
    assert warehouse.value("select count(*) from audit.loads") == 0
    assert erp.run("select count(*) from order_lines") == ((4,),)


def test_the_check_of_sources_sees_the_table(erp: MariaErp) -> None:
    three_days(erp)
    (seen,) = [
        each
        for each in survey(database_orders(table="order_lines", return_when="is_return = '1'"))
        if each.source == "orders"
    ]
    assert (seen.rows, seen.newest) == (4, "2024-03-03 08:00:00")
    assert "photo" in seen.not_mapped
