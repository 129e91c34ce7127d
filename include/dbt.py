"""Run the dbt layers in this process, as the transformer, and put every node's result into the books."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from psycopg import sql

from include.errors import StratumError
from include.settings import PROJECT_DIR, get_settings
from include.warehouse.connect import connect, role_url

# dbt itself is imported where it is used: its import takes a second that only a build should pay.

DBT_PROJECT = PROJECT_DIR / "dbt_project"
# What the daily models stand on: policy tables and views of the raw rows. They change with the project and the company
# alone, so a build makes them and tests them once for each of its versions; that a policy is in force depends on the date.
GROUND = ("path:seeds", "path:models/staging")
LAYERS = {
    "staging": ("path:models/intermediate", "assert_policy_is_in_force"),
    "marts": ("path:models/marts",),
    "published": ("path:models/published", "assert_sync_books_add_up"),
}
GROUND_DEFINITION = ("dbt_project.yml", "seeds", "models/staging", "macros", "tests")
GROUND_MARK = "marts.thresholds"  # carries as its comment what the ground was last made from
# Tests that run with a full rebuild, not every day: those that read every raw line, and those of keys that a unique index
# of the table enforces with every row (dbt_project.yml names the folders, tests/dbt/test_project.py holds them to that).
# Few criteria: dbt takes half a second to find what five pairs of them name.
NOT_EVERY_DAY = ("tag:full_scan", "test_name:unique_combination,tag:indexed")
# The tables that builds add to, and what they are made from. Where any of it changes they are rebuilt.
KEPT_UP = (
    "intermediate.int_account_days",
    "intermediate.int_category_days",
    "intermediate.int_account_categories",
    "intermediate.int_unattributed_days",
    "intermediate.int_usage_days",
    "intermediate.int_flow_sessions",
)
DEFINITION = (
    *("models/staging", "models/intermediate", "macros"),
    *("seeds/policy/exchange_rates.csv", "seeds/policy/core_features.csv", "seeds/policy/flow_steps.csv"),
)
# The mart that is kept for every date; where what it is made from changes, all its dates are rebuilt.
FEATURES = "marts.account_features"
FEATURES_DEFINITION = (
    *DEFINITION,
    "models/marts/core/account_features.sql",
    *("seeds/policy/thresholds.csv", "seeds/policy/deal_stages.csv"),
)
# What KPIs are made by; where it changes, those of all month-ends are made anew.
KPI_DEFINITION = ("models/marts/kpis", "models/marts/growth", "macros", "seeds")
SUCCESS = ("success", "pass", "warn", "no-op")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeResult:
    """What one dbt node did: its unique id, kind (model, seed, test, unit_test), status, time and rows.

    `seconds` is wall time; `rows_affected` is None where the database told none; `message` is the first line
    of what dbt or the database said.
    """

    node_id: str
    resource_type: str
    status: str
    seconds: float
    rows_affected: int | None
    message: str | None


def build(
    layer: str, as_of: date, run_id: str, *, full_refresh: bool = False, only: Iterable[str] = ()
) -> list[NodeResult]:
    """Build and test one layer as of a date and return the result of each node, in the order they ended.

    `layer` is staging (intermediate models, and before them GROUND where it does not stand), marts or published. The
    staging layer is rebuilt in full when asked to, and by itself when the definition of the days (KEPT_UP) has
    changed since one of them was made, or one is missing; FEATURES likewise, for all the dates it holds. Each result
    is also written to audit.dbt_nodes. `only` names models: of the layer no others, and their tests, are built.

    Raises StratumError naming the failed nodes, or where no load has bound the warehouse to a company.
    """
    results: list[NodeResult] = []
    if layer == "staging":
        full_refresh = full_refresh or _made_otherwise(KEPT_UP, definition())
        results = lay_ground(as_of, run_id, anew=full_refresh)
    elif layer == "marts":
        _expect_dates_due(as_of)
        # Of the marts only FEATURES obeys it: the others hold the dates as they were built.
        full_refresh = full_refresh or _made_otherwise((FEATURES,), features_definition())
    # What a model stands on may be of other layers. dbt takes a tenth of a second for each layer it is held against.
    nodes = [
        f"{model},{path}" if model.startswith("+") else model for model in only for path in LAYERS[layer]
    ] or LAYERS[layer]
    results += _build_nodes(nodes, as_of, run_id, full_refresh=full_refresh)
    return results


def lay_ground(as_of: date, run_id: str, *, anew: bool = False) -> list[NodeResult]:
    """Make and test GROUND where it does not stand as its files and the company say, or `anew`, and return its nodes.

    Raises StratumError as `build` does.
    """
    if not anew and _ground_stands():
        return []
    _mark_ground(None)
    # Seeds of another shape are made anew by a full refresh.
    results = _build_nodes(GROUND, as_of, run_id, full_refresh=anew)
    _mark_ground(_ground_definition())
    return results


def _build_nodes(nodes: Iterable[str], as_of: date, run_id: str, *, full_refresh: bool) -> list[NodeResult]:
    arguments = ["build", "--select", *nodes, "--exclude-resource-type", "unit_test"]
    if full_refresh:
        arguments.append("--full-refresh")
    else:
        arguments += ["--exclude", *NOT_EVERY_DAY]
    results = invoke(arguments, as_of, run_id)
    if not results:
        raise StratumError(f"dbt finds no node in {', '.join(nodes)}: {DBT_PROJECT} is not complete.")
    return results


def invoke(arguments: list[str], as_of: date, run_id: str) -> list[NodeResult]:
    """Run one dbt command with the variables of a run, record its nodes, and return their results.

    Raises StratumError naming the failed nodes, or dbt's own complaint where no node was run.
    """
    from dbt.cli.main import dbtRunner

    with profile_environment(role_url("transformer")):
        variables = _variables(as_of, run_id)
        options = [
            *(*_options(), "--no-write-json", "--cache-selected-only"),
            *("--indirect-selection", "buildable", "--vars", json.dumps(variables)),
        ]
        runner = dbtRunner(manifest=parsed_project(), callbacks=[_log_node])
        outcome = runner.invoke([*arguments, *options])
    results = [_node_result(result) for result in getattr(outcome.result, "results", [])]
    _record(results, as_of, run_id)
    failed = [result for result in results if result.status not in (*SUCCESS, "skipped")]
    if failed:
        raise StratumError(f"dbt failed as of {as_of}: {_describe(failed)}")
    if not outcome.success:
        raise StratumError(
            f"dbt failed as of {as_of}: {_first_line(str(outcome.exception or 'no reason given'))}"
        )
    return results


def definition() -> str:
    """Return the fingerprint (sha256, hex) of what the KEPT_UP tables are made from."""
    return _fingerprint(DEFINITION)


def features_definition() -> str:
    """Return the fingerprint (sha256, hex) of what FEATURES is made from."""
    return _fingerprint(FEATURES_DEFINITION)


def _variables(as_of: date, run_id: str) -> dict[str, str]:
    with connect("transformer") as connection:
        company = connection.execute("select timezone, currency from audit.company").fetchone()
    if company is None:
        raise StratumError("The warehouse holds no company yet: run an ingest before a build.")
    return {
        "as_of_date": as_of.isoformat(),
        "run_id": run_id,
        "company_timezone": company[0],
        "reporting_currency": company[1],
        "definition": definition(),
        "features_definition": features_definition(),
        "kpi_definition": _fingerprint(KPI_DEFINITION),
    }


def _expect_dates_due(as_of: date) -> None:
    """Raise StratumError unless the intermediate models were last built for the date: marts read what is due there."""
    with connect("transformer") as connection:
        there = connection.execute("select to_regclass('intermediate.int_dates_due') is not null").fetchone()
        if there and there[0]:
            due = connection.execute(
                "select from intermediate.int_dates_due where as_of_date = %s", [as_of]
            ).fetchone()
            if due is not None:
                return
    raise StratumError(f"The marts of {as_of} cannot be built: build its staging layer first.")


def _made_otherwise(tables: tuple[str, ...], definition: str) -> bool:
    """Return whether some of the tables are there, but not all of them made from this definition."""
    with connect("transformer") as connection:
        row = connection.execute(
            "select count(table_id), count(*) filter (where obj_description(table_id, 'pg_class') = %s) "
            "from unnest(%s::text[]) as name, to_regclass(name) as table_id",
            [definition, list(tables)],
        ).fetchone()
    there, as_defined = row or (0, 0)
    return bool(there) and as_defined < len(tables)


def _ground_stands() -> bool:
    """Return whether all of GROUND is there, made from these very files and tested."""
    relations = [f"marts.{seed.stem}" for seed in (DBT_PROJECT / "seeds").rglob("*.csv")]
    relations += [f"staging.{model.stem}" for model in (DBT_PROJECT / "models" / "staging").rglob("*.sql")]
    with connect("transformer") as connection:
        row = connection.execute(
            "select obj_description(to_regclass(%s), 'pg_class') = %s "
            "and not exists (select from unnest(%s::text[]) as name where to_regclass(name) is null)",
            [GROUND_MARK, _ground_definition(), relations],
        ).fetchone()
    return bool(row and row[0])


def _ground_definition() -> str:
    """Return the fingerprint of what GROUND is made from: its files, and the company that its views speak of."""
    with connect("transformer") as connection:
        company = connection.execute("select timezone, currency from audit.company").fetchone()
    return f"{_fingerprint(GROUND_DEFINITION)} {company}"


def _mark_ground(fingerprint: str | None) -> None:
    """Note what the ground is made from; None while it is being made, so that a failed build makes it again."""
    with connect("transformer") as connection:
        there = connection.execute("select to_regclass(%s) is not null", [GROUND_MARK]).fetchone()
        if there and there[0]:
            schema, _, table = GROUND_MARK.partition(".")
            connection.execute(
                sql.SQL("comment on table {} is {}").format(
                    sql.Identifier(schema, table), sql.Literal(fingerprint)
                )
            )


@contextmanager
def profile_environment(warehouse_url: str) -> Iterator[None]:
    """Put a connection, the transformer's, where profiles.yml reads it, and take it away again."""
    url = urlsplit(warehouse_url)
    values = {
        "STRATUM_DBT_HOST": url.hostname or "127.0.0.1",
        "STRATUM_DBT_PORT": str(url.port or 5432),
        "STRATUM_DBT_USER": unquote(url.username or ""),
        # dbt keeps variables of this prefix out of its logs.
        "DBT_ENV_SECRET_STRATUM_PASSWORD": unquote(url.password or ""),
        "STRATUM_DBT_DATABASE": unquote(url.path.lstrip("/")),
        "STRATUM_DBT_SSLMODE": parse_qs(url.query).get("sslmode", ["prefer"])[0],
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _home() -> Path:
    home = get_settings().home / "dbt"
    home.mkdir(parents=True, exist_ok=True)
    return home


def _options() -> list[str]:
    """Return where dbt finds the project and puts what it writes."""
    home = _home()
    return [
        *("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)),
        *("--target-path", str(home / "target"), "--log-path", str(home / "logs")),
        *("--log-level", "none", "--log-level-file", "info", "--no-use-colors", "--no-partial-parse"),
    ]


def parsed_project() -> Any:
    """Return the parsed project, from disk where the project is the one that was parsed before.

    Needs the profile's environment, and nothing of the warehouse that it names.

    Parsing takes longer than a daily build, and dbt would parse anew for every as-of date, since a variable
    changed. No variable is resolved when the project is parsed (tests/dbt holds us to that), so the parsed
    project is the same for every date; it does name the database.
    """
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumaro_encoder

    kept = manifest_path(os.environ["STRATUM_DBT_DATABASE"])
    if kept.exists():
        return _read_manifest(kept)
    parsed = dbtRunner().invoke(["parse", *_options(), "--no-write-json"])
    if not isinstance(parsed.result, Manifest):
        raise StratumError(f"The dbt project cannot be read: {_first_line(str(parsed.exception))}")
    for outdated in _home().glob("manifest-*.msgpack"):
        outdated.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(dir=_home(), delete=False) as half_written:
        half_written.write(parsed.result.to_msgpack(extended_mashumaro_encoder))
    Path(half_written.name).rename(kept)
    return parsed.result


@lru_cache(maxsize=1)
def _read_manifest(kept: Path) -> Any:
    """Return the parsed project that is kept there; its name says what it was parsed from, so it never changes.

    Reading takes half a second. One command after another may be given the same one, as dbt's documentation has it:
    each compiles anew what it runs (but for ephemeral models, of which there are none: tests/dbt holds us to that).
    """
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    manifest = Manifest.from_msgpack(kept.read_bytes(), decoder=extended_mashumuro_decoder)
    manifest.build_flat_graph()
    return manifest


def manifest_path(database: str) -> Path:
    """Return where the project as it stands, parsed for a database, is kept."""
    parts = (_fingerprint(["."]), version("dbt-core"), version("dbt-postgres"), database)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _home() / f"manifest-{key[:32]}.msgpack"


def _fingerprint(paths: Iterable[str]) -> str:
    """Return one sha256 over the names and contents of the project's files under the paths."""
    digest = hashlib.sha256()
    for path in paths:
        root = DBT_PROJECT / path
        files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
        for file in files:
            digest.update(f"{file.relative_to(DBT_PROJECT)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _node_result(result: Any) -> NodeResult:
    response = result.adapter_response or {}
    return NodeResult(
        node_id=result.node.unique_id,
        resource_type=str(result.node.resource_type),
        status=str(result.status),
        seconds=round(result.execution_time, 3),
        rows_affected=response.get("rows_affected"),
        message=_first_line(result.message) if result.message else None,
    )


def _first_line(text: str) -> str:
    """Return the line that says what is wrong: dbt puts a heading with the node's name above it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].split(" ")[0] in ("Database", "Compilation", "Runtime"):
        return lines[1]
    return lines[0] if lines else ""


def _describe(failed: list[NodeResult]) -> str:
    return "; ".join(f"{result.node_id} ({result.status}): {result.message}" for result in failed)


def _record(results: list[NodeResult], as_of: date, run_id: str) -> None:
    with connect("transformer") as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into audit.dbt_nodes "
            "(run_id, as_of_date, node_id, resource_type, status, seconds, rows_affected, message) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    run_id,
                    as_of,
                    result.node_id,
                    result.resource_type,
                    result.status,
                    result.seconds,
                    result.rows_affected,
                    result.message,
                )
                for result in results
            ],
        )


def _log_node(event: Any) -> None:
    """Log the end of a node as one line; everything else dbt tells goes to its own log file."""
    if event.info.name == "NodeFinished":
        result = event.data.run_result
        log.info("%s %s in %.2f s", event.data.node_info.unique_id, result.status, result.execution_time)
