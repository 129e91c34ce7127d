"""A company of contracts alone, of which no source tells an order, goes through the chain: marts, models, publish."""

from datetime import date, timedelta

import pytest

from include.dbt import build
from include.quality.gate import run_gate
from include.sources.loads import record_absent
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, finish_run
from include.warehouse.publish import publish
from ml.cluster_runs import assign_clusters
from ml.due import fit_all_due
from ml.frames import training_dates
from ml.recommend_runs import name_recommendations
from ml.score import score_all
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Events, Version, at, land_versions
from tests.ml.contracts import (
    HORIZON,
    as_sent_and_signed,
    contracts,
    events_of_contracts,
    held_on,
    is_due,
    land_contracts,
)
from tests.ml.world import FIRST, month_ends

pytestmark = pytest.mark.extended

DAY = date(2026, 3, 10)
BEFORE = FIRST - timedelta(days=200)
"""A day before the first contract, from which on the CRM holds all accounts."""
BINNED, GONE = DAY - timedelta(days=30), 6
"""The day on which the records of so many accounts under a contract go into the CRM's bin."""


def gone() -> list[str]:
    """The accounts under a contract that stand in no CRM any more."""
    return sorted(held_on(DAY, contracts()))[:GONE]


@pytest.fixture(scope="module")
def published(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Contracts, the CRM of their accounts and what these do in the product, through every step from build to publish."""
    accounts = sorted({one.account_id for one in contracts()})
    companies = [Version(one, one, at(BEFORE), {"account_name": f"Account {one}"}) for one in accounts]
    companies += [
        Version(one, one, at(BINNED), {"account_name": f"Account {one}"}, is_archived=True) for one in gone()
    ]
    land_versions(DAY, "accounts", companies, "files")
    land_contracts(DAY, as_sent_and_signed(DAY), named_by="files:")
    Events().land(DAY, [event for event in events_of_contracts() if event.day <= DAY])
    record_absent("orders", "order_lines", DAY)
    run_id = begin_run(DAY)
    build("staging", DAY, run_id)
    build("marts", DAY, run_id)
    run_gate("marts", DAY, run_id)
    fit_all_due(DAY, tmp_path_factory.mktemp("cards"))
    score_all(DAY, run_id)
    assign_clusters(DAY, run_id)
    name_recommendations(DAY, run_id)
    run_gate("scores", DAY, run_id)
    build("published", DAY, run_id)
    run_gate("published", DAY, run_id)
    publish(run_id, DAY)
    finish_run(run_id)
    return module_warehouse


def test_the_month_ends_begin_with_the_first_signature(published: Warehouse) -> None:
    first = min(one.signed for one in contracts())
    with connect("scorer") as connection:
        found = training_dates(connection, DAY, HORIZON)
    assert found == month_ends(first, date(2025, 10, 31))
    assert BEFORE < first < FIRST
    assert published.value("select count(*) from marts.account_features") == 0


def test_every_contract_that_is_due_is_told_of_by_the_model_and_the_others_by_the_rules(
    published: Warehouse,
) -> None:
    held = held_on(DAY, contracts())
    due = {account for account, end in held.items() if is_due(end, DAY)}
    told = published.rows(
        "select account_id, churn_told_by, churn_definition, churn_reason_1, churn_warning_severity "
        "from published.customer_360"
    )
    assert {account for account, by, *_ in told if by == "model"} == due
    assert {account for account, by, *_ in told if by == "rules"} == set(held) - due
    assert min(len(due), len(set(held) - due)) > 5
    assert {account for account, _, definition, *_ in told if definition == "contract lapse"} == set(held)
    assert all(reason for account, _, _, reason, _ in told if account in due)
    assert {severity for account, *_, severity in told if account in held} >= {"none", "high"}


def test_who_is_under_a_contract_has_a_row_though_it_never_ordered_and_no_crm_has_it(
    published: Warehouse,
) -> None:
    told = published.rows(
        "select account_id, account_name, has_ordered, crm_record_id, churn_definition "
        "from published.customer_360 where account_id = any(%s) order by 1",
        gone(),
    )
    assert told == [(one, f"Account {one}", False, None, "contract lapse") for one in gone()]
    assert published.value("select count(*) from published.customer_360 where crm_record_id is not null") > 0
    without_a_row = (
        "select count(*) from published.account_scores left join published.customer_360 as customers "
        "using (account_id) where customers.account_id is null"
    )
    assert published.value(without_a_row) == 0
    assert {is_due(end, DAY) for one, end in held_on(DAY, contracts()).items() if one in gone()} == {
        True,
        False,
    }


def test_of_the_other_models_it_is_said_why_they_are_absent(published: Warehouse) -> None:
    told = published.rows("select model, status, reason from published.model_status")
    assert {model: status for model, status, _ in told} == {
        "churn": "absent", "lapse": "scored", "repurchase": "absent", "upsell": "absent", "trial": "absent",
    }  # fmt: skip
    assert all(reason for _, status, reason in told if status == "absent")
    ((clusters, lists),) = published.rows(
        "select clusters.reason, lists.reason from ml.cluster_runs as clusters cross join ml.recommendation_runs as lists"
    )
    assert "0 have ordered" in clusters
    assert "too few purchases" in lists
