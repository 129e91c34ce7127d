"""The Salesforce sandbox answers the unmodified official clients as Salesforce does."""

import csv
import http.client
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceExpiredSession,
    SalesforceGeneralError,
    SalesforceMalformedRequest,
    SalesforceOperationError,
    SalesforceRefusedRequest,
    SalesforceResourceNotFound,
)

from tests.integration.salesforce_fixture import SECRET, Running, running_salesforce

pytestmark = pytest.mark.extended

JUNE, JULY = datetime(2025, 6, 1, 9, tzinfo=UTC), datetime(2025, 7, 1, 9, tzinfo=UTC)
MANY = 7


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    state = tmp_path_factory.mktemp("sandbox") / "salesforce.sqlite"
    with running_salesforce(state, {"Account": {"Industry", "OwnerId"}}, rest_page=3) as running:
        org = running.org
        users = [org.insert("User", JUNE, Name=f"User {number}") for number in range(2)]
        for number in range(MANY):
            org.insert("Account", JUNE, Name=f"Account, {number}", Industry="Retail", OwnerId=users[0])
        ids = [row["Id"] for row in running.client().query_all("select Id from Account")["records"]]
        org.update(ids[0], JULY, Industry="Steel", OwnerId=users[1])
        org.delete(ids[1], JULY)
        org.insert(
            "Opportunity",
            JUNE,
            AccountId=ids[0],
            Name="One",
            Amount=100,
            StageName="Prospecting",
            IsWon=False,
        )
        yield running


@pytest.fixture(autouse=True)
def no_faults(crm: Running) -> None:
    crm.sandbox.faults = type(crm.sandbox.faults)()


@pytest.fixture
def client(crm: Running) -> Salesforce:
    return crm.client()


def test_each_way_of_logging_in_opens_a_session_and_a_wrong_secret_opens_none(crm: Running) -> None:
    ways = (
        {"consumer_key": "key", "consumer_secret": SECRET, "domain": "acme.my"},
        {"username": "u", "password": SECRET, "consumer_key": "key", "consumer_secret": SECRET},
        {"username": "u", "password": SECRET, "security_token": SECRET},
    )
    for way in ways:
        told = Salesforce(session=crm.session(), **way).query("select Id from User")
        assert told["totalSize"] == 2
        wrong = {name: f"{value}x" if value == SECRET else value for name, value in way.items()}
        with pytest.raises(SalesforceAuthenticationFailed) as refused:
            Salesforce(session=crm.session(), **wrong)
        assert refused.value.code in ("invalid_grant", "INVALID_LOGIN")


def test_a_query_comes_in_pages_and_deleted_records_come_only_where_asked_for(client: Salesforce) -> None:
    text = "SELECT Id, Name, IsDeleted FROM Account"
    first = client.query(text)
    assert (len(first["records"]), first["done"], first["totalSize"]) == (3, False, MANY - 1)
    standing = client.query_all(text)["records"]
    assert len({row["Id"] for row in standing}) == MANY - 1
    everything = client.query_all(text, include_deleted=True)["records"]
    assert [row["Name"] for row in everything if row["IsDeleted"]] == ["Account, 1"]


def test_conditions_parents_order_and_limit_are_understood(client: Salesforce) -> None:
    text = (
        "select Name, Owner.Name from Account where SystemModstamp >= 2025-07-01T00:00:00Z "
        "and Industry in ('Steel', 'Wood') and IsDeleted = false order by Name desc limit 5"
    )
    (row,) = client.query(text)["records"]
    assert (row["Name"], row["Owner"]["Name"]) == ("Account, 0", "User 1")
    with_null = "select Id from Opportunity where CloseDate = null and Amount > 99.5 and Name != 'Two'"
    assert client.query(with_null)["totalSize"] == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("select * from Account", "MALFORMED_QUERY"),
        ("select Id Account", "MALFORMED_QUERY"),
        ("select Id from Account where", "MALFORMED_QUERY"),
        ("select Id from Account where Name like 'A%'", "MALFORMED_QUERY"),
        ("select Id from Account where Name = 'A' or Name = 'B'", "MALFORMED_QUERY"),
        ("select Id from Account where SystemModstamp > 2025-13-01T00:00:00Z", "MALFORMED_QUERY"),
        ("select count(Id) from Account", "MALFORMED_QUERY"),
        ("select Id from Account; drop table rows", "MALFORMED_QUERY"),
        ("select Nothing__c from Account", "INVALID_FIELD"),
        ("select Nobody.Name from Account", "INVALID_FIELD"),
        ("select Id from Starship", "INVALID_TYPE"),
        ("select Id from ContactHistory", "INVALID_TYPE"),
    ],
)
def test_a_query_outside_what_is_known_is_refused_by_both_apis(
    client: Salesforce, text: str, code: str
) -> None:
    with pytest.raises(SalesforceMalformedRequest) as refused:
        client.query(text)
    assert refused.value.content[0]["errorCode"] == code
    with pytest.raises(SalesforceMalformedRequest) as refused:
        list(client.bulk2.Account.query(text, wait=0))
    assert refused.value.content[0]["errorCode"] == code


def test_bulk_results_come_by_locator_to_memory_and_to_files(client: Salesforce, tmp_path: Path) -> None:
    text = "select Id, Name, IsDeleted, CreatedDate from Account"
    pages = list(client.bulk2.Account.query_all(text, max_records=3, wait=0))
    rows = [row for each in pages for row in csv.DictReader(io.StringIO(each, newline=""))]
    assert [len(pages), len(rows)] == [3, MANY]
    assert rows[1] == {
        "Id": rows[1]["Id"],
        "Name": "Account, 1",
        "IsDeleted": "true",
        "CreatedDate": "2025-06-01T09:00:00.000Z",
    }
    files = client.bulk2.Account.download(text, path=str(tmp_path), max_records=4, wait=0)
    assert [each["number_of_records"] for each in files] == [4, 2]  # without the deleted one
    (amount,) = client.bulk2.Opportunity.query("select Amount, CloseDate from Opportunity", wait=0)
    assert amount == '"Amount","CloseDate"\n"100.0",""\n'


def test_a_job_can_fail_and_be_aborted_and_has_no_results_then(crm: Running, client: Salesforce) -> None:
    crm.fault(fail_jobs=1)
    with pytest.raises(SalesforceOperationError, match="retried more than 15 times"):
        list(client.bulk2.Account.query("select Id from Account", wait=0))
    jobs = client.bulk2.Account._client
    job_id = jobs.create_job("query", "select Id from Account")["id"]
    with pytest.raises(SalesforceMalformedRequest, match="no results"):
        jobs.get_query_results(job_id)
    assert jobs.abort_job(job_id, True)["state"] == "Aborted"
    assert jobs.get_job(job_id, True)["state"] == "Aborted"


def test_an_expired_session_is_401_until_a_new_login(crm: Running, client: Salesforce) -> None:
    crm.fault(expire_session=1)
    with pytest.raises(SalesforceExpiredSession) as refused:
        list(client.bulk2.Account.query("select Id from Account", wait=0))
    assert refused.value.content[0]["errorCode"] == "INVALID_SESSION_ID"
    with pytest.raises(SalesforceExpiredSession):
        list(client.bulk2.Account.query("select Id from Account", wait=0))
    assert client.query("select Id from User")["totalSize"] == 2  # which logs in by itself
    assert list(client.bulk2.User.query("select Id from User", wait=0))


def test_describe_shows_what_the_user_may_see(crm: Running, client: Salesforce) -> None:
    fields = {each["name"]: each["type"] for each in client.Opportunity.describe()["fields"]}
    assert fields["Amount"] == "currency"
    assert {each["name"] for each in client.describe()["sobjects"]} >= {"Account", "AccountHistory", "Case"}
    crm.org.hidden = {"Case", "Contact.HasOptedOutOfEmail"}
    with pytest.raises(SalesforceResourceNotFound):
        client.Case.describe()
    assert "HasOptedOutOfEmail" not in {each["name"] for each in client.Contact.describe()["fields"]}
    with pytest.raises(SalesforceMalformedRequest, match="INVALID_TYPE"):
        client.query("select Id from Case")
    crm.org.hidden = set()


def test_history_is_kept_of_tracked_fields_and_an_owner_twice(client: Salesforce) -> None:
    text = (
        "select Field, OldValue, NewValue, CreatedDate from AccountHistory where Account.Name = 'Account, 0'"
    )
    rows = [(r["Field"], r["OldValue"], r["NewValue"]) for r in client.query_all(text)["records"]]
    ids = [row["Id"] for row in client.query_all("select Id from User")["records"]]
    assert rows == [
        ("created", None, None),
        ("Industry", "Retail", "Steel"),
        ("Owner", "User 0", "User 1"),
        ("Owner", ids[0], ids[1]),
    ]
    tracked = client.query(
        "select QualifiedApiName from FieldDefinition "
        "where EntityDefinition.QualifiedApiName = 'Account' and IsFieldHistoryTracked = true"
    )
    assert {row["QualifiedApiName"] for row in tracked["records"]} == {"Industry", "OwnerId"}
    (stages,) = client.query("select StageName, Amount from OpportunityHistory")["records"]
    assert (stages["StageName"], stages["Amount"]) == ("Prospecting", 100)


def test_faults_strike_as_often_as_they_are_set(crm: Running, client: Salesforce) -> None:
    text = "select Id from User"
    for fault, status in (({"rate_limited": 1, "retry_after": 7}, 429), ({"server_error": 1}, 503)):
        crm.fault(**fault)
        with pytest.raises(SalesforceGeneralError) as refused:
            client.query(text)
        assert refused.value.status == status
        assert client.query(text)["totalSize"] == 2
    crm.fault(request_limit=True)
    with pytest.raises(SalesforceRefusedRequest, match="REQUEST_LIMIT_EXCEEDED"):
        client.query(text)
    crm.fault(request_limit=False, drop_job_answer=1)
    before = len(crm.sandbox._jobs)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(client.bulk2.User.query(text, wait=0))
    assert len(crm.sandbox._jobs) == before + 1  # it was done all the same
    crm.fault(cut_results=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(client.bulk2.User.query(text, wait=0))
    crm.fault(slow_s=0.3)
    with pytest.raises(requests.ReadTimeout):
        client.query(text, timeout=0.1)


def test_headers_are_in_title_case_and_tell_the_calls_of_the_day(crm: Running, client: Salesforce) -> None:
    client.query("select Id from User")
    used = client.api_usage["api-usage"]
    assert used.used >= 1
    crm.fault(rate_limited=1, retry_after=3)
    connection = http.client.HTTPConnection("127.0.0.1", crm.port)
    names = []
    for _ in range(2):
        connection.request("GET", "/services/data/v59.0/query/?q=x", headers={"Authorization": "Bearer x"})
        answer = connection.getresponse()
        answer.read()
        names.append([name for name, _ in answer.getheaders()])
    connection.close()
    assert {"Retry-After", "Content-Type", "Sforce-Limit-Info"} <= set(names[0])
    assert "Retry-After" not in names[1]


def test_the_switchboard_is_behind_the_secret(crm: Running) -> None:
    address = f"{crm.url}/sandbox/salesforce/faults"
    assert requests.post(address, json={"slow_s": 9}, timeout=5).status_code == 401
    known = {"Authorization": f"Bearer {SECRET}"}
    assert requests.post(address, json={"no_such": 1}, headers=known, timeout=5).status_code == 400
    told = requests.post(address, json={"server_error": 2}, headers=known, timeout=5).json()
    assert told["server_error"] == 2
    calls = requests.get(f"{crm.url}/sandbox/salesforce/calls", headers=known, timeout=5).json()
    assert calls["by_endpoint"]["query"] >= 1


def test_airflows_hook_reads_the_org(crm: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = pytest.importorskip(
        "airflow.providers.salesforce.hooks.salesforce", reason="the Salesforce provider is not installed"
    )
    connection = {
        "conn_type": "salesforce",
        "login": "u",
        "password": SECRET,
        "extra": {"security_token": SECRET},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SALESFORCE_TEST", json.dumps(connection))
    hook = hooks.SalesforceHook("salesforce_test", session=crm.session())
    assert "Industry" in hook.get_available_fields("Account")
    rows = hook.get_object_from_salesforce("Account", ["Id", "Name"])["records"]
    assert len(rows) == MANY - 1
    everything = hook.make_query("select Id from Account", include_deleted=True)
    assert everything["totalSize"] == MANY
