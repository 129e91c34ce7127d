"""The small company through dbt: what lies after a date changes neither its frames nor its model nor its scores."""

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from include.quality.gate import run_gate
from include.warehouse.lock import fail_run
from ml.score import score_accounts
from ml.train import train_if_due
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Line, Orders, at
from tests.ml.chain import build_marts, fitted_on, scores_of
from tests.ml.world import labelled, order_days

DAY = date(2026, 3, 10)
MONDAY = date(2026, 3, 9)
LATER = date(2026, 4, 20)


def lines_up_to(day: date) -> list[Line]:
    days = order_days()
    return [
        Line(f"{row.account_id} {row.order_date}", f"{row.account_id} {row.order_date}", row.account_id,
             at(row.order_date), Decimal(str(row.amount)))
        for row in days[days["order_date"] <= day].itertuples()
    ]  # fmt: skip


def noise_after(day: date) -> list[Line]:
    """Orders of the accounts and of strangers, at random days and amounts."""
    random = np.random.default_rng(5)
    accounts = [*order_days()["account_id"].unique(), *(f"N{number}" for number in range(30))]
    return [
        Line(f"noise {number}", f"noise {number}", str(random.choice(accounts)),
             at(day + timedelta(days=1 + int(40 * random.random()))), Decimal(int(1e6 * random.random())))
        for number in range(600)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def orders() -> Orders:
    return Orders()


@pytest.fixture(scope="module")
def scored(module_warehouse: Warehouse, orders: Orders) -> tuple[Warehouse, str]:
    """The chain's steps as of DAY, on what had happened by then."""
    orders.land(DAY, lines_up_to(DAY))
    run_id = build_marts(DAY)
    assert train_if_due("churn", DAY) is not None
    assert score_accounts("churn", DAY, run_id).status == "scored"
    run_gate("scores", DAY, run_id)
    fail_run(DAY, "end of test")
    return module_warehouse, run_id


def test_dbt_makes_the_features_the_model_was_tried_on(scored: tuple[Warehouse, str]) -> None:
    from include.warehouse.connect import connect
    from ml.frames import training_frame

    with connect("scorer") as connection:
        found = training_frame(connection, MONDAY, 90)
    dates = sorted(found["as_of_date"].dt.date.unique())
    assert dates[-1] == date(2025, 11, 30)
    expected = labelled(order_days(), dates)
    keys = ["as_of_date", "account_id", "churned"]
    pd.testing.assert_frame_equal(found[keys], expected[keys], check_dtype=False)
    for name in (
        "days_since_last_order", "gap_ratio", "mean_order_gap_days", "orders_total", "order_days_total", "orders_90d",
        "orders_180d", "orders_365d", "orders_per_quarter", "net_revenue_90d", "net_revenue_prior_90d",
        "net_revenue_365d", "yearly_net_spend", "average_order_value",
    ):  # fmt: skip
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=0.02, err_msg=name)


def test_noise_after_the_date_changes_no_frame_no_model_and_no_score(
    scored: tuple[Warehouse, str], orders: Orders
) -> None:
    warehouse, run_id = scored
    before, told = fitted_on(MONDAY), scores_of(warehouse, run_id)
    assert warehouse.rows("select model_id, artefact_sha256 from ml.models") == [
        (before.model.model_id, before.model.artefact_sha256)
    ]
    orders.land(LATER, noise_after(DAY))
    again = build_marts(DAY)
    assert warehouse.value(
        "select max(next_order_date) > %s from marts.account_next_orders", DAY
    )  # the noise is there
    after = fitted_on(MONDAY)
    assert after.model.data_fingerprint == before.model.data_fingerprint
    assert after.artefact == before.artefact
    assert train_if_due("churn", DAY) is None
    score_accounts("churn", DAY, again)
    assert scores_of(warehouse, again) == told
    fail_run(DAY, "end of test")
