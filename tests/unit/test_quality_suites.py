"""Suites are read as written, with every name filled in, and a limit is the one in force on the date."""

from datetime import date
from pathlib import Path

import pytest

from include.errors import StratumError
from include.quality.suites import GATES, load_suite

VALUES = {
    "as_of": date(2026, 6, 30),
    "run_id": "20260630_0a1b2c3d",
    "currency": "CNY",
    "timezone": "Asia/Shanghai",
    "load_ids": ["5f0c1f0e-0000-4000-8000-000000000000"],
    "previous_run_id": None,
    "sync_id": 1,
}


def suite_in(folder: Path, text: str, limits: str = "name,value,effective_from,why\n") -> Path:
    (folder / "raw.yml").write_text(text)
    (folder / "limits.csv").write_text(limits)
    return folder


@pytest.mark.parametrize("gate", GATES)
def test_every_shipped_suite_reads_and_leaves_no_name_open(gate: str) -> None:
    suite = load_suite(gate, VALUES)
    assert suite.tables
    for table in suite.tables:
        assert "$" not in table.rows
        assert table.expectations
        for expectation in table.expectations:
            assert "$" not in getattr(expectation, "unexpected_rows_query", "")


def test_a_name_in_sql_becomes_a_literal_and_elsewhere_the_value(tmp_path: Path) -> None:
    folder = suite_in(
        tmp_path,
        "role: transformer\ntables:\n- table: a.b\n  rows: select 1 where x = $currency and y = any($load_ids)\n"
        "  expectations:\n  - type: expect_column_values_to_be_in_set\n"
        "    kwargs: {column: c, value_set: [$currency, other]}\n",
    )
    (table,) = load_suite("raw", {**VALUES, "currency": "it's"}, folder).tables
    assert table.rows == "select 1 where x = 'it''s' and y = any('{5f0c1f0e-0000-4000-8000-000000000000}')"
    assert table.expectations[0].value_set == ["it's", "other"]  # type: ignore[attr-defined]


def test_a_limit_is_the_newest_that_is_not_later_than_the_date(tmp_path: Path) -> None:
    folder = suite_in(
        tmp_path,
        "role: transformer\ntables:\n- table: a.b\n  rows: select $limit_share\n  expectations: []\n",
        "name,value,effective_from,why\nshare,0.3,2026-07-01,later\nshare,0.1,2000-01-01,first\n"
        "share,0.2,2026-06-30,changed\n",
    )

    def on(day: date) -> str:
        return load_suite("raw", {**VALUES, "as_of": day}, folder).tables[0].rows

    assert [on(date(2026, 6, 29)), on(date(2026, 6, 30)), on(date(2026, 7, 1))] == [
        "select 0.1",
        "select 0.2",
        "select 0.3",
    ]


def test_a_name_that_nobody_gives_is_told(tmp_path: Path) -> None:
    folder = suite_in(
        tmp_path, "role: r\ntables:\n- table: a.b\n  rows: select $limit_none\n  expectations: []\n"
    )
    with pytest.raises(StratumError, match=r"raw\.yml: nothing fills in 'limit_none'"):
        load_suite("raw", VALUES, folder)
    with pytest.raises(StratumError, match="There is no gate 'marts'"):
        load_suite("marts", VALUES, folder)
