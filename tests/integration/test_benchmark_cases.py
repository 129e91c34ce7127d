"""Every case of the benchmarks runs, on a company small enough for a test, and fills its line."""

from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import models
from benchmarks.data import Size
from benchmarks.place import Row

SMALL = Size("test", 300, 12_000, 20_000, 20_000, 200)
NAMES = (
    *("load_orders", "load_events", "build_full", "gate_marts", "train_churn", "publish"),
    "score_1m",
    *(SYNC := ("sync_plan_1m", "sync_plan_anew", "sync_plan_drt", "sync_send", "sync_send_drt")),
    *("build_daily_400", "build_daily_730"),
)


@pytest.mark.slow
def test_models_are_measured_without_a_warehouse() -> None:
    trained, scored = models.models(SMALL)
    assert (trained.name, trained.rows, scored.name, scored.rows) == ("train_60", 4_000, "score_60", 20_000)
    for row in (trained, scored):
        assert row.ratio == pytest.approx(row.wall_s / row.floor_s)
        assert " MB above the matrix of " in row.floor


@pytest.mark.slow
def test_every_case_measures_itself_and_its_floor(tmp_path: Path) -> None:
    rows = benchmarks._in_the_warehouse(SMALL, tmp_path / "bench", None)
    assert [row.name for row in rows] == list(NAMES)
    assert_measured(rows)


@pytest.mark.slow
def test_the_sync_is_measured_without_a_company_beside_another_that_does_the_same_rows(
    tmp_path: Path,
) -> None:
    rows = benchmarks._in_the_warehouse(SMALL, tmp_path / "bench", "sync")
    assert [row.name for row in rows] == list(SYNC)
    assert_measured(rows)
    assert not (tmp_path / "bench" / "company").exists()
    ours, _, theirs, sent, theirs_sent = rows
    assert (theirs.rows, theirs_sent.rows) == (ours.rows, sent.rows)
    assert (theirs.floor_s, theirs_sent.floor_s) == (ours.wall_s, sent.wall_s)
    assert "own memory of planning at its peak: 5,000 rows " in ours.floor
    assert "own memory of sending at its peak: 20 rows " in sent.floor


def assert_measured(rows: list[Row]) -> None:
    for row in rows:
        assert row.rows > 0, row
        assert row.wall_s > 0, row
        assert row.cpu_s > 0, row
        assert row.peak_mb > 20, row
        assert row.floor_s > 0, row
        assert row.ratio == pytest.approx(row.wall_s / row.floor_s)
