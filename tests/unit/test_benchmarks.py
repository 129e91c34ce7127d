"""The benchmarks measure what they say: their data stand still, the meter counts children, paths are critical."""

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from benchmarks.chain import Chain, Task, critical_path
from benchmarks.data import FIRST_DAY, LAST_DAY, SIZES, TINY, write
from benchmarks.meter import MOST_GROWTH_MB, Meter, flat
from benchmarks.place import Row, write_json
from include.sources.config import load_sources


def _row(name: str, size: str, wall_s: float = 2.0) -> Row:
    return Row(name, size, 10, wall_s, 1.0, 100.0, "bare", 0.5, wall_s / 0.5)


def test_a_company_is_the_same_each_time_and_has_the_rows_it_is_said_to_have(tmp_path: Path) -> None:
    digests = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        sources = load_sources(write(TINY, folder))
        assert sources.orders
        assert sources.behavior
        rows = [duckdb.execute(f"from '{folder}/{name}.parquet'").fetchall() for name in ("orders", "events")]
        digests.append(hashlib.sha256(repr(rows).encode()).hexdigest())
        orders = duckdb.execute(f"select count(distinct order_no) from '{folder}/orders.parquet'").fetchall()
        assert orders == [(TINY.orders,)]
        assert len(rows[1]) == TINY.events
    assert digests[0] == digests[1]
    days = duckdb.execute(
        f"select min(ordered_at)::date, max(ordered_at)::date from '{folder}/orders.parquet'"
    ).fetchall()
    assert FIRST_DAY <= days[0][0] < days[0][1] <= LAST_DAY


def test_the_sizes_are_those_that_performance_md_tells() -> None:
    assert {name: (size.accounts, size.orders, size.events) for name, size in SIZES.items()} == {
        "S": (2_000, 100_000, 1_000_000),
        "M": (20_000, 1_000_000, 10_000_000),
    }


@pytest.mark.parametrize("forked", [False, True])
def test_the_meter_counts_the_work_and_memory_of_a_child_that_has_ended(forked: bool) -> None:
    work = (
        "import time; kept = bytearray(150_000_000); end = time.process_time() + 0.8\n"
        "while time.process_time() < end: pass"
    )
    with Meter(forked=forked) as meter:
        subprocess.run([sys.executable, "-c", work], check=True)
    assert meter.cpu_s >= 0.5
    assert meter.wall_s >= 0.5
    assert meter.peak_mb > 150
    with Meter() as idle:
        time.sleep(0.3)
    assert idle.wall_s >= 0.3
    assert idle.cpu_s < 0.25


def _task(name: str, start: float, end: float, *above: str) -> Task:
    return Task("dag", name, start, end, tuple(("dag", each) for each in above))


def test_the_critical_path_goes_back_through_the_task_that_ended_last() -> None:
    tasks = [
        _task("quick", 1, 2),
        _task("slow", 1, 5),
        _task("joined", 6, 8, "quick", "slow"),
        _task("beside", 5.5, 7, "slow"),
        _task("last", 9, 10, "joined", "beside", "skipped"),
    ]
    path = critical_path({task.key: task for task in tasks})
    assert [task.name for task in path] == ["slow", "joined", "last"]


def test_a_hop_costs_what_is_left_of_the_wall_time_and_the_first_task_is_waited_for_too() -> None:
    chain = Chain(wall_s=10.0, worked_s=7.0, steps=[1.0, 1.0], between_dags=[1.0])
    assert chain.per_hop_s == pytest.approx(1.5)


def test_lines_of_builds_alone_name_their_slowest_models() -> None:
    row = _row("build_full", "S")
    assert "slowest" not in row.json()
    assert replace(row, slowest=(("account_features", 1.5),)).json()["slowest"] == (
        ("account_features", 1.5),
    )


def test_bench_json_keeps_the_rows_of_the_other_size(tmp_path: Path) -> None:
    path = tmp_path / "home" / "bench.json"
    write_json(path, [_row("publish", "S"), _row("sync_send", "S")])
    write_json(path, [_row("publish", "M")])
    write_json(path, [_row("publish", "S", 4.0)])
    held = json.loads(path.read_text())
    assert [(row["name"], row["size"], row["wall_s"]) for row in held] == [
        ("publish", "M", 2.0),
        ("publish", "S", 4.0),
    ]
    assert list(held[0]) == [
        "name",
        "size",
        "rows",
        "wall_s",
        "cpu_s",
        "peak_mb",
        "floor",
        "floor_s",
        "ratio",
    ]


def test_memory_that_grows_with_the_rows_ends_the_benchmark() -> None:
    assert "10 rows 20.0 MB, 100 rows 21.5 MB" in flat("planning", {10: 20.0, 100: 21.5})
    with pytest.raises(RuntimeError, match=r"memory of planning at its peak: 10 rows 20\.0 MB, 100 rows"):
        flat("planning", {10: 20.0, 100: 20.1 + MOST_GROWTH_MB})
