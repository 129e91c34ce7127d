"""What Salesforce is told by collections and by jobs, read back by the unmodified official client; jobs that end badly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import SalesforceResourceNotFound
from starlette.responses import JSONResponse, Response

from include.connections import get_login
from include.errors import StratumError
from include.sandbox.salesforce.objects import Field
from include.sources.salesforce_api import SalesforceApi
from include.sync.setup import check_fields
from include.sync.target import NoAnswer, Refused, Row
from include.sync.targets import salesforce, salesforce_bulk
from include.sync.targets.salesforce import SalesforceTarget
from tests.integration.salesforce_fixture import JANUARY, Running, reach, running_salesforce

KINDS = {
    "Stratum_Text__c": "string",
    "Stratum_Number__c": "number",
    "Stratum_Date__c": "date",
    "Stratum_Flag__c": "bool",
}
TEXT, NUMBER, DATE, FLAG = KINDS
JOBS = pytest.mark.parametrize("rows_a_call", [200, 1], ids=["collection", "job"])


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_salesforce(tmp_path_factory.mktemp("sandbox") / "salesforce.sqlite") as running:
        yield running


@pytest.fixture(scope="module")
def client(crm: Running) -> Salesforce:
    return crm.client()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def target(crm: Running, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> SalesforceTarget:
    crm.sandbox.faults = type(crm.sandbox.faults)()
    reach(monkeypatch, crm)
    api = SalesforceApi(get_login("salesforce_default"), slept.append)
    opened = SalesforceTarget(api, "Account", slept.append)
    opened.setup(KINDS, make=True)
    slept.clear()
    return opened


def rows(crm: Running, *values: dict[str, str | None]) -> list[Row]:
    """Return rows for accounts of this test alone."""
    ids = [crm.org.insert("Account", JANUARY, Name=f"Account {n}") for n in range(len(values))]
    return [Row(f"key-{each}", f"A-{each}", each, told) for each, told in zip(ids, values, strict=True)]


def shown(client: Salesforce, row: Row, *names: str) -> list[Any]:
    held = client.Account.get(row.record_id)
    return [held[name] for name in names]


class Crash(Exception):
    """The process dies here."""


@JOBS
def test_values_of_every_kind_arrive_as_they_were_told(
    crm: Running,
    client: Salesforce,
    target: SalesforceTarget,
    monkeypatch: pytest.MonkeyPatch,
    rows_a_call: int,
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", rows_a_call)
    # A zone whose midnight is the day before in UTC, and one whose is not.
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    sent = rows(
        crm,
        {TEXT: "华为技术有限公司 🚀 “quoted”, a comma", NUMBER: "-3.1", DATE: "2026-06-30", FLAG: "true"},
        {TEXT: "00123", NUMBER: "120000", DATE: "2024-02-29", FLAG: "false"},
        {TEXT: "two\r\nlines", NUMBER: "0.1"},
        {TEXT: "x" * 255},
    )
    answer = target.write(sent, lambda job_id: None)
    assert answer.confirmed == sent
    assert shown(client, sent[0], *KINDS) == [sent[0].values[TEXT], -3.1, "2026-06-30", True]
    assert shown(client, sent[1], *KINDS) == ["00123", 120000.0, "2024-02-29", False]
    assert [text.replace("\r\n", "\n") for text in shown(client, sent[2], TEXT)] == ["two\nlines"]
    assert shown(client, sent[3], TEXT) == ["x" * 255]
    held = target.read([row.record_id for row in sent], list(KINDS))
    for row in sent:
        assert all(target.is_same(told, held[row.record_id][name]) for name, told in row.values.items())


@JOBS
def test_a_null_clears_its_field_and_no_other(
    crm: Running,
    client: Salesforce,
    target: SalesforceTarget,
    monkeypatch: pytest.MonkeyPatch,
    rows_a_call: int,
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", rows_a_call)
    sent = rows(crm, *[{TEXT: "kept", NUMBER: "1", DATE: "2026-06-30", FLAG: "true"}] * 2)
    target.write(sent, lambda job_id: None)
    cleared = [
        Row("key-1", "A1", sent[0].record_id, {NUMBER: None, FLAG: None}),
        Row("key-2", "A2", sent[1].record_id, {TEXT: "new"}),
    ]
    answer = target.write(cleared, lambda job_id: None)
    assert answer.confirmed == cleared
    assert shown(client, sent[0], *KINDS) == ["kept", None, "2026-06-30", False]
    assert shown(client, sent[1], *KINDS) == ["new", 1.0, "2026-06-30", True]
    assert target.settle(cleared, None).confirmed == cleared  # an emptied checkbox is false


@JOBS
def test_a_row_that_does_not_fit_is_refused_alone_with_salesforces_reason(
    crm: Running,
    client: Salesforce,
    target: SalesforceTarget,
    monkeypatch: pytest.MonkeyPatch,
    rows_a_call: int,
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", rows_a_call)
    sent = rows(crm, {TEXT: "fits"}, {TEXT: "x" * 256}, {TEXT: "fits too"})
    answer = target.write(sent, lambda job_id: None)
    assert answer.confirmed == [sent[0], sent[2]]
    ((row, reason),) = answer.refused
    assert (row, reason[:16]) == (sent[1], "STRING_TOO_LONG:")
    assert shown(client, sent[1], TEXT) == [None]


def test_a_text_that_would_empty_a_field_in_a_job_is_refused_before_it_is_sent(
    crm: Running, client: Salesforce, target: SalesforceTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", 1)
    sent = rows(crm, {TEXT: "#N/A"}, {TEXT: "A"})
    answer = target.write(sent, lambda job_id: None)
    assert (answer.confirmed, answer.refused) == (
        [sent[1]],
        [(sent[0], f"#N/A as the value of {TEXT} would empty it")],
    )
    assert crm.org.written(sent[0].record_id) == []


def test_few_rows_are_collections_and_many_are_jobs(target: SalesforceTarget) -> None:
    assert [target.batch_size(rows) for rows in (1, 1_999, 2_000, 1_000_000)] == [200, 200, 50_000, 50_000]


def test_two_thousand_rows_are_one_job_whose_results_come_in_another_order(
    crm: Running, target: SalesforceTarget
) -> None:
    sent = rows(crm, *[{TEXT: f"text {n}"} for n in range(2_000)])
    jobs: list[str] = []
    calls = target.calls
    answer = target.write(sent, jobs.append)
    assert len(jobs) == 1
    assert answer.confirmed == sent
    assert target.calls - calls < 12
    assert {each["request"] for each in crm.org.written() if each["values"].get(TEXT) == "text 7"} >= {
        jobs[0]
    }


def test_a_csv_of_more_bytes_than_a_job_takes_is_refused_so_that_it_is_halved(
    crm: Running, target: SalesforceTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", 1)
    monkeypatch.setattr(salesforce_bulk, "MOST_BYTES", 100)
    sent = rows(crm, {TEXT: "华" * 20}, {TEXT: "华" * 20})  # 40 characters, 120 bytes
    before = len(crm.sandbox.ingests)
    with pytest.raises(Refused, match="bytes are more than the 100 of one job") as refused:
        target.write(sent, lambda job_id: None)
    assert refused.value.is_of_rows
    assert len(crm.sandbox.ingests) == before


@pytest.mark.parametrize("crashed_at", ["create_job", "upload_job_data", "close_job", "get_job"])
def test_a_crash_between_any_two_steps_of_a_job_is_settled_by_its_id(
    crm: Running, target: SalesforceTarget, monkeypatch: pytest.MonkeyPatch, crashed_at: str
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", 1)
    sent = rows(crm, {TEXT: "A"}, {TEXT: "B"})
    steps, noted = target._bulk._steps, list[str]()
    original = getattr(steps, crashed_at)

    def crashing(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(steps, crashed_at, crashing)
        with pytest.raises(Crash):
            target.write(sent, noted.append)
    assert len(noted) == (crashed_at != "create_job")  # its id is noted before it gets any row
    answer = target.settle(sent, noted[0] if noted else None)
    is_done = crashed_at in ("close_job", "get_job")
    assert (answer.confirmed, answer.missing) == ((sent, []) if is_done else ([], sent))
    assert [len(crm.org.written(row.record_id)) for row in sent] == [int(is_done)] * 2
    if noted and not is_done:  # an open job is aborted: nobody can close it later
        assert crm.sandbox.ingests[noted[0]].state == "Aborted"  # type: ignore[union-attr]


@pytest.fixture
def three(crm: Running, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", 1)
    return rows(crm, {TEXT: "A"}, {TEXT: "B"}, {TEXT: "C"})


def test_a_job_that_failed_half_way_tells_what_it_did_and_what_it_left(
    crm: Running, target: SalesforceTarget, three: list[Row]
) -> None:
    crm.fault(fail_ingest=1, fail_ingest_rows=2, refuse_rows={three[1].record_id: "DUPLICATE_VALUE"})
    jobs: list[str] = []
    with pytest.raises(NoAnswer, match="is Failed: InternalServerError"):
        target.write(three, jobs.append)
    answer = target.settle(three[::-1], jobs[0])  # by Id: neither order is that of the results
    assert (answer.confirmed, answer.missing, answer.proof) == ([three[0]], [three[2]], "answer")
    assert [(row, reason[:15]) for row, reason in answer.refused] == [(three[1], "DUPLICATE_VALUE")]


def test_a_job_that_does_not_end_is_watched_with_patience_and_stays_open(
    crm: Running, target: SalesforceTarget, three: list[Row], slept: list[float]
) -> None:
    crm.fault(stall_ingest=1)
    jobs: list[str] = []
    with pytest.raises(NoAnswer, match="is still UploadComplete after"):
        target.write(three, jobs.append)
    assert slept[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert salesforce_bulk.PATIENCE_S <= sum(slept) < salesforce_bulk.PATIENCE_S + 30
    with pytest.raises(NoAnswer):  # whether it will be done is not known, so nothing newer may be sent
        target.settle(three, jobs[0])
    target.api.client.restful(f"jobs/ingest/{jobs[0]}", method="PATCH", json={"state": "Aborted"})
    assert target.settle(three, jobs[0]).missing == three  # an administrator aborted it


def test_a_job_that_salesforce_forgot_is_settled_by_reading(
    crm: Running, target: SalesforceTarget, three: list[Row]
) -> None:
    jobs: list[str] = []
    target.write(three, jobs.append)
    crm.sandbox.ingests[jobs[0]] = None
    crm.org.update(three[1].record_id, JANUARY, **{TEXT: "edited"})
    answer = target.settle(three, jobs[0])
    assert (answer.confirmed, answer.missing) == ([three[0], three[2]], [three[1]])
    assert answer.proof == "read_back"


def test_a_job_of_an_unknown_field_stops_and_blames_no_row(
    crm: Running, target: SalesforceTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", 1)
    sent = rows(crm, {"Gone__c": "A"}, {"Gone__c": "B"})
    with pytest.raises(Refused, match="Field name not found : Gone__c") as refused:
        target.write(sent, lambda job_id: None)
    assert not refused.value.is_of_rows


def test_results_that_break_off_leave_their_rows_open(
    crm: Running, target: SalesforceTarget, three: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = target._bulk._steps
    original = steps.get_ingest_results
    monkeypatch.setattr(
        steps,
        "get_ingest_results",
        lambda job, kind: original(job, kind)[:-8] if "succ" in kind else original(job, kind),
    )
    answer = target.write(three, lambda job_id: None)
    assert (len(answer.confirmed), len(answer.missing)) == (2, 1)


def test_the_calls_of_the_day_being_used_up_blames_no_row(
    crm: Running, target: SalesforceTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = rows(crm, {TEXT: "A"})
    crm.fault(request_limit=True)
    with pytest.raises(Refused, match="REQUEST_LIMIT_EXCEEDED") as refused:
        target.write(sent, lambda job_id: None)
    assert not refused.value.is_of_rows


@pytest.mark.parametrize("looked_at", ["show_ingest", "successful"])
@pytest.mark.parametrize(
    "refusal",
    [
        {"request_limit": True},
        {"rate_limited": 99, "retry_after": 50},
        {"expire_session": 1},
    ],
    ids=["request limit", "429 for good", "refused login"],
)
def test_a_job_at_work_that_may_not_be_asked_leaves_its_rows_without_an_answer(
    crm: Running,
    target: SalesforceTarget,
    three: list[Row],
    monkeypatch: pytest.MonkeyPatch,
    looked_at: str,
    refusal: dict[str, Any],
) -> None:
    steps, jobs = target._bulk._steps, list[str]()
    name = {"show_ingest": "get_job", "successful": "get_ingest_results"}[looked_at]
    original = getattr(steps, name)

    def refused(*arguments: Any) -> Any:
        monkeypatch.setattr(crm.sandbox, "secret", "another")  # so that no login is let in
        crm.fault(**refusal)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(steps, name, refused)
        with pytest.raises(NoAnswer, match=r"^job \w+: "):
            target.write(three, jobs.append)
    monkeypatch.undo()
    crm.sandbox.faults = type(crm.sandbox.faults)()
    assert target.settle(three, jobs[0]).confirmed == three
    assert [len(crm.org.written(row.record_id)) for row in three] == [1, 1, 1]


def test_a_job_that_is_called_unknown_while_it_works_is_not_halved(
    target: SalesforceTarget, three: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*arguments: Any) -> Any:
        raise SalesforceResourceNotFound("jobs/ingest", 404, "", [{"errorCode": "NOT_FOUND"}])

    monkeypatch.setattr(target._bulk._steps, "get_job", unknown)
    with pytest.raises(NoAnswer, match="HTTP 404"):
        target.write(three, lambda job_id: None)


def test_a_lost_write_is_not_taken_for_done_where_texts_look_like_one_number(
    crm: Running, target: SalesforceTarget
) -> None:
    (held,) = rows(crm, {TEXT: "007", NUMBER: "0.1"})
    assert target.write([held], lambda job_id: None).confirmed == [held]
    lost = Row("key-2", "A2", held.record_id, {TEXT: "7"})
    assert target.settle([lost], None).missing == [lost]
    assert target.settle([Row("key-3", "A3", held.record_id, {NUMBER: "0.1"})], None).missing == []


@pytest.mark.parametrize(("retry_after", "wait"), [(0, 1.0), (50, 50.0), (-3, 10.0)])
def test_being_turned_away_for_ever_ends_after_two_minutes(
    crm: Running, target: SalesforceTarget, slept: list[float], retry_after: int, wait: float
) -> None:
    sent = rows(crm, {TEXT: "A"})
    crm.fault(rate_limited=500, retry_after=retry_after)
    with pytest.raises(Refused, match="keeps answering 429"):
        target.read([sent[0].record_id], [TEXT])
    assert slept == [wait] * int(120 // wait)


PAGE = Response("<html>Down for maintenance</html>", media_type="text/html")
ODD = [
    PAGE,
    Response(status_code=200),
    *(JSONResponse(body) for body in (None, 3, "no", [], {}, [None], [3])),
]


@pytest.mark.parametrize("endpoint", ["collection_update", "create_ingest", "set_state", "show_ingest"])
def test_an_answer_with_200_that_is_not_salesforces_confirms_nothing(
    crm: Running,
    target: SalesforceTarget,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
) -> None:
    monkeypatch.setattr(salesforce, "COLLECTION_ROWS", 1)
    sent = rows(crm, *[{TEXT: "A"}] * (1 if endpoint == "collection_update" else 2))
    target.write(sent[:1], lambda job_id: None)  # so that the fields are described
    # What closing a job is answered is not looked at, but it must be an answer.
    for odd in ODD if endpoint != "set_state" else ODD[:5]:
        with spoiled(crm, monkeypatch, endpoint, odd), suppress(NoAnswer):
            assert target.write(sent, lambda job_id: None).confirmed == []


@pytest.mark.parametrize("endpoint", ["collection_read", "query", "describe"])
def test_a_reading_with_200_that_is_not_salesforces_is_no_answer(
    crm: Running,
    target: SalesforceTarget,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
) -> None:
    sent = rows(crm, {TEXT: "A"})
    keyed = SalesforceTarget(target.api, "Account", key=TEXT)
    ask: dict[str, Callable[[], Any]] = {
        "collection_read": lambda: keyed.read([sent[0].record_id], [TEXT]),
        "query": lambda: keyed.find(["A"]),
        "describe": lambda: keyed.setup({TEXT: "string"}, make=False),
    }
    for odd in ODD:
        if endpoint == "collection_read" and odd.body == b"[null]":  # the record is not there
            continue
        with spoiled(crm, monkeypatch, endpoint, odd), pytest.raises(NoAnswer):
            ask[endpoint]()


@contextmanager
def spoiled(crm: Running, monkeypatch: pytest.MonkeyPatch, endpoint: str, answer: Response) -> Iterator[None]:
    """Let an endpoint do what it is asked to, and answer something else."""
    original = crm.sandbox._answer

    def odd(asked: Any, request: Any, raw: bytes) -> Response:
        told = original(asked, request, raw)
        return told if asked.__name__ != endpoint else Response(answer.body, 200, dict(answer.headers))

    with monkeypatch.context() as patch:
        patch.setattr(crm.sandbox, "_answer", odd)
        yield


def test_setup_makes_and_grants_what_it_may_and_names_the_rest(
    crm: Running, client: Salesforce, target: SalesforceTarget
) -> None:
    kinds = {"Stratum_New__c": "number", "Stratum_Nowhere": "string", "Own__c": "date", "Name": "string"}
    seen = target.setup(kinds, make=False)
    assert (seen.made, list(seen.by_hand)) == ([], ["Stratum_New__c", "Stratum_Nowhere", "Own__c"])
    done = target.setup(kinds, make=True)
    assert (done.made, list(done.by_hand)) == (["Stratum_New__c"], ["Stratum_Nowhere", "Own__c"])
    assert "whose API name will end with __c" in done.by_hand["Stratum_Nowhere"]
    assert (
        done.by_hand["Own__c"]
        == "a custom field of Account, type Date, granted to the user of the connection"
    )
    (made,) = [each for each in client.Account.describe()["fields"] if each["name"] == "Stratum_New__c"]
    assert (made["type"], made["updateable"]) == ("double", True)
    # A second set-up, of which the first one's answer was lost, makes nothing twice.
    again = target.setup({"Stratum_New__c": "number"}, make=True)
    assert (again.made, again.by_hand) == ([], {})
    sets = client.query("select Id from PermissionSet where Name = 'Stratum_Sync'")
    assert sets["totalSize"] == 1


def test_a_field_that_salesforce_does_not_let_us_make_is_left_to_a_person(
    crm: Running, target: SalesforceTarget
) -> None:
    done = target.setup({"Stratum_A_Name_That_Is_Longer_Than_Forty_Characters__c": "string"}, make=True)
    assert done.made == []
    ((_, how),) = done.by_hand.items()
    assert "Salesforce said: HTTP 400: FIELD_INTEGRITY_EXCEPTION" in how


def test_a_field_of_another_type_is_named_and_a_sync_that_would_tell_it_is_refused(
    crm: Running, target: SalesforceTarget
) -> None:
    crm.org.add_field("Account", "Stratum_Hidden__c", Field("boolean"))  # and nobody granted it
    kinds = {TEXT: "number", NUMBER: "string", DATE: "moment", FLAG: "bool", "Stratum_Hidden__c": "date"}
    done = target.setup(kinds, make=True)
    assert (done.made, done.by_hand) == ([], {})
    why = "Account.{} is there and of type {}, which does not take a {}: name another one"
    assert done.unfit == {
        NUMBER: why.format(NUMBER, "double", "string"),
        DATE: why.format(DATE, "date", "moment"),
        "Stratum_Hidden__c": why.format("Stratum_Hidden__c", "boolean", "date"),
    }
    with pytest.raises(StratumError, match=rf"cannot be told {NUMBER}: .*type double.*Nothing was sent"):
        check_fields(target, kinds, make=False)
    assert target.setup(KINDS, make=False).unfit == {}
