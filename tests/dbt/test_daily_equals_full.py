"""Runs day by day leave what one full rebuild leaves, though rows come late, wrong at first, twice, or move."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from include.dbt import DBT_PROJECT, build, parsed_project, profile_environment
from tests.conftest import Warehouse, database_of, fresh_warehouse
from tests.dbt.conftest import LAYERS, NO_DATA
from tests.dbt.tables import ALL_LAYERS, columns_of, dates_in, differences, of_dates, read_tables
from tests.fixtures.market import MarketFiles

AS_BUILT = (
    "account_profiles",
    *sorted(path.stem for path in (DBT_PROJECT / "models" / "marts" / "segments").rglob("*.sql")),
)
"""People were told these, so dates that were built stay as they were built, in a full rebuild, too."""


def _build(as_of: date, *, full_refresh: bool = False) -> None:
    for layer in LAYERS:
        build(layer, as_of, f"run-{as_of}", full_refresh=full_refresh)


def _take_out_all_but_what_was_told(warehouse: Warehouse, last: date) -> None:
    """Leave of the marts what stays as it was built, of the dates before; drop what can be made from raw rows."""
    views = {view for (view,) in warehouse.rows("select schemaname || '.' || viewname from pg_views")}
    for table, columns in columns_of(warehouse, ("intermediate", "identity", "marts")).items():
        schema, _, name = table.partition(".")
        if table in views:
            continue
        if schema == "marts" and name in AS_BUILT and "as_of_date" in columns:
            warehouse.rows(f"delete from {table} where as_of_date = '{last}'")
        elif table == "marts.built_dates":
            warehouse.rows(f"delete from {table} where as_of_date = '{last}'")
            warehouse.rows(f"update {table} set kpis_stand = false")
        elif name.startswith("int_") and "calibration" not in name:
            warehouse.rows(f"drop table {table} cascade")


def _daily_equals_full(cluster, without_data: str, folder: Path, runs: int) -> None:
    files = MarketFiles(folder, runs, seed=9)
    days = [NO_DATA + timedelta(days=run) for run in range(1, runs + 1)]
    with fresh_warehouse(cluster, without_data, folder / "daily") as daily:
        for run, as_of in enumerate(days):
            files.write(run)
            files.load(as_of)
            _build(as_of)
        remade = _made_by_each_build(daily)
        by_day = read_tables(daily, ALL_LAYERS)
        with fresh_warehouse(cluster, database_of(daily), folder / "full") as full:
            _take_out_all_but_what_was_told(full, days[-1])
            _build(days[-1], full_refresh=True)
            rebuilt = read_tables(full, ALL_LAYERS)
        # The files were worth it: lines came late and were corrected, and companies changed.
        lines = daily.rows(
            "select sum(rows_corrected), sum(rows_new), max(rows_new) from audit.loads where entity = 'order_lines'"
        )
        versions = daily.value("select count(*) - count(distinct record_id) from raw_files.accounts")
    ((corrected, new, at_first),) = lines
    assert min(corrected, new - at_first, versions) > 0
    # KPIs of a day within a month are month to date and stay; those of month-ends are made anew with their features.
    month_ends = {day for day in dates_in(rebuilt) if (day + timedelta(days=1)).day == 1}
    assert len(month_ends) > 6
    dates = {table: {days[-1]} if table in remade else {days[-1], *month_ends} for table in rebuilt}
    assert differences(of_dates(by_day, dates), of_dates(rebuilt, dates)) == {}


def _made_by_each_build(warehouse: Warehouse) -> set[str]:
    """Return the tables that every build makes whole: of the dates that it was to make, of which the last is in each."""
    with profile_environment(warehouse.owner_url):
        nodes = parsed_project().nodes.values()
    return {
        f"{node.schema}.{node.alias}"
        for node in nodes
        if node.resource_type == "model" and node.config.materialized == "table"
    }


@pytest.mark.extended
@pytest.mark.timeout(1800)
def test_two_daily_runs_after_a_day_without_data_leave_what_one_full_rebuild_leaves(
    cluster, without_data: str, tmp_path: Path
) -> None:
    _daily_equals_full(cluster, without_data, tmp_path, runs=2)


@pytest.mark.extended
@pytest.mark.timeout(1800)  # many builds: 140 s on idle cores, several times that on busy ones
def test_five_daily_runs_over_a_month_end_leave_what_one_full_rebuild_leaves(
    cluster, without_data: str, tmp_path: Path
) -> None:
    _daily_equals_full(cluster, without_data, tmp_path, runs=5)
