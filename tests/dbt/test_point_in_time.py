"""A date knows nothing of the days after it: built among all rows it equals what it is without the later ones."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest

import include.dbt
from include.dbt import build, invoke
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


LEAKS = {
    "orders after the date": (
        "account_features",
        "and account_days.order_date <= pairs.as_of_date",
        "",
    ),
    "uses of the product after the date": (
        "account_features",
        """and usage_days.usage_date <= pairs.as_of_date
            and usage_days.usage_date > {{ days_before('pairs.as_of_date', 180) }}""",
        "and usage_days.usage_date > {{ days_before('pairs.as_of_date', 180) }}",
    ),
    "what a deal is today": (
        "account_features",
        "and {{ stands_on('deals', 'pair_companies.as_of_date') }}",
        "and deals.valid_until_date is null",
    ),
    "whose a company is today": (
        "account_features",
        "and {{ holds_on('account_crosswalk', 'pairs.as_of_date') }}",
        "and account_crosswalk.valid_until_date is null",
    ),
    "what a company is today": (
        "account_profiles",
        "on versions.valid_from < {{ day_start(days_before('dates_due.as_of_date', -1)) }}",
        "on versions.is_latest",
    ),
}
"""A model, and a condition in it that keeps what is later out, with what a mistake would make of it."""
MADE = {
    "account_features": ("account_features_due", "account_features"),
    "account_profiles": (
        "kpi_dates",
        "growth_dates",
        "growth_account_keys",
        "lapse_features",
        "account_profiles",
    ),
}


@pytest.fixture(scope="module")
def loaded(cluster, without_data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two databases to copy: with the rows up to CUT, and with those up to LATER.

    By LATER it was written into companies whose they are, of which nothing told it on CUT.
    """
    home = tmp_path_factory.mktemp("files")
    files = MarketFiles(home, runs=1, seed=5)
    files.write(0, ties_told=7)
    with fresh_warehouse(cluster, without_data, home / "cut") as cut:
        files.load(CUT)
        with fresh_warehouse(cluster, database_of(cut), home / "whole") as whole:
            files.write(0)
            files.load(LATER)
            later_lines = "select count(*) from raw_files.order_lines where ordered_at >= '2025-01-15'"
            assert whole.value(later_lines)
            yield database_of(cut), database_of(whole)


def _built(warehouse: Warehouse) -> Tables:
    for layer in ("staging", "marts", "published"):
        build(layer, CUT, "run-of-the-cut")
    return read_tables(warehouse, ("marts", "candidate"), EXCLUDED)


def test_every_mart_and_candidate_equals_what_is_built_without_the_rows_of_later_days(
    cluster, loaded: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows of later days, and ties: whose a company is, is written into some of them later."""
    sides = []
    for database in loaded:
        with fresh_warehouse(cluster, database, tmp_path_factory.mktemp("home")) as warehouse:
            sides.append(_built(warehouse))
    without, among = sides
    assert {"marts.account_features", "marts.account_tiers", "candidate.customer_360"} <= {
        table for table, rows in among.items() if rows
    }
    month_ends = {day for day in dates_in(among) if (day + timedelta(days=1)).day == 1}
    assert len(month_ends) > 6
    assert differences(among, without) == {}


@pytest.fixture(scope="module")
def staged(cluster, loaded: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The same with what the marts are made from, and the features, built as of CUT."""
    home = tmp_path_factory.mktemp("staged")
    with fresh_warehouse(cluster, loaded[0], home / "cut") as cut:
        _prepare()
        with fresh_warehouse(cluster, loaded[1], home / "whole") as whole:
            _prepare()
            yield [database_of(cut), database_of(whole)]


def _prepare() -> None:
    build("staging", CUT, "run-of-the-cut")
    build("marts", CUT, "run-of-the-cut", only=MADE["account_features"])


def _plant(patch: pytest.MonkeyPatch, model: str, honest: str, leaked: str) -> None:
    """Have dbt run a model with one condition changed; the parsed project is that of the database in use alone."""
    parsed, planted = include.dbt.parsed_project, {}

    def with_leak() -> Any:
        manifest = parsed()
        node = manifest.nodes[f"model.stratum.{model}"]
        if id(node) not in planted:  # a parsed project is kept for the next command of the same database
            assert node.raw_code.count(honest) == 1, "the condition stands in the model, once"
            node.raw_code = node.raw_code.replace(honest, leaked)
            planted[id(node)] = node
        return manifest

    patch.setattr(include.dbt, "parsed_project", with_leak)


@pytest.mark.extended
@pytest.mark.timeout(1800)  # the first one makes two warehouses
@pytest.mark.parametrize("leak", [None, *LEAKS])
def test_a_leak_that_is_put_into_a_model_is_seen_by_the_comparison(
    cluster,
    staged: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    leak: str | None,
) -> None:
    model = "account_features" if leak is None else LEAKS[leak][0]
    if leak is not None:
        _plant(monkeypatch, *LEAKS[leak])
    sides = []
    for database in staged:
        with fresh_warehouse(cluster, database, tmp_path_factory.mktemp("home")) as warehouse:
            invoke(["run", "--select", *MADE[model], "--full-refresh"], CUT, "run-of-the-cut")
            sides.append({model: read_tables(warehouse, ("marts",))[f"marts.{model}"]})
    assert sides[0][model]
    assert set(differences(*sides)) == (set() if leak is None else {model})
