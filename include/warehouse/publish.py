"""Write-audit-publish with a pointer: copy a finished candidate behind the views, then move one row.

Readers see views `published.<table>` over `published.<table>_by_run`, filtered to the run that the one row of
published.current_run names. A publish adds the run's rows, appends the dated history and moves that row, in one
transaction; rolling back moves it to an earlier run. Nothing a reader can hold a lock on is created, replaced
or dropped, so readers never wait, a statement sees one whole set, and an older snapshot still reads its own.

The tables behind the views are plain, not partitioned, on purpose: docs/contracts/publish.md has the measurement.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from include.errors import StratumError, TransientError
from include.warehouse.connect import connect
from include.warehouse.history import Change, changes, current_and_previous, run_by_date
from include.warehouse.lock import hold
from include.warehouse.roles import role_name

log = logging.getLogger(__name__)

# One row per what, beside the run: unique within a run.
CURRENT_TABLES: dict[str, tuple[str, ...]] = {
    "customer_360": ("account_id",),
    "tier_summary": ("tier",),
    "company_summary": (),
    "kpis": ("month", "kpi", "dimension", "dimension_value"),
    "retention_cohorts": ("cohort_month", "months_since"),
    "reference_results": ("result",),
    "operating_list": ("list", "account_id", "subject_id"),
    "lists": ("list",),
    "usage_report": ("account_id", "month"),
    "freshness": ("source", "entity"),
    "tier_movements": ("account_id",),
    "tier_migrations": ("quarter_start", "tier_before", "tier"),
    "purchase_flow": ("month_as_of", "flow", "tier", "position"),
    "purchase_paths": ("month_as_of", "flow", "tier", "outcome", "place"),
    "experiment_readouts": ("experiment", "metric", "tier", "variant"),
    "churn_causes": ("account_id", "cause"),
    "account_scores": ("account_id", "model"),
    "model_status": ("model",),
    "warning_agreement": ("churn_definition", "told_on", "warning_severity", "churn_risk"),
    "account_clusters": ("account_id",),
    "cluster_profiles": ("cluster_id", "measure"),
    "recommendations": ("account_id", "place"),
    "trials": ("account_id",),
}
HISTORY_TABLE = "account_tiers"
HISTORY_KEY = ("account_id",)
ALL_TABLES = (*CURRENT_TABLES, HISTORY_TABLE)
READERS = ("bi_reader", "syncer", "auditor")

# Publishes, rollbacks and retention go one after the other; nobody else takes this lock.
MUTEX = "select pg_advisory_xact_lock(hashtextextended('stratum published', 0))"
LOCK_TIMEOUT = "10s"
# Adding a column is the one change that needs readers out of the way. Each try waits this long and then lets
# everybody pass, so no reader stands behind a publish that stands behind an idle reader; and it is well under
# the server's deadlock_timeout (1 s), so it is never a reader that is cancelled.
WIDEN_TRY = "100ms"
WIDEN_WAIT_S = 10.0


class PublishBusy(TransientError):
    """Something else holds what the publish needs: nothing was changed, and trying again may succeed."""


@dataclass(frozen=True)
class Published:
    """What a publish or rollback did: the run, its date, whether readers now see it, rows per table."""

    run_id: str
    as_of: date
    moved_pointer: bool
    rows: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class KeptRun:
    """A published run whose rows are still kept, so that it can be rolled back to."""

    run_id: str
    as_of: date
    published_at: datetime
    is_current: bool
    rows: dict[str, int]


def publish(run_id: str, as_of: date) -> Published:
    """Publish the candidate of a run that holds the build lock; all of it or nothing.

    A date older than the published one, and any date that a backfill asked for, fills the dated history and
    leaves the pointer where it is. Publishing a run that is already published changes nothing and says the same
    again. Raises StratumError where the lock is not the run's, a candidate table is missing, empty or another
    run's, a column was removed or retyped, or a backfill made the very date that is published; PublishBusy
    where an open transaction is in the way.
    """
    with publisher_transaction() as connection:
        hold(connection, run_id)
        done = _already_published(connection, run_id)
        if done:
            return done
        columns = {table: _candidate_columns(connection, table) for table in ALL_TABLES}
        for table in ALL_TABLES:
            _check_candidate(connection, table, run_id, as_of)
    _widen_where_needed(run_id, columns)
    with publisher_transaction() as connection:
        hold(connection, run_id)
        for table in ALL_TABLES:
            ensure_table(connection, table, columns[table])
        return _write(connection, run_id, as_of, columns)


def rollback(to_run_id: str | None = None) -> Published:
    """Move the pointer back to the run published before the current one, or to a named run that is kept.

    The dated history goes back with it: the dates of the runs left behind show again what they showed before.
    Naming a run that was left behind brings it forward again. Raises StratumError where there is no such run.
    """
    with publisher_transaction() as connection:
        log_of_changes = changes(connection)
        current, previous = current_and_previous(log_of_changes)
        if current is None:
            raise StratumError("Nothing is published yet, so there is nothing to roll back.")
        target = _target(log_of_changes, current, previous, to_run_id)
        rows = {name: count for name, count in target.rows.items() if name in CURRENT_TABLES}
        _record(connection, target.run_id, target.as_of, "rollback", current.run_id, rows)
        _move_pointer(connection, target.run_id, target.as_of)
        shown = run_by_date(changes(connection))
        connection.execute("delete from published.history_run where not as_of_date = any(%s)", [list(shown)])
        for as_of, run_id in shown.items():
            _show_in_history(connection, run_id, as_of)
    log.info("Rolled back from run %s to run %s (as of %s).", current.run_id, target.run_id, target.as_of)
    return Published(target.run_id, target.as_of, True, rows)


def list_runs() -> list[KeptRun]:
    """Return the published runs whose rows are kept, the newest publish first."""
    with connect("auditor") as connection:
        row = connection.execute("select run_id from published.current_run").fetchone()
        kept = kept_runs(changes(connection))
    return [
        KeptRun(run.run_id, run.as_of, run.at, row is not None and run.run_id == row[0], run.rows)
        for run in reversed(kept)
    ]


def kept_runs(log_of_changes: list[Change]) -> list[Change]:
    """Return the publish of each run whose rows were not dropped, the oldest first."""
    dropped = {change.run_id for change in log_of_changes if change.action == "drop"}
    return [c for c in log_of_changes if c.action == "publish" and c.run_id not in dropped]


def ensure_table(connection: psycopg.Connection, table: str, columns: dict[str, str]) -> None:
    """Create the table behind a published view, and the view with its readers, where they are not there yet.

    `table` is one of ALL_TABLES, `columns` its columns' SQL types by name, those of its key among them. What is there is
    neither replaced nor widened, and nothing is committed: call it in a transaction of the publisher, or of the owner.
    """
    if _columns(connection, "published", f"{table}_by_run"):
        return
    # The run comes first in a current table (one run is read), the date in the history (one date is appended).
    key = (
        ("run_id", *CURRENT_TABLES[table])
        if table in CURRENT_TABLES
        else ("as_of_date", "run_id", *HISTORY_KEY)
    )
    definitions = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()
    ]
    connection.execute(
        sql.SQL("create table {} ({}, primary key ({}))").format(
            _behind(table), sql.SQL(", ").join(definitions), _names(key)
        )
    )
    connection.execute(_view(table, columns))
    known = connection.execute(
        "select rolname from pg_roles where rolname = any(%s)", [[role_name(role) for role in READERS]]
    ).fetchall()
    for (reader,) in known:  # none where one role runs all
        connection.execute(
            sql.SQL("grant select on {} to {}").format(
                sql.Identifier("published", table), sql.Identifier(reader)
            )
        )


@contextmanager
def publisher_transaction() -> Iterator[psycopg.Connection]:
    """A transaction of the publisher that waits a short time for locks and says so when it waits in vain."""
    try:
        with connect("publisher") as connection:
            connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
            connection.execute(MUTEX)
            yield connection
    except psycopg.errors.LockNotAvailable as error:
        raise PublishBusy(
            f"What is published could not be changed within {LOCK_TIMEOUT}: another publish, rollback or "
            "retention is at work. Nothing was changed; try again."
        ) from error


def _already_published(connection: psycopg.Connection, run_id: str) -> Published | None:
    row = connection.execute(
        "select as_of_date, action, rows from audit.publishes where run_id = %s and action in ('publish', 'history')",
        [run_id],
    ).fetchone()
    return Published(run_id, row[0], row[1] == "publish", row[2]) if row else None


def _check_candidate(connection: psycopg.Connection, table: str, run_id: str, as_of: date) -> None:
    counted = connection.execute(
        sql.SQL(
            "select count(*), count(*) filter (where run_id is distinct from %s or as_of_date is distinct from %s), "
            "min(run_id || ' as of ' || as_of_date) filter (where run_id is distinct from %s "
            "or as_of_date is distinct from %s) from {}"
        ).format(sql.Identifier("candidate", table)),
        [run_id, as_of, run_id, as_of],
    ).fetchone()
    rows, foreign, example = counted  # type: ignore[misc]
    if foreign:
        raise StratumError(
            f"candidate.{table} is not that of run {run_id} as of {as_of}: {foreign} of {rows} rows belong to "
            f"run {example}. Nothing was published; build the date again."
        )
    if rows == 0 and table == "customer_360":
        raise StratumError(
            f"candidate.customer_360 of run {run_id} as of {as_of} has no row. Nothing was published; "
            "look at the marts of that date."
        )


def _candidate_columns(connection: psycopg.Connection, table: str) -> dict[str, str]:
    columns = _columns(connection, "candidate", table)
    if not columns:
        raise StratumError(
            f"candidate.{table} is missing. Nothing was published; build the published layer of the run first."
        )
    return columns


def _columns(connection: psycopg.Connection, schema: str, table: str) -> dict[str, str]:
    """Return each column's type by name, in order; empty where there is no such table."""
    rows = connection.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
        [f"{schema}.{table}"],
    ).fetchall()
    return dict(rows)


def _behind(table: str) -> sql.Identifier:
    return sql.Identifier("published", f"{table}_by_run")


def _names(columns: dict[str, str] | tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _view(table: str, columns: dict[str, str]) -> sql.Composed:
    selected = (
        sql.SQL("run_id = (select run_id from published.current_run)")
        if table in CURRENT_TABLES
        else sql.SQL("(as_of_date, run_id) in (select as_of_date, run_id from published.history_run)")
    )
    return sql.SQL("create or replace view {} as select {} from {} where {}").format(
        sql.Identifier("published", table), _names(columns), _behind(table), selected
    )


def _widen_where_needed(run_id: str, candidate: dict[str, dict[str, str]]) -> None:
    """Add the candidate's new columns at the end of the tables and views, before anything is published.

    A transaction of its own, since it is the only one that readers stand in the way of, and rows cannot be
    written before it. Should the publish then fail, readers have a column more, empty: their rows are the same.
    """
    with connect("publisher") as connection:
        wider: dict[str, dict[str, str]] = {}
        for table, columns in candidate.items():
            held = _columns(connection, "published", f"{table}_by_run")
            _refuse_breaking(table, held, columns)
            new = {name: kind for name, kind in columns.items() if name not in held}
            if held and new:
                wider[table] = held | new
    deadline = time.monotonic() + WIDEN_WAIT_S
    while wider:
        try:
            with publisher_transaction() as connection:
                hold(connection, run_id)
                _widen(connection, wider)
            return
        except PublishBusy as error:
            if time.monotonic() > deadline:
                raise PublishBusy(
                    f"Columns could not be added to {', '.join('published.' + table for table in wider)} within "
                    f"{WIDEN_WAIT_S:.0f} s: an open transaction reads them. Nothing was changed; end that "
                    "transaction (see pg_stat_activity) and try again."
                ) from error
            time.sleep(0.2)


def _widen(connection: psycopg.Connection, wider: dict[str, dict[str, str]]) -> None:
    connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(WIDEN_TRY)))
    # Readers lock the view and then its table, so do we.
    for name in [n for table in wider for n in (table, f"{table}_by_run")]:
        connection.execute(
            sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier("published", name))
        )
    for table, columns in wider.items():
        new = list(columns)[len(_columns(connection, "published", f"{table}_by_run")) :]
        for name in new:
            connection.execute(
                sql.SQL("alter table {} add column {} {}").format(
                    _behind(table),
                    sql.Identifier(name),
                    sql.SQL(columns[name]),
                )
            )
        if set(new) & set(CURRENT_TABLES.get(table, ())):
            _widen_key(connection, table)
        connection.execute(_view(table, columns))
        log.info("published.%s has new columns: it is now %s.", table, ", ".join(columns))


def _widen_key(connection: psycopg.Connection, table: str) -> None:
    """Take a new column into the key; of the rows published before it is null, and they are unique as they were."""
    connection.execute(
        sql.SQL("alter table {} drop constraint {}, add unique nulls not distinct (run_id, {})").format(
            _behind(table), sql.Identifier(f"{table}_by_run_pkey"), _names(CURRENT_TABLES[table])
        )
    )


def _refuse_breaking(table: str, held: dict[str, str], columns: dict[str, str]) -> None:
    broken = [
        f"{name} is gone" if name not in columns else f"{name} was {kind} and is {columns[name]}"
        for name, kind in held.items()
        if columns.get(name) != kind
    ]
    if broken:
        raise StratumError(
            f"Breaking change of published.{table}: {'; '.join(broken)}. Nothing was published; "
            f"publish it as {table}_v2 and keep {table} as it is."
        )


def _write(
    connection: psycopg.Connection, run_id: str, as_of: date, columns: dict[str, dict[str, str]]
) -> Published:
    current = connection.execute("select run_id, as_of_date from published.current_run").fetchone()
    is_backfill = _is_backfill(connection, run_id)
    if is_backfill and current is not None and as_of == current[1]:
        raise StratumError(
            f"{as_of} is the date that is published: a backfill cannot fill it beside the set that is read. "
            f"Nothing was published; make it anew with `stratum run --as-of {as_of}`."
        )
    moves = not is_backfill and (current is None or as_of >= current[1])
    tables = ALL_TABLES if moves else (HISTORY_TABLE,)
    rows = {table: _copy(connection, table, columns[table]) for table in tables}
    _show_in_history(connection, run_id, as_of)
    previous = current[0] if current else None
    _record(connection, run_id, as_of, "publish" if moves else "history", previous, rows)
    if moves:
        _move_pointer(connection, run_id, as_of)
    connection.execute(
        "update audit.runs set status = 'published', finished_at = clock_timestamp() where run_id = %s",
        [run_id],
    )
    log.info("Run %s as of %s is published%s: %s.", run_id, as_of, "" if moves else " into the history", rows)
    return Published(run_id, as_of, moves, rows)


def _is_backfill(connection: psycopg.Connection, run_id: str) -> bool:
    row = connection.execute("select is_backfill from audit.runs where run_id = %s", [run_id]).fetchone()
    return row is not None and row[0]


def _copy(connection: psycopg.Connection, table: str, columns: dict[str, str]) -> int:
    key = CURRENT_TABLES.get(table, HISTORY_KEY)
    # In key order, so that the rows of a run lie together and in the order of the index that finds them.
    statement = sql.SQL("insert into {} ({}) select {} from {} order by {}").format(
        _behind(table),
        _names(columns),
        _names(columns),
        sql.Identifier("candidate", table),
        _names((*key, "run_id")),
    )
    try:
        return connection.execute(statement).rowcount
    except (psycopg.errors.UniqueViolation, psycopg.errors.NotNullViolation) as error:
        detail = (error.diag.message_detail or error.diag.message_primary or "").strip()
        raise StratumError(
            f"candidate.{table} does not have one row per {', '.join(key) or 'run'}: {detail} "
            "Nothing was published; look at the model's key."
        ) from error


def _show_in_history(connection: psycopg.Connection, run_id: str, as_of: date) -> None:
    connection.execute(
        "insert into published.history_run (as_of_date, run_id) values (%s, %s) "
        "on conflict (as_of_date) do update set run_id = excluded.run_id",
        [as_of, run_id],
    )


def _record(
    connection: psycopg.Connection,
    run_id: str,
    as_of: date,
    action: str,
    previous: str | None,
    rows: dict[str, int],
) -> None:
    connection.execute(
        "insert into audit.publishes (run_id, as_of_date, action, previous_run_id, rows) values (%s, %s, %s, %s, %s)",
        [run_id, as_of, action, previous, Jsonb(rows)],
    )


def _move_pointer(connection: psycopg.Connection, run_id: str, as_of: date) -> None:
    connection.execute(
        "insert into published.current_run (run_id, as_of_date, published_at) values (%s, %s, clock_timestamp()) "
        "on conflict (is_only) do update set run_id = excluded.run_id, as_of_date = excluded.as_of_date, "
        "published_at = excluded.published_at",
        [run_id, as_of],
    )


def _target(
    log_of_changes: list[Change], current: Change, previous: Change | None, named: str | None
) -> Change:
    kept = {change.run_id: change for change in kept_runs(log_of_changes)}
    choice = f"Kept runs: {', '.join(kept)} (`stratum publish list`)."
    if named is None:
        if previous is None:
            raise StratumError(
                f"No run was published before {current.run_id}: there is nothing to roll back to."
            )
        if previous.run_id not in kept:
            raise StratumError(f"Run {previous.run_id}, published before, is no longer kept. {choice}")
        return previous
    if named == current.run_id:
        raise StratumError(f"Run {named} is what is published now. {choice}")
    if named not in kept:
        raise StratumError(f"Run '{named}' is not a published run that is kept. {choice}")
    return kept[named]
