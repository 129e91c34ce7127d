"""The Salesforce sandbox takes writes from the unmodified official clients as Salesforce does, and keeps count of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import (
    SalesforceExpiredSession,
    SalesforceGeneralError,
    SalesforceMalformedRequest,
    SalesforceMoreThanOneRecord,
    SalesforceRefusedRequest,
    SalesforceResourceNotFound,
)

from tests.integration.salesforce_fixture import JANUARY, SECRET, Running, running_salesforce

TOO_LONG = "x" * 41


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
def accounts(crm: Running) -> list[str]:
    """Ids of three accounts of this test alone."""
    return [crm.org.insert("Account", JANUARY, Name=f"Account {n}", Industry="Retail") for n in range(3)]


def held(client: Salesforce, record_id: str) -> dict[str, Any]:
    return dict(client.Account.get(record_id))


def change(client: Salesforce, *rows: tuple[str, dict[str, Any]], all_or_none: bool = False, **options: Any):
    """Update accounts in one call of sObject Collections."""
    records = [{"attributes": {"type": "Account"}, "id": id_, **values} for id_, values in rows]
    body = {"allOrNone": all_or_none, "records": records}
    return client.restful("composite/sobjects", method="PATCH", json=body, **options)


def said(results: list[dict[str, Any]]) -> list[str | None]:
    """The status code of each row, None where it succeeded."""
    return [None if each["success"] else each["errors"][0]["statusCode"] for each in results]


def test_a_record_is_made_changed_and_deleted_and_every_read_sees_it(
    crm: Running, client: Salesforce
) -> None:
    made = client.Account.create({"Name": "  Somebody ", "Industry": "Retail", "Description": ""})
    assert (made["success"], made["errors"]) == (True, [])
    first = held(client, made["id"])
    assert (first["Name"], first["Description"], first["IsDeleted"]) == ("Somebody", None, False)
    crm.org.update(made["id"], JANUARY, Description="older")  # so that the clock can be seen to move
    assert client.Account.update(made["id"], {"Industry": "Steel", "Description": None}) == 204
    after = held(client, made["id"])
    assert (after["Industry"], after["Description"]) == ("Steel", None)
    assert after["SystemModstamp"] == after["LastModifiedDate"] > "2026-01-10T04:00:00.000+0000"
    past = client.query(
        f"select Field, OldValue, NewValue from AccountHistory where AccountId = '{made['id']}'"
    )
    rows = [(each["Field"], each["OldValue"], each["NewValue"]) for each in past["records"]]
    assert rows == [("created", None, None), ("Industry", "Retail", "Steel")]
    assert client.Account.delete(made["id"]) == 204
    assert client.query(f"select Id from Account where Id = '{made['id']}'")["totalSize"] == 0
    (gone,) = client.query_all(
        f"select Id, IsDeleted from Account where Id = '{made['id']}'", include_deleted=True
    )["records"]
    assert gone["IsDeleted"] is True
    with pytest.raises(SalesforceResourceNotFound) as refused:
        client.Account.update(made["id"], {"Industry": "Wood"})
    assert refused.value.content[0]["errorCode"] == "ENTITY_IS_DELETED"


def test_a_collection_answers_row_by_row_in_order_and_keeps_the_sound_rows(
    client: Salesforce, accounts: list[str]
) -> None:
    results = change(
        client,
        (accounts[0], {"Industry": "Steel"}),
        ("001000000000000AAA", {"Industry": "Steel"}),
        (accounts[1], {"AccountNumber": TOO_LONG}),
        (accounts[2], {"Industry": "Wood"}),
    )
    assert said(results) == [None, "INVALID_CROSS_REFERENCE_KEY", "STRING_TOO_LONG", None]
    assert [each.get("id") for each in results] == [accounts[0], None, accounts[1], accounts[2]]
    assert results[2]["errors"] == [
        {
            "statusCode": "STRING_TOO_LONG",
            "message": f"Account AccountNumber: data value too large: {TOO_LONG} (max length=40)",
            "fields": ["AccountNumber"],
        }
    ]
    assert [held(client, each)["Industry"] for each in accounts] == ["Steel", "Retail", "Wood"]


def test_all_or_none_undoes_the_sound_rows_of_a_collection(client: Salesforce, accounts: list[str]) -> None:
    results = change(
        client, (accounts[0], {"Industry": "Steel"}), (accounts[1], {"Name": None}), all_or_none=True
    )
    assert said(results) == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "REQUIRED_FIELD_MISSING"]
    assert held(client, accounts[0])["Industry"] == "Retail"


def test_collections_make_upsert_read_and_delete(client: Salesforce) -> None:
    new = [{"attributes": {"type": "Account"}, "Name": f"New {n}", "ERP_Number__c": f"N{n}"} for n in (1, 2)]
    made = client.restful("composite/sobjects", method="POST", json={"records": new})
    assert said(made) == [None, None]
    rows = [
        {"attributes": {"type": "Account"}, "ERP_Number__c": "N1", "Industry": "Steel"},
        {"attributes": {"type": "Account"}, "ERP_Number__c": "N3", "Name": "New 3"},
        {"attributes": {"type": "Account"}, "ERP_Number__c": "N4"},
        {"attributes": {"type": "Account"}, "ERP_Number__c": "N2", "Name": "Once"},
        {"attributes": {"type": "Account"}, "ERP_Number__c": "N2", "Name": "Twice"},
    ]
    told = client.restful("composite/sobjects/Account/ERP_Number__c", method="PATCH", json={"records": rows})
    doubled = "DUPLICATE_EXTERNAL_ID"
    assert said(told) == [None, None, "REQUIRED_FIELD_MISSING", doubled, doubled]
    assert [each["created"] for each in told] == [False, True, False, False, False]
    assert told[0]["id"] == made[0]["id"]
    ids = [made[0]["id"], told[1]["id"], "001000000000000AAA"]
    read = client.restful(
        "composite/sobjects/Account", method="POST", json={"ids": ids, "fields": ["Industry"]}
    )
    assert [each and each["Industry"] for each in read] == ["Steel", None, None]
    gone = client.restful("composite/sobjects", method="DELETE", params={"ids": ",".join([*ids, ids[0]])})
    assert said(gone) == [None, None, "INVALID_CROSS_REFERENCE_KEY", "ENTITY_IS_DELETED"]


def test_an_upsert_of_one_record_makes_it_once_and_changes_it_after(crm: Running, client: Salesforce) -> None:
    answers = [client.Account.upsert("ERP_Number__c/U/1", {"Name": name}, raw_response=True) for name in "ab"]
    assert [each.status_code for each in answers] == [201, 200]
    assert [each.json()["created"] for each in answers] == [True, False]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    for _ in range(2):  # the org's own users are not held to what the API is
        crm.org.insert("Account", JANUARY, Name="Twin", ERP_Number__c="twin")
    with pytest.raises(SalesforceMoreThanOneRecord):
        client.Account.upsert("ERP_Number__c/twin", {"Name": "c"})
    with pytest.raises(SalesforceResourceNotFound, match="external ID field"):
        client.Account.upsert("Industry/Retail", {"Name": "c"})


REFUSED = {
    "a required field": ({"Industry": "Steel"}, "REQUIRED_FIELD_MISSING", ["Name"]),
    "a system field": ({"Name": "x", "CreatedDate": "2026-01-01"}, "INVALID_FIELD_FOR_INSERT_UPDATE", ["CreatedDate"]),
    "a field of a formula": ({"Name": "x", "IsPersonAccount": True}, "INVALID_FIELD_FOR_INSERT_UPDATE", ["IsPersonAccount"]),
    "a text too long": ({"Name": "x", "AccountNumber": TOO_LONG}, "STRING_TOO_LONG", ["AccountNumber"]),
    "a taken external id": ({"Name": "x", "ERP_Number__c": "taken"}, "DUPLICATE_VALUE", []),
    "no id": ({"Name": "x", "OwnerId": "nobody"}, "MALFORMED_ID", ["OwnerId"]),
    "nobody's id": ({"Name": "x", "OwnerId": "005000000000000AAA"}, "INVALID_CROSS_REFERENCE_KEY", ["OwnerId"]),
}  # fmt: skip


@pytest.mark.parametrize(("values", "code", "fields"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_value_names_its_field_alone_and_in_a_collection(
    crm: Running, client: Salesforce, values: dict, code: str, fields: list[str]
) -> None:
    if not crm.org.holders("Account", "ERP_Number__c", "taken"):
        crm.org.insert("Account", JANUARY, Name="First", ERP_Number__c="taken")
    with pytest.raises(SalesforceMalformedRequest) as refused:
        client.Account.create(values)
    assert [(each["errorCode"], each["fields"]) for each in refused.value.content] == [(code, fields)]
    row = {"attributes": {"type": "Account"}, **values}
    (told,) = client.restful("composite/sobjects", method="POST", json={"records": [row]})
    assert [(each["statusCode"], each["fields"]) for each in told["errors"]] == [(code, fields)]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"Nothing__c": "x"}, "INVALID_FIELD"),
        ({"Industry": 7}, "JSON_PARSER_ERROR"),
        ({"Id": "001000000000000AAA"}, "INVALID_FIELD"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_whole(
    client: Salesforce, accounts: list[str], values: dict, code: str
) -> None:
    with pytest.raises(SalesforceMalformedRequest, match=code):
        client.Account.update(accounts[0], values)
    if "Id" not in values:
        with pytest.raises(SalesforceMalformedRequest, match=code):
            change(client, (accounts[0], {"Industry": "Steel"}), (accounts[1], values))
    assert held(client, accounts[0])["Industry"] == "Retail"


def test_a_collection_holds_two_hundred_records_in_ten_chunks(client: Salesforce) -> None:
    many = [{"attributes": {"type": "Account"}, "Name": "x"} for _ in range(201)]
    with pytest.raises(SalesforceMalformedRequest, match="EXCEEDED_ID_LIMIT"):
        client.restful("composite/sobjects", method="POST", json={"records": many})
    mixed = [
        {"attributes": {"type": kind}, "Name": "x", "LastName": "x"} for kind in ["Account", "Contact"] * 6
    ]
    with pytest.raises(SalesforceMalformedRequest, match="LIMIT_EXCEEDED"):
        client.restful("composite/sobjects", method="POST", json={"records": mixed})


def test_a_custom_field_is_seen_once_it_is_granted_and_keeps_to_its_rules(
    crm: Running, client: Salesforce, accounts: list[str]
) -> None:
    values = [{"fullName": each, "label": each, "default": False} for each in "SAB"]
    told = {
        "FullName": "Account.Tier__c",
        "Metadata": {
            "label": "Tier",
            "type": "Picklist",
            "valueSet": {"restricted": True, "valueSetDefinition": {"sorted": False, "value": values}},
        },
    }
    assert client.toolingexecute("sobjects/CustomField/", "POST", told)["success"] is True
    with pytest.raises(SalesforceMalformedRequest, match="DUPLICATE_DEVELOPER_NAME"):
        client.toolingexecute("sobjects/CustomField/", "POST", told)
    number = {
        "FullName": "Account.Score__c",
        "Metadata": {"label": "Score", "type": "Number", "precision": 5},
    }
    client.toolingexecute("sobjects/CustomField/", "POST", number)
    assert "Tier__c" not in {each["name"] for each in client.Account.describe()["fields"]}
    with pytest.raises(SalesforceMalformedRequest, match="No such column 'Tier__c'"):
        client.Account.update(accounts[0], {"Tier__c": "S"})
    rights = client.PermissionSet.create({"Name": "Sync", "Label": "Sync"})["id"]
    for field, is_editable in (("Tier__c", True), ("Score__c", False)):
        client.FieldPermissions.create(
            {
                "ParentId": rights,
                "SobjectType": "Account",
                "Field": f"Account.{field}",
                "PermissionsRead": True,
                "PermissionsEdit": is_editable,
            }
        )
    (tier,) = [each for each in client.Account.describe()["fields"] if each["name"] == "Tier__c"]
    assert (tier["custom"], tier["restrictedPicklist"]) == (True, True)
    assert [each["value"] for each in tier["picklistValues"]] == ["S", "A", "B"]
    rows = ((accounts[0], {"Tier__c": "S"}), (accounts[1], {"Tier__c": "Z"}), (accounts[2], {"Score__c": 7}))
    assert said(change(client, *rows)) == [
        None,
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        "INVALID_FIELD_FOR_INSERT_UPDATE",
    ]
    assert client.query("select Id from Account where Tier__c = 'S'")["records"][0]["Id"] == accounts[0]
    again = type(crm.org)(crm.org.path)  # the field outlives the server
    assert again.describe("Account").fields["Tier__c"].values == ("S", "A", "B")
    again.close()


def test_each_write_of_each_row_is_in_the_log_with_its_request(
    crm: Running, client: Salesforce, accounts: list[str]
) -> None:
    change(client, (accounts[0], {"Industry": "Steel"}), (accounts[1], {"AccountNumber": TOO_LONG}))
    change(client, (accounts[0], {"Industry": "Wood"}), (accounts[1], {"Name": None}), all_or_none=True)
    answer = client.Account.update(accounts[0], {"Industry": "Glass"}, raw_response=True)
    log = crm.org.written(accounts[0])
    assert [(each["operation"], each["values"], each["error"]) for each in log] == [
        ("update", {"Industry": "Steel"}, None),
        ("update", {"Industry": "Wood"}, "ALL_OR_NONE_OPERATION_ROLLED_BACK"),
        ("update", {"Industry": "Glass"}, None),
    ]
    assert log[2]["request"] == answer.headers["X-Request-Id"]
    assert len({each["request"] for each in log}) == 3
    address = f"{crm.url}/sandbox/salesforce/writes?record_id={accounts[1]}"
    known = {"Authorization": f"Bearer {SECRET}"}
    told = requests.get(address, headers=known, timeout=5).json()
    assert [each["error"] for each in told] == ["STRING_TOO_LONG", "REQUIRED_FIELD_MISSING"]
    assert told[0]["request"] == log[0]["request"]


def test_the_log_outlives_the_server_and_names_no_two_requests_alike(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with running_salesforce(tmp_path / "salesforce.sqlite") as running:
            client = running.client()
            client.Account.create({"Name": name})
            client.bulk2.Account.insert(records=[{"Name": name}], wait=0)
            log = running.org.written()
    assert [each["values"]["Name"] for each in log] == ["first", "first", "second", "second"]
    assert len({each["request"] for each in log}) == 4


def test_chosen_rows_are_refused_and_a_locked_one_as_often_as_it_is_locked(
    crm: Running, client: Salesforce, accounts: list[str]
) -> None:
    crm.fault(
        refuse_rows={accounts[0]: "FIELD_CUSTOM_VALIDATION_EXCEPTION"}, locked_rows={accounts[1]: 1, "New": 1}
    )
    rows = [(each, {"Industry": "Steel"}) for each in accounts]
    refused = "FIELD_CUSTOM_VALIDATION_EXCEPTION"
    assert said(change(client, *rows)) == [refused, "UNABLE_TO_LOCK_ROW", None]
    assert said(change(client, *rows)) == [refused, None, None]
    with pytest.raises(SalesforceMalformedRequest, match="UNABLE_TO_LOCK_ROW"):
        client.Account.create({"Name": "New"})
    assert client.Account.create({"Name": "New"})["success"]


@pytest.mark.parametrize(("fault", "applied"), [("hang_before", 0), ("hang_after", 1)])
def test_a_call_can_run_into_the_clients_timeout_before_and_after_it_was_carried_out(
    crm: Running, client: Salesforce, accounts: list[str], fault: str, applied: int
) -> None:
    crm.fault(**{fault: 1})
    with pytest.raises(requests.ReadTimeout):
        change(client, (accounts[0], {"Industry": "Steel"}), timeout=0.3)
    assert len(crm.org.written(accounts[0])) == applied
    assert held(client, accounts[0])["Industry"] == ("Steel" if applied else "Retail")
    assert said(change(client, (accounts[0], {"Industry": "Steel"}))) == [None]
    assert len(crm.org.written(accounts[0])) == applied + 1


@pytest.mark.parametrize(("fault", "applied"), [("drop_before", 0), ("drop_after", 1)])
def test_a_connection_can_be_cut_in_the_answer_before_and_after_a_call_was_carried_out(
    crm: Running, client: Salesforce, accounts: list[str], fault: str, applied: int
) -> None:
    crm.fault(**{fault: 2}, write_fault_at="collection_update")
    assert client.Account.create({"Name": "Not struck"})["success"]
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        change(client, (accounts[0], {"Industry": "Steel"}))
    crm.fault(write_fault_at="update")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.Account.update(accounts[0], {"Industry": "Wood"})
    assert len(crm.org.written(accounts[0])) == 2 * applied
    assert held(client, accounts[0])["Industry"] == ("Wood" if applied else "Retail")


def test_a_refused_call_writes_nothing(crm: Running, client: Salesforce, accounts: list[str]) -> None:
    row = (accounts[0], {"Industry": "Steel"})
    for faults, status, wait in (
        ({"rate_limited": 1, "retry_after": 7}, 429, "7"),
        ({"rate_limited": 1, "retry_after": None}, 429, None),
        ({"server_error": 1}, 503, None),
        ({"server_error": 1, "server_error_status": 500}, 500, None),
    ):
        crm.fault(**faults)
        answers: list[requests.Response] = []
        with pytest.raises(SalesforceGeneralError) as failed:
            change(
                client, row, hooks={"response": lambda answer, *_, kept=answers, **__: kept.append(answer)}
            )
        assert (failed.value.status, answers[0].headers.get("Retry-After")) == (status, wait)
    crm.fault(request_limit=True)
    with pytest.raises(SalesforceRefusedRequest, match="REQUEST_LIMIT_EXCEEDED"):
        change(client, row)
    crm.fault(request_limit=False, expire_session=1)
    stale = Salesforce(
        session_id=client.session_id, instance_url="https://acme.my.salesforce.com", session=crm.session()
    )
    with pytest.raises(SalesforceExpiredSession, match="INVALID_SESSION_ID"):
        change(stale, row)
    assert crm.org.written(accounts[0]) == []
    assert said(change(client, row)) == [None]  # this client logs in anew by itself


def test_airflows_hook_writes_to_the_org(crm: Running, monkeypatch: pytest.MonkeyPatch) -> None:
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
    sf = hooks.SalesforceHook("salesforce_test", session=crm.session()).get_conn()
    made = sf.Account.create({"Name": "By the hook"})
    change(sf, (made["id"], {"Industry": "Steel"}))
    assert [each["values"] for each in crm.org.written(made["id"])] == [
        {"Name": "By the hook"},
        {"Industry": "Steel"},
    ]
