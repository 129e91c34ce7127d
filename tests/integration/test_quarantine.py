"""Refused rows can be counted, shown and replayed after a fix; what is settled is marked and never doubled."""

import json
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.commands import quarantine as commands
from include.errors import StratumError
from include.sources import orders as orders_module
from include.sources import replay as replay_module
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources
from include.sources.crm_versions import COMPANIES
from include.sources.loads import bind_company, landing, ungated_loads
from include.sources.orders import ingest_orders
from include.sources.quarantine import counts_in_lines, list_refused, row_in_lines, show_refused
from include.sources.replay import Replayed, replay
from include.sources.resolution import resolve_unseen
from include.sources.retract import list_loads, retract
from include.sources.row_sources import Behavior, Company, Orders
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.fixtures.books import counts

HEADER = "order_no,buyer,placed,sku,qty,price,cur\n"
COLUMNS = {
    "order_id": "order_no",
    "customer_id": "buyer",
    "product_id": "sku",
    "quantity": "qty",
    "unit_price": "price",
    "currency": "coalesce(cur, 'CNY')",
    "ordered_at": "placed",
}
DOZENS = COLUMNS | {
    "quantity": "coalesce(try_cast(qty as int), case when qty = 'dozen' then 12 else qty::int end)"
}
DAY_1, DAY_2, DAY_3, DAY_9 = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3), date(2024, 3, 9)
GOOD = "S1,A,2024-03-01 09:00:00,P1,2,10.00,\n"
DOZEN = "S2,A,2024-03-01 10:00:00,P1,dozen,10.00,\n"
EUROS = "S3,B,2024-03-01 11:00:00,P1,1,10.00,EUR\n"
CURRENT = (
    "select distinct on (row_key) row_key, order_id, quantity::int from raw_files.order_lines "
    "order by row_key, load_seq desc"
)
OPEN = "select reason from quarantine.rows where resolved_load_id is null order by 1"


def make_sources(path: Path, **changes: object) -> Sources:
    given: dict = {"file": str(path), "columns": COLUMNS}
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


def outcome(done: list[Replayed]) -> tuple:
    """Rows taken up, landed, held already, still refused, left."""
    (each,) = done
    return each.rows, each.landed, each.unchanged, each.refused, each.left


def test_after_a_fix_of_the_mapping_a_replay_lands_what_now_passes_as_a_load_of_its_own(
    warehouse: Warehouse, csv
) -> None:
    ingest_orders(csv(GOOD + DOZEN + EUROS), DAY_1)
    warehouse.rows("delete from intermediate.account_day_queue")
    done = replay(csv("", columns=DOZENS), DAY_3)  # the file is empty by now: the originals are all there is
    assert outcome(done) == (2, 1, 0, {"no_exchange_rate": 1}, {})
    assert warehouse.rows(
        "select status, as_of_date, rows_in, rows_new, rows_quarantined, known_on, source_file, source_row "
        "from audit.loads inner join raw_files.order_lines using (load_id) where status = 'replayed'"
    ) == [("replayed", DAY_3, 2, 1, 1, DAY_3, "orders.csv", 2)]
    assert warehouse.rows("select customer_id, order_date from intermediate.account_day_queue") == [
        ("A", DAY_1)
    ]
    assert warehouse.rows(
        "select reason, resolved_load_id::text, resolved_at is not null from quarantine.rows order by 1"
    ) == [("no_exchange_rate", None, False), ("unreadable_quantity", done[0].load_id, True)]
    with connect("transformer") as connection:
        assert done[0].load_id in [load_id for load_id, *_ in ungated_loads(connection)]


def test_a_load_of_the_file_after_a_replay_neither_doubles_nor_refuses_it_again(
    warehouse: Warehouse, csv
) -> None:
    ingest_orders(csv(GOOD + DOZEN), DAY_1)
    replay(csv(GOOD + DOZEN, columns=DOZENS), DAY_1)
    load = ingest_orders(csv(GOOD + DOZEN, columns=DOZENS), DAY_2)
    assert counts(load) == (2, 0, 0, 2, 0, 0, 0)
    assert warehouse.rows(OPEN) == []
    assert warehouse.value("select count(*) from raw_files.order_lines") == 2


def test_a_row_that_is_refused_again_is_open_again(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(GOOD + DOZEN), DAY_1)
    replay(csv(GOOD + DOZEN, columns=DOZENS), DAY_1)
    ingest_orders(csv(GOOD + DOZEN), DAY_2)
    assert warehouse.rows(OPEN) == [("unreadable_quantity",)]


def test_a_load_that_no_longer_refuses_a_row_of_its_file_settles_it(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(GOOD + DOZEN + EUROS), DAY_1)
    load = ingest_orders(csv(GOOD + EUROS, columns=DOZENS), DAY_1)  # one row is gone, the other stays refused
    assert load is not None
    assert warehouse.rows("select reason, resolved_load_id from quarantine.rows order by 1") == [
        ("no_exchange_rate", None),
        ("unreadable_quantity", load.load_id),
    ]
    assert replay(csv("", columns=COLUMNS), DAY_1, reason="unreadable_quantity") == []


def test_a_load_of_an_earlier_date_settles_nothing_of_later_days(warehouse: Warehouse, csv) -> None:
    late = DOZEN.replace("2024-03-01 10", "2024-03-03 10")
    ingest_orders(csv(GOOD + late), DAY_3)
    ingest_orders(csv(late + GOOD, columns=DOZENS), DAY_1)
    assert warehouse.rows(OPEN) == [("unreadable_quantity",)]
    unread = GOOD + "S4,A,03.03.2024,P1,1,10.00,\n"
    ingest_orders(csv(unread), DAY_1)
    german = COLUMNS | {"ordered_at": "coalesce(try_cast(placed as timestamp), strptime(placed, '%d.%m.%Y'))"}
    ingest_orders(csv(unread, columns=german), DAY_1)  # now it is read, as a row of a later day
    assert ("unreadable_ordered_at",) in warehouse.rows(OPEN)


def test_a_file_that_was_not_read_keeps_its_rows_open(warehouse: Warehouse, tmp_path: Path) -> None:
    for name, lines in (("a.csv", GOOD + DOZEN), ("b.csv", EUROS.replace("EUR", ""))):
        (tmp_path / name).write_text(HEADER + lines)
    ingest_orders(make_sources(tmp_path / "a.csv"), DAY_1)
    ingest_orders(make_sources(tmp_path / "b.csv"), DAY_2)
    assert warehouse.rows(OPEN) == [("unreadable_quantity",)]


def test_a_new_exchange_rate_lets_the_rows_in_that_lacked_it(
    warehouse: Warehouse, csv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = csv(GOOD + EUROS)
    ingest_orders(sources, DAY_1)
    rates = tmp_path / "rates.csv"
    rates.write_text("currency,reporting_currency,rate,effective_from\nEUR,CNY,7.8,2024-01-01\n")
    monkeypatch.setattr(orders_module, "RATES", rates)
    monkeypatch.setattr(replay_module, "RATES", rates)
    assert outcome(replay(sources, DAY_1)) == (1, 1, 0, {}, {})
    assert counts(ingest_orders(sources, DAY_1)) == (2, 0, 0, 2, 0, 0, 0)


def test_rows_dated_after_the_as_of_date_are_left(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(GOOD + DOZEN.replace("2024-03-01 10", "2024-03-03 10")), DAY_3)
    assert outcome(replay(csv("", columns=DOZENS), DAY_2)) == (1, 0, 0, {}, {"later": 1})
    assert warehouse.rows(OPEN) == [("unreadable_quantity",)]
    assert outcome(replay(csv("", columns=DOZENS), DAY_3)) == (1, 1, 0, {}, {})


def test_a_replay_covers_no_day_so_that_a_day_not_loaded_yet_stays_unseen(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(GOOD + DOZEN), DAY_1)
    replay(csv("", columns=DOZENS), DAY_9)
    ingest_orders(
        csv(GOOD + DOZEN + GOOD.replace("S1", "S9").replace("03-01", "03-02"), columns=DOZENS), DAY_9
    )
    assert warehouse.rows("select order_id, known_on from raw_files.order_lines order by 1") == [
        ("S1", DAY_1),
        ("S2", DAY_9),
        ("S9", DAY_2),
    ]


def test_a_refused_line_beside_a_landed_one_of_its_key_becomes_a_line_more(warehouse: Warehouse, csv) -> None:
    lines = (
        GOOD + GOOD.replace(",2,", ",dozen,") + GOOD.replace(",2,", ",13,") + GOOD.replace(",2,", ",dozen,")
    )
    ingest_orders(csv(lines), DAY_1)
    assert outcome(replay(csv(lines, columns=DOZENS), DAY_1)) == (2, 2, 0, {}, {})
    assert sorted(row[2] for row in warehouse.rows(CURRENT)) == [2, 12, 12, 13]
    ingest_orders(csv(lines, columns=DOZENS), DAY_1)
    assert sorted(row[2] for row in warehouse.rows(CURRENT)) == [2, 12, 12, 13]


def test_a_landed_line_that_was_refused_later_at_its_place_is_corrected_not_doubled(
    warehouse: Warehouse, csv
) -> None:
    ingest_orders(csv(GOOD), DAY_1)
    worse = GOOD.replace(",2,", ",dozen,")
    ingest_orders(csv(worse + EUROS.replace("EUR", "")), DAY_2)
    assert outcome(replay(csv("", columns=DOZENS), DAY_2)) == (1, 1, 0, {}, {})
    assert warehouse.rows("select rows_new, rows_corrected from audit.loads where status = 'replayed'") == [
        (0, 1)
    ]
    assert [row[1:] for row in warehouse.rows(CURRENT)] == [("S1", 12), ("S3", 1)]


def test_a_row_that_may_be_a_landed_line_or_one_more_is_left_for_its_file(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(HEADER + GOOD)
    (tmp_path / "b.csv").write_text(HEADER + EUROS.replace("EUR", "") + GOOD.replace(",2,", ",dozen,"))
    ingest_orders(make_sources(tmp_path / "a.csv"), DAY_1)
    ingest_orders(make_sources(tmp_path / "b.csv"), DAY_2)
    fixed = make_sources(tmp_path / "b.csv", columns=DOZENS)
    assert outcome(replay(fixed, DAY_2)) == (1, 0, 0, {}, {"ambiguous": 1})
    ingest_orders(fixed, DAY_2)
    assert [row[1:] for row in warehouse.rows(CURRENT)] == [("S1", 12), ("S3", 1)]
    assert warehouse.rows(OPEN) == []


def test_repeated_rows_stay_refused_by_a_replay_of_the_same_mapping(warehouse: Warehouse, csv) -> None:
    sources = csv(GOOD + GOOD, repeated_rows="first")
    ingest_orders(sources, DAY_1)
    assert outcome(replay(sources, DAY_1)) == (1, 0, 0, {"repeated": 1}, {})
    assert outcome(replay(csv("", repeated_rows="number"), DAY_1)) == (1, 1, 0, {}, {})
    assert warehouse.value("select count(*) from raw_files.order_lines") == 2


def test_a_broken_line_is_parsed_again_by_the_delimiter_of_now(warehouse: Warehouse, csv) -> None:
    broken = "S4;A;2024-03-01 12:00:00;P1;4;10.00;\n"
    ingest_orders(csv(GOOD + broken + "S5,A\n"), DAY_1)
    assert warehouse.rows(OPEN) == [("unreadable_row",), ("unreadable_row",)]
    assert outcome(replay(csv("", delimiter=";"), DAY_1)) == (2, 1, 0, {"unreadable_row": 1}, {})
    assert [row[1:] for row in warehouse.rows(CURRENT)] == [("S1", 2), ("S4", 4)]


def test_typed_columns_of_parquet_come_back_as_what_they_were(warehouse: Warehouse, tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "orders.parquet"
    duckdb.execute(
        "copy (select 'S' || range as order_no, timestamp '2024-03-01 09:00:00' as placed, 3::decimal(10, 2) as qty, "
        "case when range = 0 then -2.5 else 2.5 end::double as price, {'code': 'P1'} as article, "
        "timestamptz '2024-03-01 01:00:00+00' as stamp from range(2)) to '" + str(path) + "' (format parquet)"
    )
    mapping = {
        "order_id": "order_no", "customer_id": "'A'", "product_id": "article.code", "quantity": "qty * 2",
        "unit_price": "price", "currency": "'CNY'", "ordered_at": "placed + interval 1 hour",
    }  # fmt: skip
    ingest_orders(make_sources(path, columns=mapping), DAY_1)
    assert warehouse.rows(OPEN) == [("price_not_positive",)]
    path.unlink()
    mapping |= {
        "unit_price": "abs(price)",
        "ordered_at": "least(placed + interval 1 hour, stamp + interval 1 day)",
    }
    assert outcome(replay(make_sources(path, columns=mapping), DAY_1)) == (1, 1, 0, {}, {})
    assert warehouse.rows(
        "select product_id, quantity, unit_price, to_char(ordered_at at time zone 'UTC', 'HH24:MI') "
        "from raw_files.order_lines where order_id = 'S0'"
    ) == [("P1", 6, 2.5, "02:00")]


def test_events_are_replayed_by_the_same_way(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "who,what,at\nA,login,2024-03-01 09:00:00\nA,login,2024-03-01 09:00:00\nA,,2024-03-01 10:00:00\n"
    )
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")

    def sources(name: str) -> Sources:
        columns = {"customer_id": "who", "event_name": name, "event_at": '"at"'}
        given = {"file": str(path), "columns": columns}
        return Sources(company=company, behavior=Behavior.model_validate(given))

    ingest_behavior(sources("what"), DAY_1)
    named = sources("coalesce(what, 'view')")
    assert outcome(replay(named, DAY_1)) == (2, 1, 0, {"repeated": 1}, {})
    assert counts(ingest_behavior(named, DAY_1)) == (0, 0, 0, 0, 0, 0, 0)  # the file holds nothing new


def test_what_is_replayed_leaves_the_share_that_the_gate_reads(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(GOOD + DOZEN + EUROS), DAY_1)
    done = replay(csv("", columns=DOZENS), DAY_1)
    stands = "select rows_quarantined, rows_replayed from audit.loads where status = 'loaded'"
    assert warehouse.rows(stands) == [(2, 1)]
    retract(str(done[0].load_id), "the fix was none")
    assert warehouse.rows(stands) == [(2, 0)]
    assert warehouse.rows(OPEN) == [("no_exchange_rate",), ("unreadable_quantity",)]
    assert [row[1:] for row in warehouse.rows(CURRENT)] == [("S1", 2)]


def test_who_retracts_a_load_is_told_of_the_replays_of_its_rows(warehouse: Warehouse, csv) -> None:
    load = ingest_orders(csv(GOOD + DOZEN), DAY_1)
    done = replay(csv("", columns=DOZENS), DAY_1)
    assert load is not None
    assert retract(str(load.load_id), "wrong file").replays == [done[0].load_id]
    assert [row["status"] for row in list_loads()] == ["replayed", "retracted"]


def test_a_failed_replay_leaves_no_trace(warehouse: Warehouse, csv, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest_orders(csv(GOOD + DOZEN), DAY_1)
    with pytest.raises(StratumError, match="names the column 'quantity'"):
        replay(csv("", columns=COLUMNS | {"quantity": "quantity"}), DAY_1)

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(replay_module, "_settle", fail)
    with pytest.raises(RuntimeError):
        replay(csv("", columns=DOZENS), DAY_1)
    assert warehouse.value("select count(*) from audit.loads") == 1
    assert warehouse.value("select count(*) from raw_files.order_lines") == 1
    assert warehouse.rows(OPEN) == [("unreadable_quantity",)]


def test_without_open_rows_nothing_is_written(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(GOOD), DAY_1)
    assert replay(csv(GOOD), DAY_1) == []
    assert warehouse.value("select count(*) from audit.loads") == 1


def test_a_source_that_is_no_longer_configured_cannot_be_replayed(warehouse: Warehouse, csv) -> None:
    sources = csv(GOOD + DOZEN)
    ingest_orders(sources, DAY_1)
    with pytest.raises(StratumError, match="1 refused rows of orders cannot be replayed"):
        replay(Sources(company=sources.company), DAY_1)


def test_the_list_counts_by_reason_with_the_first_and_the_last_load(warehouse: Warehouse, csv) -> None:
    first = ingest_orders(csv(GOOD + DOZEN + EUROS), DAY_1)
    last = ingest_orders(csv(GOOD + DOZEN + DOZEN, columns=COLUMNS), DAY_2)
    assert first is not None
    assert last is not None
    listed = list_refused()
    assert [(row["reason"], row["open"], row["resolved"], row["first_load_id"], row["last_load_id"]) for row in listed] == [
        ("unreadable_quantity", 2, 0, first.load_id, last.load_id),
        ("no_exchange_rate", 0, 1, first.load_id, first.load_id),
    ]  # fmt: skip
    assert (listed[0]["first_as_of_date"], listed[0]["last_as_of_date"]) == (DAY_1, DAY_2)
    assert [row["open"] for row in list_refused(as_of=DAY_1, reason="unreadable_quantity")] == [1]
    assert list_refused(source="crm") == []
    header, line, _ = counts_in_lines(listed)
    assert line.index("2024-03-01") == header.index("first")


def test_shown_rows_stand_as_they_stood_and_fit_the_terminal(warehouse: Warehouse, csv) -> None:
    ingest_orders(csv(GOOD + f'S7,\x1b[31m客户{"x" * 300},2024-03-01 10:00:00,"P\n1",dozen,10.00,\n'), DAY_1)
    (row,) = show_refused(reason="unreadable_quantity")
    assert (row["source_file"], row["source_row"], row["original"]["sku"]) == ("orders.csv", 2, "P\n1")
    lines = row_in_lines(row, 60)
    assert lines[0].startswith("orders.order_lines  orders.csv row 2: unreadable_quantity (…")
    assert all(len(line) + line.count("客") + line.count("户") <= 60 and line.isprintable() for line in lines)
    assert "    qty       dozen" in lines
    assert "    sku       P\\n1" in lines
    assert "    cur       -" in lines
    assert "x" * 300 in "".join(row_in_lines(row, None))


def test_a_crm_record_is_settled_by_the_next_pull_that_can_read_it(warehouse: Warehouse) -> None:
    def pull(as_of: date, refuse: bool) -> None:
        with landing("crm", COMPANIES.name, as_of) as load:
            bind_company(load.connection, "Test", "UTC", "CNY")
            if refuse:
                from include.sources.crm_landing import quarantine

                quarantine(load, {"id": "7", "createdAt": "?"}, "unreadable_date")
                load.rows_in = 1
            resolve_unseen(load)

    pull(DAY_1, refuse=True)
    assert show_refused(source="crm")[0]["original"] == {"id": "7", "createdAt": "?"}
    assert replay_module.crm_rows_open(None) == 1
    pull(DAY_2, refuse=False)
    assert (warehouse.rows(OPEN), replay_module.crm_rows_open("crm")) == ([], 0)
    pull(DAY_3, refuse=True)
    assert warehouse.rows(OPEN) == [("unreadable_date",)]


def test_the_commands_list_show_and_replay(
    warehouse: Warehouse, csv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_orders(csv(GOOD + DOZEN), DAY_1)
    monkeypatch.setattr(commands, "warehouse", lambda tell: nullcontext())

    def said(*words: str) -> str:
        done = CliRunner().invoke(app, ["quarantine", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert "unreadable_quantity" in said("list")
    assert json.loads(said("list", "--json"))[0]["open"] == 1
    assert "    qty       dozen" in said("show", "--reason", "unreadable_quantity")
    assert json.loads(said("show", "--json"))[0]["original"]["qty"] == "dozen"
    fixed = tmp_path / "sources.yml"
    fixed.write_text(json.dumps({  # JSON is YAML
        "company": {"name": "Test company", "timezone": "Asia/Shanghai", "currency": "CNY"},
        "orders": {"file": "moved_away.csv", "columns": DOZENS},
    }))  # fmt: skip
    told = said("replay", "--as-of", "2024-03-01", "--sources", str(fixed))
    assert "orders.order_lines: 1 refused rows = 1 landed + 0 held already + 0 still refused + 0 left" in told
    assert "stratum run --as-of 2024-03-01" in told
    assert "nothing to replay" in said("replay", "--as-of", "2024-03-01", "--sources", str(fixed))
    assert "No row is refused." in said("show")
