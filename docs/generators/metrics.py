"""Writes the metrics of MetricFlow from the KPI families: `python -m docs.generators.metrics`.

A KPI is defined once, in its family (models/marts/kpis, models/marts/growth): the sums of a fact that it divides. The
same sums become measures on that fact and the KPI a metric of them, to be asked by any dimension and date of the fact.
Where a family does more than add up, or the KPI table tells a value only once there is enough to tell it of, the metric
reads the KPI table.
"""

import csv
from collections.abc import Iterable
from typing import Any

import sqlglot
import yaml
from sqlglot import exp

from docs.generators.kpi_models import Kpi, Sums, kpis
from include.dbt import DBT_PROJECT

METRICS = DBT_PROJECT / "models" / "marts" / "metrics" / "kpi_metrics.yml"
DEFINITIONS = DBT_PROJECT / "seeds" / "policy" / "kpi_definitions.csv"
HEADER = """# Written by `make generate` from the KPI families and kpi_definitions.csv: change those, not this file.
# Each metric's config.meta tells where it is measured, and which dimension of it the KPI table calls how.
"""
TABLE = "kpi_value"
"""The entity of the KPI table, and its measure."""
LAST_DATE = {"name": "as_of_date", "window_choice": "max"}
"""Each date has all rows of its own: of several dates the last one counts."""
AGGREGATES: dict[type[exp.Expression], str] = {exp.Sum: "sum", exp.Max: "max", exp.Min: "min"}


class _Plain(yaml.SafeDumper):
    """Writes what is told twice twice, not as an anchor."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def generated() -> str:
    """Return the file METRICS as the project stands."""
    defined = _definitions()
    found = {name: kpi for name, kpi in kpis().items() if name in defined}
    facts: dict[str, list[Kpi]] = {}
    for kpi in found.values():
        if kpi.sums is not None and _aggregates(kpi) is not None and not _is_told_later(defined[kpi.name]):
            facts.setdefault(kpi.sums.fact, []).append(kpi)
    of_facts = {kpi.name for made in facts.values() for kpi in made}
    semantic_models = [_semantic_model(fact, made) for fact, made in sorted(facts.items())]
    metrics: list[dict[str, Any]] = []
    for name, definition in defined.items():
        if name in of_facts:
            metrics.append(_metric(found[name], definition))
        else:
            metrics += _metrics_of_the_table(name, definition)
    document = {"version": 2, "semantic_models": [*semantic_models, _table_model()], "metrics": metrics}
    return HEADER + yaml.dump(document, Dumper=_Plain, sort_keys=False, width=116, allow_unicode=True)


def _definitions() -> dict[str, dict[str, str]]:
    """Return the newest definition of each KPI by name."""
    with DEFINITIONS.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["effective_from"])
    return dict(sorted({row["kpi"]: row for row in rows}.items()))


def _is_told_later(definition: dict[str, str]) -> bool:
    """Return whether a KPI waits for years of data or for its month's end, which the sums of a fact know nothing of."""
    return bool(definition["needs_days"]) or definition["needs_whole_month"] == "true"


def entity_of(fact: str) -> str:
    """Return the name of what a row of a fact is: account_months has rows of an account_month."""
    return fact.removesuffix("s")


def measure_of(kpi: Kpi, sum_name: str) -> str:
    """Return the name of the measure that a sum of a KPI's family is: unique among all families."""
    return f"{kpi.family.removeprefix('kpi_')}_sum_{sum_name}"


def _aggregates(kpi: Kpi) -> dict[str, dict[str, Any]] | None:
    """Return agg, expr and whether nothing counts as 0, by name, of the sums a KPI uses; None where one is no plain one."""
    assert kpi.sums is not None  # noqa: S101 - the caller has looked
    used = _names(part for key, part in kpi.parts.items() if key != "reason")
    if not used <= kpi.sums.aggregates.keys():
        return None
    made = {}
    for name in used:
        told = sqlglot.parse_one(kpi.sums.aggregates[name], dialect="postgres")
        is_zero = isinstance(told, exp.Coalesce) and [str(other) for other in told.expressions] == ["0"]
        inner = told.this if is_zero else told
        if isinstance(inner, exp.Count) and isinstance(inner.this, exp.Distinct):
            agg, argument = "count_distinct", inner.this.expressions[0]
        elif isinstance(inner, exp.Count):
            agg, argument = "count", inner.this
        elif type(inner) in AGGREGATES:
            agg, argument = AGGREGATES[type(inner)], inner.this
        else:
            return None
        made[name] = {"agg": agg, "expr": "1" if str(argument) == "*" else argument.sql(dialect="postgres")}
        made[name]["is_zero"] = is_zero or agg.startswith("count")
    return made


def _names(expressions: Iterable[str]) -> set[str]:
    return {
        column.name
        for expression in expressions
        for column in sqlglot.parse_one(expression, dialect="postgres").find_all(exp.Column)
    }


def dimensions_of(sums: Sums) -> dict[str, str]:
    """Return, for each dimension of the KPI table, the name of the fact's dimension that it is."""
    return {
        dimension: column if column.isidentifier() else dimension
        for dimension, column in sums.dimensions.items()
    }


def _semantic_model(fact: str, made: list[Kpi]) -> dict[str, Any]:
    measures: dict[str, dict[str, Any]] = {}
    dimensions: dict[str, str] = {}
    for kpi in made:
        assert kpi.sums is not None  # noqa: S101 - as sorted above
        for name, how in (_aggregates(kpi) or {}).items():
            measures[measure_of(kpi, name)] = {"agg": how["agg"], "expr": how["expr"]}
        for dimension, name in dimensions_of(kpi.sums).items():
            dimensions[name] = kpi.sums.dimensions[dimension]
    return {
        "name": fact,
        "description": f"What the rows of {fact} add up to on a date; of a month or a year, on its last one.",
        "model": f"ref('{fact}')",
        "defaults": {"agg_time_dimension": "as_of_date"},
        "primary_entity": entity_of(fact),
        "dimensions": [
            _time(),
            *({"name": name, "type": "categorical", "expr": sql} for name, sql in sorted(dimensions.items())),
        ],
        "measures": [
            {"name": name, "create_metric": True, **how, "non_additive_dimension": LAST_DATE}
            for name, how in sorted(measures.items())
        ],
    }


def _time() -> dict[str, Any]:
    return {"name": "as_of_date", "type": "time", "type_params": {"time_granularity": "day"}}


def _metric(kpi: Kpi, definition: dict[str, str]) -> dict[str, Any]:
    """Return a KPI as a metric of sums of its fact."""
    assert kpi.sums is not None  # noqa: S101 - as sorted above
    how = _aggregates(kpi) or {}
    numerator, denominator = kpi.parts.get("numerator"), kpi.parts.get("denominator")
    plain = {name for name in how if not how[name]["is_zero"]}
    if "value" not in kpi.parts and {numerator, denominator} <= plain:
        kind: dict[str, Any] = {
            "type": "ratio",
            "type_params": {
                "numerator": measure_of(kpi, str(numerator)),
                "denominator": measure_of(kpi, str(denominator)),
            },
        }
    else:
        expression = kpi.parts.get("value") or f"cast({numerator} as numeric)"
        if "value" not in kpi.parts and denominator is not None:
            expression += f" / nullif({denominator}, 0)"
        kind = {
            "type": "derived",
            "type_params": {
                "expr": _in_measures(kpi, expression, how),
                "metrics": [{"name": measure_of(kpi, name)} for name in sorted(how)],
            },
        }
    dimensions = {
        dimension: f"{entity_of(kpi.sums.fact)}__{name}"
        for dimension, name in dimensions_of(kpi.sums).items()
    }
    return _described(kpi.name, definition, kind, {"measured_on": kpi.sums.fact, "dimensions": dimensions})


def _in_measures(kpi: Kpi, expression: str, how: dict[str, dict[str, Any]]) -> str:
    def measured(node: exp.Expression) -> exp.Expression:
        if not isinstance(node, exp.Column):
            return node
        measure = exp.column(measure_of(kpi, node.name))
        return exp.func("coalesce", measure, exp.Literal.number(0)) if how[node.name]["is_zero"] else measure

    return sqlglot.parse_one(expression, dialect="postgres").transform(measured).sql(dialect="postgres")


def _table_model() -> dict[str, Any]:
    return {
        "name": "kpis",
        "description": "The KPI table, for KPIs that are more than sums of one fact.",
        "model": "ref('kpis')",
        "defaults": {"agg_time_dimension": "as_of_date"},
        "primary_entity": TABLE,
        "dimensions": [
            _time(),
            *({"name": name, "type": "categorical"} for name in ("kpi", "dimension", "dimension_value")),
        ],
        "measures": [{"name": TABLE, "agg": "max", "expr": "value", "non_additive_dimension": LAST_DATE}],
    }


def _metrics_of_the_table(name: str, definition: dict[str, str]) -> list[dict[str, Any]]:
    """Return a KPI of the company, and the same by dimension, as read from the KPI table."""

    def reads(metric: str, sign: str, more: dict[str, str]) -> dict[str, Any]:
        kind = {
            "type": "simple",
            "type_params": {"measure": TABLE},
            "filter": f"{{{{ Dimension('{TABLE}__kpi') }}}} = '{name}' "
            f"and {{{{ Dimension('{TABLE}__dimension') }}}} {sign} 'company'",
        }
        return _described(metric, definition | more, kind, {"measured_on": "kpis", "dimensions": {}})

    return [
        reads(name, "=", {}),
        reads(
            f"{name}_by_group",
            "<>",
            {
                "label": f"{definition['label']} by group",
                "formula": f"{definition['formula']}. Group by {TABLE}__dimension and {TABLE}__dimension_value",
            },
        ),
    ]


def _described(
    name: str, definition: dict[str, str], kind: dict[str, Any], meta: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "label": definition["label"],
        "description": f"{definition['formula']} ({definition['requirement']}; {definition['unit']}).",
        **kind,
        "config": {"meta": {"kpi": definition["kpi"], **meta}},
    }


if __name__ == "__main__":
    METRICS.write_text(generated(), encoding="utf-8")
