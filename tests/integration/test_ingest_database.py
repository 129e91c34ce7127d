"""Order lines of a database land as those of files do, and a load reads what is new: nothing lost, nothing twice."""

import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import pytest

from include.errors import StratumError, TransientError
from include.sources import databases, file_loads, orders
from include.sources.loads import Load
from include.sources.orders import ingest_orders
from include.sources.retract import retract
from tests.conftest import Warehouse
from tests.fixtures.books import counts
from tests.fixtures.erp import COLUMNS, PASSWORD, Erp, database_orders, line, running_erp

pytestmark = pytest.mark.extended

DAY_1, DAY_2, DAY_3 = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)
CONTENT = "order_id, customer_id, product_id, quantity, unit_price, amount, ordered_at, line_type, row_key, row_hash"


@pytest.fixture(scope="module")
def running(cluster) -> Iterator[Erp]:
    with running_erp(cluster) as erp:
        yield erp


@pytest.fixture
def erp(running: Erp) -> Erp:
    running.reset()
    return running


def load(as_of: date, **changes: object) -> Load:
    """Load the ERP's lines; every row of the last day is read again unless `overlap` says otherwise."""
    done = ingest_orders(database_orders(**changes), as_of)
    assert done is not None
    return done


def current(warehouse: Warehouse) -> list[tuple]:
    """The current versions of all lines, without what names their load."""
    return warehouse.rows(
        f"select distinct on (row_key) {CONTENT} from raw_files.order_lines order by row_key, load_seq desc"
    )


def position(warehouse: Warehouse) -> object:
    return warehouse.value("select position from audit.cursors order by load_seq desc limit 1")


def forget(warehouse: Warehouse) -> None:
    warehouse.rows("truncate raw_files.order_lines; truncate audit.loads cascade")


def assert_untouched(warehouse: Warehouse) -> None:
    for table in (
        "raw_files.order_lines",
        "quarantine.rows",
        "audit.loads",
        "audit.cursors",
        "audit.company",
    ):
        assert warehouse.value(f"select count(*) from {table}") == 0, table


def three_days(erp: Erp) -> None:
    erp.add(
        line(1, "2024-03-01 09:00"),
        line(2, "2024-03-01 09:00", sku="P2", order_no="S1"),
        line(3, "2024-03-02 10:00", buyer="B"),
        line(4, "2024-03-03 08:00", order_no="R4", qty=-1),
    )


def test_values_arrive_exactly(warehouse: Warehouse, erp: Erp) -> None:
    erp.add(
        line(1, "2024-03-01 00:30:00.5", price="12345678901234.5678", qty=1, buyer=" Zoë 北京 ", sku='P,"1"')
    )
    erp.add(line(2, "2024-03-01 09:00", price="0.00005", buyer=None))
    load(DAY_1, columns=COLUMNS | {"product_name": "updated_at"})
    assert warehouse.rows(
        "select order_id, customer_id, product_id, quantity::text, unit_price::text, ordered_at at time zone 'UTC', "
        "product_name, source_file, row_key from raw_files.order_lines order by 1"
    )[0] == (
        "S1", "Zoë 北京", 'P,"1"', "1.0000", "12345678901234.5678",
        datetime(2024, 2, 29, 16, 30, 0, 500000), "2024-02-29 16:30:00.500000+00:00",
        "sales.order_lines", "1|1",
    )  # fmt: skip
    assert warehouse.rows(
        "select unit_price::text, customer_id from raw_files.order_lines where row_key = '2|1'"
    ) == [("0.0001", None)]


def test_the_first_pull_lands_all_up_to_its_day_and_the_second_nothing_new(
    warehouse: Warehouse, erp: Erp
) -> None:
    three_days(erp)
    first = load(DAY_3, overlap=0)
    assert counts(first) == (4, 4, 0, 0, 0, 0, 0)
    assert first.files == ["sales.order_lines at erp"]
    # Only the row at the position itself is read once more.
    assert counts(load(DAY_3, overlap=0)) == (1, 0, 0, 1, 0, 0, 0)
    assert len(current(warehouse)) == 4


def test_a_changed_row_is_a_correction_though_it_is_read_without_its_neighbours(
    warehouse: Warehouse, erp: Erp
) -> None:
    three_days(erp)
    erp.add(
        line(5, "2024-03-01 09:00", sku="P2", order_no="S1", qty=7)
    )  # a second line of the same order and product
    load(DAY_3, overlap=0)
    erp.run("update sales.order_lines set qty = 9, updated_at = '2024-03-04 00:00+08' where id = 5")
    again = load(DAY_3, overlap=0)
    assert counts(again) == (2, 0, 1, 1, 0, 0, 0)
    assert warehouse.rows(
        "select row_key, quantity::int from raw_files.order_lines where order_id = 'S1' order by row_key, load_seq"
    ) == [("1|1", 2), ("2|1", 2), ("5|1", 7), ("5|1", 9)]
    assert warehouse.rows(
        "select customer_id, order_date from intermediate.account_day_queue where load_id = %s", again.load_id
    ) == [("A", DAY_1)]


def test_rows_committed_late_within_the_overlap_are_not_lost(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    load(DAY_3, overlap=3600)
    assert position(warehouse) == "2024-03-03 00:00:00+00:00"
    erp.add(line(8, "2024-03-02 12:00", updated="2024-03-03 07:00"))  # exactly the overlap before
    erp.add(line(9, "2024-03-02 12:00", updated="2024-03-03 08:00"))  # of the same instant as the last row
    erp.add(line(10, "2024-03-02 12:00", updated="2024-03-03 06:59:59"))  # too late for the overlap
    assert counts(load(DAY_3, overlap=3600)) == (3, 2, 0, 1, 0, 0, 0)


def test_rows_of_later_days_wait_for_their_day_though_they_were_read_before(
    warehouse: Warehouse, erp: Erp
) -> None:
    three_days(erp)
    # The ERP touches rows in another order than that of their days.
    erp.add(line(5, "2024-03-03 09:00", updated="2024-03-01 08:00"))
    erp.add(line(6, "2024-03-01 09:00", updated="2024-03-09 08:00"))
    assert counts(load(DAY_1, overlap=0)) == (3, 3, 0, 0, 0, 0, 3)
    assert position(warehouse) == "2024-03-01 00:00:00+00:00"  # of row 5, the first that waits
    assert counts(load(DAY_2, overlap=0)) == (4, 1, 0, 3, 0, 0, 2)
    assert counts(load(DAY_3, overlap=0)) == (6, 2, 0, 4, 0, 0, 0)
    assert position(warehouse) == "2024-03-09 00:00:00+00:00"
    assert counts(load(DAY_3, overlap=0)) == (1, 0, 0, 1, 0, 0, 0)


@pytest.mark.parametrize("seed", range(2))
def test_dates_in_any_order_hold_the_rows_of_one_pass(warehouse: Warehouse, erp: Erp, seed: int) -> None:
    chance = random.Random(seed)
    days = [DAY_1 + timedelta(days=number) for number in range(8)]
    lines = (
        line(
            number,
            f"{chance.choice(days)} 12:00",
            f"{chance.choice(days)} {chance.randrange(24):02}:00",
            qty=number + 1,
        )
        for number in range(60)
    )
    erp.add(*lines)
    load(days[-1], overlap=0)
    in_one_pass = current(warehouse)
    assert len(in_one_pass) == 60
    forget(warehouse)
    for step, day in enumerate(chance.sample(days, len(days))):
        load(day, overlap=0)
        # Rows change and come while the dates are run, as in a system that is in use.
        now = f"2024-03-{10 + step:02} 10:00"
        erp.run(
            "update sales.order_lines set qty = qty + 100, updated_at = %s where id = %s",
            f"{now}+08",
            chance.randrange(60),
        )
        erp.add(line(100 + step, f"{chance.choice(days)} 13:00", now))
    load(days[-1], overlap=0)
    held = current(warehouse)
    forget(warehouse)
    load(days[-1], overlap=0)
    assert held == current(warehouse)
    assert len(held) == 68


def test_an_older_date_leaves_the_position_where_it_is(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    a_day = 26 * 3600  # so that the older date reads rows of both later days again
    load(DAY_3, overlap=a_day)
    assert counts(load(DAY_1, overlap=a_day)) == (0, 0, 0, 0, 0, 0, 2)
    assert position(warehouse) == "2024-03-03 00:00:00+00:00"


def test_rows_whose_cursor_is_empty_are_read_each_time(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    erp.run("update sales.order_lines set updated_at = null where id = 1")
    load(DAY_3, overlap=0)
    erp.run("update sales.order_lines set qty = 9 where id = 1")
    assert counts(load(DAY_3, overlap=0)) == (2, 0, 1, 1, 0, 0, 0)


def test_a_row_that_is_deleted_in_the_source_stays(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    load(DAY_3)
    erp.run("delete from sales.order_lines where id = 4")
    assert counts(load(DAY_3))[1:4] == (0, 0, 0)
    assert len(current(warehouse)) == 4


def test_without_a_cursor_all_is_read_and_rows_of_one_key_keep_their_places(
    warehouse: Warehouse, erp: Erp
) -> None:
    whole = {"cursor": None, "key": None}
    three_days(erp)
    for number, qty in ((7, 1), (8, 2), (9, 3)):
        erp.add(line(number, "2024-03-01 09:00", order_no="S7", qty=qty))
    assert counts(load(DAY_3, **whole)) == (7, 7, 0, 0, 0, 0, 0)
    # An update moves the row to another place in the table.
    erp.run("update sales.order_lines set price = price where id = 7")
    assert erp.run("select id from sales.order_lines limit 1 offset 6") == [(7,)]
    assert counts(load(DAY_3, **whole)) == (7, 0, 0, 7, 0, 0, 0)


def test_a_query_is_read_as_a_table_is(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    query = """
        with named as (select *, '10:30 %s' as note from sales.order_lines) -- all of them
        select *, qty::int as pieces from named where note like '10:%'; """
    select = {
        "table": None,
        "query": query,
        "columns": COLUMNS | {"quantity": "pieces", "product_name": "note"},
    }
    first = load(DAY_3, overlap=0, **select)
    assert (counts(first), first.files) == ((4, 4, 0, 0, 0, 0, 0), ["query at erp"])
    assert warehouse.rows("select distinct product_name from raw_files.order_lines") == [("10:30 %s",)]
    assert counts(load(DAY_3, overlap=0, **select)) == (1, 0, 0, 1, 0, 0, 0)


def test_refused_rows_are_read_anew_once_the_mapping_is_corrected(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    erp.add(line(5, "2024-03-01 09:00", price="-1"))
    first = load(DAY_3)
    assert first.reasons == {"price_not_positive": 1}
    assert warehouse.rows(
        "select original ->> 'id', original ->> 'price', original ->> 'photo' from quarantine.rows"
    ) == [("5", "-1", None)]
    again = load(DAY_3, columns=COLUMNS | {"unit_price": "abs(price::decimal(18, 4))"})
    assert counts(again) == (5, 1, 0, 4, 0, 0, 0)


def test_a_batch_of_bad_rows_alone_is_kept_in_quarantine_and_passed(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    load(DAY_3, overlap=0)
    erp.add(line(5, "2024-03-03 09:00", price="-1"))
    erp.run("delete from sales.order_lines where id = 4")
    assert counts(load(DAY_3, overlap=0)) == (1, 0, 0, 0, 1, 0, 0)
    assert position(warehouse) == "2024-03-03 01:00:00+00:00"


def test_rows_come_in_chunks_and_a_connection_cut_off_between_two_lands_nothing(
    warehouse: Warehouse, erp: Erp, monkeypatch
) -> None:
    erp.add(*(line(number, "2024-03-01 09:00") for number in range(40)))
    sizes = []

    def cut_off(engine, texts, *rest) -> None:
        sizes.append(len(texts[0]))
        if len(sizes) == 2:
            assert erp.cut_off_readers() == 1

    monkeypatch.setattr(databases, "CHUNK_ROWS", 10)
    with monkeypatch.context() as patch:
        patch.setattr(databases, "_append", cut_off)
        with pytest.raises(
            TransientError, match="'erp' did not answer to the end: terminating connection"
        ) as fault:
            load(DAY_1)
    assert "\n" not in str(fault.value)
    assert sizes == [10, 10]  # the others were still on the server
    assert_untouched(warehouse)
    assert counts(load(DAY_1)) == (40, 40, 0, 0, 0, 0, 0)


def test_a_failure_in_the_middle_of_the_landing_moves_nothing(
    warehouse: Warehouse, erp: Erp, monkeypatch
) -> None:
    three_days(erp)
    load(DAY_1, overlap=0)
    before = warehouse.rows("select * from audit.cursors")

    def fail(*_: object) -> None:
        raise ConnectionError("the wire was cut")

    with monkeypatch.context() as patch:
        patch.setattr(file_loads, "_quarantine", fail)
        with pytest.raises(ConnectionError):
            load(DAY_3, overlap=0)
    assert warehouse.rows("select * from audit.cursors") == before
    assert counts(load(DAY_3, overlap=0)) == (2, 2, 0, 0, 0, 0, 0)


def test_a_load_that_another_one_overtook_lands_nothing(warehouse: Warehouse, erp: Erp, monkeypatch) -> None:
    three_days(erp)
    load(DAY_1, overlap=0)
    slow = orders.map_rows

    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr(orders, "map_rows", slow)
        load(DAY_2, overlap=0)
        slow(*arguments)

    monkeypatch.setattr(orders, "map_rows", overtaken)
    with pytest.raises(TransientError, match="Another load of orders ended"):
        load(DAY_3, overlap=0)
    assert warehouse.rows("select as_of_date from audit.loads order by load_seq") == [(DAY_1,), (DAY_2,)]


def test_a_retracted_load_sets_the_position_back(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    load(DAY_1, overlap=0)
    second = load(DAY_2, overlap=0)
    load(DAY_3, overlap=0)
    whole = current(warehouse)
    retract(str(second.load_id), "a test")
    assert len(current(warehouse)) == 3
    assert position(warehouse) == "2024-03-02 02:00:00+00:00"
    assert counts(load(DAY_3, overlap=0)) == (2, 1, 0, 1, 0, 0, 0)
    assert current(warehouse) == whole


def test_a_first_load_that_is_retracted_lets_all_be_read_again(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    first = load(DAY_3, overlap=0)
    load(DAY_3, overlap=0)
    retract(str(first.load_id), "a test")
    assert position(warehouse) is None
    assert counts(load(DAY_3, overlap=0)) == (4, 4, 0, 0, 0, 0, 0)


FAULTS = {
    "a wrong password": ({}, "postgresql://erp_reader:wr0ng-word@{place}", StratumError, "does not let Stratum in"),
    "an unknown host": ({}, "postgresql://erp_reader:wr0ng-word@no.such.host.invalid/x", TransientError, "did not answer"),
    "a port nobody listens on": ({}, "postgresql://erp_reader:wr0ng-word@127.0.0.1:1/x", TransientError, "did not answer"),
    "a database that is not there": ({}, "{reader}_not", StratumError, "does not let Stratum in.*does not exist"),
    "a missing driver": ({}, "mysql+oursql://a:wr0ng-word@h/x", StratumError, "of a kind that is not known"),
    "a driver that is not installed": ({}, "mssql://a:wr0ng-word@h/x", StratumError, "needs the Python package 'pymssql'"),
    "no URL": ({}, "wr0ng-word", StratumError, "cannot be read as a URL"),
    "a missing table": ({"table": "sales.lines"}, None, StratumError, 'relation "sales.lines" does not exist'),
    "a table that is not granted": ({"table": "sales.secrets"}, None, StratumError, "permission denied for table secrets"),
    "a missing cursor": ({"cursor": "changed"}, None, StratumError, "'changed', which sales.order_lines at erp does"),
    "a cursor without an order": ({"cursor": "order_no"}, None, StratumError, "orders.cursor: the value 'S3'"),
    "a missing column": (
        {"columns": COLUMNS | {"quantity": "pieces"}}, None, StratumError,
        "orders.columns.quantity: .*'pieces', which sales.order_lines at erp does not have. Its columns are: id, order_no",
    ),
    "a key column that is missing": ({"key": ["line_no"]}, None, StratumError, "orders.key: .*'line_no'"),
    "binary data": ({"columns": COLUMNS | {"country": "photo"}}, None, StratumError, "'photo', which holds binary data"),
    "a key of two rows": ({"key": ["order_id"]}, None, StratumError, "orders.key .order_id. names more than one row"),
    "a column named twice": ({"table": None, "query": "select 1 as a, 2 as a"}, None, StratumError, "'a' twice"),
    "a query that writes": (
        {"table": None, "query": "select * from sales.write()", "cursor": None}, "{owner}", StratumError,
        "cannot execute INSERT in a read-only transaction",
    ),
    "a date before the first order": ({}, None, StratumError, "the first order in .* at erp is of 2024-03-01"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "url", "kind", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_read_is_one_line_without_a_password_and_leaves_no_trace(
    warehouse: Warehouse, erp: Erp, monkeypatch, changes: dict, url: str | None, kind: type, said: str
) -> None:
    three_days(erp)
    erp.run(
        "update sales.order_lines set photo = 'x'; create table sales.secrets (a int);"
        "create function sales.write() returns setof sales.order_lines language sql as "
        "$$ insert into sales.order_lines (id) values (99) returning * $$"
    )
    if url is not None:
        place = erp.reader_url.rpartition("@")[2]
        monkeypatch.setenv(
            "AIRFLOW_CONN_ERP", url.format(place=place, reader=erp.reader_url, owner=erp.owner_url)
        )
    with pytest.raises(StratumError, match=said) as fault:
        load(date(2024, 2, 1) if "first order" in said else DAY_3, **changes)
    assert type(fault.value) is kind
    for secret in ("\n", "erp_reader:", PASSWORD, "p%40ss", "wr0ng-word"):
        assert secret not in str(fault.value)
    assert fault.value.__cause__ is None or "wr0ng" not in str(fault.value.__cause__)
    assert_untouched(warehouse)
    assert erp.run("select count(*) from sales.order_lines") == [(4,)]


def test_a_date_before_the_first_order_is_turned_away_also_once_the_cursor_has_moved(
    warehouse: Warehouse, erp: Erp
) -> None:
    three_days(erp)
    load(DAY_3)
    with pytest.raises(StratumError, match=r"As of 2024-02-01 there are no orders: .* of 2024-03-01"):
        load(date(2024, 2, 1))
    assert warehouse.value("select count(*) from audit.loads") == 1


def test_a_mapped_column_of_another_type_fails_the_load_with_its_name(warehouse: Warehouse, erp: Erp) -> None:
    three_days(erp)
    load(DAY_2)
    erp.run("alter table sales.order_lines alter column photo type text using 'x'")  # not mapped: no matter
    load(DAY_2)
    erp.run("alter table sales.order_lines alter column qty type text using 'two'")
    with pytest.raises(
        StratumError, match=r"column 'qty' of sales.order_lines at erp was number and is text now"
    ):
        load(DAY_3)
    assert warehouse.value("select count(*) from audit.loads") == 2


def test_a_new_column_is_kept_in_the_quarantine_and_changes_nothing_else(
    warehouse: Warehouse, erp: Erp
) -> None:
    three_days(erp)
    load(DAY_2)
    erp.run("alter table sales.order_lines add column colour text default 'red'")
    erp.add(line(5, "2024-03-03 09:00", price="-1"))
    assert counts(load(DAY_3))[1:5] == (1, 0, 0, 1)
    assert warehouse.rows("select original ->> 'colour' from quarantine.rows") == [("red",)]
