"""Every case of the benchmarks runs, on a company small enough for a test, and fills its line."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import models
from benchmarks.data import Size

SMALL = Size("test", 300, 12_000, 20_000, 600, 200)
NAMES = (
    *("load_orders", "load_events", "build_full", "gate_marts", "train_churn", "publish"),
    *("score_1m", "sync_plan_1m", "sync_plan_anew", "sync_send", "build_daily_400", "build_daily_730"),
)


@pytest.mark.slow
def test_models_are_measured_without_a_warehouse() -> None:
    trained, scored = models.models(replace(SMALL, scaled=20_000))
    assert (trained.name, trained.rows, scored.name, scored.rows) == ("train_60", 4_000, "score_60", 20_000)
    for row in (trained, scored):
        assert row.ratio == pytest.approx(row.wall_s / row.floor_s)
        assert " MB above the matrix of " in row.floor


@pytest.mark.slow
def test_every_case_measures_itself_and_its_floor(tmp_path: Path) -> None:
    rows = benchmarks._in_the_warehouse(SMALL, tmp_path / "bench", None)
    assert [row.name for row in rows] == list(NAMES)
    for row in rows:
        assert row.rows > 0, row
        assert row.wall_s > 0, row
        assert row.cpu_s > 0, row
        assert row.peak_mb > 20, row
        assert row.floor_s > 0, row
        assert row.ratio == pytest.approx(row.wall_s / row.floor_s)
