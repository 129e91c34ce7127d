"""What HubSpot and a webhook are told, read back as anybody would; what the webhook promises; one budget for a day."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hubspot.crm.companies import BatchReadInputSimplePublicObjectId as ReadBatch
from hubspot.crm.companies import SimplePublicObjectId as RecordId

from include.connections import get_connection, get_login
from include.errors import StratumError, TransientError
from include.sources.salesforce_api import Silent, TurnedAway, salesforce
from include.sync import hubspot_api, limits
from include.sync.hubspot_api import hubspot
from include.sync.limits import Alone, Limits, limiter
from include.sync.setup import check_fields
from include.sync.target import NoAnswer, Refused, Row, Setup
from include.sync.targets.hubspot import HubSpotTarget
from include.sync.targets.webhook import WebhookTarget, batch_key
from include.warehouse import embedded
from tests.conftest import Warehouse, fresh_warehouse
from tests.integration import sandbox_fixture, webhook_fixture
from tests.integration.salesforce_fixture import reach as reach_salesforce
from tests.integration.salesforce_fixture import running_salesforce
from tests.integration.sandbox_fixture import account, record_id, running_sandbox
from tests.integration.sync_stage import Time
from tests.integration.webhook_fixture import WINDOW_S, Receiver, running_receiver

DAY = 24 * 3600


@pytest.fixture(scope="module")
def warehouse(
    cluster: embedded.Cluster, bare_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    with fresh_warehouse(cluster, bare_template, tmp_path_factory.mktemp("home")) as fresh:
        yield fresh


@pytest.fixture
def time(warehouse: Warehouse) -> Time:
    warehouse.rows("truncate sync.call_windows")
    return Time()


@pytest.fixture
def receiver(time: Time, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with running_receiver(lambda: time.now) as running:
        webhook_fixture.reach(monkeypatch, running)
        yield running


def opened(time: Time) -> WebhookTarget:
    return WebhookTarget(get_connection("webhook_default"), "accounts", Alone(time.sleep), lambda: time.now)


def rows(*keys: str) -> list[Row]:
    return [Row(key, f"A{key}", f"A{key}", {"tier": "S"}) for key in keys]


def no_note(job_id: str) -> None:
    raise AssertionError("a call that answers at once has no job")


def test_hubspot_gives_back_what_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    kinds = {
        "stratum_text": "string",
        "stratum_number": "number",
        "stratum_date": "date",
        "stratum_flag": "bool",
    }
    with running_sandbox(tmp_path / "crm.sqlite", [account(0), account(1)]) as crm:
        sandbox_fixture.reach(monkeypatch, crm)
        with hubspot(get_connection("hubspot_default"), None) as api:
            target = HubSpotTarget(api)
            assert target.setup(kinds, make=True).made == list(kinds)
            told = ["华为技术有限公司 🚀 “quoted”", "-3.1", "2026-06-30", "true"]
            full = Row("k1", "A0", record_id(0), dict(zip(kinds, told, strict=True)))
            plain = Row("k2", "A1", record_id(1), {"stratum_text": "00123", "stratum_number": "120000"})
            long = Row("k3", "A1", record_id(1), {"stratum_text": "x" * 65_536})
            assert target.write([full, plain], no_note).confirmed == [full, plain]
            ids = [RecordId(id=record_id(n)) for n in (0, 1)]
            body = ReadBatch(inputs=ids, properties=list(kinds), properties_with_history=[])
            held = {
                each.id: each.properties for each in crm.client.crm.companies.batch_api.read(body).results
            }
            assert [held[record_id(0)][name] for name in kinds] == told
            assert [held[record_id(1)][name] for name in kinds] == ["00123", "120000", None, None]
            assert target.write([long], no_note).confirmed == [long]
            cleared = Row("k4", "A0", record_id(0), {"stratum_text": None, "stratum_date": None})
            assert target.write([cleared], no_note).confirmed == [cleared]
            assert target.settle([cleared], None).confirmed == [cleared]
            assert [crm.held(0, name)[name] or None for name in kinds] == [None, "-3.1", None, "true"]


def test_the_webhook_is_told_every_value_as_text_in_utf_8_and_null_for_a_cleared_one(
    receiver: Receiver, time: Time
) -> None:
    values = {
        "name": "华为技术有限公司 🚀",
        "score": "0.10",
        "code": "00123",
        "on": "2026-06-30",
        "tier": None,
        "long": "x" * 70_000,
    }
    sent = [Row("k1", "A1", "A1", values)]
    answer = opened(time).write(sent, no_note)
    assert answer.confirmed == sent
    assert receiver.written("A1") == [values]


def test_a_webhook_batch_is_applied_once_however_often_it_is_posted(receiver: Receiver, time: Time) -> None:
    target, sent = opened(time), rows("1", "2", "3")
    receiver.fault(drop_after=1)
    with pytest.raises(NoAnswer):
        target.write(sent, no_note)
    assert target.settle(sent, None).confirmed == sent
    # After a crash the rows may come in another company: the keys of the rows still tell.
    assert target.settle(rows("3", "1"), None).missing == []
    keys = [key for key, _ in receiver.deliveries]
    assert keys == [batch_key(sent)] * 2 + [batch_key(rows("1", "3"))]
    assert [len(receiver.written(f"A{key}")) for key in "123"] == [1, 1, 1]


def test_rows_that_a_webhook_took_are_known_in_the_company_of_one_for_which_it_refuses_the_batch(
    receiver: Receiver, time: Time
) -> None:
    target = opened(time)
    receiver.fault(drop_after=1)
    with pytest.raises(NoAnswer):
        target.write(rows("1", "2", "3"), no_note)
    receiver.fault(reject=["A5"])
    answer = target.settle(rows("1", "2", "3", "4", "5"), None)
    assert (answer.confirmed, answer.refused, answer.missing) == (rows("1", "2", "3", "4"), [], rows("5"))
    assert [len(receiver.written(f"A{key}")) for key in "12345"] == [1, 1, 1, 1, 0]


def test_a_replayed_or_altered_delivery_is_not_taken(receiver: Receiver, time: Time) -> None:
    taken: list[httpx.Request] = []
    target = opened(time)
    target._http.event_hooks["request"].append(taken.append)
    target.write(rows("1"), no_note)
    (request,) = taken
    headers, body = dict(request.headers), request.content
    assert httpx.post(receiver.url, headers=headers, content=body).status_code == 200
    assert httpx.post(receiver.url, headers=headers, content=body.replace(b'"S"', b'"A"')).status_code == 401
    older = headers | {"x-stratum-timestamp": str(int(time.now) - 1)}
    assert httpx.post(receiver.url, headers=older, content=body).status_code == 401
    time.now += WINDOW_S + 1
    assert httpx.post(receiver.url, headers=headers, content=body).status_code == 401
    # What we send after a long wait is signed anew.
    receiver.fault(rate_limited=1, retry_after=100)
    assert target.write(rows("2"), no_note).confirmed == rows("2")
    assert time.slept == [100.0]
    stamps = [int(each.headers["x-stratum-timestamp"]) for each in taken[-2:]]
    assert stamps == [int(time.now) - 100, int(time.now)]


@pytest.mark.parametrize("gives_results", [True, False])
def test_a_plain_yes_and_a_list_of_results_are_both_answers(
    receiver: Receiver, time: Time, gives_results: bool
) -> None:
    receiver.answers_with_results = gives_results
    assert opened(time).write(rows("1", "2"), no_note).confirmed == rows("1", "2")


def test_a_web_page_with_200_confirms_nothing(receiver: Receiver, time: Time) -> None:
    receiver.fault(page=1)
    with pytest.raises(NoAnswer, match="no list of results"):
        opened(time).write(rows("1"), no_note)


def test_an_answer_that_cannot_be_decoded_confirms_nothing_and_the_rows_are_known_the_second_time(
    receiver: Receiver, time: Time
) -> None:
    receiver.fault(undecodable=1)
    with pytest.raises(NoAnswer, match="DecodingError"):
        opened(time).write(rows("1"), no_note)
    assert opened(time).settle(rows("1"), None).confirmed == rows("1")
    assert len(receiver.written("A1")) == 1


@pytest.mark.parametrize(("retry_after", "wait"), [(0, 1.0), (50, 50.0), (-3, 10.0)])
def test_a_receiver_that_turns_away_for_ever_is_given_up_after_two_minutes(
    receiver: Receiver, time: Time, retry_after: int, wait: float
) -> None:
    receiver.fault(rate_limited=500, retry_after=retry_after)
    with pytest.raises(Refused, match="HTTP 429"):
        opened(time).write(rows("1"), no_note)
    assert time.slept == [wait] * int(120 // wait)


ODD = [
    b"<html>",
    b"",
    b"null",
    b"3",
    b"[]",
    b"{}",
    b'{"results": 3}',
    b'{"results": [null]}',
    b'{"results": ["1"]}',
]


def test_hubspot_that_names_no_wait_or_answers_what_is_not_its_own_is_given_up(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_sandbox(tmp_path / "crm.sqlite", [account(0)]) as crm:
        sandbox_fixture.reach(monkeypatch, crm)
        with hubspot(get_connection("hubspot_default"), None, sleep=time.sleep) as api:
            target = HubSpotTarget(api)
            assert target.setup({"stratum_tier": "string"}, make=True).made == ["stratum_tier"]
            crm.fault(rate_limited=500, retry_after=0)
            with pytest.raises(Refused, match="HTTP 429"):
                target.read([record_id(0)], ["stratum_tier"])
            assert time.slept == [1.0] * 120
            crm.fault(rate_limited=0)
            sent = Row("k1", "A0", record_id(0), {"stratum_tier": "A"})
            for odd in ODD:
                with monkeypatch.context() as patch:
                    patch.setattr(hubspot_api, "read_whole", lambda answer, url, odd=odd: odd)
                    with pytest.raises(NoAnswer):
                        target.write([sent], no_note)
                    with pytest.raises(NoAnswer):
                        target.read([record_id(0)], ["stratum_tier"])
            assert target.settle([sent], None).confirmed == [sent]
            unfit = {"group_name": "stratum", "label": "l", "fieldType": "f"}
            crm.sandbox.store.add_property(unfit | {"name": "stratum_since", "type": "bool"})
            crm.sandbox.store.add_property(unfit | {"name": "stratum_text", "type": "enumeration"})
            kinds = {"stratum_since": "date", "stratum_text": "string", "hs_object_id": "number"}
            assert target.setup(kinds, make=True) == Setup(
                unfit={
                    "stratum_since": "the company property is there and of type bool, which "
                    "does not take a date: name another one",
                    "hs_object_id": "the company property is there and read-only: name another one",
                }
            )
            with pytest.raises(
                StratumError, match="cannot be told stratum_since: the company property is there"
            ):
                check_fields(target, kinds, make=True)


def test_a_wrong_secret_is_told_and_blames_no_row(
    receiver: Receiver, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_fixture.reach(monkeypatch, receiver, "another secret")
    with pytest.raises(Refused, match="HTTP 401: the signature does not fit") as refused:
        opened(time).write(rows("1"), no_note)
    assert not refused.value.is_of_rows
    assert "another secret" not in str(refused.value)


def test_a_webhook_cannot_be_read(receiver: Receiver, time: Time) -> None:
    target = opened(time)
    assert not target.can_read
    with pytest.raises(Refused, match="cannot be read"):
        target.read(["A1"], ["tier"])
    assert (
        target.setup({"tier": "string"}, make=True).note
        == "a webhook has no fields: its receiver takes what it is sent"
    )


def test_the_share_of_a_day_is_one_for_all_tasks_and_comes_back_by_the_hour(
    warehouse: Warehouse, time: Time
) -> None:
    began = time.now
    with (
        limiter("loader", "org", Limits(daily=20), lambda: time.now, time.sleep) as ingest,
        limiter("syncer", "org", Limits(daily=20), lambda: time.now, time.sleep) as sync,
    ):
        for turn in range(10):  # a half of 20
            (ingest if turn % 2 else sync).take()
            time.now += 1800.0
        with pytest.raises(Refused, match="10 calls in the last 24 hours, its share of the 20") as spent:
            sync.take()
        assert (spent.value.status, spent.value.is_of_rows, spent.value.is_temporary) == (429, False, True)
        with pytest.raises(Refused):
            ingest.take()
        assert time.slept == []  # nobody waits for a day
        time.now = began + DAY + 2 * 3600  # the calls of the first two hours are a day old
        for _ in range(4):
            ingest.take()
        with pytest.raises(Refused, match="of the 20"):
            ingest.take()
        sync.learn(40)  # the org says what it has
        for _ in range(10):
            ingest.take()
        with pytest.raises(Refused, match="of the 40"):
            ingest.take()


def test_a_burst_holds_beside_the_budget_of_a_day(warehouse: Warehouse, time: Time) -> None:
    with limiter("syncer", "org", Limits(2, 10.0, daily=100), lambda: time.now, time.sleep) as sync:
        for _ in range(4):
            sync.take()
    assert time.slept == [10.0]
    assert (
        warehouse.value("select (select sum(value::int) from jsonb_each_text(hours)) from sync.call_windows")
        == 4
    )


def salesforce_of(time: Time, role: str | None) -> Callable[[], object]:
    def call() -> object:
        with salesforce(get_login("salesforce_default"), role, lambda: time.now, time.sleep) as api:
            return api.describe("Account")

    return call


def test_pulling_and_telling_salesforce_share_what_the_org_says_a_day_allows(
    warehouse: Warehouse, time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_salesforce(tmp_path / "salesforce.sqlite") as crm:
        reach_salesforce(monkeypatch, crm)
        salesforce_of(time, "loader")()
        assert warehouse.rows("select org, daily_limit from sync.call_windows") == [
            (f"salesforce:127.0.0.1:{crm.port}", 15_000)
        ]
        monkeypatch.setattr(limits, "SHARE_OF_DAY", 2 / 15_000)
        salesforce_of(time, "syncer")()
        with pytest.raises(TransientError, match="No call to Salesforce is left"):
            salesforce_of(time, "loader")()


def test_hubspot_tells_what_a_day_allows(
    warehouse: Warehouse, time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_sandbox(tmp_path / "crm.sqlite", [account(0)]) as crm:
        sandbox_fixture.reach(monkeypatch, crm)
        with hubspot(get_connection("hubspot_default"), "syncer", lambda: time.now, time.sleep) as api:
            api.properties()
    assert (
        warehouse.value("select daily_limit from sync.call_windows where org not like '%:search'") == 625_000
    )


def test_a_write_to_salesforce_is_made_once_and_a_read_again(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_salesforce(tmp_path / "salesforce.sqlite") as crm:
        reach_salesforce(monkeypatch, crm)
        with salesforce(get_login("salesforce_default"), None, lambda: time.now, time.sleep) as api:
            crm.fault(server_error=1, server_error_at="describe")
            api.describe("Account")
            assert time.slept == [1.0]
            crm.fault(server_error=1, server_error_at="describe")
            with api.session.once(), pytest.raises(Silent):
                api.describe("Account")
            assert time.slept == [1.0]
            crm.fault(rate_limited=99, retry_after=50)
            with pytest.raises(TurnedAway, match="keeps answering 429"):
                api.describe("Account")
            assert time.slept == [1.0, 50.0, 50.0]
