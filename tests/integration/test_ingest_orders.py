"""Order lines land with every row accounted for, once, whatever the order of days and however often."""

from collections import Counter
from datetime import date, datetime
from pathlib import Path

import pytest

from include.errors import StratumError
from include.sources import file_loads, orders
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources
from include.sources.orders import ingest_orders
from include.sources.row_sources import Company, Orders
from tests.conftest import Warehouse
from tests.fixtures.books import counts

HEADER = "order_no,buyer,placed,sku,name,qty,price,cur\n"
COLUMNS = {
    "order_id": "order_no",
    "customer_id": "buyer",
    "product_id": "sku",
    "product_name": "name",
    "quantity": "qty",
    "unit_price": "price",
    "currency": "coalesce(cur, 'CNY')",
    "ordered_at": "placed",
}
DAY_1, DAY_2, DAY_3 = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)
PLAIN = (
    "S1,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,\n"
    "S1,A,2024-03-01 09:00:00,P2,Nut,1,5.00,\n"
    "S2,B,2024-03-02 10:00:00,P1,Bolt,3,10.00,\n"
    "R3,A,2024-03-03 08:00:00,P1,Bolt,-1,10.00,\n"
)
CONTENT = (
    "order_id, customer_id, product_id, product_name, product_category, country, quantity, unit_price, "
    "amount, currency, ordered_at, line_type, row_key, row_hash"
)


def make_sources(path: Path, **changes: object) -> Sources:
    """Sources over a csv, the company in Shanghai; `changes` replace keys of the orders mapping."""
    given: dict = {
        "file": str(path),
        "columns": COLUMNS,
        "return_when": "starts_with(order_no, 'R')",
        "non_product_when": "sku = 'FREIGHT'",
    }
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
    return Sources(company=company, orders=Orders.model_validate(given | changes))


@pytest.fixture
def warehouse(emptied_warehouse: Warehouse) -> Warehouse:
    return emptied_warehouse


@pytest.fixture
def csv(tmp_path: Path):
    """Write the lines of orders.csv and return the sources over it."""

    def write(lines: str, **changes: object) -> Sources:
        path = tmp_path / "orders.csv"
        path.write_text(HEADER + lines, newline="")
        return make_sources(path, **changes)

    return write


EVERY_FAULT = [
    # (line, the reason it is refused for, or the type it is kept as, or later)
    ("S1,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,", "sale"),
    ("S1,A,2024-03-01 09:00:00,FREIGHT,Freight,1,35.00,", "non_product"),
    ("S2,,2024-03-01 23:59:59,P1,Bolt,1,10.00,", "sale"),
    ("R3,A,2024-03-01 10:00:00,P1,Bolt,-1,10.00,", "return"),
    ("R3,A,2024-03-01 10:00:00,FREIGHT,Freight,-1,35.00,", "non_product"),
    ("S4,A,2024-03-02 00:00:00,P1,Bolt,2,10.00,", "later"),
    ("S4,A,2024-03-02 00:00:00,P1,Bolt,x,10.00,", "later"),
    ("S5,A,2024-03-01 09:00:00,P1,Bolt", "unreadable_row"),
    ("S5,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,,more", "unreadable_row"),
    ("S6,A,01/03/2024,P1,Bolt,two,10.00,", "unreadable_quantity"),
    ("S6,A,2024-03-01 09:00:00,P1,Bolt,two,-1,", "unreadable_quantity"),
    ("S6,A,2024-03-01 09:00:00,P1,Bolt,,cheap,", "unreadable_unit_price"),
    ("S6,A,2024-03-01 09:00:00,P1,Bolt,2,NaN,", "unreadable_unit_price"),
    ("S6,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,yuan", "unreadable_currency"),
    ("S6,A,01/03/2024,P1,Bolt,2,10.00,", "unreadable_ordered_at"),
    ("S6,A,infinity,P1,Bolt,2,10.00,", "unreadable_ordered_at"),
    ("S6,A,2024-03-01 09:00:00,P1,Bolt,99999999999999,99999999999999,", "unreadable_amount"),
    (",A,2024-03-01 09:00:00,P1,Bolt,2,0,", "missing_order_id"),
    ("S7,A,2024-03-01 09:00:00, ,Bolt,2,10.00,", "missing_product_id"),
    ("S7,A,2024-03-01 09:00:00,P1,Bolt,,10.00,", "missing_quantity"),
    ("S7,A,2024-03-01 09:00:00,P1,Bolt,2,,", "missing_unit_price"),
    ("S7,A,,P1,Bolt,2,10.00,", "missing_ordered_at"),
    ("S8,A,2024-03-01 09:00:00,P1,Bolt,-2,0,", "price_not_positive"),
    ("S8,A,2024-03-01 09:00:00,P1,Bolt,2,-10.00,", "price_not_positive"),
    ("S9,A,2024-03-01 09:00:00,P1,sample,-2,10.00,", "sign_contradicts_type"),
    ("S9,A,2024-03-01 09:00:00,P1,Bolt,0,10.00,", "sign_contradicts_type"),
    ("R9,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,", "sign_contradicts_type"),
    ("R9,A,2024-03-01 09:00:00,P1,Bolt,2,0.001,", "sign_contradicts_type"),
    ("R9,A,2024-03-01 09:00:00,FREIGHT,Freight,1,35.00,", "sign_contradicts_type"),
    ("S10,A,2024-03-01 09:00:00,P1,sample,2,10.00,EUR", "is_sample"),
    ("S10,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,EUR", "no_exchange_rate"),
    ("S10,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,EUR", "no_exchange_rate"),
]


def test_every_row_in_is_kept_or_refused_under_its_one_primary_reason(warehouse: Warehouse, csv) -> None:
    sources = csv(
        "".join(f"{line}\n" for line, _ in EVERY_FAULT),
        quarantine=[{"reason": "is_sample", "when": "name = 'sample'"}],
    )
    load = ingest_orders(sources, DAY_1)
    assert counts(load) == (30, 5, 0, 0, 25, 1, 2)
    outcomes = Counter(outcome for _, outcome in EVERY_FAULT)
    refused = {
        outcome: number
        for outcome, number in outcomes.items()
        if outcome not in ("sale", "return", "non_product", "later")
    }
    assert load is not None
    assert load.reasons == refused
    assert dict(warehouse.rows("select reason, rows from audit.load_reasons")) == refused
    assert dict(warehouse.rows("select reason, count(*) from quarantine.rows group by 1")) == refused
    assert dict(warehouse.rows("select line_type, count(*) from raw_files.order_lines group by 1")) == {
        kind: outcomes[kind] for kind in ("sale", "return", "non_product")
    }
    assert warehouse.rows("select rows_in, rows_new, rows_quarantined, files from audit.loads") == [
        (30, 5, 25, load.files)
    ]


def test_a_row_on_which_an_expression_fails_is_refused_and_the_rest_is_kept(
    warehouse: Warehouse, csv
) -> None:
    columns = COLUMNS | {"ordered_at": "strptime(placed, '%d/%m/%Y')", "quantity": "qty::int * 12"}
    lines = "S1,A,{},P1,Bolt,{},10.00,\n"
    load = ingest_orders(
        csv(
            lines.format("01/03/2024", 1) + lines.format("2024-03-01", 1) + lines.format("01/03/2024", "x")
            + lines.format("01/03/2024", 7),
            columns=columns, quarantine=[{"reason": "odd", "when": "case when qty = '7' then 'x'::boolean else false end"}],
        ),
        DAY_1,
    )  # fmt: skip
    assert load is not None
    assert load.reasons == {"unreadable_ordered_at": 1, "unreadable_quantity": 1, "unreadable_odd": 1}
    assert warehouse.rows(
        "select quantity::int, ordered_at at time zone 'UTC' from raw_files.order_lines"
    ) == [(12, datetime(2024, 2, 29, 16))]


def test_without_rules_every_line_is_a_sale_and_none_takes_goods_back(warehouse: Warehouse, csv) -> None:
    load = ingest_orders(csv(PLAIN, return_when=None, non_product_when=None), DAY_3)
    assert load is not None
    assert load.reasons == {"sign_contradicts_type": 1}
    assert warehouse.rows("select distinct line_type from raw_files.order_lines") == [("sale",)]


def test_a_mapped_amount_is_taken_as_it_stands_unless_it_contradicts_the_line(
    warehouse: Warehouse, csv
) -> None:
    lines = "".join(
        f"S{n},A,2024-03-01 09:00:00,P1,{amount},2,10.00,\n"
        for n, amount in enumerate(("18.5", "0", "-20", "x", ""))
    )
    load = ingest_orders(csv(lines, columns=COLUMNS | {"amount": "name"}), DAY_1)
    assert load is not None
    assert load.reasons == {"sign_contradicts_type": 1, "unreadable_amount": 1, "missing_amount": 1}
    assert warehouse.rows("select amount::text from raw_files.order_lines order by order_id") == [
        ("18.50",),
        ("0.00",),
    ]


def test_a_refused_row_is_kept_as_it_stood_with_its_place(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(PLAIN + 'S9,"A ""x""",2024-03-01 09:00:00,P1,"Bolt, long",2,0,\nS9,A\n'), DAY_3)
    assert warehouse.rows(
        "select reason, source_file, source_row, original from quarantine.rows order by reason"
    ) == [
        (
            "price_not_positive",
            "orders.csv",
            5,
            {
                "order_no": "S9", "buyer": 'A "x"', "placed": "2024-03-01 09:00:00", "sku": "P1",
                "name": "Bolt, long", "qty": "2", "price": "0", "cur": None,
            },
        ),
        ("unreadable_row", "orders.csv", 7, {"line": "S9,A", "fault": "MISSING COLUMNS"}),
    ]  # fmt: skip


def test_values_arrive_as_they_were_written(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv('S1, A"b ,2024-03-01 09:00:00.5,"P|1\\","Bo,lt\n ""1""",2.5,1.333,\n'), DAY_1)
    ((row),) = warehouse.rows(
        "select order_id, customer_id, product_id, product_name, country, quantity::text, unit_price::text, "
        "amount::text, currency, ordered_at at time zone 'UTC', known_on, line_type, row_key, source_row "
        "from raw_files.order_lines"
    )
    assert [str(value) for value in row] == [
        "S1", 'A"b', "P|1\\", 'Bo,lt\n "1"', "None", "2.5000", "1.3330", "3.33", "CNY",
        "2024-03-01 01:00:00.500000", "2024-03-01", "sale", "S1|P\\|1\\\\|1", "1",
    ]  # fmt: skip


def test_the_same_file_again_lands_nothing_and_doubles_no_refused_row(warehouse: Warehouse, csv) -> None:
    sources = csv(PLAIN + "S9,A,2024-03-01 09:00:00,P1,Bolt,0,1.00,\n" * 2)
    first = ingest_orders(sources, DAY_3)
    again = ingest_orders(sources, DAY_3)
    assert counts(first) == (6, 4, 0, 0, 2, 0, 0)
    assert counts(again) == (6, 0, 0, 4, 2, 0, 0)
    assert warehouse.value("select count(*) from raw_files.order_lines") == 4
    assert first is not None
    assert again is not None
    assert warehouse.rows("select first_load_id, last_load_id from quarantine.rows") == 2 * [
        (first.load_id, again.load_id)
    ]
    assert warehouse.rows(
        "select distinct load_id, customer_id, order_date from intermediate.account_day_queue order by 2, 3"
    ) == [
        (first.load_id, "A", DAY_1),
        (first.load_id, "A", DAY_3),
        (first.load_id, "B", DAY_2),
    ]


def test_a_corrected_row_is_a_new_version_and_queues_its_old_and_its_new_place(
    warehouse: Warehouse, csv
) -> None:
    ingest_orders(csv(PLAIN), DAY_3)
    load = ingest_orders(csv(PLAIN.replace("S2,B,2024-03-02", "S2,C,2024-03-01")), DAY_3)
    assert counts(load) == (4, 0, 1, 3, 0, 0, 0)
    assert warehouse.rows(
        "select customer_id, known_on from raw_files.order_lines where row_key = 'S2|P1|1' order by load_seq"
    ) == [("B", DAY_2), ("C", DAY_3)]
    assert load is not None
    assert warehouse.rows(
        "select customer_id, order_date from intermediate.account_day_queue where load_id = %s order by 1",
        load.load_id,
    ) == [("B", DAY_2), ("C", DAY_1)]
    again = ingest_orders(csv(PLAIN.replace("S2,B,2024-03-02", "S2,D,2024-03-03")), DAY_3)
    assert again is not None
    assert warehouse.rows(
        "select customer_id, order_date from intermediate.account_day_queue where load_id = %s order by 1",
        again.load_id,
    ) == [("C", DAY_1), ("D", DAY_3)]


def test_a_row_set_back_to_what_it_was_is_a_version_again(warehouse: Warehouse, csv) -> None:
    changed = PLAIN.replace("S2,B,2024-03-02 10:00:00,P1,Bolt,3", "S2,B,2024-03-02 10:00:00,P1,Bolt,4")
    for lines, corrected in ((PLAIN, 0), (changed, 1), (PLAIN, 1), (PLAIN, 0)):
        assert counts(ingest_orders(csv(lines), DAY_3))[2] == corrected
    assert warehouse.rows(
        "select quantity::int from raw_files.order_lines where row_key = 'S2|P1|1' order by load_seq"
    ) == [(3,), (4,), (3,)]


def queued(warehouse: Warehouse, load: orders.Load | None) -> list[tuple]:
    assert load is not None
    return warehouse.rows(
        "select customer_id, order_date from intermediate.account_day_queue where load_id = %s order by 1, 2",
        load.load_id,
    )


def test_rows_without_a_customer_queue_their_day_once_under_the_empty_customer(
    warehouse: Warehouse, csv
) -> None:
    load = ingest_orders(csv(PLAIN.replace("S1,A", "S1,").replace("R3,A", 'R3," "')), DAY_3)
    assert counts(load) == (4, 4, 0, 0, 0, 3, 0)
    assert queued(warehouse, load) == [("", DAY_1), ("", DAY_3), ("B", DAY_2)]
    assert warehouse.value("select count(*) from raw_files.order_lines where customer_id = ''") == 0
    comment = warehouse.value(
        "select col_description(attrelid, attnum) from pg_attribute "
        "where attrelid = 'intermediate.account_day_queue'::regclass and attname = 'customer_id'"
    )
    assert "empty text (never null)" in str(comment)


def test_a_corrected_row_that_loses_or_gains_its_customer_queues_the_place_it_left_and_the_one_it_took(
    warehouse: Warehouse, csv
) -> None:
    ingest_orders(csv(PLAIN), DAY_3)
    lost = ingest_orders(csv(PLAIN.replace("S2,B", "S2,")), DAY_3)
    assert counts(lost) == (4, 0, 1, 3, 0, 1, 0)
    assert queued(warehouse, lost) == [("", DAY_2), ("B", DAY_2)]
    moved = ingest_orders(csv(PLAIN.replace("S2,B,2024-03-02", "S2,,2024-03-03")), DAY_3)
    assert counts(moved) == (4, 0, 1, 3, 0, 1, 0)
    assert queued(warehouse, moved) == [("", DAY_2), ("", DAY_3)]
    gained = ingest_orders(csv(PLAIN.replace("S2,B", "S2,C")), DAY_3)
    assert counts(gained) == (4, 0, 1, 3, 0, 0, 0)
    assert queued(warehouse, gained) == [("", DAY_3), ("C", DAY_2)]


def test_a_late_row_is_known_from_the_day_of_the_load_that_brought_it(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(PLAIN), DAY_2)
    late = "S9,B,2024-03-01 15:00:00,P2,Nut,1,5.00,\n"
    load = ingest_orders(csv(PLAIN + late), DAY_3)
    assert counts(load) == (5, 2, 0, 3, 0, 0, 0)
    assert warehouse.rows(
        "select order_id, product_id, known_on from raw_files.order_lines order by 1, 2"
    ) == [
        ("R3", "P1", DAY_3),
        ("S1", "P1", DAY_1),
        ("S1", "P2", DAY_1),
        ("S2", "P1", DAY_2),
        ("S9", "P2", DAY_3),
    ]


def test_rows_of_later_days_are_counted_and_otherwise_untouched(warehouse: Warehouse, csv) -> None:
    load = ingest_orders(csv(PLAIN + "S9,A,2024-03-03 09:00:00,P1,Bolt,0,1.00,\n"), DAY_1)
    assert counts(load) == (2, 2, 0, 0, 0, 0, 3)
    assert warehouse.value("select count(*) from raw_files.order_lines") == 2
    assert warehouse.value("select count(*) from quarantine.rows") == 0
    assert warehouse.rows("select distinct order_date from intermediate.account_day_queue") == [(DAY_1,)]


def test_a_day_ends_in_the_time_zone_of_the_company_whatever_that_of_the_source(
    warehouse: Warehouse, csv
) -> None:
    # 15:59 UTC is 23:59 in Shanghai, 16:00 UTC the next day there.
    lines = "S1,A,2024-03-01 15:59:59,P1,B,1,1,\nS2,A,2024-03-01 16:00:00,P1,B,1,1,\nS3,A,2024-03-01 23:00:00+08,P1,B,1,1,\n"
    load = ingest_orders(csv(lines, timezone="UTC"), DAY_1)
    assert counts(load) == (2, 2, 0, 0, 0, 0, 1)
    assert warehouse.rows("select order_id, known_on from raw_files.order_lines order by 1") == [
        ("S1", DAY_1),
        ("S3", DAY_1),
    ]


def test_two_dates_in_either_order_hold_the_same_lines(warehouse: Warehouse, csv) -> None:
    sources = csv(PLAIN + "S1,A,2024-03-03 09:00:00,P1,Bolt,9,10.00,\n" + PLAIN)
    held = []
    for dates in ((DAY_1, DAY_3), (DAY_3, DAY_1)):
        for as_of in dates:
            ingest_orders(sources, as_of)
        held.append(warehouse.rows(f"select {CONTENT}, known_on from raw_files.order_lines order by row_key"))
        warehouse.rows("truncate raw_files.order_lines; truncate audit.loads cascade")
    assert held[0] == held[1]
    assert len(held[0]) == 9


def test_a_file_cut_at_the_as_of_date_lands_the_same_lines(warehouse: Warehouse, csv) -> None:
    # The later line of the same key stands first in the file: it must not shift the numbers of the others.
    later = "S1,A,2024-03-03 09:00:00,P1,Bolt,9,10.00,\n"
    held = []
    for lines in (later + PLAIN, PLAIN):
        ingest_orders(csv(lines), DAY_2)
        held.append(warehouse.rows(f"select {CONTENT}, known_on from raw_files.order_lines order by row_key"))
        warehouse.rows("truncate raw_files.order_lines; truncate audit.loads cascade")
    assert held[0] == held[1]


def test_a_row_that_is_gone_from_the_file_stays(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(PLAIN), DAY_3)
    load = ingest_orders(csv(PLAIN.splitlines(keepends=True)[0]), DAY_3)
    assert counts(load) == (1, 0, 0, 1, 0, 0, 0)
    assert warehouse.value("select count(*) from raw_files.order_lines") == 4


REPEATED = "S1,A,2024-03-01 09:00:00,P1,Bolt,2,10.00,\n" * 3 + "S1,A,2024-03-01 09:00:00,P1,Bolt,5,10.00,\n"


def test_repeated_rows_are_numbered_and_all_kept(warehouse: Warehouse, csv) -> None:
    assert counts(ingest_orders(csv(REPEATED), DAY_1)) == (4, 4, 0, 0, 0, 0, 0)
    assert warehouse.rows("select row_key, quantity::int from raw_files.order_lines order by 1") == [
        ("S1|P1|1", 2),
        ("S1|P1|2", 2),
        ("S1|P1|3", 2),
        ("S1|P1|4", 5),
    ]


def test_of_repeated_rows_the_first_alone_is_kept_where_the_mapping_says_so(
    warehouse: Warehouse, csv
) -> None:
    load = ingest_orders(csv(REPEATED, repeated_rows="first"), DAY_1)
    assert counts(load) == (4, 2, 0, 0, 2, 0, 0)
    assert warehouse.rows("select row_key, quantity::int from raw_files.order_lines order by 1") == [
        ("S1|P1|1", 2),
        ("S1|P1|2", 5),
    ]
    assert warehouse.rows("select reason, source_row from quarantine.rows order by 2") == [
        ("repeated", 2),
        ("repeated", 3),
    ]


def test_a_foreign_amount_needs_a_rate_known_on_its_day(
    warehouse: Warehouse, csv, tmp_path: Path, monkeypatch
) -> None:
    rates = tmp_path / "exchange_rates.csv"
    rates.write_text(
        "currency,reporting_currency,rate,effective_from\nEUR,CNY,7.8,2024-03-02\nEUR,USD,1.1,2020-01-01\n"
    )
    monkeypatch.setattr(orders, "RATES", rates)
    lines = "".join(f"S{day},A,2024-03-0{day} 00:00:00,P1,Bolt,1,1.00,EUR\n" for day in (1, 2, 3))
    load = ingest_orders(csv(lines), DAY_3)
    assert load is not None
    assert load.reasons == {"no_exchange_rate": 1}
    assert warehouse.rows("select order_id, currency from raw_files.order_lines order by 1") == [
        ("S2", "EUR"),
        ("S3", "EUR"),
    ]


NOT_LOADED = {
    "an as-of date before the first order": (
        PLAIN, {}, date(2024, 2, 1), "As of 2024-02-01 there are no orders: the first order in .* is of 2024-03-01",
    ),
    "a file without rows": ("", {}, DAY_1, "orders.csv has no rows"),
    "a file whose rows are all refused": (
        "S1,A,?,P1,B,1,1,\nS1,A,?,P1,B,1,1,\nS1\n", {}, DAY_1,
        r"Every row of .*orders.csv is refused \(2 unreadable_ordered_at, 1 unreadable_row\)",
    ),
    "a mapping that names a missing column": (
        PLAIN, {"columns": COLUMNS | {"quantity": "quantity"}}, DAY_1,
        r"orders.columns.quantity: .*'quantity'.*orders.csv does not have. Its columns are: order_no, buyer",
    ),
    "a rule that names a missing column": (
        PLAIN, {"quarantine": [{"reason": "odd", "when": "colour = 'red'"}]}, DAY_1, "orders.odd: .*'colour'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "changes", "as_of", "said"), NOT_LOADED.values(), ids=NOT_LOADED.keys())
def test_what_cannot_be_loaded_is_one_line_and_leaves_no_trace(
    warehouse: Warehouse, csv, lines: str, changes: dict, as_of: date, said: str
) -> None:
    with pytest.raises(StratumError, match=said) as fault:
        ingest_orders(csv(lines, **changes), as_of)
    assert "\n" not in str(fault.value)
    assert_empty(warehouse)


def test_a_file_that_is_not_there_is_named(warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(StratumError, match=r"There is no file .*nowhere\.csv"):
        ingest_orders(make_sources(tmp_path / "nowhere.csv"), DAY_1)
    assert_empty(warehouse)


def test_a_failure_in_the_middle_leaves_what_was_there_before(warehouse: Warehouse, csv, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("the wire was cut")

    with monkeypatch.context() as patch:
        patch.setattr(file_loads, "_quarantine", fail)
        with pytest.raises(ConnectionError):
            ingest_orders(csv(PLAIN), DAY_1)
    assert_empty(warehouse)
    assert counts(ingest_orders(csv(PLAIN), DAY_1)) == (2, 2, 0, 0, 0, 0, 2)


def test_another_company_is_turned_away(warehouse: Warehouse, csv) -> None:
    sources = csv(PLAIN)
    ingest_orders(sources, DAY_1)
    other = sources.model_copy(update={"company": Company(name="Another", timezone="UTC", currency="CNY")})
    with pytest.raises(StratumError, match="holds the company 'Test company'"):
        ingest_orders(other, DAY_3)
    assert warehouse.value("select count(*) from raw_files.order_lines") == 2


def test_absent_sources_are_recorded(warehouse: Warehouse) -> None:
    sources = Sources(company=Company(name="Test company", timezone="UTC", currency="CNY"))
    assert ingest_orders(sources, DAY_1) is None
    ingest_behavior(sources, DAY_1)
    assert warehouse.rows("select source, entity, as_of_date, status from audit.loads order by 1") == [
        ("behavior", "events", DAY_1, "absent"),
        ("orders", "order_lines", DAY_1, "absent"),
    ]


def assert_empty(warehouse: Warehouse) -> None:
    for table in (
        "raw_files.order_lines",
        "quarantine.rows",
        "intermediate.account_day_queue",
        "audit.loads",
        "audit.load_reasons",
        "audit.company",
    ):
        assert warehouse.value(f"select count(*) from {table}") == 0, table
