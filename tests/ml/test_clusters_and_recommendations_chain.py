"""A planted company through dbt: its clusters and lists as they are published, and again once the future is loaded."""

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from include.dbt import build
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, fail_run
from ml.cluster_runs import assign_clusters, fit_clusters_if_due
from ml.export import export_for_recommenders
from ml.recommend_runs import fit_recommendations_if_due, name_recommendations
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Line, Orders, at
from tests.dbt.selections import FEATURES
from tests.ml.planted import BUNDLES, purchases

DAY, MONDAY = date(2026, 4, 7), date(2026, 4, 6)
PUBLISHED = ("published_account_clusters", "published_recommendations")
EACH_DAY = {0: (7, 400), 1: (30, 90), 2: (120, 15)}  # of a kind: days from order to order, amount

pytestmark = pytest.mark.extended


def lines_up_to(day: date) -> list[Line]:
    """Accounts of three kinds (EACH_DAY) that buy the common product in their rhythm, and bundles one after another."""
    random = np.random.default_rng(12)
    lines = [
        Line(f"{row.account_id} {row.product_id} {row.order_date:%Y%m%d}", f"{row.account_id} {row.order_date:%Y%m%d}",
             row.account_id, at(row.order_date.date()), product_id=row.product_id)
        for row in purchases(MONDAY, accounts=240).drop_duplicates().itertuples()
    ]  # fmt: skip
    for number in range(240):
        gap, amount = EACH_DAY[number // BUNDLES % 3]
        ordered_on = date(2025, 6, 1) + timedelta(days=int(random.integers(0, gap)))
        while ordered_on <= day:
            key = f"A{number:04d} rhythm {ordered_on}"
            size = Decimal(int(amount * random.lognormal(0, 0.2)))
            lines.append(Line(key, key, f"A{number:04d}", at(ordered_on), size, product_id="C0"))
            ordered_on += timedelta(days=gap)
    return [line for line in lines if line.day <= day]


def published(warehouse: Warehouse, fit: bool = True) -> dict[str, list[tuple]]:
    """Build DAY, group its accounts and return what would be published, without the run."""
    run_id = begin_run(DAY)
    build("staging", DAY, run_id)
    build("marts", DAY, run_id, only=(*FEATURES, "account_purchases"))
    if fit:
        fit_clusters_if_due(DAY)
        fit_recommendations_if_due(DAY)
    assign_clusters(DAY, run_id)
    name_recommendations(DAY, run_id)
    build("published", DAY, run_id, only=PUBLISHED)
    fail_run(DAY, "end of step")
    return {
        table: warehouse.rows(f"select (to_jsonb(t) - 'run_id')::text from candidate.{table} as t order by 1")
        for table in ("account_clusters", "recommendations")
    }


@pytest.fixture(scope="module")
def orders() -> Orders:
    return Orders()


@pytest.fixture(scope="module")
def told(module_warehouse: Warehouse, orders: Orders) -> dict[str, list[tuple]]:
    orders.land(DAY, lines_up_to(DAY))
    return published(module_warehouse)


def test_kinds_are_clusters_and_bundles_are_lists(told: dict, module_warehouse: Warehouse) -> None:
    clusters = module_warehouse.rows(
        "select account_id, cluster_name from candidate.account_clusters order by 1"
    )
    assert len(clusters) == 240
    names = [
        {name for account, name in clusters if int(account[1:]) // BUNDLES % 3 == kind} for kind in range(3)
    ]
    assert len(names[0] & names[2]) == 0
    assert all("frequent buyers" in str(name) for name in names[0])
    # Who has bought a bundle in part is recommended the rest of it first.
    ((own_bundle, accounts),) = module_warehouse.rows(
        "select count(*) filter (where product_id like 'B' || substr(account_id, 2)::int %% 6 || '-%%'), count(*) "
        "from candidate.recommendations where place = 1 and account_id in (select account_id "
        "from marts.account_purchases where order_date <= %s group by 1 having count(distinct product_id) < 7)",
        DAY,
    )
    assert accounts > 60
    assert own_bundle == accounts


def test_nothing_is_recommended_that_was_bought_by_the_date(told: dict, module_warehouse: Warehouse) -> None:
    assert module_warehouse.value(
        "select count(*) from candidate.recommendations join marts.account_purchases using (account_id, product_id) "
        "where order_date <= %s",
        DAY,
    ) == 0  # fmt: skip


def test_the_export_holds_the_purchases_up_to_the_published_date(
    told: dict, module_warehouse: Warehouse, tmp_path: Path
) -> None:
    with connect("publisher") as connection:
        connection.execute(
            "insert into published.current_run (run_id, as_of_date, published_at) values ('r', %s, now())",
            [MONDAY],
        )
        connection.execute(
            "create table published.customer_360 as select 'A0001'::text as account_id, 'mining'::text as industry, "
            "null::text as country, 'S'::text as tier"
        )
        connection.execute(
            "create table published.account_clusters as "
            "select 'A0001'::text as account_id, 'many, few'::text as cluster_name"
        )
        for table in ("customer_360", "account_clusters"):
            connection.execute(f"grant select on published.{table} to stratum_bi_reader")
    as_of, rows = export_for_recommenders(tmp_path / "out")
    assert as_of == MONDAY
    interactions, users, items = (
        (tmp_path / "out" / name).read_text().splitlines()
        for name in ("interactions.csv", "users.csv", "items.csv")
    )
    expected = module_warehouse.value(
        "select count(*) from marts.account_purchases where order_date <= %s", MONDAY
    )
    assert rows["interactions.csv"] == len(interactions) - 1 == expected
    assert interactions[0] == "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE"
    at_second, kind = interactions[1].split(",")[2:]
    assert (len(at_second), kind) == (10, "Purchase")
    assert users == ["USER_ID,INDUSTRY,COUNTRY,TIER,CLUSTER", 'A0001,mining,,S,"many, few"']
    assert items[0] == "ITEM_ID,CATEGORY_L1,CREATION_TIMESTAMP"
    assert len(items) - 1 == 37


def test_the_future_changes_neither_clusters_nor_lists(
    told: dict, module_warehouse: Warehouse, orders: Orders
) -> None:
    random = np.random.default_rng(5)
    orders.land(
        DAY + timedelta(days=40),
        [
            Line(f"noise {number}", f"noise {number}", f"A{random.integers(0, 240):04d}",
                 at(DAY + timedelta(days=1 + int(random.integers(0, 39)))), Decimal(int(random.integers(1, 10**6))),
                 product_id=f"N{random.integers(0, 50)}")
            for number in range(2000)
        ],
    )  # fmt: skip
    assert published(module_warehouse, fit=False) == told
    module_warehouse.rows(
        "truncate ml.cluster_fits, ml.clusters, ml.cluster_runs, ml.recommendation_fits, ml.recommendation_metrics, "
        "ml.recommendations, ml.popular_products, ml.recommendation_runs"
    )
    assert published(module_warehouse) == told
