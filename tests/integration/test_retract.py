"""A load that is taken out leaves nothing behind: the next build equals one that never saw it."""

from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from include.commands.loads import stretches
from include.dbt import build
from include.errors import StratumError, TransientError
from include.sources.config import Sources
from include.sources.loads import bind_company, landing
from include.sources.orders import ingest_orders
from include.sources.retract import Retracted, in_words, list_loads, retract
from include.sources.row_sources import Company, Orders
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, fail_run
from tests.conftest import Warehouse, embedded, fresh_warehouse
from tests.fixtures.raw_events import add_events, add_reading

HEADER = "order_no,buyer,placed,sku,qty,price\n"
DAY_1, DAY_2 = date(2024, 3, 4), date(2024, 3, 9)
GOOD = (
    "S1,A,2024-03-01 09:00:00,P1,2,10.00\n"
    "S2,B,2024-03-01 23:30:00,P1,3,10.00\n"
    "S3,,2024-03-01 10:00:00,P1,1,7.00\n"
    # One order over two days: it counts on the first of them.
    "S4,C,2024-03-03 10:00:00,P2,1,4.00\n"
    "S5,D,2024-03-04 10:00:00,P1,1,4.00\n"
)
BAD = (
    "S1,A,2024-03-05 09:00:00,P1,2,99.00\n"  # another day, another price
    "S2,E,2024-03-01 23:30:00,P1,3,10.00\n"  # another customer
    "S3,,2024-03-02 10:00:00,P1,1,7.00\n"  # another day of no customer
    "S4,C,2024-03-01 10:00:00,P1,1,4.00\n"  # an earlier line of an order: takes its day over
    "S4,C,2024-03-03 10:00:00,P2,1,4.00\n"
    "S5,D,2024-03-04 10:00:00,P1,1,4.00\n"
    "S9,F,2024-03-06 10:00:00,P1,1,-1.00\n"  # refused
)
DAYS = "intermediate.int_account_days", "intermediate.int_unattributed_days"


def sources(path: Path, lines: str) -> Sources:
    path.write_text(HEADER + lines)
    columns = {
        "order_id": "order_no",
        "customer_id": "buyer",
        "product_id": "sku",
        "quantity": "qty",
        "unit_price": "price",
        "currency": "'CNY'",
        "ordered_at": "placed",
    }
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
    return Sources(company=company, orders=Orders.model_validate({"file": str(path), "columns": columns}))


def load(path: Path, lines: str, as_of: date) -> str:
    done = ingest_orders(sources(path, lines), as_of)
    assert done is not None
    return str(done.load_id)


def build_days(as_of: date) -> None:
    build("staging", as_of, begin_run(as_of, wait_s=0))
    fail_run(as_of, "end of the test's build")


def contents(warehouse: Warehouse) -> dict[str, list[tuple]]:
    """What the builds made, and the rows they stand on without the ids of their loads."""
    found = {table: warehouse.rows(f"select * from {table} order by 1, 2") for table in DAYS}
    found["raw"] = warehouse.rows(
        "select row_key, row_hash, known_on, ordered_at from raw_files.order_lines order by 1, 2"
    )
    found["quarantine"] = warehouse.rows("select row_hash, reason from quarantine.rows order by 1")
    return found


@pytest.mark.extended
def test_a_retracted_load_and_a_build_equal_never_having_loaded_it(
    cluster: embedded.Cluster, template: str, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    with fresh_warehouse(cluster, template, tmp_path / "never") as never:
        load(file, GOOD, DAY_1)
        load(file, GOOD, DAY_2)
        build_days(DAY_2)
        expected = contents(never)
    with fresh_warehouse(cluster, template, tmp_path / "retracted") as warehouse:
        load(file, GOOD, DAY_1)
        bad = load(file, BAD, DAY_2)
        build_days(DAY_2)
        assert contents(warehouse) != expected
        done = retract(bad, "the export\nwas cut off")
        assert (done.rows, done.first_day, done.dates_to_load) == (4, date(2024, 3, 1), [DAY_2])
        load(file, GOOD, DAY_2)
        build_days(DAY_2)
        assert contents(warehouse) == expected
        assert warehouse.value("select count(*) from intermediate.account_day_queue") == 0
        assert warehouse.rows(
            "select status, retracted_why, rows_retracted from audit.loads where load_id = %s", bad
        ) == [("retracted", "the export was cut off", 4)]


def test_a_retracted_load_does_not_count_as_having_covered_its_day(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    retract(load(file, GOOD, DAY_2), "wrong file")
    load(file, GOOD, DAY_2)
    assert warehouse.value("select count(*) from raw_files.order_lines where known_on = '2024-03-09'") == 0


def test_a_row_refused_again_later_stays_in_quarantine_under_the_load_that_is_left(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    first, second = load(file, BAD, DAY_1.replace(day=8)), load(file, BAD, DAY_2)
    retract(first, "wrong file")
    stands = "select first_load_id::text, last_load_id::text from quarantine.rows"
    assert warehouse.rows(stands) == [(second, second)]
    retract(second, "wrong file")
    assert warehouse.rows(stands) == []


def test_what_a_later_load_found_unchanged_is_to_be_loaded_again(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    first = load(file, GOOD, DAY_1)
    load(file, GOOD, DAY_2)
    assert retract(first, "wrong file").dates_to_load == [DAY_1, DAY_2]


def test_published_dates_the_load_may_have_changed_are_told(warehouse: Warehouse, tmp_path: Path) -> None:
    bad = load(tmp_path / "orders.csv", GOOD, DAY_2)
    warehouse.rows(
        "insert into published.history_run values ('2024-02-29', 'a'), ('2024-03-09', 'b'), ('2024-03-10', 'c')"
    )
    assert retract(bad, "wrong file").published_dates == [DAY_2, date(2024, 3, 10)]


def test_while_a_build_is_at_work_no_load_is_taken_out(warehouse: Warehouse, tmp_path: Path) -> None:
    bad = load(tmp_path / "orders.csv", GOOD, DAY_2)
    run_id = begin_run(DAY_2)
    with pytest.raises(TransientError, match=rf"run {run_id} .* holds the build lock"):
        retract(bad, "wrong file")
    assert warehouse.value("select count(*) from raw_files.order_lines") == 5
    warehouse.rows("update audit.build_lock set lease_until = clock_timestamp() - interval '1 second'")
    assert retract(bad, "wrong file").rows == 5


def test_a_load_is_named_by_the_beginning_of_its_id_and_taken_out_once(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    bad = load(tmp_path / "orders.csv", GOOD, DAY_2)
    with pytest.raises(StratumError, match="Say why"):
        retract(bad, "  ")
    with pytest.raises(StratumError, match="there is none"):
        retract("nonsense%", "wrong")
    assert isinstance(retract(bad[:8], "wrong file"), Retracted)
    with pytest.raises(StratumError, match=r"was retracted on .*: wrong file"):
        retract(bad, "again")
    assert "5 rows taken out: wrong file" in in_words(list_loads(DAY_2)[0])


def crm_version(warehouse: Warehouse, entity: str, record: str, company: str, valid_from: str) -> str:
    """Land one version of a CRM record as its loader does; return the load."""
    with landing("crm", entity, DAY_2) as books:
        bind_company(books.connection, "Test company", "Asia/Shanghai", "CNY")
        owner = "account_number" if entity == "companies" else "company_record_id"
        books.connection.execute(
            f"insert into raw_hubspot.{entity} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, {owner}, "
            "is_archived, row_hash, properties) values (%s, %s, now(), %s, %s, %s, %s, false, %s, %s)",
            [books.load_id, books.load_seq, DAY_2, valid_from, record, company, valid_from, Jsonb({})],
        )
        books.rows_in = books.rows_new = 1
        return str(books.load_id)


def test_a_moved_ticket_touches_the_company_it_leaves_and_the_one_it_returns_to(warehouse: Warehouse) -> None:
    crm_version(warehouse, "tickets", "t1", "10", "2024-03-01 20:00+00")
    bad = crm_version(warehouse, "tickets", "t1", "20", "2024-03-05 20:00+00")
    assert retract(bad, "a wrong merge").first_day == date(2024, 3, 6)
    assert warehouse.rows(
        "select account_key, from_date from intermediate.restatement_queue where load_id = %s order by 1", bad
    ) == [("hubspot:10", date(2024, 3, 6)), ("hubspot:20", date(2024, 3, 6))]
    assert warehouse.rows("select company_record_id from raw_hubspot.tickets") == [("10",)]


def test_a_companys_number_touches_both_accounts_from_its_first_day(warehouse: Warehouse) -> None:
    crm_version(warehouse, "companies", "10", "A", "2024-03-01 20:00+00")
    bad = crm_version(warehouse, "companies", "10", "B", "2024-03-05 20:00+00")
    retract(bad, "a wrong number")
    assert warehouse.rows(
        "select account_key, from_date from intermediate.restatement_queue where load_id = %s order by 1", bad
    ) == [("A", date(2024, 3, 2)), ("B", date(2024, 3, 6)), ("hubspot:10", date(2024, 3, 2))]


def test_events_queue_their_days_but_for_those_of_nobody(warehouse: Warehouse) -> None:
    with landing("behavior", "events", DAY_2) as books:
        bind_company(books.connection, "Test company", "Asia/Shanghai", "CNY")
        at = datetime(2024, 3, 1, 20, tzinfo=UTC)
        event = {"event_name": "login", "event_at": at, "known_on": DAY_2}
        add_events(books, add_reading(books), [event | {"customer_id": "A"}, event])
    retract(str(books.load_id), "a test system's events")
    assert warehouse.rows("select customer_id, usage_date from intermediate.usage_day_queue") == [
        ("A", date(2024, 3, 2))
    ]


def test_the_housekeeper_alone_may_take_rows_out(warehouse: Warehouse) -> None:
    for role in ("loader", "transformer", "auditor", "scorer", "publisher"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connect(role) as connection:
            connection.execute("delete from raw_files.order_lines")
    for statement in ("insert into audit.loads default values", "update raw_files.events set user_id = ''"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connect("housekeeper") as connection:
            connection.execute(statement)


def test_dates_are_told_as_unbroken_stretches() -> None:
    days = [date(2024, 3, day) for day in (1, 2, 3, 7, 9, 10)]
    assert stretches(days) == [(days[0], days[2]), (days[3], days[3]), (days[4], days[5])]
    assert stretches([]) == []
