"""Compiles the project for Spark as dbt-spark would run it, without a Spark: what it would send, node by node.

The connection is a stand-in that holds no table. Everything is compiled twice, as for the first build, when no table is
there, and as for a daily one, when all are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import MagicMock, patch

import agate
import yaml
from dbt.adapters.contracts.connection import AdapterResponse, ConnectionState
from dbt.adapters.spark.connections import SparkConnectionManager
from dbt.adapters.spark.impl import SparkAdapter
from dbt.cli.main import dbtRunner
from dbt.clients.jinja import get_rendered
from dbt.compilation import Compiler
from dbt.context.providers import generate_runtime_model_context

from include.dbt import DBT_PROJECT
from include.errors import StratumError

PROFILE = {
    "stratum": {
        "target": "spark",
        "outputs": {
            "spark": {
                "type": "spark",
                "method": "thrift",
                "host": "127.0.0.1",
                "schema": "staging",
                "threads": 1,
            }
        },
    }
}
VARIABLES = {
    "as_of_date": "2026-06-30",
    "run_id": "run",
    "company_timezone": "Asia/Shanghai",
    "reporting_currency": "CNY",
    "definition": "definition",
    "features_definition": "definition",
    "kpi_definition": "definition",
}


@dataclass(frozen=True)
class Compiled:
    """A node as Spark would get it: its query, and the statements of its hooks; `config` is dbt's of the node."""

    name: str
    kind: str
    query: str
    hooks: tuple[str, ...]
    config: Any


def compile_for_spark() -> dict[bool, list[Compiled]]:
    """Return all models and tests, compiled as for a daily build (True) and as for the first one (False).

    Raises StratumError, naming the node, where one does not compile.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # dbt's threads may still write
        Path(folder, "profiles.yml").write_text(yaml.safe_dump(PROFILE), encoding="utf-8")
        options = [
            *("--project-dir", str(DBT_PROJECT), "--profiles-dir", folder, "--target-path", folder),
            *("--log-path", folder, "--quiet", "--no-partial-parse", "--no-write-json"),
        ]
        parsed = dbtRunner().invoke(["parse", *options])
        if not parsed.success:
            raise StratumError(f"The project cannot be read for Spark: {parsed.exception}")
        return {
            tables_are_there: list(_compile(parsed.result.deepcopy(), options, tables_are_there))  # type: ignore[union-attr]
            for tables_are_there in (False, True)
        }


def _compile(manifest: Any, options: list[str], tables_are_there: bool) -> Iterator[Compiled]:
    hooks: dict[str, tuple[str, ...]] = {}
    compile_node = Compiler.compile_node

    def compile_with_hooks(self: Any, node: Any, manifest: Any, *given: Any, **named: Any) -> Any:
        compiled = compile_node(self, node, manifest, *given, **named)
        if node.resource_type == "model":
            context = generate_runtime_model_context(node, self.config, manifest)
            texts = [
                get_rendered(hook.sql, context, node)
                for hook in (*node.config.pre_hook, *node.config.post_hook)
            ]
            hooks[node.unique_id] = tuple(text.strip() for text in texts if text.strip())
        return compiled

    with patch.object(Compiler, "compile_node", compile_with_hooks), _no_spark(tables_are_there):
        outcome = dbtRunner(manifest=manifest).invoke(
            [
                *("compile", "--select", "resource_type:model", "resource_type:test"),
                *("--vars", yaml.safe_dump(VARIABLES), "--no-populate-cache", *options),
            ]
        )
    failed = [
        f"{result.node.name}: {result.message}"
        for result in getattr(outcome.result, "results", [])
        if result.status != "success"
    ]
    if not outcome.success:
        raise StratumError(
            f"The project does not compile for Spark: {'; '.join(failed) or outcome.exception}"
        )
    for result in outcome.result.results:  # type: ignore[union-attr]
        node = result.node
        if node.resource_type in ("model", "test"):
            yield Compiled(
                node.name,
                str(node.resource_type),
                node.compiled_code,
                hooks.get(node.unique_id, ()),
                node.config,
            )


@contextmanager
def _no_spark(tables_are_there: bool) -> Iterator[None]:
    """Let dbt-spark think that it is connected: every table is there, or none, and every query has no rows."""

    def opened(connection: Any) -> Any:
        connection.handle, connection.state = MagicMock(), ConnectionState.OPEN
        return connection

    def relation(self: Any, database: str, schema: str, identifier: str) -> Any:
        if not tables_are_there:
            return None
        return self.Relation.create(schema=schema, identifier=identifier, type="table")

    def executed(self: Any, *given: Any, **named: Any) -> tuple[AdapterResponse, agate.Table]:
        return AdapterResponse("OK"), agate.Table([])

    with (
        patch.object(SparkConnectionManager, "open", opened),
        patch.object(SparkAdapter, "get_relation", relation),
        patch.object(SparkAdapter, "execute", executed),
    ):
        yield
