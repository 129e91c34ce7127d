"""Each KPI is a metric of MetricFlow, written from the same definition, and says what the KPI table says."""

import csv
import math
from collections.abc import Iterator
from datetime import date, datetime
from types import SimpleNamespace

import psycopg
import pytest
import yaml
from metricflow.engine.metricflow_engine import MetricFlowEngine, MetricFlowQueryRequest
from metricflow.protocols.sql_client import SqlEngine
from metricflow.sql.render.postgres import PostgresSQLSqlPlanRenderer
from metricflow_semantic_interfaces.protocols.semantic_manifest import SemanticManifest
from metricflow_semantic_interfaces.validations.semantic_manifest_validator import SemanticManifestValidator
from metricflow_semantics.model.dbt_manifest_parser import parse_manifest_from_dbt_generated_manifest
from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup

from docs.generators.metrics import DEFINITIONS, METRICS, TABLE, generated
from docs.generators.mf import project_for_metricflow, run_mf
from include.dbt import build
from tests.conftest import Warehouse, fresh_warehouse
from tests.fixtures.market import MarketFiles

AS_OF = date(2025, 6, 20)
Cells = dict[tuple[date, str], float]


class Asked:
    """A built warehouse, and MetricFlow as it asks it."""

    def __init__(self, warehouse: Warehouse, manifest: SemanticManifest) -> None:
        self.warehouse, self.manifest = warehouse, manifest
        client = SimpleNamespace(
            sql_engine_type=SqlEngine.POSTGRES, sql_plan_renderer=PostgresSQLSqlPlanRenderer()
        )
        self.engine = MetricFlowEngine(SemanticManifestLookup(manifest), client)
        self.metrics = {metric["name"]: metric for metric in yaml.safe_load(METRICS.read_text())["metrics"]}

    def metric(self, name: str, dimensions: list[str]) -> Cells:
        """Return a metric by date and the dimensions' values, joined; what has no value is left out."""
        explained = self.engine.explain(
            MetricFlowQueryRequest.create(
                metric_names=[name], group_by_names=["metric_time__day", *dimensions]
            )
        )
        with psycopg.connect(self.warehouse.owner_url) as connection:
            rows = connection.execute(explained.sql_statement.sql).fetchall()
        return {
            (day.date() if isinstance(day, datetime) else day, " ".join(map(str, values))): float(value)
            for day, *values, value in rows
            if value is not None and None not in values
        }

    def dates_of(self, fact: str) -> set[date]:
        """Return the dates that a fact has rows of."""
        return {day for (day,) in self.warehouse.rows(f"select distinct as_of_date from marts.{fact}")}

    def table(self, kpi: str, dimension: str) -> Cells:
        """Return what the KPI table holds of a KPI by one of its dimensions, as `metric` does."""
        rows = self.warehouse.rows(
            "select as_of_date, dimension_value, value from marts.kpis where kpi = %s and dimension = %s "
            "and value is not null",
            kpi,
            dimension,
        )
        return {(day, value): float(number) for day, value, number in rows}


@pytest.fixture(scope="module")
def asked(cluster, without_data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("market")
    files = MarketFiles(folder, runs=1, seed=5)
    files.write(0)
    with fresh_warehouse(cluster, without_data, folder / "home") as warehouse:
        files.load(AS_OF)
        for layer in ("staging", "marts"):
            build(layer, AS_OF, "run-1")
        with project_for_metricflow() as project:
            parsed = parse_manifest_from_dbt_generated_manifest(
                (project / "target" / "semantic_manifest.json").read_text()
            )
        yield Asked(warehouse, parsed)


def test_metrics_are_those_that_the_kpi_families_define() -> None:
    assert METRICS.read_text(encoding="utf-8") == generated(), "run `make generate`"
    with DEFINITIONS.open(newline="", encoding="utf-8") as file:
        defined = {row["kpi"] for row in csv.DictReader(file)}
    metrics = yaml.safe_load(METRICS.read_text(encoding="utf-8"))["metrics"]
    assert {metric["name"] for metric in metrics} >= defined


@pytest.mark.extended
def test_metricflow_finds_the_metrics_valid(asked: Asked) -> None:
    told = SemanticManifestValidator[SemanticManifest]().validate_semantic_manifest(asked.manifest)
    assert [str(issue) for issue in told.all_issues] == []


@pytest.mark.extended
def test_the_command_of_metricflow_finds_them_valid_on_the_warehouse_too(asked: Asked) -> None:
    told = run_mf(["validate-configs"], capture=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Successfully validated the semantics" in told.stdout + told.stderr


@pytest.mark.extended
def test_every_kpi_equals_its_metric_on_every_date_and_by_every_dimension(asked: Asked) -> None:
    compared = 0
    differing = []
    for name, metric in asked.metrics.items():
        meta = metric["config"]["meta"]
        if name != meta["kpi"]:
            continue
        pairs = {"company": (name, [])} | {
            dimension: (name, [column]) for dimension, column in meta["dimensions"].items()
        }
        for dimension, (asked_name, columns) in pairs.items():
            table = asked.table(name, dimension)
            if dimension == "company":
                table = {(day, ""): value for (day, _), value in table.items()}
            metric_says = asked.metric(asked_name, columns)
            # A fact without a row on a date has nothing to group; the table has a row of the company on each.
            there = asked.dates_of(meta["measured_on"])
            table = {(day, group): value for (day, group), value in table.items() if day in there}
            compared += len(table)
            differing += [
                (name, dimension, cell, table.get(cell), metric_says.get(cell))
                for cell in table.keys() | metric_says.keys()
                if not _same(table.get(cell), metric_says.get(cell))
            ]
    assert differing == []
    assert compared > 100
    dates = asked.warehouse.value("select count(distinct as_of_date) from marts.kpis where value is not null")
    assert dates > 6  # type: ignore[operator]


@pytest.mark.extended
def test_a_kpi_of_the_table_alone_is_asked_by_group(asked: Asked) -> None:
    names = [name for name, metric in asked.metrics.items() if metric["config"]["meta"]["kpi"] != name]
    for name in names:
        kpi = asked.metrics[name]["config"]["meta"]["kpi"]
        rows = asked.warehouse.rows(
            "select as_of_date, dimension || ' ' || dimension_value, value from marts.kpis "
            "where kpi = %s and dimension <> 'company' and value is not null",
            kpi,
        )
        says = asked.metric(name, [f"{TABLE}__dimension", f"{TABLE}__dimension_value"])
        assert says == {(day, group): pytest.approx(float(value)) for day, group, value in rows}, name


@pytest.mark.extended
def test_a_month_is_its_last_date(asked: Asked) -> None:
    """Dates do not add up: of a month that was built on several days the metric is that of the last."""
    explained = asked.engine.explain(
        MetricFlowQueryRequest.create(metric_names=["retention_90d"], group_by_names=["metric_time__month"])
    )
    with psycopg.connect(asked.warehouse.owner_url) as connection:
        by_month = {row[0].date(): row[1] for row in connection.execute(explained.sql_statement.sql)}
    last = asked.warehouse.rows(
        "select month, value from marts.kpis as kpis where kpi = 'retention_90d' and dimension = 'company' "
        "and as_of_date = (select max(as_of_date) from marts.kpis as later where later.month = kpis.month)"
    )
    assert {month: value for month, value in by_month.items() if value is not None} == {
        month: pytest.approx(float(value), abs=1e-6) for month, value in last if value is not None
    }


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    # The table keeps six places of a value, and four of what it divides.
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-5)
