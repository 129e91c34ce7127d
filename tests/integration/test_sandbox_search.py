"""The sandbox searches, reads in batches, links and merges for the unmodified official client as HubSpot does."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from hubspot.crm.associations.v4 import BatchInputPublicFetchAssociationsBatchRequest as LinksBatch
from hubspot.crm.companies import PublicMergeInput
from hubspot.crm.companies.exceptions import ApiException as CompaniesError
from hubspot.crm.objects import BatchReadInputSimplePublicObjectId as ReadBatch
from hubspot.crm.objects import PublicObjectSearchRequest as Search
from hubspot.crm.objects.exceptions import ApiException

from include.sandbox.store import FIRST_IDS, RECORD_ID_STEP, Record
from tests.integration.sandbox_fixture import Running, account, record_id, running_sandbox

JUNE = datetime(2025, 6, 1, 9, tzinfo=UTC)
MANY = 60
RECORDS = (
    *(
        Record(
            "contacts",
            f"A{n % 3:04d}",
            JUNE + timedelta(minutes=n),
            (("jobtitle", JUNE, "Buyer" if n % 2 else "Chief"),),
        )
        for n in range(MANY)
    ),
    Record("contacts", None, JUNE - timedelta(days=1), (("jobtitle", JUNE, "Of no company"),)),
    Record("deals", "A0001", JUNE, (("amount", JUNE, "900"),)),
)


def contact(index: int) -> str:
    return str(FIRST_IDS["contacts"] + index * RECORD_ID_STEP)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr("include.sandbox.objects.SEARCH_CALLS", 1000)
    accounts = [account(number) for number in range(4)]
    with running_sandbox(tmp_path / "crm.sqlite", accounts, records=RECORDS) as running:
        yield running


def search(sandbox: Running, *filters: dict[str, Any], kind: str = "contacts", **options: Any) -> Any:
    groups = [{"filters": list(filters)}] if filters else []
    wanted = Search(filter_groups=groups, **{"limit": 200, "sorts": [], "properties": []} | options)
    return sandbox.client.crm.objects.search_api.do_search(kind, wanted)


def where(name: str, operator: str, **value: Any) -> dict[str, Any]:
    return {"propertyName": name, "operator": operator} | value


def millis(moment: datetime) -> str:
    return str(int(moment.timestamp() * 1000))


@pytest.mark.parametrize(
    ("condition", "many"),
    [
        (where("lastmodifieddate", "GTE", value=millis(JUNE + timedelta(minutes=50))), 10),
        (where("lastmodifieddate", "LT", value="2025-06-01T09:50:00Z"), 51),
        (
            where(
                "lastmodifieddate",
                "BETWEEN",
                value=millis(JUNE),
                highValue=millis(JUNE + timedelta(minutes=4)),
            ),
            6,
        ),
        (where("hs_lastmodifieddate", "GTE", value=millis(JUNE)), 0),  # contacts have no such property
        (where("hs_object_id", "GT", value=contact(57)), 3),
        (where("hs_object_id", "IN", values=[contact(1), contact(2), "7"]), 2),
        (where("jobtitle", "EQ", value="buyer"), MANY // 2),
        (where("jobtitle", "NOT_IN", values=["buyer", "chief"]), 1),
        (where("hs_buying_role", "HAS_PROPERTY"), 0),
        (where("hs_buying_role", "NOT_HAS_PROPERTY"), MANY + 1),
    ],
    ids=lambda each: f"{each['propertyName']} {each['operator']}" if isinstance(each, dict) else "",
)
def test_a_filter_lets_through_what_it_says(sandbox: Running, condition: dict[str, Any], many: int) -> None:
    found = search(sandbox, condition)
    assert (found.total, len(found.results)) == (many, many)


def test_pages_go_on_where_the_one_before_ended_in_the_order_asked_for(sandbox: Running) -> None:
    sorts = [{"propertyName": "lastmodifieddate", "direction": "DESCENDING"}]
    seen: list[str] = []
    after = None
    while True:
        page = search(sandbox, sorts=sorts, limit=25, after=after)
        seen += [each.id for each in page.results]
        if page.paging is None:
            break
        after = page.paging.next.after
    assert seen[:2] == [contact(MANY - 1), contact(MANY - 2)]
    assert len(set(seen)) == len(seen) == MANY + 1


def test_what_hubspot_refuses_to_search_is_refused(sandbox: Running) -> None:
    two_sorts = [{"propertyName": "createdate"}, {"propertyName": "hs_object_id"}]
    seven = [where("jobtitle", "EQ", value="x")] * 7
    for filters, options in (
        ([], {"limit": 201}),
        ([], {"after": "9900"}),
        ([], {"sorts": two_sorts}),
        (seven, {}),
        ([where("lastmodifieddate", "GT", value="soon")], {}),
    ):
        with pytest.raises(ApiException) as refused:
            search(sandbox, *filters, **options)
        assert refused.value.status == 400


def test_a_search_shows_neither_what_is_archived_nor_what_its_index_lacks(sandbox: Running) -> None:
    sandbox.sandbox.store.archive(contact(0), JUNE, "contacts")
    assert search(sandbox).total == MANY
    sandbox.fault(unindexed_ids=[contact(1)])
    assert contact(1) not in {each.id for each in search(sandbox).results}
    sandbox.fault(unindexed_ids=[], search_delay_s=60.0)
    sandbox.sandbox.store.update([(contact(2), {"jobtitle": "Clerk"})], JUNE, "contacts")
    assert search(sandbox, where("jobtitle", "EQ", value="clerk")).total == 0
    sandbox.fault(search_delay_s=0.0)
    assert search(sandbox, where("jobtitle", "EQ", value="clerk")).total == 1


def test_a_sixth_search_within_the_second_is_turned_away_by_its_own_limit(
    sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.sandbox.objects.SEARCH_CALLS", 5)
    monkeypatch.setattr("include.sandbox.objects.SEARCH_WINDOW_S", 30.0)
    for _ in range(5):
        search(sandbox)
    with pytest.raises(ApiException) as refused:
        search(sandbox)
    body = json.loads(refused.value.body)
    assert (refused.value.status, body["policyName"], "Retry-After" in refused.value.headers) == (
        429,
        "SECONDLY",
        False,
    )


def test_a_batch_comes_with_histories_up_to_fifty_ids(sandbox: Running) -> None:
    def read(ids: list[str], historic: list[str]) -> Any:
        wanted = ReadBatch(
            inputs=[{"id": each} for each in ids], properties=[], properties_with_history=historic
        )
        return sandbox.client.crm.objects.batch_api.read("contacts", wanted)

    (found,) = read([contact(1)], ["jobtitle"]).results
    assert [each.value for each in found.properties_with_history["jobtitle"]] == ["Buyer"]
    assert len(read([contact(number) for number in range(MANY)], []).results) == MANY
    with pytest.raises(ApiException, match="at most 50"):
        read([contact(number) for number in range(51)], ["jobtitle"])


def test_links_name_a_company_and_which_is_primary_and_a_record_without_is_an_error_entry(
    sandbox: Running,
) -> None:
    inputs = LinksBatch(inputs=[{"id": contact(1)}, {"id": contact(MANY)}])
    answer = sandbox.client.crm.associations.v4.batch_api.get_page(
        "contacts", "companies", inputs, _preload_content=False
    )
    body = json.loads(answer.data)
    assert answer.status == 207
    (linked,) = body["results"]
    assert (linked["from"]["id"], linked["to"][0]["toObjectId"]) == (contact(1), int(record_id(1)))
    assert [(each["typeId"], each["label"]) for each in linked["to"][0]["associationTypes"]] == [
        (1, "Primary"),
        (279, None),
    ]
    assert body["errors"][0]["subCategory"] == "crm.associations.NO_ASSOCIATIONS_FOUND"
    assert body["errors"][0]["context"]["fromObjectId"] == [contact(MANY)]


@pytest.mark.parametrize("anew", [False, True])
def test_a_merged_company_is_answered_with_what_it_was_merged_into(sandbox: Running, anew: bool) -> None:
    sandbox.fault(merge_anew=anew)
    api = sandbox.client.crm.companies.basic_api
    merge = PublicMergeInput(primary_object_id=record_id(0), object_id_to_merge=record_id(1))
    remains = api.merge(merge).id
    assert (remains == record_id(0)) is not anew
    found = api.get_by_id(record_id(1), properties=["hs_merged_object_ids", "name"])
    left = [record_id(1), record_id(0)] if anew else [record_id(1)]
    assert (found.id, found.properties["hs_merged_object_ids"].split(";")) == (remains, left)
    assert found.properties["name"] == "Account 0"
    shown = [each.id for each in [*api.get_page().results, *api.get_page(archived=True).results]]
    assert not set(left) & set(shown)
    assert remains in shown
    with pytest.raises(CompaniesError, match="is the same record"):
        api.merge(merge)


def test_an_answer_that_is_lost_after_a_merge_leaves_it_done(sandbox: Running) -> None:
    sandbox.fault(drop_answer=1)
    api = sandbox.client.crm.companies.basic_api
    with pytest.raises(urllib3.exceptions.HTTPError):
        api.merge(PublicMergeInput(primary_object_id=record_id(0), object_id_to_merge=record_id(1)))
    assert api.get_by_id(record_id(1)).id == record_id(0)


def test_a_slow_one_an_outage_a_torn_answer_and_an_expired_token_look_as_they_do(sandbox: Running) -> None:
    api = sandbox.client.crm.deals.basic_api
    sandbox.fault(slow_s=0.3)
    began = time.monotonic()
    api.get_page()
    assert time.monotonic() - began >= 0.3
    sandbox.fault(slow_s=0.0, cut_answer=4)  # the client itself asks three times more
    with pytest.raises(urllib3.exceptions.HTTPError):
        api.get_page()
    for faults, status, category in (
        ({"unavailable": 1}, 503, "UNKNOWN"),
        ({"expires_after": 0}, 401, "EXPIRED_AUTHENTICATION"),
    ):
        sandbox.fault(**faults)
        with pytest.raises(Exception, match=str(status)) as refused:
            api.get_page()
        assert json.loads(refused.value.body)["category"] == category  # type: ignore[attr-defined]
