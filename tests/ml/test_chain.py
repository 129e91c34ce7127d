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
from tests.ml.contracts import (
    as_sent_and_signed,
    contracts,
    events_of_contracts,
    held_on,
    is_due,
    land_contracts,
    lines_of_contracts,
    overwritten_after,
)
from tests.ml.world import labelled, order_days

pytestmark = pytest.mark.extended

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
    return [line for line in (*lines, *lines_of_contracts()) if line.day <= day]


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


UNTIED: dict[int, str | None] = dict.fromkeys(range(0, 150, 6))
"""The companies that carry no customer number by DAY."""
TIED_LATER: dict[int, str | None] = {
    **{number: f"A{number:04d}" for number in UNTIED},
    **{number: f"A{number + 1:04d}" for number in range(2, 150, 12)},
}
"""The numbers that are typed into these later, and those to which others are corrected."""


def land_use_and_crm(
    events: Events, as_of: date, first: date, seed: int, uses: int, numbers: dict[int, str | None]
) -> None:
    """Land what half of the accounts did in the product and with us from a day to `as_of`, at random.

    A second call knows the same records of the CRM: their newer versions close and reopen tickets, move deals, turn
    contacts into deciders or archive them, rename companies; and there are new ones. A company carries the number of its
    account, or what `numbers` has of it.
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
        carried = numbers.get(number, account)
        versions["companies"].append(Version(company, carried, at(first, 1), {"name": f"{account} {seed}"}))
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
    events.land(DAY, [event for event in events_of_contracts() if event.day <= DAY])
    land_contracts(DAY, as_sent_and_signed(DAY))
    land_use_and_crm(events, DAY, date(2025, 1, 1), seed=1, uses=20, numbers=UNTIED)
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
    found = found[found["account_id"].str.startswith("A")].reset_index(drop=True)
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


def test_in_a_mixed_company_each_account_has_the_churn_of_its_own_form(scored: tuple[Warehouse, str]) -> None:
    """Held and due are counted contract by contract; some that let theirs lapse order on, and some do not."""
    warehouse, run_id = scored
    held = held_on(DAY, contracts())
    ordered = {
        account
        for (account,) in warehouse.rows(
            "select distinct account_id from marts.account_features where as_of_date = %s", DAY
        )
    }

    def told(model: str) -> set[str]:
        rows = warehouse.rows(
            "select account_id from ml.scores where run_id = %s and model = %s", run_id, model
        )
        return {account for (account,) in rows}

    assert told("lapse") == {account for account, end in held.items() if is_due(end, DAY)}
    assert told("churn") == ordered - set(held)
    assert told("repurchase") == ordered
    assert len(told("lapse")) > 20
    assert len(set(held) - told("lapse")) > 5
    assert len({account for account in told("churn") if account.startswith("K")}) > 20
    (reasons,) = zip(
        *warehouse.rows(
            "select concat_ws('; ', reason_1, reason_2, reason_3) from ml.scores where model = 'lapse'"
        ),
        strict=True,
    )
    assert any("(typical of accounts whose contract went on: " in told for told in reasons)
    assert any("(typical of accounts whose contract lapsed: " in told for told in reasons)


def test_a_month_end_has_the_lapses_that_came_in_the_window_after_it(scored: tuple[Warehouse, str]) -> None:
    """Counted day by day: the first of the 120 days after on which no contract, with its grace, holds the account."""
    warehouse, _ = scored
    known = contracts()
    told = warehouse.rows(
        "select as_of_date, account_id, has_lapsed from marts.lapse_outcomes where has_lapsed is not null and "
        "extract(day from as_of_date + 1) = 1"
    )
    expected = {}
    for day in {day for day, _, _ in told}:
        for account in held_on(day, known):
            own = [one for one in known if one.account_id == account]
            ahead = (day + timedelta(days=step) for step in range(1, 121))
            expected[day, account] = any(account not in held_on(each, own) for each in ahead)
    assert {(day, account): has_lapsed for day, account, has_lapsed in told} == expected
    assert 0.1 < np.mean(list(expected.values())) < 0.5
    assert max(day for day, _ in expected) == date(2025, 10, 31)  # of the next one the window has not passed


def test_noise_after_the_date_changes_no_frame_no_model_and_no_score(
    scored: tuple[Warehouse, str], orders: Orders, events: Events
) -> None:
    """Orders, uses of the product, every kind of record that a feature or a label is made of, and whose a record is."""
    warehouse, run_id = scored
    features = "select * from marts.account_features where as_of_date <= %s order by as_of_date, account_id"
    of_contracts = "select * from marts.lapse_features where as_of_date <= %s order by as_of_date, account_id"
    labels = "select * from marts.lapse_outcomes where has_lapsed is not null order by as_of_date, account_id"
    known = warehouse.rows(features, DAY)
    known_of_contracts, known_labels = warehouse.rows(of_contracts, DAY), warehouse.rows(labels)
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
    land_use_and_crm(events, LATER, DAY + timedelta(days=1), seed=2, uses=60, numbers=TIED_LATER)
    land_contracts(LATER, overwritten_after(DAY))
    again = build_marts(DAY)
    assert warehouse.value(
        "select max(next_order_date) > %s from marts.account_next_orders", DAY
    )  # the noise is there
    assert warehouse.value(
        "select count(distinct source_account_id) from identity.int_account_crosswalk where valid_from_date > %s",
        DAY,
    ) == len(TIED_LATER)  # and ties that were written down later
    assert warehouse.rows(features, DAY) == known
    assert warehouse.rows(of_contracts, DAY) == known_of_contracts
    assert warehouse.rows(labels) == known_labels
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
