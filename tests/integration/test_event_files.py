"""Event files over time: new ones alone are read, changed ones replace what they held, broken ones stop nobody."""

import gzip
import json
import os
from datetime import date, timedelta
from pathlib import Path

import duckdb
import psycopg
import pytest

from include.dbt import build
from include.errors import StratumError
from include.sources import event_loads
from include.sources.behavior import ingest_behavior
from include.sources.loads import Load
from include.sources.plausible import earliest_date
from include.sources.retract import retract
from include.warehouse.connect import connect
from include.warehouse.housekeeping import _drop_superseded
from include.warehouse.lock import begin_run, fail_run
from tests.conftest import Warehouse
from tests.fixtures.books import counts
from tests.integration.event_stage import (
    CURRENT,
    DAY_1,
    DAY_2,
    DAY_3,
    opened,
    queued,
    sources,
    write,
)


def test_a_day_s_load_opens_the_day_s_file_alone(warehouse: Warehouse, tmp_path: Path) -> None:
    given = sources(tmp_path / "*.csv")
    for number, day in enumerate((DAY_1, DAY_2, DAY_3), 1):
        write(tmp_path / f"{day}.csv", f"{number},A,login,0{number} 09:00")
        load = ingest_behavior(given, day)
        assert opened(load) == [f"{day}.csv"]
        assert counts(load) == (1, 1, 0, 0, 0, 0, 0)
        assert queued(warehouse, load) == [("", day)]
    assert opened(ingest_behavior(given, DAY_2)) == []


def test_a_file_with_later_rows_is_opened_for_their_days_and_then_no_more(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    given = sources(tmp_path / "events.csv")
    write(
        tmp_path / "events.csv",
        *(
            "1,A,login,01 09:00",
            "2,A,,01 10:00",
            "3,A,login,03 09:00",
            "4,A,login,03 10:00",
            "5,A,login,31 10:00",
        ),
    )
    found = [ingest_behavior(given, day) for day in (DAY_1, DAY_2, DAY_3, DAY_3, DAY_3 + timedelta(days=27))]
    assert [opened(load) for load in found] == [["events.csv"], [], ["events.csv"], [], []]
    assert [counts(load) for load in found[:3]] == [
        (2, 1, 0, 0, 1, 0, 3),
        (0, 0, 0, 0, 0, 0, 0),
        (2, 2, 0, 0, 0, 0, 1),
    ]
    assert counts(ingest_behavior(given, date(2024, 3, 31))) == (1, 1, 0, 0, 0, 0, 0)


def test_a_changed_file_replaces_what_it_held_and_touches_what_differs(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    given = sources(tmp_path / "events.csv", ids=False)
    write(
        tmp_path / "events.csv",
        *("1,A,login,01 09:00", "2,B,login,02 09:00", "3,C,login,02 10:00", "4,D,login,03 09:00"),
    )
    ingest_behavior(given, DAY_3)
    # B's event is C's, a new one of E stands between, the others are as they were.
    write(
        tmp_path / "events.csv",
        *("1,A,login,01 09:00", "2,C,login,02 09:00", "3,C,login,02 10:00", "5,E,login,01 11:00"),
        "4,D,login,03 09:00",
    )
    load = ingest_behavior(given, DAY_3)
    assert counts(load) == (5, 2, 0, 3, 0, 0, 0)
    assert queued(warehouse, load) == [("B", DAY_2), ("C", DAY_2), ("E", DAY_1)]
    assert [row[1:] for row in warehouse.rows(CURRENT)] == [
        ("A", "login", "01 09:00"),
        ("E", "login", "01 11:00"),
        ("C", "login", "02 09:00"),
        ("C", "login", "02 10:00"),
        ("D", "login", "03 09:00"),
    ]
    assert counts(ingest_behavior(given, DAY_3)) == (0, 0, 0, 0, 0, 0, 0)


def test_a_file_that_always_holds_the_last_days_replaces_those_days_alone(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    given = sources(tmp_path / "latest.csv", ids=False)
    write(tmp_path / "latest.csv", "1,A,login,01 09:00", "2,A,login,02 09:00", "3,A,login,02 20:00")
    ingest_behavior(given, DAY_2)
    write(tmp_path / "latest.csv", "2,A,login,02 09:00", "4,A,login,03 09:00")
    load = ingest_behavior(given, DAY_3)
    assert counts(load) == (2, 1, 0, 1, 0, 0, 0)
    assert [row[3] for row in warehouse.rows(CURRENT)] == ["01 09:00", "02 09:00", "03 09:00"]
    # What a date does not reach yet is not replaced yet.
    write(tmp_path / "latest.csv", "2,A,login,02 09:00", "5,A,login,03 10:00")
    ingest_behavior(given, DAY_2)
    assert [row[3] for row in warehouse.rows(CURRENT)] == ["01 09:00", "02 09:00", "03 09:00"]
    ingest_behavior(given, DAY_3)
    assert [row[3] for row in warehouse.rows(CURRENT)] == ["01 09:00", "02 09:00", "03 10:00"]


@pytest.mark.parametrize("together", [True, False], ids=["in one load", "in two loads"])
def test_files_that_overlap_hold_an_event_once(warehouse: Warehouse, tmp_path: Path, together: bool) -> None:
    given = sources(tmp_path / "*.csv")
    write(tmp_path / "1.csv", "1,A,login,01 09:00", "2,A,login,02 09:00")
    if not together:
        ingest_behavior(given, DAY_3)
    write(tmp_path / "2.csv", "2,A,login,02 09:00", "3,A,login,02 10:00")
    load = ingest_behavior(given, DAY_3)
    assert counts(load) == ((4, 3, 0, 0, 1, 0, 0) if together else (2, 1, 0, 1, 0, 0, 0))
    assert len(warehouse.rows(CURRENT)) == 3
    if together:
        assert warehouse.rows("select reason, source_file, source_row from quarantine.rows") == [
            ("repeated", "2.csv", 1)
        ]


def test_a_later_file_corrects_an_event_of_its_id_and_day(warehouse: Warehouse, tmp_path: Path) -> None:
    given = sources(tmp_path / "*.csv")
    write(tmp_path / "1.csv", "1,A,login,01 09:00", "2,A,login,02 09:00", "2,A,logout,02 10:00")
    ingest_behavior(given, DAY_3)
    # The same id on another day is another event. Of the two of id 2, the one that is not told again gives way.
    write(tmp_path / "2.csv", "1,B,login,02 12:00", "2,A,login,02 09:00", "2,C,login,02 11:00")
    load = ingest_behavior(given, DAY_3)
    assert counts(load) == (3, 1, 1, 1, 0, 0, 0)
    assert warehouse.rows(CURRENT) == [
        ("1", "A", "login", "01 09:00"),
        ("2", "A", "login", "02 09:00"),
        ("2", "C", "login", "02 11:00"),
        ("1", "B", "login", "02 12:00"),
    ]
    assert queued(warehouse, load) == [("A", DAY_2), ("B", DAY_2), ("C", DAY_2)]


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)


def test_a_corrupt_file_is_refused_alone_and_tried_again(warehouse: Warehouse, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        duckdb.execute(
            f"copy (select i::varchar as id, 'A' as who, 'login' as what, null::varchar as detail, "
            f"timestamp '2024-03-0{number} 09:00:00' + to_seconds(i) as placed from range(2000) as r(i)) "
            f"to '{tmp_path}/{number}.parquet' (format parquet)"
        )
    whole = (tmp_path / "2.parquet").read_bytes()
    corrupt(tmp_path / "2.parquet")
    (tmp_path / "1b.parquet").write_bytes(b"this is no parquet")
    given = sources(tmp_path / "*.parquet")
    for again in (False, True):
        load = ingest_behavior(given, DAY_3) if not again else None
        if load is not None:
            assert counts(load) == (4002, 4000, 0, 0, 2, 0, 0)
            assert load.reasons == {"unreadable_file": 2}
    refused = warehouse.rows(
        "select source_file, reason, original ->> 'fault' from quarantine.rows order by 1"
    )
    assert [row[:2] for row in refused] == [
        ("1b.parquet", "unreadable_file"),
        ("2.parquet", "unreadable_file"),
    ]
    assert "magic bytes" in refused[0][2]
    (tmp_path / "2.parquet").write_bytes(whole)
    (tmp_path / "1b.parquet").unlink()
    load = ingest_behavior(given, DAY_3)
    assert opened(load) == ["2.parquet"]
    assert counts(load) == (2000, 2000, 0, 0, 0, 0, 0)


def test_files_of_which_none_can_be_read_fail_the_load(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "1.csv.gz").write_bytes(
        gzip.compress(b"id,who,what,detail,placed\n" + b"1,A,x,,2024-03-01\n" * 9999)[:90]
    )
    with pytest.raises(StratumError, match=r"is refused \(1 unreadable_file\).*1\.csv\.gz") as fault:
        ingest_behavior(sources(tmp_path / "*.csv.gz"), DAY_3)
    assert "\n" not in str(fault.value)
    assert warehouse.value("select count(*) from audit.loads") == 0


def test_a_column_that_is_missing_fails_the_load_but_a_key_of_json_may_be(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    event = {"id": "1", "who": "A", "what": "login", "detail": "x", "placed": "2024-03-01 09:00:00"}
    (tmp_path / "1.jsonl").write_text(json.dumps(event) + "\n")
    ingest_behavior(sources(tmp_path / "*.jsonl"), DAY_3)
    del event["detail"]
    (tmp_path / "2.jsonl").write_text(
        "\n" + json.dumps(event | {"id": "2", "placed": "2024-03-02 09:00:00"}) + "\nno\n"
    )
    assert counts(ingest_behavior(sources(tmp_path / "*.jsonl"), DAY_3)) == (2, 1, 0, 0, 1, 0, 0)
    assert warehouse.rows("select feature, source_row from raw_files.events order by event_at") == [
        ("x", 1),
        (None, 2),
    ]
    duckdb.execute(f"copy (select '3' as id) to '{tmp_path}/3.parquet' (format parquet)")
    with pytest.raises(StratumError, match=r"'who', which .*3\.parquet does not have"):
        ingest_behavior(sources(tmp_path / "*.parquet"), DAY_3)


def test_a_load_that_is_cut_off_leaves_nothing_and_the_next_lands_all(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sources(tmp_path / "*.csv")
    write(tmp_path / "1.csv", "1,A,login,01 09:00")
    write(tmp_path / "2.csv", "2,A,login,02 09:00")
    with monkeypatch.context() as patch:
        copy, copied = event_loads.copy_arrow, []

        def cut(connection: psycopg.Connection, *of: object) -> int:
            copied.append(copy(connection, *of))
            if len(copied) == 2:
                connection.execute("select pg_terminate_backend(pg_backend_pid())")
            return copied[-1]

        patch.setattr(event_loads, "copy_arrow", cut)
        with pytest.raises(psycopg.OperationalError):
            ingest_behavior(given, DAY_3)
    for table in ("raw_files.event_files", "raw_files.events", "audit.loads", "intermediate.usage_day_queue"):
        assert warehouse.value(f"select count(*) from {table}") == 0, table
    assert counts(ingest_behavior(given, DAY_3)) == (2, 2, 0, 0, 0, 0, 0)


def test_rows_written_that_are_not_those_counted_are_no_load(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "1.csv", "1,A,login,01 09:00")
    monkeypatch.setattr(event_loads, "copy_arrow", lambda *_: 0)
    with pytest.raises(StratumError, match="1 events were counted and 0 written"):
        ingest_behavior(sources(tmp_path / "1.csv"), DAY_3)
    assert warehouse.value("select count(*) from audit.loads") == 0


def test_the_floor_of_dates_is_policy() -> None:
    assert earliest_date(DAY_1) == date(1990, 1, 1)
    with pytest.raises(StratumError, match="earliest_date as of 1989-01-01"):
        earliest_date(date(1989, 1, 1))


def correct_twice(tmp_path: Path) -> list[Load | None]:
    """Three loads: two files, a correction of an event of the first, a correction of that correction."""
    given = sources(tmp_path / "*.csv")
    write(tmp_path / "1.csv", "1,A,login,01 09:00", "2,A,login,02 09:00")
    loads = [ingest_behavior(given, DAY_3)]
    write(tmp_path / "2.csv", "1,B,login,01 09:00", "3,B,login,03 09:00")
    loads.append(ingest_behavior(given, DAY_3))
    write(tmp_path / "3.csv", "1,C,login,01 09:00", "3,B,login,03 09:00")
    loads.append(ingest_behavior(given, DAY_3))
    return loads


def test_a_correction_that_is_taken_out_gives_its_place_to_what_was_before_or_came_after(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    loads = correct_twice(tmp_path)
    bad, last = (load for load in loads[1:] if load)
    (tmp_path / "2.csv").unlink()
    assert retract(str(bad.load_id), "a wrong export").rows == 2
    # The later correction stands; what it had found unchanged is read again, from its own file.
    assert warehouse.rows(CURRENT) == [("1", "C", "login", "01 09:00"), ("2", "A", "login", "02 09:00")]
    load = ingest_behavior(sources(tmp_path / "*.csv"), DAY_3)
    assert opened(load) == ["3.csv"]
    assert counts(load) == (2, 1, 0, 1, 0, 0, 0)
    assert [row[0] for row in warehouse.rows(CURRENT)] == ["1", "2", "3"]
    retract(str(last.load_id), "wrong too")
    assert warehouse.rows(CURRENT)[0] == ("1", "A", "login", "01 09:00")
    assert ("A", DAY_1) in queued(warehouse, last)


def test_a_file_s_version_that_is_taken_out_leaves_what_a_newer_version_says(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    given = sources(tmp_path / "events.csv", ids=False)
    loads = []
    for who in ("A", "B", "C"):
        write(tmp_path / "events.csv", f"1,{who},login,01 09:00", "2,D,login,02 09:00")
        loads.append(ingest_behavior(given, DAY_3))
    middle, newest = (load for load in loads[1:] if load)
    retract(str(middle.load_id), "a wrong export")
    assert [row[1] for row in warehouse.rows(CURRENT)] == ["C", "D"]
    retract(str(newest.load_id), "wrong too")
    assert [row[1] for row in warehouse.rows(CURRENT)] == ["A", "D"]


def usage(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows(
        "select account_id, usage_date, events, logins from intermediate.int_usage_days order by 1, 2"
    )


def build_days(full_refresh: bool = False) -> None:
    build("staging", DAY_3, begin_run(DAY_3, wait_s=0), full_refresh=full_refresh)
    fail_run(DAY_3, "end of the test's build")


@pytest.mark.extended
def test_days_follow_new_late_corrected_and_retracted_events_as_a_full_build_has_them(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    given = sources(tmp_path / "*.csv")
    write(
        tmp_path / "1.csv",
        "1,A,login,01 09:00",
        "2,B,login,01 09:00",
        "3,A,login,02 09:00",
        "4,,login,02 09:00",
    )
    ingest_behavior(given, DAY_2)
    build_days()
    assert usage(warehouse) == [("A", DAY_1, 1, 1), ("A", DAY_2, 1, 1), ("B", DAY_1, 1, 1)]
    # A new day as a whole; late events of a held day and of one long before it; a correction that changes the account.
    write(
        tmp_path / "2.csv",
        "5,A,login,03 09:00",
        "6,C,page,03 09:00",
        "7,B,page,01 10:00",
        "3,B,login,02 09:00",
    )
    old = tmp_path / "3.csv"
    old.write_text("id,who,what,detail,placed\n8,A,login,,2022-03-01 09:00:00\n")
    load = ingest_behavior(given, DAY_3)
    assert queued(warehouse, load) == [
        ("", date(2022, 3, 1)),
        ("", DAY_3),
        *(("A", DAY_2), ("B", DAY_1), ("B", DAY_2)),
    ]
    build_days()
    after = usage(warehouse)
    assert after == [
        ("A", date(2022, 3, 1), 1, 1),
        ("A", DAY_1, 1, 1),
        ("A", DAY_3, 1, 1),
        *(("B", DAY_1, 2, 1), ("B", DAY_2, 1, 1), ("C", DAY_3, 1, 0)),
    ]
    assert set(
        warehouse.rows("select account_key, min(from_date) from intermediate.restatement_queue group by 1")
    ) >= {
        ("A", date(2022, 3, 1)),
        ("B", DAY_1),
        ("C", DAY_3),
    }
    assert warehouse.value("select count(*) from intermediate.usage_day_queue") == 0
    build_days(full_refresh=True)
    assert usage(warehouse) == after
    assert load is not None
    retract(str(load.load_id), "a wrong export")
    build_days()
    assert usage(warehouse) == [("A", DAY_1, 1, 1), ("A", DAY_2, 1, 1), ("B", DAY_1, 1, 1)]


def test_events_that_gave_way_long_ago_are_dropped(warehouse: Warehouse, tmp_path: Path) -> None:
    correct_twice(tmp_path)
    before = warehouse.rows(CURRENT)
    for day, removed in ((DAY_3, 0), (DAY_3 + timedelta(days=1), 2)):
        with connect("housekeeper") as connection:
            assert _drop_superseded(connection, day).removed == removed
    assert warehouse.rows(CURRENT) == before
    assert warehouse.value("select count(*) from raw_files.events") == len(before)
    assert warehouse.value("select count(*) from raw_files.superseded_events") == 0


def test_a_file_whose_time_alone_changed_lands_nothing_and_supersedes_nothing(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    write(tmp_path / "1.csv", "1,A,login,01 09:00", ",,login,02 09:00")
    ingest_behavior(sources(tmp_path / "1.csv", ids=False), DAY_3)
    os.utime(tmp_path / "1.csv")
    load = ingest_behavior(sources(tmp_path / "1.csv", ids=False), DAY_3)
    assert counts(load) == (2, 0, 0, 2, 0, 1, 0)
    assert queued(warehouse, load) == []
    assert warehouse.value("select count(*) from raw_files.superseded_events") == 0
