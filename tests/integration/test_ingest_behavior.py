"""Behavior events land with every row accounted for, once, whatever the order of days and however often."""

import gzip
import os
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from include.errors import StratumError
from include.simulate.market.scales import Scale
from include.simulate.market.write import write_market
from include.sources import behavior
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources, load_sources
from include.sources.loads import Load
from include.sources.row_sources import Behavior, Company
from tests.conftest import Warehouse
from tests.fixtures.books import counts

HEADER = "id,who,person,visit,what,detail,secs,placed\n"
COLUMNS = {
    "customer_id": "who",
    "user_id": "person",
    "session_id": "visit",
    "event_name": "what",
    "feature": "detail",
    "duration_s": "secs",
    "event_at": "placed",
}
WITH_ID = {"columns": COLUMNS | {"event_id": "id"}}
DAY_1, DAY_2, DAY_3 = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)
PLAIN = (
    "1,A,a1,s1,login,,300,2024-03-01 09:00:00\n"
    "2,A,a1,s1,feature_use,price_list,,2024-03-01 09:01:00\n"
    "3,B,b1,s2,login,,60,2024-03-02 10:00:00\n"
    "4,A,a1,s3,page_view,,,2024-03-03 08:00:00\n"
)
CONTENT = "event_id, customer_id, user_id, session_id, event_name, feature, duration_s, event_at"
BEHAVIOR_TABLES = ("events", "event_files", "event_file_days", "superseded_events")


def make_sources(file: str | Path, **changes: object) -> Sources:
    """Sources over event files, the company in Shanghai; `changes` replace keys of the behavior mapping."""
    given: dict = {"file": str(file), "columns": COLUMNS}
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
    return Sources(company=company, behavior=Behavior.model_validate(given | changes))


@pytest.fixture
def csv(tmp_path: Path):
    """Write the lines of events.csv and return the sources over it."""

    def write(lines: str, **changes: object) -> Sources:
        path = tmp_path / "events.csv"
        path.write_text(HEADER + lines, newline="")
        return make_sources(path, **changes)

    return write


def empty(warehouse: Warehouse) -> None:
    """Take all loads of events out of the warehouse."""
    tables = ", ".join(f"raw_files.{table}" for table in BEHAVIOR_TABLES)
    warehouse.rows(f"truncate {tables}, intermediate.usage_day_queue; truncate audit.loads cascade")


def queued(warehouse: Warehouse, load: Load | None) -> list[tuple]:
    assert load is not None
    return warehouse.rows(
        "select customer_id, usage_date from intermediate.usage_day_queue where load_id = %s order by 1, 2",
        load.load_id,
    )


EVERY_FAULT = [
    # (line, the reason it is refused for, or whether it is kept or later)
    ("1,A,a1,s1,login,,300,2024-03-01 09:00:00", "kept"),
    ("2,A,a1,s1,login,,0,2024-03-01 09:00:00", "kept"),
    ("3,,a1,s1,login,,300,2024-03-01 23:59:59", "kept"),
    ('4," ",,,login,,,2024-03-01 09:00:01', "kept"),
    ("5,A,a1,s1,login,,300,2024-03-02 00:00:00", "later"),
    ("6,A,a1,s1,,,300,2024-03-02 00:00:00", "later"),
    ("7,A,a1,s1,login", "unreadable_row"),
    ("8,A,a1,s1,login,,long,2024-03-01 09:00:00", "unreadable_duration_s"),
    ("8,A,a1,s1,,,9999999999,2024-03-01 09:00:00", "unreadable_duration_s"),
    ("8,A,a1,s1,,,5,unknown", "unreadable_event_at"),
    ("8,A,a1,s1,login,,5,infinity", "unreadable_event_at"),
    (",A,a1,s1,login,,5,2024-03-01 09:00:00", "missing_event_id"),
    ("9,A,a1,s1, ,,5,2024-03-01 09:00:00", "missing_event_name"),
    ("9,A,a1,s1,,,-5,2024-03-01 09:00:00", "missing_event_name"),
    ("9,A,a1,s1,login,,5,", "missing_event_at"),
    ("9,A,a1,s1,login,,-5,2024-03-01 09:00:00", "duration_negative"),
    ("9,A,a1,s1,login,,-5,1970-01-01 00:00:00", "implausible_date"),
    ("9,bot,a1,s1,login,,5,2024-03-01 09:00:00", "is_bot"),
    ("1,A,a1,s1,login,,300,2024-03-01 09:00:00", "repeated"),
    ("1,A,a1,s1,login,,300.0,2024-03-01 09:00:00", "repeated"),
]


def test_every_row_in_is_kept_or_refused_under_its_one_primary_reason(warehouse: Warehouse, csv) -> None:
    sources = csv(
        "".join(f"{line}\n" for line, _ in EVERY_FAULT),
        quarantine=[{"reason": "is_bot", "when": "who = 'bot'"}],
        **WITH_ID,
    )
    load = ingest_behavior(sources, DAY_1)
    assert counts(load) == (18, 4, 0, 0, 14, 2, 2)
    refused = Counter(outcome for _, outcome in EVERY_FAULT if outcome not in ("kept", "later"))
    assert load is not None
    assert load.reasons == refused
    assert dict(warehouse.rows("select reason, rows from audit.load_reasons")) == refused
    assert dict(warehouse.rows("select reason, count(*) from quarantine.rows group by 1")) == refused
    assert warehouse.rows(
        "select source, entity, rows_in, rows_new, rows_quarantined, rows_unattributed, rows_later, files from audit.loads"
    ) == [("behavior", "events", 18, 4, 14, 2, 2, load.files)]


def test_values_arrive_as_they_were_written(warehouse: Warehouse, csv) -> None:
    ingest_behavior(csv('x|1, A"b ,,"s\n1",login,"a, b",1.2345,2024-03-01 09:00:00.25\n', **WITH_ID), DAY_1)
    assert warehouse.rows(
        "select event_id, customer_id, user_id, session_id, event_name, feature, duration_s::text, "
        "event_at at time zone 'UTC', known_on, split_part(path, '/', -1), source_row "
        "from raw_files.events join raw_files.event_files using (file_id)"
    ) == [
        (
            "x|1", 'A"b', None, "s\n1", "login", "a, b", "1.235", datetime(2024, 3, 1, 1, 0, 0, 250_000),
            DAY_1, "events.csv", 1,
        )
    ]  # fmt: skip


@pytest.mark.parametrize("changes", [{}, WITH_ID], ids=["without ids", "with ids"])
def test_the_same_file_again_lands_nothing_and_doubles_no_refused_row(
    warehouse: Warehouse, csv, changes: dict
) -> None:
    sources = csv(PLAIN + "9,A,a1,s1,login,,5,unknown\n" + PLAIN, **changes)
    first, again = ingest_behavior(sources, DAY_3), ingest_behavior(sources, DAY_3)
    assert counts(first) == (9, 4, 0, 0, 5, 0, 0)
    assert counts(again) == (0, 0, 0, 0, 0, 0, 0)
    assert again is not None
    assert again.files == []  # it was not opened
    assert queued(warehouse, first) == [("", DAY_1), ("", DAY_2), ("", DAY_3)]
    os.utime(sources.behavior.files()[0])  # written anew, with the same content
    again = ingest_behavior(sources, DAY_3)
    assert counts(again) == (9, 0, 0, 4, 5, 0, 0)
    assert warehouse.value("select count(*) from raw_files.events") == 4
    assert warehouse.value("select count(*) from quarantine.rows") == 5
    assert warehouse.value("select count(*) from raw_files.superseded_events") == 0
    assert queued(warehouse, again) == []


def test_a_new_file_beside_the_old_ones_adds_its_own_events_alone(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    sources = make_sources(tmp_path / "*.csv.gz")
    (tmp_path / "1.csv.gz").write_bytes(gzip.compress((HEADER + PLAIN).encode()))
    assert counts(ingest_behavior(sources, DAY_3)) == (4, 4, 0, 0, 0, 0, 0)
    # The new file begins with the last event of the old one.
    lines = PLAIN.splitlines(keepends=True)[-1] + "5,B,b1,s4,login,,5,2024-03-03 12:00:00\n"
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress((HEADER + lines).encode()))
    load = ingest_behavior(sources, DAY_3)
    assert counts(load) == (2, 1, 0, 1, 0, 0, 0)
    assert load is not None
    assert load.files == [str(tmp_path / "2.csv.gz")]
    assert queued(warehouse, load) == [("B", DAY_3)]
    assert warehouse.rows(
        "select split_part(path, '/', -1), count(*) from raw_files.events join raw_files.event_files using (file_id) "
        "group by 1 order by 1"
    ) == [("1.csv.gz", 4), ("2.csv.gz", 1)]


def test_parquet_and_jsonl_land_the_same_events_as_csv(warehouse: Warehouse, tmp_path: Path, csv) -> None:
    held = []
    csv(PLAIN)
    origin = f"select * replace (placed::timestamp as placed) from read_csv('{tmp_path}/events.csv', all_varchar = true)"
    duckdb.execute(f"copy ({origin}) to '{tmp_path}/events.parquet' (format parquet)")
    duckdb.execute(f"copy ({origin}) to '{tmp_path}/events.jsonl' (format json)")
    for name in ("events.csv", "events.parquet", "events.jsonl"):
        ingest_behavior(make_sources(tmp_path / name), DAY_3)
        held.append(warehouse.rows(f"select {CONTENT}, source_row from raw_files.events order by event_at"))
        empty(warehouse)
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 4


def test_an_event_with_an_id_that_says_something_else_is_corrected_and_queues_both_its_places(
    warehouse: Warehouse, csv
) -> None:
    ingest_behavior(csv(PLAIN, **WITH_ID), DAY_3)
    moved = PLAIN.replace("3,B,b1,s2,login,,60,2024-03-02", "3,C,b1,s2,login,,75,2024-03-01")
    load = ingest_behavior(csv(moved, **WITH_ID), DAY_3)
    assert counts(load) == (4, 0, 1, 3, 0, 0, 0)
    assert warehouse.rows(
        "select customer_id, duration_s::int, known_on from raw_files.events where event_id = '3' order by file_id"
    ) == [("B", 60, DAY_2), ("C", 75, DAY_3)]
    assert queued(warehouse, load) == [("B", DAY_2), ("C", DAY_1)]
    nobody = ingest_behavior(csv(moved.replace("3,C", "3,"), **WITH_ID), DAY_3)
    assert queued(warehouse, nobody) == [("C", DAY_1)]
    back = ingest_behavior(csv(moved, **WITH_ID), DAY_3)
    assert counts(back) == (4, 0, 1, 3, 0, 0, 0)
    assert queued(warehouse, back) == [("C", DAY_1)]


def test_without_ids_an_event_that_differs_is_another_event(warehouse: Warehouse, csv) -> None:
    ingest_behavior(csv(PLAIN), DAY_3)
    load = ingest_behavior(csv(PLAIN.replace("login,,60", "login,,61")), DAY_3)
    assert counts(load) == (4, 1, 0, 3, 0, 0, 0)


def test_rows_of_one_id_that_differ_within_a_file_are_different_events(warehouse: Warehouse, csv) -> None:
    lines = "1,A,a1,s1,login,,5,2024-03-02 09:00:00\n1,A,a1,s1,login,,5,2024-03-01 09:00:00\n"
    for as_of in (DAY_3, DAY_1, DAY_3):
        ingest_behavior(csv(lines, **WITH_ID), as_of)
    assert warehouse.rows("select event_id, known_on from raw_files.events order by event_at") == [
        ("1", DAY_1),
        ("1", DAY_2),
    ]
    assert warehouse.value("select count(*) from raw_files.superseded_events") == 0


def test_a_late_event_is_known_from_the_day_of_the_load_that_brought_it(warehouse: Warehouse, csv) -> None:
    ingest_behavior(csv(PLAIN), DAY_2)
    load = ingest_behavior(csv(PLAIN + "9,B,b1,s9,page_view,,,2024-03-01 15:00:00\n"), DAY_3)
    assert counts(load) == (5, 2, 0, 3, 0, 0, 0)
    assert queued(warehouse, load) == [("", DAY_3), ("B", DAY_1)]
    assert warehouse.rows(
        "select session_id, (event_at at time zone 'Asia/Shanghai')::date, known_on from raw_files.events "
        "join raw_files.event_files using (file_id) join audit.loads using (load_seq) where load_id = %s order by 1",
        load.load_id if load else None,
    ) == [("s3", DAY_3, DAY_3), ("s9", DAY_1, DAY_3)]


def test_events_of_later_days_are_counted_left_alone_and_landed_by_their_own_day(
    warehouse: Warehouse, csv
) -> None:
    sources = csv(PLAIN + "9,A,a1,s1,login,,-5,2024-03-03 09:00:00\n")
    load = ingest_behavior(sources, DAY_1)
    assert counts(load) == (2, 2, 0, 0, 0, 0, 3)
    assert warehouse.value("select count(*) from quarantine.rows") == 0
    assert warehouse.rows("select distinct usage_date from intermediate.usage_day_queue") == [(DAY_1,)]
    assert counts(ingest_behavior(sources, DAY_3)) == (3, 2, 0, 0, 1, 0, 0)


def test_a_day_ends_in_the_time_zone_of_the_company_whatever_that_of_the_source(
    warehouse: Warehouse, csv
) -> None:
    # 15:59 UTC is 23:59 in Shanghai, 16:00 UTC the next day there.
    lines = "1,A,,,x,,,2024-03-01 15:59:59\n2,A,,,x,,,2024-03-01 16:00:00\n3,A,,,x,,,2024-03-01 23:00:00+08\n"
    load = ingest_behavior(csv(lines, timezone="UTC"), DAY_1)
    assert counts(load) == (2, 2, 0, 0, 0, 0, 1)
    assert queued(warehouse, load) == [("", DAY_1)]


def test_a_date_before_the_first_event_is_loaded_and_empty(warehouse: Warehouse, csv) -> None:
    assert counts(ingest_behavior(csv(PLAIN), date(2024, 2, 1))) == (0, 0, 0, 0, 0, 0, 4)
    assert warehouse.rows("select status, rows_in, rows_later from audit.loads") == [("loaded", 0, 4)]


def test_events_without_a_customer_are_kept_and_queue_nothing(warehouse: Warehouse, csv) -> None:
    load = ingest_behavior(csv(PLAIN.replace(",A,", ",,")), DAY_3)
    assert counts(load) == (4, 4, 0, 0, 0, 3, 0)
    assert queued(warehouse, load) == [("", DAY_2)]
    assert warehouse.value("select count(*) from raw_files.events where customer_id is null") == 3


@pytest.mark.parametrize("changes", [{}, WITH_ID], ids=["without ids", "with ids"])
def test_dates_in_any_order_hold_the_same_events(warehouse: Warehouse, csv, changes: dict) -> None:
    sources = csv(PLAIN + "1,A,a1,s1,login,,300,2024-03-03 09:00:00\n" + PLAIN, **changes)
    held = []
    for dates in ((DAY_1, DAY_2, DAY_3), (DAY_3, DAY_1, DAY_2), (DAY_2, DAY_3, DAY_1)):
        for as_of in dates:
            ingest_behavior(sources, as_of)
        held.append(
            warehouse.rows(f"select {CONTENT}, known_on from raw_files.events order by event_at, event_id")
        )
        empty(warehouse)
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 5


NOT_LOADED = {
    "a file without rows": ("", {}, "events.csv has no rows: there are no events to load"),
    "a file whose rows are all refused": (
        "1,A,,,x,,,?\n1,A,,,,,,2024-03-01\n1,A,,,x,,,?\n1\n", {},
        r"Every row of .*events.csv is refused \(2 unreadable_event_at, 1 missing_event_name, 1 unreadable_row\)",
    ),
    "a mapping that names a missing column": (
        PLAIN, {"columns": COLUMNS | {"feature": "module"}},
        r"behavior.columns.feature: .*'module'.*events.csv does not have. Its columns are: id, who, person, visit",
    ),
    "a rule that names a missing column": (
        PLAIN, {"quarantine": [{"reason": "is_bot", "when": "agent = 'bot'"}]}, "behavior.is_bot: .*'agent'",
    ),
    "a rule that is no condition": (
        PLAIN, {"quarantine": [{"reason": "is_bot", "when": "who"}]}, "behavior.is_bot: .* must be true or false",
    ),
    "an expression that is a word of SQL": (
        PLAIN, {"columns": COLUMNS | {"event_at": "at"}}, "behavior.columns.event_at: 'at' .* stands in double quotes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "changes", "said"), NOT_LOADED.values(), ids=NOT_LOADED.keys())
def test_what_cannot_be_loaded_is_one_line_and_leaves_no_trace(
    module_warehouse: Warehouse, csv, lines: str, changes: dict, said: str
) -> None:
    with pytest.raises(StratumError, match=said) as fault:
        ingest_behavior(csv(lines, **changes), DAY_1)
    assert "\n" not in str(fault.value)
    assert_empty(module_warehouse)


def test_files_that_are_not_there_are_named(module_warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(
        StratumError, match=r"There is no file .*/\*\.csv\.gz \(behavior\.file of the sources\)"
    ):
        ingest_behavior(make_sources(tmp_path / "*.csv.gz"), DAY_1)
    assert_empty(module_warehouse)


def test_a_failure_in_the_middle_leaves_what_was_there_before(
    module_warehouse: Warehouse, csv, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("the wire was cut")

    with monkeypatch.context() as patch:
        patch.setattr(behavior, "write_quarantine", fail)
        with pytest.raises(ConnectionError):
            ingest_behavior(csv(PLAIN), DAY_1)
    assert_empty(module_warehouse)


def test_the_simulated_company_s_events_count_as_a_plain_reading_of_its_files_does(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    as_of, later = date(2025, 3, 14), datetime(2025, 3, 15)
    market = tmp_path / "simulated"
    write_market(market, Scale("few", 100, 3_000, 40_000), seed=1)
    for path in (market / "events").glob("*.parquet"):
        if not "2025-01" <= path.name < "2025-05":
            path.unlink()
    expected: Counter[str] = Counter()
    seen = set()
    for path in sorted((market / "events").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["occurred_at"] >= later:
                expected["later"] += 1
            elif not row["event"]:
                expected["missing_event_name"] += 1
            elif tuple(row.values()) in seen:
                expected["repeated"] += 1
            else:
                seen.add(tuple(row.values()))
                expected["unattributed"] += not row["account_no"]
    load = ingest_behavior(load_sources(market / "sources.yml"), as_of)
    unattributed, rows_later = expected.pop("unattributed"), expected.pop("later")
    assert counts(load) == (
        len(seen) + expected.total(), len(seen), 0, 0, expected.total(), unattributed, rows_later,
    )  # fmt: skip
    assert load is not None
    assert load.reasons == expected
    assert {"missing_event_name", "repeated"} == set(expected)
    days = {row[-1].date() for row in seen if row[1]}
    assert warehouse.value("select count(*) from intermediate.usage_day_queue") == len(days)


def assert_empty(warehouse: Warehouse) -> None:
    for table in (
        *(f"raw_files.{table}" for table in BEHAVIOR_TABLES),
        "quarantine.rows",
        "intermediate.usage_day_queue",
        "audit.loads",
        "audit.load_reasons",
        "audit.company",
    ):
        assert warehouse.value(f"select count(*) from {table}") == 0, table
