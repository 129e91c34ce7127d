"""Run a gate: check a layer with Great Expectations, write every result down, and stop the chain if one failed."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

# Set before Great Expectations is imported: nothing is sent anywhere.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import psycopg
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context import AbstractDataContext
from great_expectations.datasource.fluent import PostgresDatasource
from psycopg.types.json import Jsonb
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from include.errors import StratumError
from include.quality.docs import context_config, write_docs
from include.quality.limits import limits
from include.quality.suites import GateSuite, TableSuite, load_suite
from include.settings import get_settings
from include.sources.loads import LOADS_CHECKED, ungated_loads
from include.warehouse.connect import connect, role_url
from include.warehouse.lock import hold

log = logging.getLogger(__name__)

SHOWN = 3  # failed checks named in the one line; all of them are in audit.checks and the Data Docs
SOURCE_ABSENT = "source_absent"
MODEL_ABSENT = "model_absent"
NOT_APPLICABLE = "not_applicable"
ROWS_READ = "rows_can_be_read"
NEEDS = {
    "previous_run_id": "there are no scores of the previous run id to compare with",
    "known_outcomes": "no scores of a month-end are published whose window has passed",
}
"""What a table may need to be checked, and what is said where it is not there."""


class GateFailed(StratumError):
    """A gate found what it must not let through. What was published before stands untouched."""


@dataclass(frozen=True)
class GateResult:
    """A gate that passed: how many checks it made (`failed` is 0), what it warns of, and where all can be read."""

    gate: str
    run_id: str
    as_of: date
    checks: int
    failed: int
    docs_url: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One expectation's result, as audit.checks keeps it; one that does not stop the chain warns."""

    table: str
    expectation: str
    column: str | None
    arguments: dict[str, Any]
    success: bool
    observed: dict[str, Any]
    description: str | None = None
    stops: bool = True

    def __str__(self) -> str:
        where = f"{self.table}.{self.column}" if self.column else self.table
        what = f"{self.expectation} ({self.description})" if self.description else self.expectation
        return f"{where}: {what} observed {_brief(self.observed)}"


def run_gate(gate: str, as_of: date, run_id: str) -> GateResult:
    """Run the gate `raw`, `marts`, `scores` or `published` for a run that holds the build lock.

    Every result is committed to audit.checks and shown in the Data Docs, whether the gate passes or not.
    Raises GateFailed, in one line, where an expectation is not met.
    """
    values, loaded = _values(gate, as_of, run_id)
    suite = load_suite(gate, values)
    with connect(suite.role) as connection:
        hold(connection, run_id)
    told = _told_of(suite, as_of)
    checks = _absent(suite, told) + _without_scores(suite, run_id, values)
    # Nor is a table checked that the date says nothing of: where it had to, the books' own check says so.
    left_out = {check.table for check in checks} | {table for table, status in told.items() if status is None}
    # Loads of a source that has since been switched off are checked all the same; a table of scores has no loads.
    tables = [t for t in suite.tables if t.table not in left_out or (t.source, t.entity) in loaded]
    return _judge(suite, tables, checks, as_of, run_id, values["load_ids"])


def run_sync_gate(as_of: date, run_id: str, sync_id: int) -> GateResult:
    """Check the books of a sync that has ended: the gate `sync`, of the published run that was told.

    Writes and raises as `run_gate` does; it needs no build lock, for what it checks is the sync's alone.
    """
    suite = load_suite("sync", {"as_of": as_of, "run_id": run_id, "sync_id": sync_id})
    return _judge(suite, [*suite.tables], [], as_of, run_id)


def _judge(
    suite: GateSuite,
    tables: list[TableSuite],
    known: list[Check],
    as_of: date,
    run_id: str,
    load_ids: list[str] | None = None,
) -> GateResult:
    """Check the tables, write down what was found and what is `known` already, and raise where it must not pass."""
    gate = suite.gate
    with _alone(suite.role):
        context = _open_context()
        checks = known + _check_tables(context, suite, tables, run_id)
        failed = [check for check in checks if not check.success and check.stops]
        warnings = tuple(str(check) for check in checks if not check.success and not check.stops)
        for warning in warnings:
            log.warning("Gate %s warns of run %s (as of %s): %s", gate, run_id, as_of, warning)
        remembered = [_loads_checked(load_ids or [], passed=not failed)] if gate == "raw" else []
        _write_down(suite.role, gate, as_of, run_id, checks + remembered)
        docs = write_docs(context, run_id)
    if failed:
        raise GateFailed(_told(gate, as_of, run_id, failed, len(checks), docs))
    log.info("Gate %s passed for run %s (as of %s): %d checks. %s", gate, run_id, as_of, len(checks), docs)
    return GateResult(gate, run_id, as_of, len(checks), 0, docs, warnings)


@contextmanager
def _alone(role: str) -> Iterator[None]:
    """Let one gate at a time add to the Data Docs: a sync's may meet one of the next date's chain."""
    with connect(role) as connection:
        connection.autocommit = True
        connection.execute("select pg_advisory_lock(hashtextextended('stratum data docs', 0))")
        yield


def _values(gate: str, as_of: date, run_id: str) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """Return what the suites' `$names` stand for, and the (source, entity) of the loads among them.

    The loads are those that no raw gate has passed yet.
    """
    with connect("transformer") as connection:
        company = connection.execute("select timezone, currency from audit.company").fetchone()
        loads = ungated_loads(connection)
    if company is None:
        raise StratumError(
            "The warehouse holds no company yet: load a source before its gate (`stratum run`)."
        )
    return {
        "as_of": as_of,
        "run_id": run_id,
        "timezone": company[0],
        "currency": company[1],
        "load_ids": [load_id for load_id, *_ in loads],
        "previous_run_id": _previous_scores(as_of) if gate == "scores" else None,
    }, {(source, entity) for _, source, entity in loads}


def _told_of(suite: GateSuite, as_of: date) -> dict[str, str | None]:
    """Return what the newest load of the date says of each table that has a source: its status, None without a load."""
    told: dict[str, str | None] = {}
    with connect("transformer") as connection:
        for table in suite.tables:
            if table.source is None:
                continue
            row = connection.execute(
                "select status from audit.loads where as_of_date = %s and source = %s and entity = %s "
                "and status in ('loaded', 'absent') "
                "order by load_seq desc limit 1",
                [as_of, table.source, table.entity],
            ).fetchone()
            told[table.table] = row[0] if row else None
    return told


def _absent(suite: GateSuite, told: dict[str, str | None]) -> list[Check]:
    """Return a check for each table whose source was absent on the date: that it was is written down."""
    return [
        Check(
            table.table,
            SOURCE_ABSENT,
            None,
            {"source": table.source, "entity": table.entity},
            True,
            {"absent": True},
        )
        for table in suite.tables
        if told.get(table.table) == "absent"
    ]


def _previous_scores(as_of: date) -> str | None:
    """Return the run whose scores were published for the newest date before this one, None where none count.

    None count where that set is older than the limit score_shift_days.
    """
    with connect("transformer") as connection:
        row = connection.execute(
            "select run_id, as_of_date from published.history_run where as_of_date < %s order by as_of_date desc limit 1",
            [as_of],
        ).fetchone()
        if row is None or (as_of - row[1]).days > limits(as_of)["score_shift_days"]:
            return None
    return row[0]


def _comparable(connection: psycopg.Connection, model: str, run_id: str, previous_run_id: str) -> bool:
    """Whether an earlier run holds scores of the model, of what it foretells in this run."""
    row = connection.execute(
        "select exists (select from ml.scores where run_id = %(before)s and model = %(model)s) and not exists ("
        "select from ml.runs as now join ml.runs as before using (model) where model = %(model)s "
        "and now.run_id = %(now)s and before.run_id = %(before)s "
        "and (now.definition, now.horizon_days) is distinct from (before.definition, before.horizon_days))",
        {"before": previous_run_id, "now": run_id, "model": model},
    ).fetchone()
    return row is not None and bool(row[0])


def _has_outcomes(connection: psycopg.Connection, model: str, as_of: date) -> bool:
    """Whether it was measured by the date what became of scores of the model."""
    row = connection.execute(
        "select exists (select from ml.calibration_drift where model = %s and measured_as_of <= %s)",
        [model, as_of],
    ).fetchone()
    return row is not None and bool(row[0])


def _without_scores(suite: GateSuite, run_id: str, values: dict[str, Any]) -> list[Check]:
    """Return a check for each table of a model that is absent from the run, or that has nothing to compare with."""
    models = {table.model for table in suite.tables if table.model is not None}
    if not models:
        return []
    with connect("transformer") as connection:
        rows = connection.execute(
            "select model, reason from ml.runs where run_id = %s and model = any(%s) and status = 'absent'",
            [run_id, sorted(models)],
        ).fetchall()
        previous = values["previous_run_id"]
        has = {
            model: {
                "previous_run_id": previous is not None and _comparable(connection, model, run_id, previous),
                "known_outcomes": _has_outcomes(connection, model, values["as_of"]),
            }
            for model in models
        }
    why: dict[str, str] = dict(rows)
    checks = []
    for table in suite.tables:
        if table.model in why:
            observed = {"absent": True, "reason": why[table.model]}
            checks.append(Check(table.table, MODEL_ABSENT, None, {"model": table.model}, True, observed))
        elif table.model is not None and table.needs is not None and not has[table.model][table.needs]:
            observed = {"not_applicable": NEEDS[table.needs]}
            checks.append(Check(table.table, NOT_APPLICABLE, None, {"needs": table.needs}, True, observed))
    return checks


def _loads_checked(load_ids: list[str], passed: bool) -> Check:
    """The check that remembers which loads a raw gate has seen; a later one leaves out those that passed."""
    return Check("audit.loads", LOADS_CHECKED, None, {"load_ids": load_ids}, passed, {"loads": len(load_ids)})


def _open_context() -> AbstractDataContext:
    settings = get_settings()
    config = context_config(settings.home, settings.data_docs)
    return gx.get_context(mode="ephemeral", project_config=config)


def _check_tables(
    context: AbstractDataContext, suite: GateSuite, tables: list[TableSuite], run_id: str
) -> list[Check]:
    # Great Expectations reads a dollar sign as the name of a variable.
    url = role_url(suite.role).replace("postgresql://", "postgresql+psycopg://", 1).replace("$", "%24")
    # One connection, in which the rows of each table are copied once: every expectation would read them anew.
    source = context.data_sources.add_postgres(
        suite.gate,
        connection_string=url,
        create_temp_table=True,
        kwargs={"poolclass": StaticPool},  # type: ignore[call-arg]  # a field of it that its signature leaves out
    )
    run = RunIdentifier(run_name=run_id, run_time=datetime.now(UTC))
    try:
        return [check for table in tables for check in _check_table(context, source, suite.gate, table, run)]
    finally:
        source.get_execution_engine().close()


def _check_table(
    context: AbstractDataContext,
    source: PostgresDatasource,
    gate: str,
    table: TableSuite,
    run: RunIdentifier,
) -> list[Check]:
    name = f"{gate}.{table.table}"
    rows = source.add_query_asset(table.table, query=table.rows).add_batch_definition_whole_table("rows")
    expectations = context.suites.add_or_update(gx.ExpectationSuite(name, expectations=[*table.expectations]))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=rows, suite=expectations)
    )
    try:
        result = definition.run(
            run_id=run, result_format={"result_format": "BASIC", "partial_unexpected_count": SHOWN}
        )
    except DBAPIError as error:  # the table is missing or misses a column: a failed check like any other
        observed = {"exception": str(error.orig)}
        return [Check(table.table, ROWS_READ, None, {"rows": table.rows}, False, observed)]
    return [_check(table.table, one) for one in result.results]


def _check(table: str, result: ExpectationValidationResult) -> Check:
    written = result.to_json_dict()
    config: Any = written["expectation_config"]
    arguments = {name: value for name, value in config["kwargs"].items() if name != "batch_id"}
    stops = config.get("severity", "critical") == "critical"
    if not stops:
        arguments["severity"] = config["severity"]
    observed: Any = written["result"] or {}
    if raised := _raised(written["exception_info"]):
        observed = {**observed, "exception": raised}
    return Check(
        table,
        config["type"],
        arguments.get("column"),
        arguments,
        bool(result.success),
        observed,
        config.get("description"),
        stops,
    )


def _raised(info: Any) -> str | None:
    """Return the message of the exception an expectation ended with: GX files it alone, or under each metric."""
    candidates = [info, *info.values()] if isinstance(info, dict) else []
    for candidate in candidates:
        if isinstance(candidate, dict) and candidate.get("raised_exception"):
            return str(candidate.get("exception_message"))
    return None


def _write_down(role: str, gate: str, as_of: date, run_id: str, checks: list[Check]) -> None:
    """Commit every result, in a transaction of its own: they stand though the gate stops the chain."""
    with connect(role) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into audit.checks (run_id, as_of_date, gate, table_name, expectation, column_name, arguments, "
            "success, observed) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    run_id,
                    as_of,
                    gate,
                    check.table,
                    check.expectation,
                    check.column,
                    Jsonb(check.arguments),
                    check.success,
                    Jsonb(check.observed),
                )
                for check in checks
            ],
        )


def _told(gate: str, as_of: date, run_id: str, failed: list[Check], checks: int, docs: str) -> str:
    shown = "; ".join(str(check) for check in failed[:SHOWN])
    more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    return (
        f"Gate {gate} stopped run {run_id} (as of {as_of}): {len(failed)} of {checks} checks failed: {shown}{more}. "
        f"What is published stands. See {docs}, or audit.checks; what to do: docs/runbooks/gates.md."
    )


def _brief(observed: dict[str, Any]) -> str:
    """Return the part of an observation that fits into a line."""
    if "exception" in observed:
        return " ".join(str(observed["exception"]).split())[:200]
    if rows := observed.get("details", {}).get("unexpected_rows"):
        return f"{observed.get('observed_value')} rows, such as {json.dumps(rows[0], default=str)}"[:240]
    if "unexpected_count" in observed:
        examples = json.dumps(observed.get("partial_unexpected_list", [])[:SHOWN], default=str)
        return f"{observed['unexpected_count']} of {observed.get('element_count')} rows, such as {examples}"[
            :240
        ]
    return str(observed.get("observed_value"))[:240]
