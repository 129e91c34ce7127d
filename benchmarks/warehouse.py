"""The cases of the way from files to published tables: loads, builds, gate, training, publish."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import psycopg

from benchmarks import floors
from benchmarks.data import FIRST_DAY, LAST_DAY
from benchmarks.meter import Meter, Stopwatch
from benchmarks.place import Place, Row, as_owner, settle, value
from include.sources.config import load_sources

CHUNK = 1 << 20
FLOOR_OF_SOURCE = "COPY of the same rows as CSV into a plain table"
LANDED = "select count(*) from raw_files.{}"


def load_orders(place: Place) -> list[Row]:
    """Land all order lines in an empty warehouse."""
    from include.sources.orders import ingest_orders

    sources = load_sources(place.sources)
    with place.meter() as meter:
        load = ingest_orders(sources, LAST_DAY)
    settle()
    floor_s = bare_copy(write_csv(place, "orders"), f"({floors.ORDER_COLUMNS})")
    return [place.row("load_orders", load.rows_in if load else 0, meter, FLOOR_OF_SOURCE, floor_s)]


def load_events(place: Place) -> list[Row]:
    """Land all events in an empty warehouse; the floor copies the very rows that landed."""
    from include.sources.behavior import ingest_behavior

    sources = load_sources(place.sources)
    with place.meter() as meter:
        load = ingest_behavior(sources, LAST_DAY)
    settle()
    source_s = bare_copy(write_csv(place, "events"), f"({floors.EVENT_COLUMNS})")
    floor_s = bare_copy(write_landed(place), "(like raw_files.events)")
    floor = (
        f"COPY of the rows as landed, as CSV into a plain table (of the source's columns alone {source_s:.2f} s; "
        f"the loader's own peak {meter.own_peak_mb:.0f} MB)"
    )
    return [place.row("load_events", load.rows_in if load else 0, meter, floor, floor_s)]


def write_csv(place: Place, name: str) -> Path:
    """Write a source's parquet file as CSV and return its path."""
    path = place.home / f"{name}.csv"
    duckdb.execute("set enable_progress_bar = false")
    duckdb.execute(
        f"copy (from '{place.sources.with_name(f'{name}.parquet')}') to '{path}' (format csv, header false)"
    )
    return path


def write_landed(place: Place) -> Path:
    """Write the events as they were landed as CSV and return its path."""
    path = place.home / "landed.csv"
    with (
        as_owner() as owner,
        path.open("wb") as file,
        owner.cursor() as cursor,
        cursor.copy("copy raw_files.events to stdout (format csv)") as copy,
    ):
        for block in copy:
            file.write(block)
    return path


def bare_copy(csv: Path, columns: str) -> float:
    """Return the seconds of a COPY of a CSV file into a plain table; the file is removed."""
    with as_owner() as owner, csv.open("rb") as file:
        owner.execute("create schema if not exists floor; drop table if exists floor.copied")
        owner.execute(f"create table floor.copied {columns}")
        owner.execute("checkpoint")
        statement = "copy floor.copied from stdin (format csv)"
        with Stopwatch() as watch, owner.cursor() as cursor, cursor.copy(statement) as copy:
            while chunk := file.read(CHUNK):
                copy.write(chunk)
        owner.execute("drop table floor.copied")
    csv.unlink()
    return watch.s


def build_full(place: Place) -> list[Row]:
    """Make all marts from all rows: the days, the features of every month-end, the tiers, with their tests."""
    as_of, rows = LAST_DAY, value(LANDED.format("order_lines")) + value(LANDED.format("events"))
    run_id = _begin(place, as_of)
    with place.meter() as meter:
        _build(as_of, run_id, full_refresh=True)
    settle()
    with as_owner() as owner:
        floor_s = _bare_days(owner) + _bare_windows(owner, "all", month_ends(as_of))
        owner.execute("drop schema floor cascade")
    floor = "the days and windows of the same dates in plain SQL"
    return [place.row("build_full", rows, meter, floor, floor_s, slowest_models(run_id))]


def build_daily(place: Place) -> list[Row]:
    """Build one more day, early and late: a day's cost is not to grow with what lies before it."""
    found = []
    for days in (400, 730):
        as_of = FIRST_DAY + timedelta(days=days - 1)
        _ingest(place, as_of - timedelta(days=1))
        _publish(_begun(place, as_of - timedelta(days=1)), as_of - timedelta(days=1))
        _ingest(place, as_of)
        settle()
        run_id = _begin(place, as_of)
        with place.meter() as meter:
            _build(as_of, run_id)
        slowest = slowest_models(run_id)
        rows = value(LANDED.format("order_lines") + " where known_on = %s", as_of)
        rows += value(LANDED.format("events") + " where known_on = %s", as_of)
        floor_s = _bare_day(as_of)
        _publish(run_id, as_of)
        floor = "that day's rollup and that date's windows in plain SQL"
        found.append(place.row(f"build_daily_{days}", rows, meter, floor, floor_s, slowest))
    return found


def slowest_models(run_id: str, count: int = 10) -> tuple[tuple[str, float], ...]:
    """Return the models of a run that took longest, with their wall seconds; several run at the same time."""
    with as_owner() as owner:
        return tuple(
            (node_id.rpartition(".")[2], float(seconds))
            for node_id, seconds in owner.execute(
                "select node_id, seconds from audit.dbt_nodes where run_id = %s and resource_type = 'model' "
                "order by seconds desc, node_id limit %s",
                [run_id, count],
            )
        )


def gate_marts(place: Place) -> list[Row]:
    """Check the marts of the date; the floor runs the very statements the gate sent."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from include.quality.gate import run_gate
    from include.warehouse.connect import role_url
    from include.warehouse.lock import mark_built, run_of

    sent: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    run_id = run_of(LAST_DAY)
    event.listen(Engine, "before_cursor_execute", note)
    with place.meter() as meter:
        run_gate("marts", LAST_DAY, run_id)
    event.remove(Engine, "before_cursor_execute", note)
    with psycopg.connect(role_url("transformer"), autocommit=True) as connection, Stopwatch() as watch:
        for statement, parameters in sent:
            cursor = connection.execute(statement, parameters)
            if cursor.description:
                cursor.fetchall()
    rows = value("select count(*) from marts.account_features where as_of_date = %s", LAST_DAY)
    mark_built(run_id)
    floor = f"the {len(sent)} statements that the gate sent, alone"
    return [place.row("gate_marts", rows, meter, floor, watch.s)]


def train_churn(place: Place) -> list[Row]:
    """Train the churn model: frame, validation on past dates, calibration, explanation, the final fit."""
    from include.warehouse.connect import connect
    from ml.estimators import fit, make_pipeline, one_thread, used_features
    from ml.frames import training_frame
    from ml.params import params_of
    from ml.targets import CHURN, policy_on
    from ml.train import train

    with place.meter() as meter:
        train("churn", LAST_DAY)
    with connect("scorer") as connection:
        frame = training_frame(connection, CHURN, LAST_DAY, policy_on(connection, CHURN, LAST_DAY))
    params = params_of("churn")
    pipeline = make_pipeline(CHURN, params, used_features(CHURN, frame, params.varies_on_share))
    with one_thread(), Stopwatch() as watch:
        fit(pipeline, frame)
    return [place.row("train_churn", len(frame), meter, "one fit of the estimator on the same rows", watch.s)]


def publish(place: Place) -> list[Row]:
    """Publish the candidate of the date; the floor copies the same tables into plain ones."""
    from include.warehouse.lock import finish_run, run_of
    from include.warehouse.publish import ALL_TABLES, publish

    run_id = run_of(LAST_DAY)
    _score_and_build(run_id, LAST_DAY)
    settle()
    with place.meter() as meter:
        published = publish(run_id, LAST_DAY)
    finish_run(run_id)
    with as_owner() as owner:
        owner.execute("create schema if not exists floor")
        for table in ALL_TABLES:
            owner.execute(f"create table floor.{table} (like candidate.{table})")
        with Stopwatch() as watch, owner.transaction():
            for table in ALL_TABLES:
                owner.execute(f"insert into floor.{table} select * from candidate.{table}")  # noqa: S608
        owner.execute("drop schema floor cascade")
    rows = sum(published.rows.values())
    return [place.row("publish", rows, meter, "insert … select of the same tables", watch.s)]


def score(place: Place) -> list[Row]:
    """Score many accounts, with three reasons each: copies of the accounts there are, under names of their own."""
    from include.warehouse.connect import connect
    from ml import registry
    from ml.estimators import one_thread, probabilities
    from ml.frames import features_on
    from ml.score import score_accounts
    from ml.targets import CHURN

    copy_rows("marts.account_features", place.size.scaled, "as_of_date = %(as_of)s", {"as_of": LAST_DAY})
    with place.meter() as meter:
        result = score_accounts("churn", LAST_DAY, "bench")
    with connect("scorer") as connection:
        found = registry.newest(connection, "churn", LAST_DAY)
        if found is None:
            raise RuntimeError("the benchmarks' own model is gone")
        pipeline, frame = registry.load(connection, found), features_on(connection, CHURN, [LAST_DAY])
    with one_thread(), Meter() as floor:
        probabilities(pipeline, frame)
    told = f"predict_proba of the same rows; of processor time {meter.cpu_s / floor.cpu_s:.1f} x"
    return [place.row("score_1m", result.accounts, meter, told, floor.wall_s)]


def copy_rows(table: str, wanted: int, where: str, arguments: dict[str, object]) -> None:
    """Multiply the rows of a table that fit a condition until there are `wanted`, each copy an account of its own."""
    with as_owner() as owner:
        cursor = owner.execute(f"select * from {table} limit 0")  # noqa: S608
        names = [column.name for column in cursor.description or ()]
        held = owner.execute(f"select count(*) from {table} where {where}", arguments).fetchone()  # noqa: S608
        there = int(held[0]) if held else 0
        values = ["account_id || ':' || copy" if name == "account_id" else name for name in names]
        owner.execute(
            f"insert into {table} ({', '.join(names)}) select {', '.join(values)} "  # noqa: S608
            f"from generate_series(1, {wanted // there}) as copy cross join {table} "
            f"where {where} limit {max(wanted - there, 0)}",
            arguments,
        )
        owner.execute(f"vacuum (analyze) {table}")


def month_ends(as_of: date) -> list[date]:
    """Return the dates whose features a full build makes: the month-ends so far, and the date itself."""
    ends = [stamp.date() for stamp in pd.date_range(FIRST_DAY, as_of, freq="ME")]
    return sorted({*ends, as_of})


def _ingest(place: Place, as_of: date) -> None:
    from include.sources.behavior import ingest_behavior
    from include.sources.orders import ingest_orders

    sources = load_sources(place.sources)
    ingest_orders(sources, as_of)
    ingest_behavior(sources, as_of)


def _begin(place: Place, as_of: date) -> str:
    """Take the build lock, with everything loaded that a build imports and reads of its project."""
    from include.dbt import invoke
    from include.sources.hubspot import ingest_crm
    from include.warehouse.lock import begin_run

    ingest_crm(load_sources(place.sources), as_of)  # absent, and written down as such
    run_id = begin_run(as_of)
    invoke(["list", "--resource-type", "exposure"], as_of, run_id)
    return run_id


def _begun(place: Place, as_of: date) -> str:
    run_id = _begin(place, as_of)
    _build(as_of, run_id)
    return run_id


def _build(as_of: date, run_id: str, full_refresh: bool = False) -> None:
    from include.dbt import build

    build("staging", as_of, run_id, full_refresh=full_refresh)
    build("marts", as_of, run_id, full_refresh=full_refresh)


def _score_and_build(run_id: str, as_of: date) -> None:
    from include.dbt import build
    from ml.score import score_all

    score_all(as_of, run_id)
    build("published", as_of, run_id)


def _publish(run_id: str, as_of: date) -> None:
    from include.warehouse.lock import finish_run, mark_built
    from include.warehouse.publish import publish

    mark_built(run_id)
    _score_and_build(run_id, as_of)
    publish(run_id, as_of)
    finish_run(run_id)


def _bare_days(owner: psycopg.Connection, orders: str = "true", events: str = "true") -> float:
    owner.execute("drop schema if exists floor cascade; create schema floor")
    with Stopwatch() as watch:
        owner.execute(floors.days(orders, events))
    return watch.s


def _bare_windows(owner: psycopg.Connection, name: str, dates: list[date]) -> float:
    owner.execute("analyze")
    with Stopwatch() as watch:
        owner.execute(floors.windows(name), {"dates": dates})
    return watch.s


def _bare_day(as_of: date) -> float:
    """Return the seconds of one day's rollup, and of one date's windows over rollups that stand."""
    with as_owner() as owner:
        _bare_days(owner)
        windows_s = _bare_windows(owner, "day", [as_of])
        owner.execute("alter schema floor rename to before; create schema floor")
        day = f">= '{as_of}' and {{}} < '{as_of + timedelta(days=1)}'"
        with Stopwatch() as watch:
            owner.execute(floors.days(*(f"{at} {day.format(at)}" for at in ("ordered_at", "event_at"))))
        owner.execute("drop schema floor cascade; drop schema before cascade")
    return windows_s + watch.s
