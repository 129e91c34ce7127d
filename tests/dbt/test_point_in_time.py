"""A date knows nothing of the days after it: built among all rows it equals what it is without the later ones."""

from datetime import date, timedelta
from pathlib import Path

from include.dbt import build
from tests.conftest import Warehouse, database_of, fresh_warehouse
from tests.dbt.tables import Tables, dates_in, differences, read_tables
from tests.fixtures.market import MarketFiles

CUT, LATER = date(2025, 1, 14), date(2025, 6, 20)
"""The date that is built, and the one up to which rows are there. The company begins with 2024."""
EXCLUDED = {
    "marts.account_next_orders": "what happened next: the labels of training, which look ahead on purpose",
    "marts.account_outcomes": "what happened in the days after, likewise",
    "marts.trial_outcomes": "the same of trials",
    "marts.lapse_outcomes": "the same of contracts",
    # A view of all purchases, each with its day; who reads it cuts it off (ml/recommend_runs.py, held by a test of its own).
    "marts.account_purchases": "all purchases, each with its day",
    # Whose account a record's id is, for joins: ids of later records stand in them, and nothing that they say.
    "marts.account_keys": "ids of records",
    "marts.growth_account_keys": "ids of records",
}


def _built(warehouse: Warehouse) -> Tables:
    for layer in ("staging", "marts", "published"):
        build(layer, CUT, "run-of-the-cut")
    return read_tables(warehouse, ("marts", "candidate"), EXCLUDED)


def test_every_mart_and_candidate_equals_what_is_built_without_the_rows_of_later_days(
    cluster, without_data: str, tmp_path: Path
) -> None:
    files = MarketFiles(tmp_path, runs=1, seed=5)
    files.write(0)
    with fresh_warehouse(cluster, without_data, tmp_path / "whole") as whole:
        files.load(CUT)
        with fresh_warehouse(cluster, database_of(whole), tmp_path / "cut") as cut:
            without = _built(cut)
        files.load(LATER)
        later_lines = "select count(*) from raw_files.order_lines where ordered_at >= '2025-01-15'"
        assert whole.value(later_lines)
        among = _built(whole)
    assert {"marts.account_features", "marts.account_tiers", "candidate.customer_360"} <= {
        table for table, rows in among.items() if rows
    }
    month_ends = {day for day in dates_in(among) if (day + timedelta(days=1)).day == 1}
    assert len(month_ends) > 6
    assert differences(among, without) == {}
