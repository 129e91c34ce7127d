"""Records from files land as versions: since when each is true, what a second load does, what is refused."""

from datetime import date
from pathlib import Path

import pytest

from include.errors import StratumError
from include.sources.records import ingest_records
from tests.conftest import Warehouse
from tests.integration.record_stage import Records, counts

JUNE, JULY = date(2026, 6, 30), date(2026, 7, 1)


@pytest.fixture
def warehouse(emptied_warehouse: Warehouse) -> Warehouse:
    return emptied_warehouse


@pytest.fixture
def customers(warehouse: Warehouse, tmp_path: Path) -> Records:
    return Records(warehouse, tmp_path, "customers")


def customer(number: str | None, **values: str | None) -> dict[str, str | None]:
    return {"customer_id": number, "customer_name": "One", "created_at": "2026-01-05 10:00:00", **values}


def test_a_record_holds_since_it_was_made_and_is_landed_once(customers: Records) -> None:
    load = customers.load(JUNE, customer("1"), customer("2", created_at="2026-07-01 00:00:00"))
    assert (counts(load), load.rows_later) == ((1, 0, 0, 0), 1)
    assert customers.seen("1", date(2026, 1, 4)) is None
    assert customers.value("1", date(2026, 1, 5), "customer_name") == "One"
    before = customers.versions()
    again = customers.load(JUNE, customer("1"), customer("2", created_at="2026-07-01 00:00:00"))
    assert (counts(again), customers.versions()) == ((0, 0, 1, 0), before)
    assert counts(customers.load(JULY, customer("1"), customer("2", created_at="2026-07-01 00:00:00"))) == (
        1,
        0,
        1,
        0,
    )


def test_a_change_that_nothing_dates_holds_from_the_day_it_was_seen(customers: Records) -> None:
    customers.load(JUNE, customer("1"))
    assert counts(customers.load(JULY, customer("1", customer_name="Two"))) == (0, 1, 0, 0)
    assert customers.value("1", JUNE, "customer_name") == "One"
    assert customers.value("1", JULY, "customer_name") == "Two"
    # The day before, asked again, does not learn of it.
    assert counts(customers.load(JUNE, customer("1", customer_name="Two"))) == (0, 0, 1, 0)
    assert customers.value("1", JUNE, "customer_name") == "One"


def test_a_change_that_is_dated_holds_from_its_date_on(customers: Records) -> None:
    old = customer("1", modified_at="2026-03-01 10:00:00")
    new = customer("1", modified_at="2026-05-01 10:00:00", customer_name="Two")
    customers.load(JUNE, old)
    assert counts(customers.load(JULY, new)) == (0, 1, 0, 0)
    assert customers.value("1", date(2026, 4, 30), "customer_name") == "One"
    assert customers.value("1", date(2026, 5, 1), "customer_name") == "Two"
    # Known only since it was loaded: the day was looked for before.
    assert customers.warehouse.rows("select known_on from raw_files.customers order by valid_from") == [
        (date(2026, 3, 1),),
        (JULY,),
    ]


def test_several_versions_of_a_record_may_stand_in_one_file_in_any_order(customers: Records) -> None:
    rows = [
        customer("1", modified_at="2026-05-01 10:00:00", customer_name="Two"),
        customer("1", modified_at="2026-03-01 10:00:00"),
        customer("1", modified_at="2026-07-01 10:00:00", customer_name="Three"),
    ]
    load = customers.load(JUNE, *rows)
    assert (counts(load), load.rows_later) == ((2, 0, 0, 0), 1)
    assert [customers.value("1", date(2026, month, 2), "customer_name") for month in (3, 5, 7)] == [
        "One",
        "Two",
        "Two",
    ]


def test_what_happens_later_is_not_told_before(customers: Records) -> None:
    merged = customer("1", merged_on="2026-05-01", merged_into_customer_id="9")
    assert counts(customers.load(date(2026, 4, 30), merged)) == (1, 0, 0, 0)
    assert customers.value("1", date(2026, 4, 30), "merged_into_customer_id") is None
    assert counts(customers.load(JUNE, merged)) == (0, 1, 0, 0)
    assert customers.value("1", date(2026, 4, 30), "merged_into_customer_id") is None
    assert customers.value("1", date(2026, 5, 1), "merged_into_customer_id") == "9"
    assert counts(customers.load(JUNE, merged)) == (0, 0, 1, 0)


@pytest.mark.parametrize("days", [(3, 1, 2), (2, 3, 1), (3, 2, 1)])
def test_dates_in_any_order_leave_the_same_versions(customers: Records, days: tuple[int, ...]) -> None:
    rows = [
        customer("1", created_at="2026-01-05", merged_on="2026-05-02", merged_into_customer_id="9"),
        customer("2", created_at="2026-05-03", merged_on=None, merged_into_customer_id=None),
        customer("3", created_at="2026-05-01", merged_on="2026-05-03", merged_into_customer_id="1"),
    ]
    for day in (1, 2, 3):
        customers.load(date(2026, 5, day), *rows)
    expected = customers.versions()
    customers.warehouse.rows("truncate raw_files.customers, audit.loads cascade")
    for day in days:
        customers.load(date(2026, 5, day), *rows)
    assert (customers.versions(), len(expected)) == (expected, 5)


def test_a_record_that_nothing_dates_is_known_from_the_load_on(customers: Records) -> None:
    customers.load(JUNE, customer("1", created_at=None))
    assert customers.seen("1", date(2026, 6, 29)) is None
    assert customers.value("1", JUNE, "customer_name") == "One"
    assert counts(customers.load(JULY, customer("1", created_at=None))) == (0, 0, 1, 0)


def test_a_record_that_is_gone_from_its_file_stays(customers: Records) -> None:
    customers.load(JUNE, customer("1"), customer("2"))
    assert counts(customers.load(JULY, customer("2"))) == (0, 0, 1, 0)
    assert customers.seen("1", JULY) is not None


def test_a_record_that_is_gone_from_a_snapshot_is_archived_and_may_come_back(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    customers = Records(warehouse, tmp_path, "customers", snapshot=True)
    customers.load(JUNE, customer("1"), customer("2"))
    assert counts(customers.load(JULY, customer("2"))) == (0, 1, 1, 0)
    assert [customers.seen("1", day)[1] for day in (JUNE, JULY)] == [False, True]  # type: ignore[index]
    assert counts(customers.load(JULY, customer("2"))) == (0, 0, 1, 0)
    # The past is not archived by a file of today.
    assert counts(customers.load(JUNE, customer("1"))) == (0, 0, 1, 0)
    assert customers.seen("2", JUNE) == customers.seen("2", JULY)
    assert counts(customers.load(date(2026, 7, 2), customer("1"), customer("2"))) == (0, 1, 1, 0)
    assert customers.seen("1", date(2026, 7, 2))[1] is False  # type: ignore[index]


def test_a_dated_record_that_comes_back_into_a_snapshot_stands_again(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    customers = Records(warehouse, tmp_path, "customers", snapshot=True)
    one, two = (customer(number, modified_at="2026-03-01") for number in "12")
    for day, rows in ((1, (one, two)), (2, (two,)), (3, (one, two)), (3, (one, two))):
        customers.load(date(2026, 7, day), *rows)
    assert [customers.seen("1", date(2026, 7, day))[1] for day in (1, 2, 3)] == [False, True, False]  # type: ignore[index]
    assert len(customers.versions()) == 4


def test_nothing_is_archived_where_a_row_cannot_be_read(warehouse: Warehouse, tmp_path: Path) -> None:
    customers = Records(warehouse, tmp_path, "customers", snapshot=True)
    customers.load(JUNE, customer("1"), customer("2"))
    path = customers.write(customer("2"))
    path.write_text(path.read_text() + "1\n")
    loads = ingest_records(customers.sources(customer("1")), JULY)
    assert counts(loads["customers"]) == (0, 0, 1, 1)
    assert customers.seen("1", JULY)[1] is False  # type: ignore[index]


def test_a_refused_row_of_a_snapshot_is_not_gone(warehouse: Warehouse, tmp_path: Path) -> None:
    customers = Records(warehouse, tmp_path, "customers", snapshot=True)
    customers.load(JUNE, customer("1"), customer("2"))
    load = customers.load(JULY, customer("1", created_at="1970-01-01"), customer("2"))
    assert counts(load) == (0, 0, 1, 1)
    assert customers.seen("1", JULY)[1] is False  # type: ignore[index]


def test_an_empty_snapshot_is_refused_whole_and_another_empty_file_is_none(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    (tmp_path / "1.csv").write_text("customer_id\n")
    plain = Records(warehouse, tmp_path, "customers")
    assert counts(ingest_records(plain.sources(["customer_id"]), JUNE)["customers"]) == (0, 0, 0, 0)
    snapshot = Records(warehouse, tmp_path, "customers", snapshot=True)
    with pytest.raises(StratumError, match="would archive every record"):
        ingest_records(snapshot.sources(["customer_id"]), JULY)


def test_two_rows_of_one_record_that_differ_are_both_refused_and_equal_ones_count_once(
    customers: Records,
) -> None:
    customers.load(JUNE, customer("1"))
    load = customers.load(
        JULY,
        customer("1", customer_name="Two"),
        customer("1", customer_name="Three"),
        customer("2"),
        customer("2"),
    )
    assert counts(load) == (1, 0, 0, 3)
    assert customers.refused() == {"contradictory": 2, "repeated": 1}
    assert customers.value("1", JULY, "customer_name") == "One"


def test_of_two_rows_with_one_date_that_differ_neither_lands(customers: Records) -> None:
    rows = [customer("1", modified_at="2026-03-01", customer_name=name) for name in ("Two", "Three")]
    load = customers.load(JUNE, *rows, customer("2", modified_at=None))
    assert (counts(load), customers.refused()) == ((1, 0, 0, 2), {"contradictory": 2})


def test_what_is_not_mapped_is_absent_on_the_date(customers: Records) -> None:
    customers.load(JUNE, customer("1"))
    absent = customers.warehouse.rows(
        "select entity from audit.loads where source = 'records' and status = 'absent'"
    )
    assert ("industries",) in absent and ("customers",) not in absent and len(absent) == 12


def test_each_touched_customer_is_queued_from_its_first_change_on(customers: Records) -> None:
    customers.load(JUNE, customer("1"), customer("2"))
    customers.warehouse.rows("delete from intermediate.restatement_queue")
    customers.load(JULY, customer("1", customer_name="Two"), customer("2"))
    assert customers.warehouse.rows("select account_key, from_date from intermediate.restatement_queue") == [
        ("1", JULY)
    ]
