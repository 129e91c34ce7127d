"""The Salesforce sandbox carries out Bulk 2.0 ingest jobs of the unmodified official client as Salesforce does."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from simple_salesforce import Salesforce
from simple_salesforce.bulk2 import ColumnDelimiter, JobState, LineEnding, SFBulk2Type, _Bulk2Client
from simple_salesforce.exceptions import (
    SalesforceGeneralError,
    SalesforceMalformedRequest,
    SalesforceOperationError,
)

from tests.integration.salesforce_fixture import JANUARY, Running, running_salesforce

MANY = 450  # more than two of the chunks that rows are carried out in


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    state = tmp_path_factory.mktemp("sandbox") / "salesforce.sqlite"
    with running_salesforce(state, {"Account": {"Industry"}}) as running:
        yield running


@pytest.fixture(scope="module")
def client(crm: Running) -> Salesforce:
    return crm.client()


@pytest.fixture(autouse=True)
def no_faults(crm: Running) -> None:
    crm.sandbox.faults = type(crm.sandbox.faults)()


@pytest.fixture
def bulk(client: Salesforce) -> SFBulk2Type:
    return client.bulk2.Account


@pytest.fixture
def jobs(bulk: SFBulk2Type) -> _Bulk2Client:
    """The steps of a job one by one, as the client itself takes them."""
    return bulk._client


@pytest.fixture
def accounts(crm: Running) -> list[str]:
    return [
        crm.org.insert("Account", JANUARY, Name=f"Account {n}", Industry="Retail", Description="kept")
        for n in range(3)
    ]


def values(crm: Running, record_id: str) -> dict[str, Any]:
    return crm.org.row(record_id)["values"]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def made(jobs: _Bulk2Client, text: str, **options: Any) -> str:
    """Make a job of updates, upload its rows and close it; return its id."""
    job_id = jobs.create_job("update", **options)["id"]
    jobs.upload_job_data(job_id, text)
    jobs.close_job(job_id)
    return job_id


def test_rows_are_updated_and_each_tells_what_came_of_it(
    crm: Running, bulk: SFBulk2Type, accounts: list[str]
) -> None:
    sent = [
        {"Id": accounts[0], "Industry": "Steel", "Description": ""},
        {"Id": accounts[1], "Industry": "#N/A", "Description": "new"},
        {"Id": accounts[2], "Industry": "Wood", "Description": "x" * 32_001},
    ]
    (told,) = bulk.update(records=sent, wait=0)
    assert (told["numberRecordsProcessed"], told["numberRecordsFailed"]) == (3, 1)
    done = bulk.get_all_ingest_records(told["job_id"])
    assert {each["sf__Id"]: each["sf__Created"] for each in done["successfulRecords"]} == dict.fromkeys(
        accounts[:2], "false"
    )
    (failed,) = done["failedRecords"]
    assert failed["sf__Id"] == accounts[2]
    assert failed["sf__Error"].startswith("STRING_TOO_LONG:Account Description: data value too large: xxx")
    assert failed["sf__Error"].endswith(":Description --")
    assert failed["Industry"] == "Wood"
    assert done["unprocessedRecords"] == []
    # An empty field keeps its value, #N/A empties it.
    assert (values(crm, accounts[0])["Industry"], values(crm, accounts[0])["Description"]) == (
        "Steel",
        "kept",
    )
    assert (values(crm, accounts[1])["Industry"], values(crm, accounts[1])["Description"]) == (None, "new")
    assert values(crm, accounts[2])["Industry"] == "Retail"
    assert [each["request"] for each in crm.org.written(accounts[0])] == [told["job_id"]]


def test_rows_are_inserted_upserted_and_deleted_and_come_back_in_another_order(
    crm: Running, bulk: SFBulk2Type
) -> None:
    sent = [{"Name": f"B{n}", "ERP_Number__c": f"B{n}"} for n in range(MANY)]
    (told,) = bulk.insert(records=sent, wait=0)
    answered = rows(bulk.get_successful_records(told["job_id"]))
    assert {each["Name"] for each in answered} == {each["Name"] for each in sent}
    assert [each["Name"] for each in answered] != [each["Name"] for each in sent]
    assert all(each["sf__Created"] == "true" for each in answered)
    again = [
        {"ERP_Number__c": "B0", "Name": "changed", "OwnerId": ""},
        {"ERP_Number__c": "B-new", "Name": "new", "OwnerId": ""},
        {"ERP_Number__c": "", "Name": "nameless", "OwnerId": ""},
    ]
    (told,) = bulk.upsert(records=again, external_id_field="ERP_Number__c", wait=0)
    created = {
        each["Name"]: each["sf__Created"] for each in rows(bulk.get_successful_records(told["job_id"]))
    }
    assert created == {"changed": "false", "new": "true"}
    (failed,) = rows(bulk.get_failed_records(told["job_id"]))
    assert (failed["sf__Id"], failed["sf__Error"]) == (
        "",
        "MISSING_ARGUMENT:ERP_Number__c not specified:ERP_Number__c --",
    )
    (first,) = crm.org.holders("Account", "ERP_Number__c", "B0")
    assert values(crm, first)["Name"] == "changed"
    (told,) = bulk.delete(records=[{"Id": first}, {"Id": "001000000000000AAA"}], wait=0)
    assert (told["numberRecordsProcessed"], told["numberRecordsFailed"]) == (2, 1)
    assert values(crm, first)["IsDeleted"] is True
    with pytest.raises(SalesforceMalformedRequest, match="FEATURENOTENABLED"):
        bulk.hard_delete(records=[{"Id": first}], wait=0)


def test_a_job_goes_through_its_states_and_takes_its_rows_once(
    crm: Running, jobs: _Bulk2Client, accounts: list[str]
) -> None:
    text = f"Id;Industry\r\n{accounts[0]};Steel\r\n"
    job = jobs.create_job("update", column_delimiter=ColumnDelimiter.SEMICOLON, line_ending=LineEnding.CRLF)
    assert (job["state"], job["object"], job["columnDelimiter"]) == ("Open", "Account", "SEMICOLON")
    jobs.upload_job_data(job["id"], text)
    with pytest.raises(SalesforceMalformedRequest, match="Found multiple contents"):
        jobs.upload_job_data(job["id"], text)
    with pytest.raises(SalesforceMalformedRequest, match="Open: it has no results"):
        jobs.get_ingest_results(job["id"], "successfulResults")
    crm.fault(ingest_delay_s=0.2)
    assert jobs.close_job(job["id"])["state"] == "UploadComplete"
    assert jobs.get_job(job["id"], False)["state"] == "InProgress"
    assert values(crm, accounts[0])["Industry"] == "Retail"
    assert jobs.wait_for_job(job["id"], False, 0.05) == JobState.job_complete
    assert values(crm, accounts[0])["Industry"] == "Steel"
    answered = jobs.get_ingest_results(job["id"], "successfulResults")
    assert answered.encode() == (
        f'"sf__Id";"sf__Created";"Id";"Industry"\r\n"{accounts[0]}";"false";"{accounts[0]}";"Steel"\r\n'.encode()
    )
    with pytest.raises(SalesforceMalformedRequest, match="INVALIDJOBSTATE"):
        jobs.upload_job_data(job["id"], text)
    with pytest.raises(SalesforceMalformedRequest, match="INVALIDJOBSTATE"):
        jobs.abort_job(job["id"], False)


def test_a_job_is_carried_out_though_its_client_has_gone(
    crm: Running, client: Salesforce, jobs: _Bulk2Client, accounts: list[str]
) -> None:
    job_id = made(jobs, f"Id,Industry\n{accounts[0]},Steel\n")
    assert client.Account.get(accounts[0])["Industry"] == "Steel"  # though nobody has asked for the job
    assert [jobs.get_job(job_id, False)["state"] for _ in range(2)] == ["InProgress", "JobComplete"]


BROKEN = {
    "an unknown column": ("Id,Nothing__c\n{id},x\n", "InvalidBatch : Field name not found : Nothing__c"),
    "no id": ("Industry\nSteel\n", "InvalidBatch : Field name not found : Id"),
    "another line end": ("Id,Industry\r\n{id},Steel\r\n", "ClientInputError : LineEnding is invalid"),
    "a row too short": ("Id,Industry\n{id}\n", "InvalidBatch : the rows do not have"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_job_whose_rows_cannot_be_read_fails_whole_and_leaves_them_unprocessed(
    crm: Running, jobs: _Bulk2Client, accounts: list[str], text: str, reason: str
) -> None:
    job_id = made(jobs, text.format(id=accounts[0]))
    with pytest.raises(SalesforceOperationError, match=reason):
        jobs.wait_for_job(job_id, False, 0)
    assert jobs.get_ingest_results(job_id, "successfulResults").count("\n") == 1
    assert len(jobs.get_ingest_results(job_id, "unprocessedRecords").splitlines()) == 2
    assert crm.org.written(accounts[0]) == []


def test_a_job_can_fail_half_way(crm: Running, jobs: _Bulk2Client, accounts: list[str]) -> None:
    crm.fault(fail_ingest=1, fail_ingest_rows=1)
    text = "Id,Industry\n" + "".join(f"{each},Steel\n" for each in accounts)
    job_id = made(jobs, text)
    with pytest.raises(SalesforceOperationError, match="InternalServerError"):
        jobs.wait_for_job(job_id, False, 0)
    assert [each["sf__Id"] for each in rows(jobs.get_ingest_results(job_id, "successfulResults"))] == [
        accounts[0]
    ]
    assert [each["Id"] for each in rows(jobs.get_ingest_results(job_id, "unprocessedRecords"))] == accounts[
        1:
    ]
    assert [values(crm, each)["Industry"] for each in accounts] == ["Steel", "Retail", "Retail"]
    assert jobs.wait_for_job(made(jobs, text), False, 0) == JobState.job_complete


def test_a_job_that_stays_unprocessed_can_be_aborted(
    crm: Running, jobs: _Bulk2Client, accounts: list[str]
) -> None:
    crm.fault(stall_ingest=1)
    job_id = made(jobs, f"Id,Industry\n{accounts[0]},Steel\n")
    assert [jobs.get_job(job_id, False)["state"] for _ in range(3)] == ["UploadComplete"] * 3
    assert jobs.abort_job(job_id, False)["state"] == "Aborted"
    assert [each["Id"] for each in rows(jobs.get_ingest_results(job_id, "unprocessedRecords"))] == [
        accounts[0]
    ]
    assert crm.org.written(accounts[0]) == []


def test_chosen_rows_of_a_job_are_refused_and_no_others(
    crm: Running, bulk: SFBulk2Type, accounts: list[str]
) -> None:
    crm.fault(locked_rows={accounts[1]: 1})
    sent = [{"Id": each, "Industry": "Steel"} for each in accounts]
    (told,) = bulk.update(records=sent, wait=0)
    (failed,) = rows(bulk.get_failed_records(told["job_id"]))
    assert failed["sf__Id"] == accounts[1]
    assert failed["sf__Error"].startswith("UNABLE_TO_LOCK_ROW:unable to obtain exclusive access")
    (told,) = bulk.update(records=sent[1:2], wait=0)
    assert told["numberRecordsFailed"] == 0
    assert [len(crm.org.written(each)) for each in accounts] == [1, 2, 1]


def test_a_value_of_another_kind_refuses_its_row_and_not_the_job(crm: Running, client: Salesforce) -> None:
    deal = client.bulk2.Opportunity
    row = {"Name": "Deal", "StageName": "Open", "CloseDate": "2026-06-30"}
    sent = [row | {"Amount": amount} for amount in ("12.5", "much", "nan")]
    sent.append(row | {"Amount": "1", "CloseDate": "soon"})
    (told,) = deal.insert(records=sent, wait=0)
    assert sorted(each["sf__Error"] for each in rows(deal.get_failed_records(told["job_id"]))) == [
        "INVALID_TYPE_ON_FIELD_IN_RECORD:Amount: value not of required type: much:Amount --",
        "INVALID_TYPE_ON_FIELD_IN_RECORD:Amount: value not of required type: nan:Amount --",
        "INVALID_TYPE_ON_FIELD_IN_RECORD:CloseDate: value not of required type: soon:CloseDate --",
    ]
    (made_one,) = rows(deal.get_successful_records(told["job_id"]))
    assert values(crm, made_one["sf__Id"])["Amount"] == 12.5


def test_an_upload_has_its_limit(crm: Running, jobs: _Bulk2Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crm.sandbox.upload_limit == 100 * 1024 * 1024
    monkeypatch.setattr(crm.sandbox, "upload_limit", 10)
    job_id = jobs.create_job("insert")["id"]
    with pytest.raises(SalesforceMalformedRequest, match="EXCEEDED_MAX_SIZE_REQUEST"):
        jobs.upload_job_data(job_id, "Name\nOne account\n")


@pytest.mark.parametrize(
    ("faults", "error", "written"),
    [
        ({"drop_after": 1, "write_fault_at": "set_state"}, requests.exceptions.ChunkedEncodingError, 1),
        ({"drop_before": 1, "write_fault_at": "set_state"}, requests.exceptions.ChunkedEncodingError, 0),
        ({"server_error": 1, "server_error_at": "upload"}, SalesforceGeneralError, 0),
    ],
)
def test_the_steps_of_a_job_can_be_struck_one_by_one(
    crm: Running, bulk: SFBulk2Type, accounts: list[str], faults: dict, error: type[Exception], written: int
) -> None:
    crm.fault(**faults)
    with pytest.raises(error):
        bulk.update(records=[{"Id": accounts[0], "Industry": "Steel"}], wait=0)
    assert (
        len(crm.org.written(accounts[0])) == written
    )  # after drop_after although the client aborted the job
