"""Remove from the warehouse what policy no longer keeps, and write down every removal.

How long a thing is kept is policy: include/warehouse/retention.csv, dated rows like every other. What is old is
counted from the newest published date, not from the clock; before anything is published nothing is removed.
"""

import calendar
import csv
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from include.dates import day_end
from include.errors import StratumError
from include.sources.dropped import RAW_EVENTS
from include.sources.loads import LOADS_CHECKED, lock_entity
from include.warehouse.connect import OWNER, connect
from include.warehouse.history import changes
from include.warehouse.lock import keep_builds_out
from include.warehouse.publish import kept_runs
from include.warehouse.retention import drop_old_runs

POLICY = Path(__file__).parent / "retention.csv"
THINGS = (
    "published_runs",
    RAW_EVENTS,
    "superseded_events",
    "quarantined_rows",
    "mart_days",
    "scores",
    "checks",
    "dbt_nodes",
    "airflow_runs",
    "task_logs",
)
# Owned by the role on the left, which alone may vacuum them.
BIG_TABLES = {
    OWNER: (
        "raw_files.order_lines",
        "raw_files.events",
        "raw_files.superseded_events",
        "quarantine.rows",
        "audit.checks",
        "audit.dbt_nodes",
        "ml.scores",
        "ml.drift",
        "ml.account_clusters",
        "ml.recommendations",
    ),
    "transformer": ("intermediate.%", "marts.%"),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removed:
    """What was removed of one thing: rows, files or runs, dated before `older_than` (None where it is a count)."""

    thing: str
    older_than: date | None
    removed: int


def keep(as_of: date) -> dict[str, int]:
    """Return how many days (or how many, for published_runs) of each thing are kept on a date.

    Raises StratumError where the policy names an unknown thing, lacks one, or says neither or both.
    """
    kept: dict[str, int] = {}
    with POLICY.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["effective_from"])
    for row in rows:
        if row["thing"] not in THINGS or bool(row["keep_days"]) == bool(row["keep_count"]):
            raise StratumError(
                f"{POLICY}: the row of '{row['thing']}' needs keep_days or keep_count of {THINGS}."
            )
        if date.fromisoformat(row["effective_from"]) <= as_of:
            kept[row["thing"]] = int(row["keep_days"] or row["keep_count"])
    if missing := set(THINGS) - set(kept):
        raise StratumError(f"{POLICY} says nothing of {', '.join(sorted(missing))} as of {as_of}.")
    return kept


def newest_published() -> date | None:
    """Return the published date, from which the age of everything is counted; None before the first publish."""
    with connect("housekeeper") as connection:
        row = connection.execute("select as_of_date from published.current_run").fetchone()
    return row[0] if row else None


def tidy_warehouse() -> list[Removed]:
    """Remove what is older than policy keeps, each thing in a transaction of its own; return what was removed.

    Safe to repeat: a second run finds nothing. Raises TransientError where a build is at work while events or
    days of the marts are to be dropped; what came before it is done and written down.
    """
    as_of = newest_published()
    if as_of is None:
        log.info("Nothing is published yet, so nothing is old.")
        return []
    kept = keep(as_of)
    done = [Removed("published_runs", None, len(drop_old_runs(kept["published_runs"])))]
    record(as_of, done[0])
    for thing, remove in REMOVERS.items():
        before = as_of - timedelta(days=kept[thing])
        with connect("housekeeper") as connection:
            removed = remove(connection, before)
            _record(connection, as_of, removed)
        done.append(removed)
    before = as_of - timedelta(days=kept["mart_days"])
    with connect("transformer") as connection:
        marts = _drop_mart_days(connection, before)
    record(as_of, marts)
    return [removed for removed in (*done, marts) if removed.removed]


def record(as_of: date, removed: Removed) -> None:
    """Write a removal down in audit.housekeeping; nothing removed is no row."""
    with connect("housekeeper") as connection:
        _record(connection, as_of, removed)


def vacuum_and_analyze() -> int:
    """Give the space of deleted rows back and count anew, each table as its owner; return how many tables.

    A table that someone else is vacuuming is left to them.
    """
    done = 0
    for role, patterns in BIG_TABLES.items():
        with connect(role) as connection:
            connection.autocommit = True
            tables = connection.execute(
                "select schemaname, tablename from pg_tables where tableowner = current_user "
                "and schemaname || '.' || tablename like any(%s) order by 1, 2",
                [list(patterns)],
            ).fetchall()
            for table in tables:
                connection.execute(
                    sql.SQL("vacuum (analyze, skip_locked, truncate false) {}").format(sql.Identifier(*table))
                )
            done += len(tables)
    return done


def _record(connection: psycopg.Connection, as_of: date, removed: Removed) -> None:
    if removed.removed == 0:
        return
    connection.execute(
        "insert into audit.housekeeping (as_of_date, thing, older_than, removed) values (%s, %s, %s, %s)",
        [as_of, removed.thing, removed.older_than, removed.removed],
    )
    log.info(
        "Removed %d of %s%s.",
        removed.removed,
        removed.thing,
        f", before {removed.older_than}" if removed.older_than else "",
    )


def _drop_events(connection: psycopg.Connection, before: date) -> Removed:
    """Drop the events of days that are rolled up for good: none of a day that waits in the queue, nor after it.

    From then on those days stand as they were rolled up: the loader does not land them again
    (include/sources/dropped.py), and a full rebuild takes them over (macros/closed_days.sql).
    """
    oldest = connection.execute("select min(usage_date) from raw_files.event_file_days").fetchone()
    company = connection.execute("select timezone from audit.company").fetchone()
    if oldest is None or oldest[0] is None or company is None or oldest[0] >= before:
        return Removed(RAW_EVENTS, before, 0)
    lock_entity(connection, "behavior", "events")
    keep_builds_out(connection, "old events cannot be dropped")
    queued = connection.execute("select min(usage_date) from intermediate.usage_day_queue").fetchone()
    if queued is not None and queued[0] is not None:
        before = min(before, queued[0])
    end = day_end(before - timedelta(days=1), company[0])
    connection.execute(
        "delete from raw_files.superseded_events as superseded using raw_files.events as event "
        "where event.file_id = superseded.file_id and event.source_row = superseded.source_row and event.event_at < %s",
        [end],
    )
    connection.execute("delete from raw_files.event_file_days where usage_date < %s", [before])
    deleted = connection.execute("delete from raw_files.events where event_at < %s", [end])
    return Removed(RAW_EVENTS, before, deleted.rowcount)


def _drop_superseded(connection: psycopg.Connection, before: date) -> Removed:
    """Drop events that gave way to a load of a date long ago, with what names them; no build reads either."""
    lock_entity(connection, "behavior", "events")
    connection.execute(
        "create temp table given_way on commit drop as select file_id, source_row "
        "from raw_files.superseded_events join audit.loads using (load_seq) where as_of_date < %s",
        [before],
    )
    deleted = connection.execute(
        "delete from raw_files.events as event using given_way "
        "where event.file_id = given_way.file_id and event.source_row = given_way.source_row"
    )
    connection.execute(
        "delete from raw_files.superseded_events as superseded using given_way "
        "where superseded.file_id = given_way.file_id and superseded.source_row = given_way.source_row"
    )
    return Removed("superseded_events", before, deleted.rowcount)


def _drop_quarantined(connection: psycopg.Connection, before: date) -> Removed:
    deleted = connection.execute(
        "delete from quarantine.rows using audit.loads where last_load_id = load_id and as_of_date < %s",
        [before],
    )
    return Removed("quarantined_rows", before, deleted.rowcount)


def _drop_scores(connection: psycopg.Connection, before: date) -> Removed:
    kept = [run.run_id for run in kept_runs(changes(connection))]
    removed = 0
    for table in ("scores", "drift", "account_clusters", "cluster_medians", "cluster_runs"):
        statement = sql.SQL("delete from {} where as_of_date < %s and not run_id = any(%s)")
        removed += connection.execute(statement.format(sql.Identifier("ml", table)), [before, kept]).rowcount
    # Lists are those of a fit, which the newer fits follow; how it was chosen stays.
    removed += connection.execute(
        "delete from ml.recommendations where as_of_date < %s and not fit_id in "
        "(select fit_id from ml.recommendation_runs where run_id = any(%s) and fit_id is not null)",
        [before, kept],
    ).rowcount
    return Removed("scores", before, removed)


def _drop_checks(connection: psycopg.Connection, before: date) -> Removed:
    # That one is no result but the raw gate's memory of the loads it has passed.
    deleted = connection.execute(
        "delete from audit.checks where as_of_date < %s and expectation <> %s", [before, LOADS_CHECKED]
    )
    return Removed("checks", before, deleted.rowcount)


def _drop_nodes(connection: psycopg.Connection, before: date) -> Removed:
    deleted = connection.execute("delete from audit.dbt_nodes where as_of_date < %s", [before])
    return Removed("dbt_nodes", before, deleted.rowcount)


def _drop_mart_days(connection: psycopg.Connection, before: date) -> Removed:
    """Drop the rows of the account marts on days that are no month-end.

    No build is let in meanwhile: it could restate a few accounts of a day that is going, and leave that day in part.
    """
    tables = connection.execute(
        "select distinct table_name from information_schema.columns join pg_tables "
        "on table_schema = schemaname and table_name = tablename "
        "where table_schema = 'marts' and table_name like 'account\\_%' and column_name = 'as_of_date' order by 1"
    ).fetchall()
    old_days: list[tuple[sql.Identifier, list[date]]] = []
    for (table,) in tables:
        name = sql.Identifier("marts", table)
        days = connection.execute(
            sql.SQL("select distinct as_of_date from {} where as_of_date < %s").format(name), [before]
        ).fetchall()
        if old := [day for (day,) in days if not is_month_end(day)]:
            old_days.append((name, old))
    if old_days:
        keep_builds_out(connection, "old days of the marts cannot be dropped")
    removed = sum(
        connection.execute(sql.SQL("delete from {} where as_of_date = any(%s)").format(name), [old]).rowcount
        for name, old in old_days
    )
    return Removed("mart_days", before, removed)


def is_month_end(day: date) -> bool:
    """Tell whether a day is the last of its month."""
    return day.day == calendar.monthrange(day.year, day.month)[1]


REMOVERS: Mapping[str, Callable[[psycopg.Connection, date], Removed]] = {
    RAW_EVENTS: _drop_events,
    "superseded_events": _drop_superseded,
    "quarantined_rows": _drop_quarantined,
    "scores": _drop_scores,
    "checks": _drop_checks,
    "dbt_nodes": _drop_nodes,
}
