"""Faults put into the HubSpot sandbox look to the unmodified official client as HubSpot's own do."""

import time
from collections.abc import Iterator

import pytest
import urllib3
from hubspot import HubSpot
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInput as UpdateBatch
from hubspot.crm.companies import SimplePublicObjectBatchInput as UpdateInput
from hubspot.crm.companies.exceptions import ApiException
from hubspot.crm.properties import PropertyCreate, PropertyGroupCreate

from tests.integration.sandbox_fixture import TOKEN, Running, account, record_id, running_sandbox


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox") / "s", [account(n) for n in range(4)]) as crm:
        crm.client.crm.properties.groups_api.create(
            "companies", PropertyGroupCreate(name="mine", label="Mine")
        )
        score = PropertyCreate(
            name="mine_score", label="Score", type="number", field_type="number", group_name="mine"
        )
        crm.client.crm.properties.core_api.create("companies", score)
        yield crm


@pytest.fixture
def crm(running: Running) -> Running:
    running.sandbox.faults = type(running.sandbox.faults)()
    update(running, *((record_id(n), {"industry": "Retail"}) for n in range(4)))
    return running


def update(crm: Running, *rows: tuple[str, dict[str, str]], client: HubSpot | None = None):
    inputs = [UpdateInput(id=id_, properties=values) for id_, values in rows]
    api = (client or crm.client).crm.companies.batch_api
    return api.update_with_http_info(UpdateBatch(inputs=inputs))


def industries(crm: Running) -> list[str | None]:
    return [crm.held(n, "industry")["industry"] for n in range(4)]


def test_the_clients_own_retry_waits_as_long_as_it_is_told(crm: Running) -> None:
    retry = urllib3.Retry(total=2, status_forcelist=(429,), allowed_methods=None, backoff_factor=0)
    patient = HubSpot(access_token=TOKEN, host=crm.url, retry=retry)
    for wait, at_least in ((1, 1.0), (None, 0.0)):
        crm.fault(rate_limited=1, retry_after=wait)
        began = time.monotonic()
        assert len(patient.crm.companies.basic_api.get_page().results) == 4
        took = time.monotonic() - began
        assert at_least <= took < at_least + 0.9


def test_rows_that_are_refused_are_named_and_the_others_are_written(crm: Running) -> None:
    lenient = HubSpot(access_token=TOKEN, host=crm.url, client_side_validation=False)
    crm.fault(refuse_ids=[record_id(1)])
    rows = [
        (record_id(0), {"industry": "Steel"}),
        (record_id(1), {"industry": "Steel"}),
        (record_id(2), {"industry": "Steel", "mine_score": "much"}),
    ]
    answer, status, _ = update(crm, *rows, client=lenient)
    assert (status, answer.num_errors, [each.id for each in answer.results]) == (207, 2, [record_id(0)])
    assert [(each.category, each.context["ids"]) for each in answer.errors] == [
        ("VALIDATION_ERROR", [record_id(1)]),
        ("VALIDATION_ERROR", [record_id(2)]),
    ]
    assert industries(crm) == ["Steel", "Retail", "Retail", "Retail"]


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        ({"server_error": 1}, 502),
        ({"rate_limited": 1}, 429),
        ({"reject_batch_ids": [record_id(1)]}, 400),
    ],
)
def test_a_call_that_fails_has_written_nothing(crm: Running, faults: dict, status: int) -> None:
    crm.fault(**faults)
    with pytest.raises(ApiException) as failed:
        update(crm, *((record_id(n), {"industry": "Steel"}) for n in range(2)))
    assert failed.value.status == status
    assert industries(crm) == ["Retail"] * 4


def test_a_connection_can_be_cut_after_the_write(crm: Running) -> None:
    crm.fault(drop_answer=1)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        update(crm, (record_id(0), {"industry": "Steel"}))
    assert industries(crm) == ["Steel", "Retail", "Retail", "Retail"]


def test_an_answer_of_success_can_have_done_nothing(crm: Running) -> None:
    crm.fault(empty_complete=1)
    answer, status, _ = update(crm, (record_id(0), {"industry": "Steel"}))
    assert (status, answer.status, answer.results) == (200, "COMPLETE", [])
    assert industries(crm) == ["Retail"] * 4


def test_a_client_that_waits_no_longer_may_have_written_all_the_same(crm: Running) -> None:
    crm.fault(hang_after=1, hang_s=1.5)
    inputs = UpdateBatch(inputs=[UpdateInput(id=record_id(1), properties={"industry": "Steel"})])
    with pytest.raises(urllib3.exceptions.HTTPError):
        crm.client.crm.companies.batch_api.update(inputs, _request_timeout=0.4)
    assert industries(crm) == ["Retail", "Steel", "Retail", "Retail"]
    # The fault is spent.
    assert update(crm, (record_id(1), {"industry": "Retail"}))[1] == 200
