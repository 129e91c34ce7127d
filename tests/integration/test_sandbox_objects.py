"""The sandbox shows contacts, deals, tickets and survey answers to the unmodified official client as HubSpot does."""

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hubspot.crm.deals.exceptions import ApiException as DealsError
from hubspot.crm.objects.exceptions import ApiException

from include.sandbox.store import COMPANIES, FIRST_IDS, RECORD_ID_STEP, Record, Store
from tests.integration.sandbox_fixture import Running, account, record_id, running_sandbox

JUNE, JULY = datetime(2025, 6, 1, 9, tzinfo=UTC), datetime(2025, 7, 1, 9, tzinfo=UTC)
MANY = 130
RECORDS = (
    Record("contacts", "A0001", JUNE, (("jobtitle", JUNE, "Buyer"),), archived_at=JULY),
    Record("contacts", "A0001", JUNE, (("jobtitle", JUNE, "Buyer"), ("jobtitle", JULY, "Director"))),
    Record("contacts", "Z9999", JUNE, (("jobtitle", JUNE, "Of a company the CRM does not hold"),)),
    Record("deals", "A0000", JUNE, (("amount", JUNE, "100"), ("amount", JULY, "200"))),
    *(Record("tickets", "A0000", JUNE, (("subject", JUNE, f"Ticket {n}"),)) for n in range(MANY)),
    Record("feedback_submissions", "A0001", JUNE, (("hs_value", JUNE, "9"),)),
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    state = tmp_path_factory.mktemp("sandbox") / "crm.sqlite"
    with running_sandbox(state, [account(0), account(1)], records=RECORDS) as running:
        yield running


def test_a_deal_comes_with_its_history_and_its_company(sandbox: Running) -> None:
    page = sandbox.client.crm.deals.basic_api.get_page(
        limit=50, properties_with_history=["amount", "dealtype"], associations=["companies"]
    )
    (deal,) = page.results
    assert deal.properties["amount"] == "200"
    assert deal.created_at == JUNE
    assert deal.updated_at == JULY
    assert [(each.value, each.timestamp) for each in deal.properties_with_history["amount"]] == [
        ("200", JULY),
        ("100", JUNE),
    ]
    assert deal.properties_with_history["dealtype"] == []
    links = deal.associations["companies"].results
    assert [(each.id, each.type) for each in links] == [
        (record_id(0), "deal_to_company"),
        (record_id(0), "deal_to_company_unlabeled"),
    ]


def test_no_association_is_no_entry_and_an_archived_record_shows_none(sandbox: Running) -> None:
    api = sandbox.client.crm.contacts.basic_api
    present = api.get_page(associations=["companies"]).results
    assert [each.associations is None for each in present] == [False, True]
    assert api.get_page().results[0].associations is None  # nor where it was not asked for
    (archived,) = api.get_page(archived=True, associations=["companies"]).results
    assert (archived.archived, archived.archived_at, archived.associations) == (True, JULY, None)


def test_pages_hold_every_ticket_once_and_survey_answers_are_listed(sandbox: Running) -> None:
    everyone = sandbox.client.crm.tickets.get_all(properties=["subject"])
    assert [each.properties["subject"] for each in everyone] == [f"Ticket {n}" for n in range(MANY)]
    (answer,) = sandbox.client.crm.objects.get_all("feedback_submissions", properties=["hs_value"])
    assert answer.properties["hs_value"] == "9"
    assert answer.id == str(FIRST_IDS["feedback_submissions"])


def test_a_page_with_histories_holds_fifty_and_no_more(sandbox: Running) -> None:
    api = sandbox.client.crm.deals.basic_api
    assert api.get_page(limit=100).results
    with pytest.raises(DealsError, match="between 1 and 50"):
        api.get_page(limit=51, properties_with_history=["amount"])


def test_what_may_not_be_read_is_403_and_what_is_not_there_404(sandbox: Running) -> None:
    page = sandbox.client.crm.objects.basic_api.get_page
    with pytest.raises(ApiException) as unknown:
        page("starships")
    assert unknown.value.status == 404
    sandbox.fault(missing_scopes=["tickets"])
    with pytest.raises(ApiException) as refused:
        page("tickets")
    sandbox.fault(missing_scopes=[])
    assert refused.value.status == 403
    body = json.loads(refused.value.body)
    assert body["category"] == "MISSING_SCOPES"
    assert body["errors"][0]["context"]["requiredGranularScopes"] == ["crm.objects.tickets.read"]


def test_a_state_of_an_older_version_keeps_its_companies_and_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(
            "create table companies (id integer primary key, created_at text not null, updated_at text not null, "
            "archived_at text, properties text not null);"
            "create table history (seq integer primary key autoincrement, record_id integer not null, "
            "property text not null, value text not null, changed_at text not null);"
            "create table property_groups (name text primary key, label text not null);"
            "create table properties (name text primary key, definition text not null);"
            "insert into property_groups values ('companyinformation', 'Company information');"
        )
        told = json.dumps({"account_number": "A0000", "stratum_tier": "S"})
        old.execute(
            "insert into companies values (?, '2025-01-01', '2025-01-02', null, ?)", [record_id(0), told]
        )
    old.close()
    for _ in range(2):  # the second start finds nothing to do
        store = Store(path)
        assert not store.is_empty()
        if missing := store.missing_kinds():
            assert missing == set(FIRST_IDS) - {COMPANIES}
            store.seed_records(RECORDS)
        (company,) = store.page(COMPANIES, None, 10, archived=False)
        assert json.loads(company["properties"])["stratum_tier"] == "S"
        assert [row["company_id"] for row in store.page("deals", None, 10, archived=False)] == [
            int(record_id(0))
        ]
        assert len(store.page("tickets", None, 500, archived=False)) == MANY
        last = store.page("tickets", None, 500, archived=False)[-1]["id"]
        assert last == FIRST_IDS["tickets"] + (MANY - 1) * RECORD_ID_STEP
        store.close()
