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
LAYERS = {
    "staging": ("path:seeds", "path:models/staging", "path:models/intermediate"),
    "marts": ("path:models/marts",),
    "published": ("path:models/published",),
}
# What the daily models stand on: policy tables and views of the raw rows. They change with the project alone, so a
# build makes them and tests them once for each of its versions; that a policy is in force depends on the date.
GROUND = ("path:seeds", "path:models/staging")
EVERY_DAY = ("path:models/intermediate", "assert_policy_is_in_force")
GROUND_DEFINITION = ("dbt_project.yml", "seeds", "models/staging", "macros", "tests")
GROUND_MARK = "marts.thresholds"  # carries as its comment what the ground was last made from
FULL_SCAN = "tag:full_scan"  # tests that read every raw line: run with a full rebuild, not every day
# The tables that builds add to, and what they are made from. Where any of it changes they are rebuilt.
KEPT_UP = (
    "intermediate.int_account_days",
    "intermediate.int_unattributed_days",
    "intermediate.int_usage_days",
)
DEFINITION = (
    *("models/staging", "models/intermediate", "macros"),
    *("seeds/policy/exchange_rates.csv", "seeds/policy/core_features.csv"),
)
# The mart that is kept for every date; where what it is made from changes, all its dates are rebuilt.
FEATURES = "marts.account_features"
FEATURES_DEFINITION = (
    *DEFINITION,
    "models/marts/core/account_features.sql",
    *("seeds/policy/thresholds.csv", "seeds/policy/deal_stages.csv"),
)
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


def build(layer: str, as_of: date, run_id: str, *, full_refresh: bool = False) -> list[NodeResult]:
    """Build and test one layer as of a date and return the result of each node, in the order they ended.

    `layer` is staging (seeds, staging and intermediate models), marts or published. The staging layer is
    rebuilt in full when asked to, and by itself when the definition of the days (KEPT_UP) has changed since one
    of them was made; FEATURES likewise, for all the dates it holds. What stands as the files say (GROUND) is
    left as it is. Each result is also written to audit.dbt_nodes.

    Raises StratumError naming the failed nodes, or where no load has bound the warehouse to a company.
    """
    nodes = LAYERS[layer]
    lays_ground = False
    if layer == "staging":
        full_refresh = full_refresh or _made_otherwise(KEPT_UP, definition())
        # Seeds of another shape are made anew by a full refresh, too, so it takes the whole layer.
        lays_ground = full_refresh or not _ground_stands()
        if lays_ground:
            _mark_ground(None)
        else:
            nodes = EVERY_DAY
    elif layer == "marts":
        # Of the marts only FEATURES obeys it: the others hold the dates as they were built.
        full_refresh = full_refresh or _made_otherwise((FEATURES,), features_definition())
    arguments = ["build", "--select", *nodes, "--exclude-resource-type", "unit_test"]
    if full_refresh:
        arguments.append("--full-refresh")
    else:
        arguments += ["--exclude", FULL_SCAN]
    results = invoke(arguments, as_of, run_id)
    if not results:
        raise StratumError(f"The dbt layer '{layer}' holds no nodes: {DBT_PROJECT} is not complete.")
    if lays_ground:
        _mark_ground(_fingerprint(GROUND_DEFINITION))
    return results


def invoke(arguments: list[str], as_of: date, run_id: str) -> list[NodeResult]:
    """Run one dbt command with the variables of a run, record its nodes, and return their results.

    Raises StratumError naming the failed nodes, or dbt's own complaint where no node was run.
    """
    from dbt.cli.main import dbtRunner

    with _profile_environment():
        variables = _variables(as_of, run_id)
        home = _home()
        options = [
            *("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)),
            *("--target-path", str(home / "target"), "--log-path", str(home / "logs")),
            *("--log-level", "none", "--log-level-file", "info", "--no-use-colors"),
            *("--no-partial-parse", "--no-write-json", "--cache-selected-only"),
            *("--indirect-selection", "buildable", "--vars", json.dumps(variables)),
        ]
        runner = dbtRunner(manifest=_manifest(options), callbacks=[_log_node])
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
    }


def _made_otherwise(tables: tuple[str, ...], definition: str) -> bool:
    """Return whether one of the tables that are there was made from another definition than this one."""
    with connect("transformer") as connection:
        found = connection.execute(
            "select from unnest(%s::text[]) as name, to_regclass(name) as table_id "
            "where table_id is not null and obj_description(table_id, 'pg_class') is distinct from %s",
            [list(tables), definition],
        ).fetchone()
    return found is not None


def _ground_stands() -> bool:
    """Return whether all of GROUND is there, made from these very files and tested."""
    relations = [f"marts.{seed.stem}" for seed in (DBT_PROJECT / "seeds").rglob("*.csv")]
    relations += [f"staging.{model.stem}" for model in (DBT_PROJECT / "models" / "staging").rglob("*.sql")]
    with connect("transformer") as connection:
        row = connection.execute(
            "select obj_description(to_regclass(%s), 'pg_class') = %s "
            "and not exists (select from unnest(%s::text[]) as name where to_regclass(name) is null)",
            [GROUND_MARK, _fingerprint(GROUND_DEFINITION), relations],
        ).fetchone()
    return bool(row and row[0])


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
def _profile_environment() -> Iterator[None]:
    """Put the transformer's connection where profiles.yml reads it, and take it away again."""
    url = urlsplit(role_url("transformer"))
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


def _manifest(options: list[str]) -> Any:
    """Return the parsed project, from disk where the project is the one that was parsed before.

    Parsing takes longer than a daily build, and dbt would parse anew for every as-of date, since a variable
    changed. No variable is resolved when the project is parsed (tests/dbt holds us to that), so the parsed
    project is the same for every date; it does name the database.
    """
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumaro_encoder, extended_mashumuro_decoder

    kept = manifest_path(os.environ["STRATUM_DBT_DATABASE"])
    if kept.exists():
        manifest = Manifest.from_msgpack(kept.read_bytes(), decoder=extended_mashumuro_decoder)
        manifest.build_flat_graph()
        return manifest
    parsed = dbtRunner().invoke(["parse", *options])
    if not isinstance(parsed.result, Manifest):
        raise StratumError(f"The dbt project cannot be read: {_first_line(str(parsed.exception))}")
    for outdated in _home().glob("manifest-*.msgpack"):
        outdated.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(dir=_home(), delete=False) as half_written:
        half_written.write(parsed.result.to_msgpack(extended_mashumaro_encoder))
    Path(half_written.name).rename(kept)
    return parsed.result


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
