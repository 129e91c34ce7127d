"""The small company through dbt: what lies after a date changes neither a frame nor a model nor a score, of any model."""

from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from include.quality.gate import run_gate
from include.warehouse.lock import fail_run
from ml.champion import settle_all
from ml.score import score_all
from ml.targets import MODELS
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Event, Events, Line, Orders, Version, at, land_versions
from tests.ml.chain import build_marts, fitted_on, scores_of, without_groups
from tests.ml.world import labelled, order_days

DAY = date(2026, 3, 10)
MONDAY = date(2026, 3, 9)
BEGAN = date(2026, 2, 2)  # of the period that DAY lies in
LATER = date(2026, 4, 20)
OF_ORDERS = [
    model for model in MODELS if model != "trial"
]  # nobody uses the product who has not ordered: no trials


CATEGORIES = [f"category {number:02d}" for number in range(60)]


def lines_up_to(day: date) -> list[Line]:
    """The order days as lines, each of a category: half of the accounts keep to one, the others seek new ones."""
    random = np.random.default_rng(11)
    lines, known = [], dict.fromkeys(order_days()["account_id"], 1)
    for row in order_days().itertuples():
        number, key = int(row.account_id[1:]), f"{row.account_id} {row.order_date}"
        if known[row.account_id] < (1 if number % 2 else len(CATEGORIES)) and random.random() < 0.9:
            known[row.account_id] += 1
            place = known[row.account_id] - 1
        else:
            place = int(known[row.account_id] * random.random())
        lines.append(
            Line(key, key, row.account_id, at(row.order_date), Decimal(str(row.amount)),
                 product_category=CATEGORIES[(number + place) % len(CATEGORIES)])
        )  # fmt: skip
    return [line for line in lines if line.day <= day]


def noise_after(day: date) -> list[Line]:
    """Orders of the accounts and of strangers, at random days and amounts."""
    random = np.random.default_rng(5)
    accounts = [*order_days()["account_id"].unique(), *(f"N{number}" for number in range(30))]
    return [
        Line(f"noise {number}", f"noise {number}", str(random.choice(accounts)),
             at(day + timedelta(days=1 + int(40 * random.random()))), Decimal(int(1e6 * random.random())),
             product_category=str(random.choice([*CATEGORIES, "something new"])))
        for number in range(600)
    ]  # fmt: skip


def land_use_and_crm(events: Events, as_of: date, first: date, seed: int, uses: int) -> None:
    """Land what half of the accounts did in the product and with us from a day to `as_of`, at random.

    A second call knows the same records of the CRM: their newer versions close and reopen tickets, move deals, turn
    contacts into deciders or archive them, rename companies; and there are new ones. A company keeps its account: which
    one it belongs to is no fact of a day.
    """
    random = np.random.default_rng(seed)

    def moment() -> datetime:
        return at(
            first + timedelta(days=int(random.integers((as_of - first).days + 1))), int(random.integers(24))
        )

    landed, versions = (
        [],
        {name: [] for name in ("companies", "contacts", "tickets", "deals", "feedback_submissions")},
    )
    for number in range(0, 150, 2):
        account, company = f"A{number:04d}", str(number)
        versions["companies"].append(Version(company, account, at(first, 1), {"name": f"{account} {seed}"}))
        for use in range(int(random.integers(uses))):
            name = str(random.choice(["login", "feature_use"]))
            feature = "quick_order" if name == "feature_use" else None
            landed.append(
                Event(f"{seed}-{number}-{use}", account, moment(), name, feature, f"s{use}", Decimal(600))
            )
        for place in range(int(random.integers(1, 4))):
            key, when = f"{number}-{place}", moment()
            stage = str(random.choice(["closedwon", "contractsent"]))
            for entity, properties in {
                "contacts": {"hs_buying_role": str(random.choice(["END_USER", "DECISION_MAKER"]))},
                "tickets": {
                    "createdate": when.isoformat(),
                    "hs_ticket_priority": "URGENT",
                    "closed_date": str(random.choice(["", (when + timedelta(days=2)).isoformat()])),
                },
                "deals": {
                    "amount": str(random.integers(1000)),
                    "deal_currency_code": "CNY",
                    "dealstage": stage,
                    "hs_is_closed_won": str(stage == "closedwon").lower(),
                    "closedate": when.isoformat(),
                },
                "feedback_submissions": {
                    "hs_survey_type": "NPS",
                    "hs_value": str(random.integers(11)),
                    "hs_submission_timestamp": when.isoformat(),
                },
            }.items():
                gone = entity == "contacts" and bool(random.random() < 0.3)
                versions[entity].append(Version(key, company, when, properties, gone))
    events.land(as_of, landed)
    for entity, rows in versions.items():
        land_versions(as_of, entity, rows)


@pytest.fixture(scope="module")
def orders() -> Orders:
    return Orders()


@pytest.fixture(scope="module")
def events() -> Events:
    return Events()


@pytest.fixture(scope="module")
def scored(module_warehouse: Warehouse, orders: Orders, events: Events) -> tuple[Warehouse, str]:
    """The chain's steps as of DAY, on what had happened by then."""
    orders.land(DAY, lines_up_to(DAY))
    land_use_and_crm(events, DAY, date(2025, 1, 1), seed=1, uses=20)
    run_id = build_marts(DAY)
    assert len(settle_all(DAY)) == len(OF_ORDERS)
    told = {one.model: one.status for one in score_all(DAY, run_id)}
    assert told == {**dict.fromkeys(OF_ORDERS, "scored"), "trial": "absent"}
    without_groups(DAY, run_id)
    run_gate("scores", DAY, run_id)
    fail_run(DAY, "end of test")
    return module_warehouse, run_id


def test_dbt_makes_the_features_the_model_was_tried_on(scored: tuple[Warehouse, str]) -> None:
    from include.warehouse.connect import connect
    from ml.frames import training_frame
    from ml.targets import CHURN, Policy

    with connect("scorer") as connection:
        found = training_frame(connection, CHURN, MONDAY, Policy(90, 90))
    dates = sorted(found["as_of_date"].dt.date.unique())
    assert dates[-1] == date(2025, 11, 30)
    expected = labelled(order_days(), dates)
    keys = ["as_of_date", "account_id", "happened"]
    pd.testing.assert_frame_equal(found[keys], expected[keys], check_dtype=False)
    for name in (
        "days_since_last_order", "gap_ratio", "mean_order_gap_days", "orders_total", "order_days_total", "orders_90d",
        "orders_180d", "orders_365d", "orders_per_quarter", "net_revenue_90d", "net_revenue_prior_90d",
        "net_revenue_365d", "yearly_net_spend", "average_order_value",
    ):  # fmt: skip
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=0.02, err_msg=name)


def test_noise_after_the_date_changes_no_frame_no_model_and_no_score(
    scored: tuple[Warehouse, str], orders: Orders, events: Events
) -> None:
    """Orders, uses of the product, and every kind of CRM record that a feature is made of."""
    warehouse, run_id = scored
    features = "select * from marts.account_features where as_of_date <= %s order by as_of_date, account_id"
    known = warehouse.rows(features, DAY)
    ((*told_of,),) = warehouse.rows(
        "select count(days_since_last_login), sum(core_feature_uses_90d), sum(tickets_90d), sum(contacts), "
        "count(nps_latest), sum(open_deals) from marts.account_features where as_of_date = %s",
        DAY,
    )
    assert all(told_of), "use and CRM are in the features"
    before, told = {model: fitted_on(BEGAN, model) for model in OF_ORDERS}, scores_of(warehouse, run_id)
    assert set(warehouse.rows("select model_id, artefact_sha256 from ml.models")) == {
        (one.model.model_id, one.model.artefact_sha256) for one in before.values()
    }
    orders.land(LATER, noise_after(DAY))
    land_use_and_crm(events, LATER, DAY + timedelta(days=1), seed=2, uses=60)
    again = build_marts(DAY)
    assert warehouse.value(
        "select max(next_order_date) > %s from marts.account_next_orders", DAY
    )  # the noise is there
    assert warehouse.rows(features, DAY) == known
    for model in OF_ORDERS:
        after = fitted_on(BEGAN, model)
        assert after.model == before[model].model, (
            model
        )  # the fingerprint of its frame, its knobs, its line of value
        assert after.artefact == before[model].artefact, model
    assert settle_all(DAY) == []
    score_all(DAY, again)
    assert scores_of(warehouse, again) == told
    fail_run(DAY, "end of test")
