"""Clusters and recommendations of a run in the warehouse: made when due, named by the run, or the reason why not."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from include.errors import StratumError
from include.quality.gate import GateFailed, run_gate
from include.sources.loads import bind_company, landing
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, fail_run
from ml import cluster_runs
from ml.cluster_card import write_cluster_cards, write_missing_cluster_cards
from ml.cluster_names import MEASURES
from ml.cluster_runs import assign_clusters, fit_clusters_if_due
from ml.clusters import Fit
from ml.copies import write_rows
from ml.params import ClusterParams, RecommendationParams, section_of
from ml.recommend_runs import fit_recommendations_if_due, name_recommendations, purchases_on
from tests.conftest import Warehouse
from tests.ml.planted import purchases, three_kinds

DAY = date(2026, 4, 7)  # a Tuesday; of the quarter from April 1
MONDAY = date(2026, 4, 6)
QUARTERS = [date(2025, 12, 31), date(2026, 3, 31)]


def add_features(day: date, frame: pd.DataFrame) -> None:
    with connect("transformer") as connection:
        rows = frame.itertuples(index=False, name=None)
        write_rows(
            connection,
            "marts.account_features",
            ("as_of_date", *frame.columns),
            ((day, *row) for row in rows),
        )


def add_purchases(rows: Iterable[tuple]) -> None:
    columns = ("account_id", "product_id", "order_date", "valid_from_date", "valid_until_date")
    with connect("transformer") as connection:
        write_rows(connection, "marts.account_purchases", columns, rows)


@pytest.fixture(scope="module")
def grouped(module_warehouse: Warehouse) -> Warehouse:
    """The marts that are read, filled by hand; both fits made as of DAY."""
    with connect("transformer") as connection:
        columns = ", ".join(f"{name} numeric" for name in MEASURES)
        for table, shape in {
            "account_features": f"as_of_date date, account_id text, {columns}",
            "account_profiles": "as_of_date date, account_id text, industry text",
            "account_purchases": "account_id text, product_id text, order_date date, valid_from_date date, "
            "valid_until_date date",
        }.items():
            connection.execute(f"create table marts.{table} ({shape})")
        connection.execute(
            "insert into marts.account_profiles select %s, 'A' || lpad(number::text, 4, '0'), "
            "case when number < 60 then 'mining' end from generate_series(0, 119) as number",
            [QUARTERS[1]],
        )
    for seed, day in enumerate((*QUARTERS, DAY)):
        add_features(day, three_kinds(seed=seed))
    add_features(date(2025, 9, 30), three_kinds(20))
    rows = [(*row, None, None) for row in purchases(MONDAY).itertuples(index=False, name=None)]
    add_purchases(rows)
    assert len(fit_clusters_if_due(DAY)) == 2
    assert fit_recommendations_if_due(DAY) is not None
    return module_warehouse


def told(warehouse: Warehouse, table: str, run_id: str, columns: str) -> list[tuple]:
    return warehouse.rows(f"select {columns} from ml.{table} where run_id = %s order by 1, 2", run_id)


def test_each_quarter_is_fitted_once_and_keeps_the_ids_of_the_one_before(grouped: Warehouse) -> None:
    assert fit_clusters_if_due(DAY) == []
    ids = grouped.rows(
        "select quarter_start, array_agg(cluster_id order by cluster_id), count(moved), array_agg(distinct name) "
        "from ml.clusters join ml.cluster_fits using (fit_id) group by 1 order by 1"
    )
    assert [row[:3] for row in ids] == [(date(2026, 1, 1), [1, 2, 3], 0), (date(2026, 4, 1), [1, 2, 3], 3)]
    assert ids[0][3] == ids[1][3]


def test_a_run_assigns_every_account_by_the_fit_of_its_quarter_and_again_the_same(grouped: Warehouse) -> None:
    fit_id = assign_clusters(DAY, "run-1")
    assert grouped.rows("select fit_id, reason, accounts from ml.cluster_runs where run_id = 'run-1'") == [
        (fit_id, None, 300)
    ]
    first = told(grouped, "account_clusters", "run-1", "account_id, cluster_id, distance")
    assert len(first) == 300
    assert len(told(grouped, "cluster_medians", "run-1", "cluster_id, measure")) == 9
    assert assign_clusters(DAY, "run-1") == fit_id
    assert told(grouped, "account_clusters", "run-1", "account_id, cluster_id, distance") == first


def test_a_quarter_with_too_few_accounts_has_none_and_the_run_says_why(grouped: Warehouse) -> None:
    day = date(2025, 11, 11)
    add_features(day, three_kinds(20))
    assert assign_clusters(day, "run-early") is None
    assert grouped.rows(
        "select fit_id, reason, accounts from ml.cluster_runs where run_id = 'run-early'"
    ) == [
        (
            None,
            "the clusters of the quarter from 2025-10-01 are not made: as of 2025-09-30, too few accounts: 20 have "
            "ordered, 200 are needed",
            0,
        )
    ]
    assert told(grouped, "account_clusters", "run-early", "account_id, cluster_id") == []


def test_a_quarter_whose_accounts_form_no_clusters_is_searched_once_and_the_run_says_why(
    grouped: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def in_vain(frame: pd.DataFrame, _: ClusterParams, before: Fit, new_id: int) -> str:
        searched.append((len(frame), before.fingerprint, new_id))
        return "no clusters stand out"

    add_features(date(2026, 6, 30), three_kinds())
    day = date(2026, 7, 14)
    add_features(day, three_kinds())
    monkeypatch.setattr(cluster_runs, "fit_clusters", in_vain)
    assert [fit_clusters_if_due(day), fit_clusters_if_due(day)] == [[], []]
    # It would go on from the newest fit, and give no id that was ever given.
    newest = grouped.value("select data_fingerprint from ml.cluster_fits where quarter_start = '2026-04-01'")
    assert searched == [(300, newest, 4)]
    assert assign_clusters(day, "run-in-vain") is None
    ((reason,),) = grouped.rows("select reason from ml.cluster_runs where run_id = 'run-in-vain'")
    assert reason == (
        "the clusters of the quarter from 2026-07-01 are not made: as of 2026-06-30, no clusters stand out"
    )


def test_lists_are_made_for_the_weeks_monday_and_shown_all_week(grouped: Warehouse) -> None:
    ((fit_id, as_of),) = grouped.rows("select fit_id, fitted_as_of from ml.recommendation_fits")
    assert as_of == MONDAY
    assert fit_recommendations_if_due(DAY + timedelta(days=5)) is None
    assert name_recommendations(DAY, "run-1") == fit_id
    assert grouped.value("select count(distinct account_id) from ml.recommendations") == 120
    assert grouped.rows("select distinct industry from ml.popular_products order by 1") == [
        ("",),
        ("mining",),
    ]
    assert grouped.value("select count(*) from ml.recommendation_metrics where target = 'new'") == 16


def test_a_date_before_there_are_lists_says_why(grouped: Warehouse) -> None:
    early = date(2025, 9, 1)
    assert name_recommendations(early, "run-early") is None
    ((reason,),) = grouped.rows("select reason from ml.recommendation_runs where run_id = 'run-early'")
    assert reason.startswith("too few purchases: ")


def test_a_merged_customer_buys_for_the_account_it_stands_for_on_the_day(grouped: Warehouse) -> None:
    merged_on = MONDAY - timedelta(days=10)
    bought_on = MONDAY - timedelta(days=30)
    add_purchases([("old", "X", bought_on, None, merged_on), ("new", "X", bought_on, merged_on, None)])
    params = section_of("recommendations", RecommendationParams)
    with connect("scorer") as connection:
        for day, account in ((merged_on - timedelta(days=1), "old"), (merged_on, "new")):
            found = purchases_on(connection, day, params)
            assert list(found.loc[found["product_id"] == "X", "account_id"]) == [account]
        first = purchases_on(connection, bought_on - timedelta(days=1), params)
    assert "X" not in set(first["product_id"])


def test_what_is_loaded_later_changes_no_fit_of_a_day_before_it(grouped: Warehouse) -> None:
    before = grouped.rows("select data_fingerprint from ml.recommendation_fits")
    columns = "account_id, place, product_id, score, reason, method"
    lists = grouped.rows(f"select {columns} from ml.recommendations order by 1, 2")
    later = purchases(DAY + timedelta(days=300), seed=9)
    add_purchases(
        (account, product, DAY + timedelta(days=1), None, None)
        for account, product in zip(later["account_id"], later["product_id"], strict=True)
    )
    with connect("transformer") as connection:
        connection.execute("delete from marts.account_purchases where product_id = 'X'")
    grouped.rows(
        "truncate ml.recommendations, ml.popular_products, ml.recommendation_metrics, ml.recommendation_runs, "
        "ml.recommendation_fits"
    )
    assert fit_recommendations_if_due(DAY) is not None
    assert grouped.rows("select data_fingerprint from ml.recommendation_fits") == before
    assert grouped.rows(f"select {columns} from ml.recommendations order by 1, 2") == lists


def test_each_fit_of_clusters_gets_a_card_with_its_map(grouped: Warehouse, tmp_path: Path) -> None:
    fits = grouped.rows("select fit_id, quarter_start, fitted_on from ml.cluster_fits order by quarter_start")
    pages = write_cluster_cards([fit_id for fit_id, *_ in fits], tmp_path)
    for (fit_id, quarter, fitted_on), page in zip(fits, pages, strict=True):
        assert page == tmp_path / f"{fit_id}.html"
        written, drawn = page.read_text(), (tmp_path / f"{fit_id}-map.svg").read_text()
        assert drawn in written
        assert f"Clusters of the quarter from {quarter}" in written
        assert f"the features of {fitted_on}" in written
        assert "<script" not in written
        for cluster_id, name, accounts in grouped.rows(
            "select cluster_id, name, accounts from ml.clusters where fit_id = %s", fit_id
        ):
            assert f">{cluster_id}</span></td><td>{name}</td>" in written
            assert f"<td>{accounts:,}</td>" in written
            assert f">{cluster_id}  {name}</text>" in drawn
    # One whose training was cut off before its card gets it with the next; the others stay as they are.
    pages[0].unlink()
    pages[1].write_text("as it was")
    assert write_missing_cluster_cards(tmp_path) == [pages[0]]
    assert pages[1].read_text() == "as it was"
    with pytest.raises(StratumError, match="There are no clusters 'gone'"):
        write_cluster_cards(["gone"], tmp_path)


def failed_checks(run_id: str) -> set[tuple[str, str]]:
    """Run the gate of a run of which nothing is scored; return (table, description) of what failed beside that."""
    with pytest.raises(GateFailed, match=r"ml\.runs"):
        run_gate("scores", DAY, run_id)
    with connect("transformer") as connection:
        rows = connection.execute(
            "select distinct table_name, coalesce(arguments ->> 'unexpected_rows_query', expectation) from audit.checks "
            "where run_id = %s and not success and table_name similar to 'ml.(cluster|account|recommend)%%'",
            [run_id],
        ).fetchall()
    return {(table, query) for table, query in rows}


def test_the_gate_lets_good_groups_through_and_each_of_its_checks_can_fail(grouped: Warehouse) -> None:
    with landing("orders", "order_lines", DAY) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    good = begin_run(DAY)
    assign_clusters(DAY, good)
    name_recommendations(DAY, good)
    grouped.rows(
        "delete from ml.recommendation_runs where run_id <> %s", good
    )  # the first run that shows them
    assert failed_checks(good) == set()
    fail_run(DAY, "end of step")
    bad = begin_run(DAY)
    try:
        assert {table for table, _ in failed_checks(bad)} == {"ml.cluster_runs", "ml.recommendation_runs"}
        grouped.rows("delete from audit.checks")
        assign_clusters(DAY, bad)
        name_recommendations(DAY, bad)
        grouped.rows("delete from ml.recommendation_runs where run_id <> %s", bad)
        ((account, product),) = grouped.rows(
            "select account_id, min(product_id) from marts.account_purchases where account_id = 'A0000' group by 1"
        )
        for statement in (
            "update ml.cluster_runs set as_of_date = as_of_date - 1 where run_id = %(run)s",
            "delete from ml.account_clusters where run_id = %(run)s and account_id = 'A0001'",
            "update ml.account_clusters set distance = 'nan' where run_id = %(run)s and account_id = 'A0002'",
            "update ml.recommendation_runs set as_of_date = as_of_date - 1 where run_id = %(run)s",
            "update ml.recommendations set place = 90 where account_id = 'A0003' and place = 2",
            "update ml.recommendations set score = -1 where account_id = 'A0004' and place = 1",
            f"update ml.recommendations set product_id = '{product}' where account_id = '{account}' and place = 1",
        ):
            grouped.rows(statement.replace("%(run)s", f"'{bad}'"))
        assert len(failed_checks(bad)) == 7
    finally:
        fail_run(DAY, "end of test")
