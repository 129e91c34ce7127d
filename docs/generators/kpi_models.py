"""Reads the KPI families: which sums of which fact a KPI is made of, without a database.

A family model sums a fact by the macro sums_by_dimension and makes KPIs of the sums by kpi_rows (macros/kpis.sql). The
model's Jinja is run with these two put aside, so that what they are given is seen, however a model spells it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlglot
from jinja2 import Environment
from sqlglot import exp

from include.dbt import DBT_PROJECT

MARK = re.compile(r"<<(sums|kpis) (\d+)>>")
CTE = re.compile(r"^([a-z_0-9]+) as \(\n(.*?)^\)", re.M | re.S)
WHOLE_FACT = re.compile(
    r"^\s*select(?P<columns>[^;]*?)\bfrom <<ref (?P<model>\w+)>>\s*"
    r"(where as_of_date in \(select \w+\.as_of_date from \w+\)\s*)?$"
)
PASSED_ON = re.compile(
    r"^\s*select\s+(?P<all>\*|\w+\.\*),(?P<columns>.*?)\bfrom (?P<sums>\w+)\b(?P<rest>.*)$", re.S
)


@dataclass(frozen=True)
class Sums:
    """Sums over all rows of one as-of date of a fact (a model), and by dimension: name → SQL of the fact's columns."""

    fact: str
    aggregates: dict[str, str]
    dimensions: dict[str, str]


@dataclass(frozen=True)
class Kpi:
    """How a family makes a KPI.

    `parts` are the expressions (numerator, denominator, value) over `sums`; `sums` is None where the family does more
    between the fact and the KPI than add up, so that the KPI can be read from the table alone.
    """

    name: str
    family: str
    parts: dict[str, str] = field(default_factory=dict)
    sums: Sums | None = None


@cache
def kpis() -> dict[str, Kpi]:
    """Return every KPI of every family by its name, in alphabetical order."""
    found: dict[str, Kpi] = {}
    for path in sorted((DBT_PROJECT / "models" / "marts").rglob("kpi_*.sql")):
        if path.stem != "kpi_dates":
            found |= {kpi.name: kpi for kpi in _family(path)}
    return dict(sorted(found.items()))


def _family(path: Path) -> list[Kpi]:
    sums: list[tuple[str, dict[str, str], dict[str, str]]] = []
    made: list[tuple[str, dict[str, dict[str, str]]]] = []

    def sums_by_dimension(
        dates: str, fact: str, sums_: Mapping[str, str], dimensions: Mapping[str, str]
    ) -> str:
        sums.append((fact, dict(sums_), dict(dimensions)))
        return f"<<sums {len(sums) - 1}>>"

    def kpi_rows(of: str, kpis_: Mapping[str, dict[str, str]]) -> str:
        made.append((of, {name: dict(parts) for name, parts in kpis_.items()}))
        return f"<<kpis {len(made) - 1}>>"

    environment = Environment(autoescape=False, extensions=["jinja2.ext.do"])  # noqa: S701 - SQL, not HTML
    environment.globals.update(_dbt(environment))
    macros = environment.from_string(_macros()).module
    environment.globals.update(
        {name: getattr(macros, name) for name in dir(macros) if not name.startswith("_")}
    )
    environment.globals.update(sums_by_dimension=sums_by_dimension, kpi_rows=kpi_rows)
    ctes = dict(CTE.findall(environment.from_string(path.read_text(encoding="utf-8")).render()))
    return [
        Kpi(name, path.stem, parts, _sums_of(ctes, of, parts, sums))
        for of, named in made
        for name, parts in named.items()
    ]


def _sums_of(
    ctes: dict[str, str],
    name: str,
    parts: dict[str, str],
    sums: list[tuple[str, dict[str, str], dict[str, str]]],
) -> Sums | None:
    """Return the sums that the parts of a KPI are made of; None where something else stands between."""
    body = ctes.get(name, "")
    mark = MARK.fullmatch(body.strip())
    if mark:
        fact_name, aggregates, dimensions = sums[int(mark[2])]
        fact = WHOLE_FACT.match(ctes.get(fact_name, ""))
        if fact is None:
            return None
        added = _columns(fact["columns"])
        if added is None:
            return None
        return Sums(
            fact["model"],
            {key: _of_row(sql, added) for key, sql in aggregates.items()},
            {key: added.get(column, column) for key, column in dimensions.items()},
        )
    passed = PASSED_ON.match(body)
    if passed is None or "<<" in body or re.search(r"\bwhere\b|\bgroup by\b", passed["rest"]):
        return None
    earlier = _sums_of(ctes, passed["sums"], parts, sums)
    used = set(re.findall(r"[a-z_][a-z_0-9]*", " ".join(parts[key] for key in parts if key != "reason")))
    own = set(re.findall(r"\bas ([a-z_0-9]+)\s*(?:,|$)", passed["columns"].strip()))
    return None if earlier is None or used & own else earlier


def _of_row(sql: str, added: dict[str, str]) -> str:
    """Return an aggregate over `fact.<column>` as one over the fact's own columns."""
    return re.sub(r"\bfact\.(\w+)", lambda column: added.get(column[1], column[1]), sql)


def _columns(select_list: str) -> dict[str, str] | None:
    """Return what a select list adds to a table's own columns, as SQL by name; None where that is not one row's own."""
    added = {}
    for column in sqlglot.parse_one(f"select {select_list}", dialect="postgres").selects:
        if column.find(exp.Window, exp.AggFunc, exp.Subquery):
            return None
        if isinstance(column, exp.Alias):
            added[column.alias] = f"({column.this.sql(dialect='postgres')})"
    return added


def _macros() -> str:
    return "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((DBT_PROJECT / "macros").glob("*.sql"))
    )


def _dbt(environment: Environment) -> dict[str, Any]:
    """Return stand-ins for what dbt gives to a model: names instead of tables, and our macros for PostgreSQL."""

    def dispatch(name: str) -> Any:
        return getattr(environment.from_string(_macros()).module, f"default__{name}")

    return {
        "adapter": SimpleNamespace(dispatch=dispatch),
        "return": lambda value: value,
        "ref": lambda model: f"<<ref {model}>>",
        "source": lambda schema, table: f"<<source {schema}.{table}>>",
        "var": lambda name, default=None: f"<<var {name}>>",
        "config": lambda **given: "",
        "is_incremental": lambda: False,
        "execute": False,
        "this": "<<this>>",
        "flags": SimpleNamespace(FULL_REFRESH=False),
    }
