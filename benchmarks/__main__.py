"""`python -m benchmarks`: run the cases of a size, print the table, write bench.json under STRATUM_HOME."""

import argparse
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import chain, crm, models, warehouse
from benchmarks.data import SIZES, TINY, Size, write
from benchmarks.place import Place, Row, free_port, write_json
from include.settings import get_settings
from include.warehouse import embedded

Case = Callable[[Place], list[Row]]
LIMIT_S = {"S": 1800, "M": 4 * 3600}
FULL: tuple[Case, ...] = (
    warehouse.load_orders,
    warehouse.load_events,
    warehouse.build_full,
    warehouse.gate_marts,
    warehouse.train_churn,
    warehouse.publish,
)
SYNC: tuple[Case, ...] = (crm.sync_plan, crm.sync_send)
PARTS = ("warehouse", "daily", "sync", "models", "chain")
CASES = tuple(case.__name__ for case in (*FULL, warehouse.score, *SYNC))
HEAD = (
    f"{'name':<16} {'rows':>10} {'wall s':>8} {'cpu s':>8} {'peak MB':>8} {'floor s':>8} {'ratio':>6}  floor"
)


def main() -> int:
    """Run the benchmarks; 1 where the time is over or a case fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="S")
    parser.add_argument(
        "--only",
        choices=(*PARTS, *CASES),
        help="one part alone, or one case: of the part warehouse with what it stands on",
    )
    parser.add_argument("--keep", action="store_true", help="leave the benchmarks' server and files")
    given = parser.parse_args()
    size, home = SIZES[given.size], get_settings().home
    scratch = home / "bench" / size.name
    signal.signal(signal.SIGALRM, _over)
    signal.signal(signal.SIGTERM, _over)
    signal.alarm(LIMIT_S[size.name])
    print(HEAD, flush=True)
    try:
        rows = _run(size, scratch, given.only)
    finally:
        if not given.keep:
            shutil.rmtree(scratch, ignore_errors=True)
    write_json(home / "bench.json", rows)
    print(f"\n{home / 'bench.json'}")
    return 0


def _over(number: int, _frame: object) -> None:
    raise SystemExit("The benchmarks took longer than they may." if number == signal.SIGALRM else 143)


def _run(size: Size, scratch: Path, only: str | None) -> list[Row]:
    rows: list[Row] = []
    if only not in ("models", "chain"):
        rows += _in_the_warehouse(size, scratch, only)
    if only in (None, "models"):
        rows += _say(models.models(size))
    if only in (None, "chain"):
        rows += _say(chain.chain_overhead(size.name, scratch / "chain", write(TINY, scratch / "tiny")))
    return rows


def _in_the_warehouse(size: Size, scratch: Path, only: str | None) -> list[Row]:
    rows: list[Row] = []
    full, daily, scaled, sync = (
        Place(size, scratch, scratch / "company" / "sources.yml", port, name)
        for port in [free_port()]
        for name in ("full", "daily", "scaled", "sync")
    )
    to_sync = [case for case in SYNC if only in (None, "sync", case.__name__)]
    is_sync_alone = only == "sync" or only in [case.__name__ for case in SYNC]
    embedded.stop(full.cluster)  # of benchmarks that were killed
    shutil.rmtree(full.cluster.data.parent, ignore_errors=True)
    if not is_sync_alone:
        write(size, scratch / "company")
    embedded.start(full.cluster)
    try:
        if only != "daily" and not is_sync_alone:
            full.make()
            for case in _up_to(only):
                rows += _say(full.run(case))
        if only in (None, "warehouse", warehouse.score.__name__):
            scaled.make(template="full")
            rows += _say(scaled.run(warehouse.score))
        if to_sync:
            sync.make()
            for case in to_sync:
                rows += _say(sync.run(case))
        if only in (None, "daily"):
            daily.make()
            rows += _say(daily.run(warehouse.build_daily))
    finally:
        embedded.stop(full.cluster)
    return rows


def _up_to(only: str | None) -> tuple[Case, ...]:
    """Return the cases that a case of FULL stands on, and itself; all of them for any other."""
    names = [case.__name__ for case in FULL]
    return FULL[: names.index(only) + 1] if only in names else FULL


def _say(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(
            f"{row.name:<16} {row.rows:>10,} {row.wall_s:>8.2f} {row.cpu_s:>8.2f} {row.peak_mb:>8.0f} "
            f"{row.floor_s:>8.2f} {row.ratio:>6.1f}  {row.floor}",
            flush=True,
        )
        if row.slowest:
            told = ", ".join(f"{model} {seconds:.2f}" for model, seconds in row.slowest)
            print(f"{'':<16} slowest models, wall s: {told}", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
