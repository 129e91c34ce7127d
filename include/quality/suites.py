"""Read a gate's suite from expectations/: which tables, which rows of each, what is expected of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

import yaml
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.metadata_types import FailureSeverity
from psycopg import sql

import include.quality.no_such_rows  # noqa: F401 - makes its expectation known by name
from include.errors import StratumError
from include.quality.limits import limits
from include.settings import PROJECT_DIR

EXPECTATIONS = PROJECT_DIR / "expectations"
GATES = ("raw", "marts", "scores", "published", "sync")
SQL_ARGUMENT = "unexpected_rows_query"
BATCH = "(select * from {batch})"  # Great Expectations gives the rows an alias of its own; a suite gives one that reads


@dataclass(frozen=True)
class TableSuite:
    """What is expected of one table: the query of the rows to check, and the expectations.

    `source` and `entity` name the loads the rows come from, where they come from loads; `model` the model, where
    they come from one; `needs` a name without whose value there is nothing to check.
    """

    table: str
    source: str | None
    entity: str | None
    model: str | None
    needs: str | None
    rows: str
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True)
class GateSuite:
    """A gate's suite: the role that reads its tables, and the suite of each table."""

    gate: str
    role: str
    tables: tuple[TableSuite, ...]


def load_suite(gate: str, values: Mapping[str, Any], folder: Path = EXPECTATIONS) -> GateSuite:
    """Return the suite of a gate with every `$name` filled in from `values` and the limits in force.

    In SQL a name becomes a literal (lists become arrays); elsewhere an argument `$name` becomes the value.
    An expectation of `severity: warning` is told and written down where it is not met, and stops nothing.
    An entry with `models` stands for one of each, whose name ends with the model's, and in which `$model` is the model.
    `values` holds as_of (a date), run_id, and currency, timezone, load_ids, previous_run_id, or for `sync` sync_id.
    Raises StratumError for a gate there is no suite of, and a name nobody gives.
    """
    path = folder / f"{gate}.yml"
    if gate not in GATES or not path.is_file():
        raise StratumError(f"There is no gate '{gate}': the gates are {', '.join(GATES)} ({folder}).")
    document = _read(path.read_text())
    entries = [one for entry in document["tables"] for one in _by_model(entry)]
    in_force = limits(values["as_of"], folder / "limits.csv")
    known = {**values, **{f"limit_{name}": value for name, value in in_force.items()}}
    tables = tuple(
        TableSuite(
            table=entry["table"],
            source=entry.get("source"),
            entity=entry.get("entity"),
            model=entry.get("model"),
            needs=entry.get("needs"),
            rows=_sql(entry["rows"], known | {"model": entry.get("model")}, path),
            expectations=tuple(
                _expectation(written, known | {"model": entry.get("model")}, path)
                for written in entry["expectations"]
            ),
        )
        for entry in entries
    )
    return GateSuite(gate, document["role"], tables)


@lru_cache
def _read(text: str) -> Any:
    """Return a suite as it is written, to be looked at only: the same text is read once."""
    return yaml.safe_load(text)


def _by_model(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entry itself, or, where it names models, one entry for each."""
    if "models" not in entry:
        return [dict(entry)]
    return [
        {
            **entry,
            "model": model,
            "table": f"{entry['table']}_{model}",
        }
        for model in entry["models"]
    ]


def _expectation(written: Mapping[str, Any], known: Mapping[str, Any], path: Path) -> Expectation:
    arguments = {
        name: _sql(value.replace("{batch}", BATCH), known, path)
        if name == SQL_ARGUMENT
        else _value(value, known, path)
        for name, value in written["kwargs"].items()
    }
    return ExpectationConfiguration(
        type=written["type"],
        kwargs=arguments,
        description=written.get("description"),
        severity=FailureSeverity(written.get("severity", "critical")),
    ).to_domain_obj()


def _sql(text: str, known: Mapping[str, Any], path: Path) -> str:
    literals = {name: sql.Literal(value).as_string(None) for name, value in known.items()}
    try:
        return Template(text.strip()).substitute(literals)
    except (KeyError, ValueError) as error:
        raise StratumError(f"{path}: nothing fills in {error} in: {text.strip()[:80]}") from error


def _value(value: Any, known: Mapping[str, Any], path: Path) -> Any:
    if isinstance(value, list):
        return [_value(item, known, path) for item in value]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in known:
            raise StratumError(f"{path}: nothing fills in '{value}'.")
        return known[value[1:]]
    return value
