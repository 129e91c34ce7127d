"""The sandbox answers the unmodified official client as HubSpot does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hubspot import HubSpot
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInput as UpdateBatch
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInputUpsert as UpsertBatch
from hubspot.crm.companies import BatchReadInputSimplePublicObjectId as ReadBatch
from hubspot.crm.companies import SimplePublicObjectBatchInput as UpdateInput
from hubspot.crm.companies import SimplePublicObjectBatchInputUpsert as UpsertInput
from hubspot.crm.companies import SimplePublicObjectId as RecordId
from hubspot.crm.companies.exceptions import ApiException, UnauthorizedException
from hubspot.crm.properties import PropertyCreate, PropertyGroupCreate
from hubspot.crm.properties.exceptions import ApiException as PropertiesError

from include.local.processes import listens, wait_until
from include.simulate.market.hubspot import accounts
from tests.conftest import free_port
from tests.integration.sandbox_fixture import TOKEN, Running, account, record_id, running_sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Running]:
    with running_sandbox(tmp_path / "crm.sqlite", [account(n) for n in range(230)]) as running:
        yield running


def update(running: Running, *rows: tuple[str, dict[str, str]], trace: bool = False):
    inputs = [
        UpdateInput(id=id_, properties=values, object_write_trace_id=f"trace-{id_}" if trace else None)
        for id_, values in rows
    ]
    return running.client.crm.companies.batch_api.update_with_http_info(UpdateBatch(inputs=inputs))


def test_pages_hold_every_company_once(sandbox: Running) -> None:
    everyone = sandbox.client.crm.companies.get_all(properties=["name", "account_number"])
    assert [each.id for each in everyone] == [record_id(n) for n in range(230)]
    assert everyone[7].properties["account_number"] == "A0007"
    assert everyone[7].created_at == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert sandbox.sandbox.calls.by_endpoint["list_records"] == 3


def test_a_wrong_token_gets_401(sandbox: Running) -> None:
    stranger = HubSpot(access_token="wrong", host=sandbox.url)
    with pytest.raises(UnauthorizedException):
        stranger.crm.companies.basic_api.get_page()


def test_an_update_is_kept_and_moves_the_modification_date(sandbox: Running) -> None:
    answer, status, _ = update(sandbox, (record_id(3), {"industry": "Steel"}), trace=True)
    assert status == 200
    (result,) = answer.results
    assert result.properties["industry"] == "Steel"
    assert result.object_write_trace_id == f"trace-{record_id(3)}"
    assert result.updated_at > datetime(2025, 3, 5, tzinfo=UTC)
    held = sandbox.held(3, "industry", "name", "hs_lastmodifieddate")
    assert held["industry"] == "Steel"
    assert held["name"] == "Account 3"
    assert held["hs_lastmodifieddate"] > "2025-03-05"
    page = sandbox.client.crm.companies.basic_api.get_page(limit=50, properties_with_history=["industry"])
    history = page.results[3].properties_with_history["industry"]
    assert [entry.value for entry in history] == ["Steel", "Retail"]


def test_an_unknown_record_is_refused_alone(sandbox: Running) -> None:
    # The client's own models demand `links`, which HubSpot does not send: read without validation.
    lenient = HubSpot(access_token=TOKEN, host=sandbox.url, client_side_validation=False)
    rows = [UpdateInput(id=i, properties={"industry": "Steel"}) for i in (record_id(0), "999")]
    answer, status, _ = lenient.crm.companies.batch_api.update_with_http_info(UpdateBatch(inputs=rows))
    assert status == 207
    assert [each.id for each in answer.results] == [record_id(0)]
    assert answer.errors[0].category == "OBJECT_NOT_FOUND"
    assert answer.errors[0].context == {"ids": ["999"]}
    assert answer.num_errors == 1


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([(record_id(0), {"industry": "Steel"}), (record_id(1), {"nonsense": "1"})], "PROPERTY_DOESNT_EXIST"),
        ([(record_id(0), {"industry": "Steel"}), (record_id(1), {"createdate": "1"})], "READ_ONLY_VALUE"),
        ([(record_id(0), {"industry": "Steel"}), (record_id(0), {"industry": "Wood"})], "Duplicate IDs"),
        ([(record_id(n), {"industry": "Steel"}) for n in range(101)], "at most 100"),
    ],
)
def test_a_bad_batch_is_refused_whole(sandbox: Running, rows: list, word: str) -> None:
    with pytest.raises(ApiException) as refused:
        update(sandbox, *rows)
    assert refused.value.status == 400
    assert word in refused.value.body
    assert sandbox.held(0, "industry") == {"industry": "Retail"}


def test_the_burst_limit_answers_429_until_the_window_is_over(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "s", [account(0)], burst_calls=3, burst_window_s=0.5) as running:
        page = running.client.crm.companies.basic_api.get_page
        for _ in range(3):
            page()
        with pytest.raises(ApiException) as refused:
            page()
        assert refused.value.status == 429
        assert "TEN_SECONDLY_ROLLING" in refused.value.body
        time.sleep(0.6)
        assert len(page().results) == 1


def test_properties_and_groups_are_made_once(sandbox: Running) -> None:
    crm = sandbox.client.crm.properties
    crm.groups_api.create("companies", PropertyGroupCreate(name="mine", label="Mine"))
    wanted = PropertyCreate(
        name="mine_tier", label="Tier", type="string", field_type="text", group_name="mine"
    )
    crm.core_api.create("companies", wanted)
    with pytest.raises(PropertiesError) as refused:
        crm.core_api.create("companies", wanted)
    assert refused.value.status == 409
    names = {each.name: each.group_name for each in crm.core_api.get_all("companies").results}
    assert names["mine_tier"] == "mine"
    assert names["industry"] == "companyinformation"
    update(sandbox, (record_id(0), {"mine_tier": "A"}))
    assert sandbox.held(0, "mine_tier") == {"mine_tier": "A"}


def test_an_archived_company_is_listed_apart_and_cannot_be_written(sandbox: Running) -> None:
    sandbox.client.crm.companies.basic_api.archive(record_id(5))
    api = sandbox.client.crm.companies
    assert [each.id for each in api.get_all(archived=True)] == [record_id(5)]
    assert len(api.get_all()) == 229


def test_state_outlives_the_server(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "s", [account(0)]) as running:
        update(running, (record_id(0), {"industry": "Steel"}))
    with running_sandbox(tmp_path / "s", [account(9), account(8)]) as running:
        assert running.held(0, "industry", "name") == {"industry": "Steel", "name": "Account 0"}
        assert len(running.client.crm.companies.get_all()) == 1


def start(tmp_path: Path, port: int, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "include.sandbox", "--port", str(port), "--state", str(tmp_path / "s")]
    clean = {name: value for name, value in os.environ.items() if name != "STRATUM_SANDBOX_TOKEN"}
    return subprocess.Popen(command, env=clean | environment, stderr=subprocess.PIPE, text=True)


def test_the_program_serves_and_stops_though_a_client_stays_connected(tmp_path: Path) -> None:
    port = free_port()
    process = start(tmp_path, port, STRATUM_SANDBOX_TOKEN=TOKEN)
    try:
        assert wait_until(lambda: listens("127.0.0.1", port), 120)
        client = HubSpot(access_token=TOKEN, host=f"http://127.0.0.1:{port}")
        companies = client.crm.companies.get_all(properties=["account_number"])
        seeded = [each.properties["account_number"] for each in companies]
        assert seeded == [each.account_number for each in accounts()]
        assert client.crm.tickets.basic_api.get_page(limit=1).results
        # The client's connection stays open: an idle one must not hold the server back.
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert process.returncode == 0


def test_the_program_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    process = start(tmp_path, free_port())
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said == "Set STRATUM_SANDBOX_TOKEN to the token clients must send.\n"


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "other", [account(0)]) as running:
        port = int(running.url.rpartition(":")[2])
        process = start(tmp_path, port, STRATUM_SANDBOX_TOKEN=TOKEN)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.startswith(f"Port {port} of 127.0.0.1 cannot be taken")
    assert len(said.splitlines()) == 1


def unique_key(running: Running) -> str:
    """Make a property of unique values, as the official client does, and return its name."""
    groups = running.client.crm.properties.groups_api
    groups.create("companies", PropertyGroupCreate(name="keys", label="Keys"))
    key = PropertyCreate(
        name="our_key",
        label="Our key",
        group_name="keys",
        type="string",
        field_type="text",
        has_unique_value=True,
    )
    assert running.client.crm.properties.core_api.create("companies", key).has_unique_value is True
    return "our_key"


def upsert(running: Running, key: str, *rows: tuple[str, dict[str, str]]):
    inputs = [
        UpsertInput(id=value, id_property=key, properties=values, object_write_trace_id=f"trace-{value}")
        for value, values in rows
    ]
    return running.client.crm.companies.batch_api.upsert_with_http_info(UpsertBatch(inputs=inputs))


def test_an_upsert_makes_a_company_once_and_updates_it_then(sandbox: Running) -> None:
    key = unique_key(sandbox)
    first, status, _ = upsert(sandbox, key, ("K1", {"name": "One"}), ("K2", {"domain": "two.example"}))
    assert (status, [each.new for each in first.results]) == (200, [True, True])
    assert [each.object_write_trace_id for each in first.results] == ["trace-K1", "trace-K2"]
    again, _, _ = upsert(sandbox, key, ("K2", {"industry": "Steel"}))
    assert [(each.id, each.new) for each in again.results] == [(first.results[1].id, False)]
    wanted = ReadBatch(
        inputs=[RecordId(id="K2"), RecordId(id="K1")],
        id_property=key,
        properties=[key, "name", "industry"],
        properties_with_history=[],
    )
    read = sandbox.client.crm.companies.batch_api.read(wanted).results
    assert [(each.id, each.properties[key], each.properties["industry"]) for each in read] == [
        (first.results[1].id, "K2", "Steel"),
        (first.results[0].id, "K1", None),
    ]
    # Its writes are logged under the ids it gave them, and a list of all companies shows them.
    logged = [(each["record_id"], each["trace"]) for each in sandbox.sandbox.store.written()]
    assert logged == [
        (first.results[0].id, "trace-K1"),
        (first.results[1].id, "trace-K2"),
        (first.results[1].id, "trace-K2"),
    ]
    assert len(sandbox.client.crm.companies.get_all()) == 232


@pytest.mark.parametrize(
    ("key", "rows", "word"),
    [
        ("name", [("K1", {})], "not a property of unique values"),
        ("nowhere", [("K1", {})], "not a property of unique values"),
        ("our_key", [("K1", {"name": "a"}), ("K1", {"name": "b"})], "Duplicate IDs"),
        ("our_key", [("K1", {"nonsense": "1"})], "PROPERTY_DOESNT_EXIST"),
    ],
)
def test_a_bad_upsert_is_refused_whole(sandbox: Running, key: str, rows: list, word: str) -> None:
    unique_key(sandbox)
    with pytest.raises(ApiException) as refused:
        upsert(sandbox, key, *rows)
    assert refused.value.status == 400
    assert word in refused.value.body
    assert len(sandbox.client.crm.companies.get_all()) == 230


def test_a_company_without_a_name_and_a_value_that_is_taken_are_refused_alone(sandbox: Running) -> None:
    key = unique_key(sandbox)
    upsert(sandbox, key, ("K1", {"name": "One"}))
    body = UpsertBatch(
        inputs=[
            UpsertInput(id=value, id_property=key, properties=values)
            for value, values in (("K2", {"industry": "Steel"}), ("K3", {"name": "Three"}))
        ]
    )
    answer = sandbox.client.crm.companies.batch_api.upsert(body, _preload_content=False)
    told = json.loads(answer.data)
    assert [each["properties"][key] for each in told["results"]] == ["K3"]
    assert [(each["message"], each["context"]) for each in told["errors"]] == [
        ("A company needs a name or a domain", {"ids": ["K2"]})
    ]
    inputs = UpdateBatch(inputs=[UpdateInput(id=record_id(0), properties={key: "k1"})])
    answer = sandbox.client.crm.companies.batch_api.update(inputs, _preload_content=False)
    (error,) = json.loads(answer.data)["errors"]
    assert error["category"] == "CONFLICTING_UNIQUE_VALUE"
