"""Clusters and recommendations of Online Retail II through the warehouse, as of 2011-09-13 (fitted on the Monday)."""

import os
from datetime import date
from pathlib import Path

import pytest

from include.dbt import build
from include.settings import PROJECT_DIR
from include.sources.config import load_sources
from include.sources.orders import ingest_orders
from include.warehouse.lock import begin_run, fail_run
from ml.cluster_runs import assign_clusters, fit_clusters_if_due
from ml.recommend_runs import fit_recommendations_if_due, name_recommendations
from tests.conftest import Warehouse
from tests.dbt.selections import FEATURES

DAY, MONDAY = date(2011, 9, 13), date(2011, 9, 12)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def grouped(module_warehouse: Warehouse) -> Warehouse:
    folder = Path(os.environ.get("STRATUM_DATA", PROJECT_DIR.parent / "shared" / "data"))
    if not (folder / "online_retail_ii.parquet").exists():
        pytest.skip(f"Online Retail II is not in {folder}: set STRATUM_DATA to its folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRATUM_DATA", str(folder))
        ingest_orders(load_sources(PROJECT_DIR / "docs" / "examples" / "online_retail_ii.yml"), DAY)
    run_id = begin_run(DAY)
    build("staging", DAY, run_id)
    build("marts", DAY, run_id, only=(*FEATURES, "account_purchases"))
    fit_clusters_if_due(DAY)
    fit_recommendations_if_due(DAY)
    assert assign_clusters(DAY, run_id) is not None
    assert name_recommendations(DAY, run_id) is not None
    fail_run(DAY, "end of step")
    return module_warehouse


def test_recommendations_are_above_popularity_on_weeks_they_were_not_chosen_on(grouped: Warehouse) -> None:
    ((method, why, as_of),) = grouped.rows("select method, why, fitted_as_of from ml.recommendation_fits")
    assert (method, as_of) == ("bm25+popularity", MONDAY)
    ((low, accounts),) = grouped.rows(
        "select low, accounts from ml.recommendation_metrics where method like '% - popularity' and target = 'new'"
    )
    assert low > 0.01
    assert accounts > 600
    assert "against" in why


def test_every_account_that_bought_has_a_list_of_what_it_has_not_bought(grouped: Warehouse) -> None:
    bought = "select count(distinct account_id) from marts.account_purchases where order_date <= %s"
    accounts = grouped.value(bought, MONDAY)
    assert grouped.value("select count(distinct account_id) from ml.recommendations") == accounts
    assert grouped.value(
        "select count(*) from ml.recommendations join marts.account_purchases using (account_id, product_id) "
        "where order_date <= %s",
        MONDAY,
    ) == 0  # fmt: skip


def test_clusters_keep_their_ids_from_quarter_to_quarter(grouped: Warehouse) -> None:
    fits = grouped.rows("select quarter_start, stability from ml.cluster_fits order by 1")
    assert [quarter for quarter, _ in fits] == [
        date(2010, 1, 1), date(2010, 4, 1), date(2010, 7, 1), date(2010, 10, 1),
        date(2011, 1, 1), date(2011, 4, 1), date(2011, 7, 1),
    ]  # fmt: skip
    assert min(stability for _, stability in fits) >= 0.75
    clusters = grouped.rows(
        "select quarter_start, cluster_id, name, description, clusters.accounts, moved from ml.clusters "
        "join ml.cluster_fits using (fit_id) order by 1, 2"
    )
    # In the first months of a data set everybody is new; from a year on most clusters go on.
    later = [moved is not None for quarter, *_, moved in clusters if quarter >= date(2011, 1, 1)]
    assert sum(later) / len(later) >= 2 / 3, clusters
