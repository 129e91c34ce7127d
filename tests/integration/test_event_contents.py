"""What an event says beyond its name: flow step, properties, columns that nobody mapped; and rows that are no events."""

from pathlib import Path

import duckdb

from include.sources.behavior import ingest_behavior
from tests.conftest import Warehouse
from tests.fixtures.books import counts
from tests.integration.event_stage import COLUMNS, CURRENT, DAY_1, DAY_2, DAY_3, sources, write, write_json

BESIDE = {"flow_step": "step", "properties": "more"}


def test_a_flow_step_and_properties_are_part_of_what_an_event_says(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    event = {"who": "A", "what": "login", "detail": "x", "placed": "2024-03-01 09:00:00", "step": "cart"}
    given = sources(tmp_path / "1.jsonl", ids=False, columns=COLUMNS | BESIDE)
    first = [event | {"more": {"b": 1, "a": [None, "x"]}}, event | {"more": {"b": 2}}]
    write_json(tmp_path / "1.jsonl", *first, first[0])
    assert counts(ingest_behavior(given, DAY_3)) == (3, 2, 0, 0, 1, 0, 0)
    # Another order of keys says the same; another step does not.
    write_json(
        tmp_path / "1.jsonl",
        event | {"more": {"a": [None, "x"], "b": 1}},
        event | {"step": "checkout", "more": {"b": 2}},
    )
    assert counts(ingest_behavior(given, DAY_3)) == (2, 1, 0, 1, 0, 0, 0)
    assert warehouse.rows(
        "select flow_step, properties from raw_files.events where (file_id, source_row) not in "
        "(select file_id, source_row from raw_files.superseded_events) order by 1"
    ) == [("cart", {"a": [None, "x"], "b": 1}), ("checkout", {"b": 2})]


BAD_JSON = [
    "[1]",
    "no",
    '{"a": NaN}',
    '{"a": -Infinity}',
    '{"a": 1,}',
    '{"a": 1e99999}',
    r'{"a": "\u0000"}',
    '"x"',
]
GOOD_JSON = [r'{"a": "NaN, Infinity, \\u0000 and ,}"}', '{"e": -1.5e-7, "t": [true, false, null]}', "{}"]


def test_properties_that_no_jsonb_can_hold_are_refused_and_the_rest_lands(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    given = sources(tmp_path / "1.parquet", ids=False, columns=COLUMNS | {"properties": "more"})
    duckdb.execute(
        "copy (select 'A' as who, 'x' as what, null::varchar as detail, timestamp '2024-03-01 09:00:00' as placed, "
        f"unnest(?::varchar[]) as more) to '{tmp_path}/1.parquet' (format parquet)",
        [BAD_JSON + GOOD_JSON],
    )
    load = ingest_behavior(given, DAY_3)
    assert load is not None
    assert (load.rows_new, load.reasons) == (len(GOOD_JSON), {"unreadable_properties": len(BAD_JSON)})


def test_a_refused_row_is_kept_as_it_stood_also_where_no_json_can_hold_it(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    duckdb.execute(
        "copy (select 'A' as who, unnest(['x', null]) as what, null::varchar as detail, {'a': ['nan'::double]} as more, "
        f"timestamp '2024-03-02 09:00:00' as placed) to '{tmp_path}/1.parquet' (format parquet)"
    )
    load = ingest_behavior(sources(tmp_path / "1.parquet", ids=False), DAY_3)
    assert load is not None
    assert (load.rows_new, load.reasons) == (1, {"missing_event_name": 1})
    assert "nan" in warehouse.value("select original ->> 'more' from quarantine.rows")


def test_rows_that_are_no_events_are_left_out_and_neither_kept_nor_refused(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    write(
        tmp_path / "1.csv",
        *("1,A,login,01 09:00", "2,A,,01 10:00", "3,B,,99 10:00", "4,B,,01 11:00", "5,B,x,03 09:00"),
    )
    given = sources(
        tmp_path / "1.csv", skip_when="case id when '4' then who::int > 0 else id in ('2', '3') end"
    )
    load = ingest_behavior(given, DAY_1)
    assert counts(load) == (2, 1, 0, 0, 1, 0, 1)
    assert load is not None
    assert load.reasons == {"unreadable_skip_when": 1}
    assert [row[0] for row in warehouse.rows(CURRENT)] == ["1"]
    assert counts(ingest_behavior(given, DAY_3)) == (1, 1, 0, 0, 0, 0, 0)


def test_a_new_column_of_events_is_kept_until_an_expression_reads_it(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    event = {"id": "1", "who": "A", "what": "login", "detail": "x", "placed": "2024-03-01 09:00:00"}
    given = sources(tmp_path / "*.jsonl")
    write_json(tmp_path / "1.jsonl", event)
    ingest_behavior(given, DAY_1)
    late = event | {"id": "3", "placed": "2024-03-01 10:00:00", "level": "gold"}  # of a day that has events
    write_json(tmp_path / "2.jsonl", event | {"id": "2", "placed": "2024-03-02 09:00:00", "level": 7}, late)
    ingest_behavior(given, DAY_2)
    # A change in it alone is no change.
    write_json(tmp_path / "2.jsonl", event | {"id": "2", "placed": "2024-03-02 09:00:00", "level": 8}, late)
    assert counts(ingest_behavior(given, DAY_2)) == (2, 0, 0, 2, 0, 0, 0)
    assert warehouse.rows("select event_id, extras from raw_files.events order by 1") == [
        ("1", None),
        ("2", {"level": "7"}),
        ("3", {"level": "gold"}),
    ]
    write_json(tmp_path / "3.jsonl", event | {"id": "4", "placed": "2024-03-03 09:00:00", "level": "x"})
    ingest_behavior(
        sources(tmp_path / "*.jsonl", columns=COLUMNS | {"event_id": "id", "user_id": "level"}), DAY_3
    )
    assert warehouse.rows("select user_id, extras from raw_files.events where event_id = '4'") == [
        ("x", None)
    ]
