"""What is built from the CRM does not depend on which system it is: the same facts make the same account."""

from datetime import date

import pytest

from include.dbt import build
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Line, Orders, Version, at, land_versions
from tests.dbt.selections import FEATURES

pytestmark = pytest.mark.extended

AS_OF, BEFORE = date(2026, 6, 30), date(2026, 6, 29)
JANUARY, JUNE = date(2026, 1, 10), date(2026, 6, 20)
CRM_COLUMNS = (
    "tickets_90d, open_tickets, urgent_tickets_90d, open_deals, open_deal_amount::float, won_deals_365d, "
    "days_since_won_deal, contacts, has_decision_maker"
)


def hubspot(as_of: date) -> None:
    made = {"createdate": at(JUNE).isoformat()}
    land_versions(as_of, "companies", [Version("1", "c1", at(JANUARY), {"name": "One", "industry": "steel"})])
    land_versions(
        as_of,
        "contacts",
        [
            Version("1", "1", at(JANUARY), {"jobtitle": "Buyer"}),
            Version("1", "1", at(JUNE), {"jobtitle": "Buyer", "hs_buying_role": "END_USER;DECISION_MAKER"}),
            Version("2", "1", at(JANUARY), {"jobtitle": "Clerk"}),
        ],
    )
    closed = {"closedate": "2026-06-20T00:00:00Z", "deal_currency_code": "CNY"}
    land_versions(
        as_of,
        "deals",
        [
            Version("1", "1", at(JANUARY), {"dealstage": "appointmentscheduled", "amount": "100"}),
            Version("1", "1", at(JUNE), {"dealstage": "contractsent", "amount": "150.50"}),
            Version("2", "1", at(JUNE), {"dealstage": "closedwon", "hs_is_closed_won": "true"} | closed),
            Version("3", "1", at(JUNE), {"dealstage": "closedlost", "hs_is_closed_won": "false"} | closed),
        ],
    )
    land_versions(
        as_of,
        "tickets",
        [
            Version("1", "1", at(JUNE), made | {"hs_ticket_priority": "URGENT"}),
            Version(
                "2", "1", at(JUNE), made | {"hs_ticket_priority": "LOW", "closed_date": at(JUNE).isoformat()}
            ),
            Version("3", "1", at(JUNE), made | {"hs_ticket_priority": "LOW"}, is_archived=True),
        ],
    )


def salesforce(as_of: date) -> None:
    made = {"createdate": at(JUNE).isoformat()}

    def land(entity: str, versions: list[Version]) -> None:
        land_versions(as_of, entity, versions, "salesforce")

    # Its ids are those of the other system's records, of another company.
    land("accounts", [Version("1", "c2", at(JANUARY), {"Name": "Two", "Industry": "steel"})])
    land(
        "contacts",
        [
            Version("1", "1", at(JANUARY), {"Title": "Buyer"}),
            Version("2", "1", at(JANUARY), {"Title": "Clerk", "HasOptedOutOfEmail": "false"}),
        ],
    )
    land(
        "contact_roles",
        [
            Version("8", "1", at(JUNE), {"ContactId": "1", "Role": "Business User"}),
            Version("9", "1", at(JUNE), {"ContactId": "1", "Role": "Economic Decision Maker"}),
        ],
    )
    closed = {"CloseDate": "2026-06-20", "CurrencyIsoCode": "CNY"}
    land(
        "opportunities",
        [
            Version("1", "1", at(JANUARY), {"StageName": "Prospecting", "Amount": "100"}),
            Version("1", "1", at(JUNE), {"StageName": "Negotiation", "Amount": "150.5"}),
            Version("2", "1", at(JUNE), {"StageName": "Closed Won", "IsWon": "true"} | closed),
            Version("3", "1", at(JUNE), {"StageName": "Closed Lost", "IsWon": "false"} | closed),
        ],
    )
    land(
        "cases",
        [
            Version("1", "1", at(JUNE), made | {"Priority": "Urgent"}),
            Version("2", "1", at(JUNE), made | {"Priority": "Low", "ClosedDate": at(JUNE).isoformat()}),
            Version("3", "1", at(JUNE), made | {"Priority": "Low"}, is_archived=True),
        ],
    )


def bottlecrm(as_of: date) -> None:
    made = {"createdate": at(JUNE).isoformat()}

    def land(entity: str, versions: list[Version]) -> None:
        land_versions(as_of, entity, versions, "bottlecrm")

    land("accounts", [Version("1", "c3", at(JANUARY), {"name": "Three", "industry": "STEEL"})])
    land(
        "contacts",
        [
            Version("1", "1", at(JANUARY), {"title": "Buyer"}),
            Version("2", "1", at(JANUARY), {"title": "Clerk", "do_not_call": "true"}),
        ],
    )
    closed = {"closed_on": "2026-06-20", "currency": "CNY"}
    land(
        "opportunities",
        [
            Version("1", "1", at(JANUARY), {"stage": "PROPOSAL", "stage_kind": "open", "amount": "100.00"}),
            Version("1", "1", at(JUNE), {"stage": "NEGOTIATION", "stage_kind": "open", "amount": "150.50"}),
            Version("2", "1", at(JUNE), {"stage": "SIGNED", "stage_kind": "won"} | closed),
            Version("3", "1", at(JUNE), {"stage": "NO_BUDGET", "stage_kind": "lost"} | closed),
        ],
    )
    land(
        "tickets",
        [
            Version("1", "1", at(JUNE), made | {"priority": "Urgent", "status": "New"}),
            Version("2", "1", at(JUNE), made | {"priority": "Low", "resolved_at": at(JUNE).isoformat()}),
            Version("3", "1", at(JUNE), made | {"priority": "Low"}, is_archived=True),
        ],
    )


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse) -> Warehouse:
    """A warehouse in which one account stands in each system, and a prospect in Salesforce."""
    lines = [Line(customer, customer, customer, at(JANUARY)) for customer in ("c1", "c2", "c3")]
    Orders().land(BEFORE, lines)
    hubspot(BEFORE)
    salesforce(BEFORE)
    bottlecrm(BEFORE)
    land_versions(BEFORE, "accounts", [Version("5", None, at(JANUARY), {"Name": "Prospect"})], "salesforce")
    build("staging", BEFORE, "run-0")
    build("marts", BEFORE, "run-0", only=FEATURES)
    return module_warehouse


def features(warehouse: Warehouse, day: date) -> list[tuple]:
    return warehouse.rows(
        f"select {CRM_COLUMNS} from marts.account_features where as_of_date = %s order by account_id", day
    )


def test_the_same_facts_in_either_system_make_the_same_features_on_every_date(built: Warehouse) -> None:
    hubspots, salesforces, bottlecrms = features(built, BEFORE)
    assert hubspots == (2, 1, 1, 1, 150.5, 1, 9, 2, True)
    assert salesforces == hubspots
    # BottleCRM knows no roles in a decision.
    assert bottlecrms == (*hubspots[:-1], False)
    hubspots, salesforces, bottlecrms = features(built, date(2026, 3, 31))
    assert hubspots == (0, 0, 0, 1, 100.0, 0, None, 2, False)
    assert salesforces == bottlecrms == hubspots


def test_accounts_of_all_systems_have_their_profile(built: Warehouse) -> None:
    rows = built.rows(
        "select account_id, account_name, industry, crm_record_id from marts.account_profiles "
        "where as_of_date = %s order by account_id",
        BEFORE,
    )
    assert rows == [
        ("c1", "One", "steel", "1"),
        ("c2", "Two", "steel", "1"),
        ("c3", "Three", "STEEL", "1"),
        ("salesforce:5", "Prospect", None, "5"),
    ]


def test_a_change_in_salesforce_restates_the_dates_it_touches(built: Warehouse) -> None:
    won = Version("1", "1", at(date(2026, 3, 15)), {"StageName": "Closed Lost"})
    land_versions(AS_OF, "opportunities", [won], "salesforce")
    build("staging", AS_OF, "run-1")
    build("marts", AS_OF, "run-1", only=FEATURES)
    assert [row[3] for row in features(built, date(2026, 3, 31))] == [1, 0, 1]
    assert [row[3] for row in features(built, AS_OF)] == [1, 1, 1]
    assert built.value("select count(*) from intermediate.restatement_queue") == 0


def test_answers_of_every_survey_come_through_and_a_label_is_no_number(warehouse: Warehouse) -> None:
    told = [("NPS", "9"), ("CSAT", "7"), ("CSAT", "2.0"), ("CSAT", "Very satisfied"), ("CES", None)]
    answers = [
        Version(str(number), "1", at(JUNE), {"hs_survey_type": kind, "hs_value": value})
        for number, (kind, value) in enumerate(told)
    ]
    land_versions(AS_OF, "feedback_submissions", answers)
    build("staging", AS_OF, "run-0")
    assert warehouse.rows(
        "select survey_type, answer::float from staging.stg_hubspot_survey_answers order by record_id"
    ) == [("NPS", 9.0), ("CSAT", 7.0), ("CSAT", 2.0), ("CSAT", None), ("CES", None)]
