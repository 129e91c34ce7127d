"""The parts of targets that need no server: bodies, signatures, answers, values."""

import csv
import io
import json

import pytest

from include.connections import ApiConnection, get_connection, get_login
from include.errors import StratumError
from include.sync.limits import Alone, Limits
from include.sync.patience import Patience, retry_after
from include.sync.target import NoAnswer, Row, as_text, same_double
from include.sync.targets.salesforce import json_value, read_results
from include.sync.targets.salesforce_bulk import as_csv
from include.sync.targets.webhook import WebhookTarget, _parsed, as_body, batch_key, read_answer, signature


def rows(*keys: str) -> list[Row]:
    return [Row(key, f"A{key}", f"001{key:0>12}AAA", {"tier": "华 🚀", "score": None}) for key in keys]


def test_the_signature_is_the_one_the_contract_documents() -> None:
    assert signature(b"secret", "1800000000", b'{"a":1}') == (
        "sha256=440dfbb83aabca24d9e5027629cfd81cb45254690f8d410bb28f1cc17c990dbc"
    )


def test_an_address_that_opens_by_itself_is_not_told_on() -> None:
    target = WebhookTarget(
        ApiConnection("w", "https://hooks.example.com/s3cret?t=x", "key"), "accounts", Alone()
    )
    assert target.name == "the webhook at hooks.example.com"
    target.close()


def test_a_batch_has_the_same_key_and_body_whenever_and_in_whatever_order_it_is_sent() -> None:
    one, other = rows("1", "2", "3"), rows("3", "1", "2")
    assert batch_key(one) == batch_key(other)
    assert batch_key(one) != batch_key(rows("1", "2"))
    body = as_body("accounts", batch_key(one), one)
    assert body == as_body("accounts", batch_key(one), rows("1", "2", "3"))
    told = json.loads(body)
    assert told["rows"][0] == {"key": "1", "account_id": "A1", "values": {"tier": "华 🚀", "score": None}}
    assert (told["version"], told["object"], told["batch"]) == (1, "accounts", batch_key(one))


def test_without_a_body_all_rows_are_taken_and_with_one_those_it_names() -> None:
    sent = rows("1", "2", "3", "4")
    assert read_answer(None, sent).confirmed == sent
    told = [
        {"key": "1", "status": "taken"},
        {"key": "2", "status": "refused", "reason": "locked"},
        {"key": "3", "status": "later"},
        {"key": "9", "status": "taken"},
    ]
    answer = read_answer({"results": told}, sent)
    assert (answer.confirmed, answer.refused) == ([sent[0]], [(sent[1], "locked")])
    assert answer.missing == sent[2:]


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>Please log in</html>"),
        (200, b"OK"),
        (200, b'{"results": 3}'),
        (200, b'{"results": [{"status": "taken"}]}'),
        (200, b"[]"),
        (200, b"null"),
        (207, b""),
    ],
)
def test_an_answer_that_is_no_receivers_confirms_nothing(status: int, content: bytes) -> None:
    with pytest.raises(NoAnswer, match="no list of results"):
        _parsed(status, content)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_plain_yes_is_one(status: int) -> None:
    assert _parsed(status, b" ") is None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "00123", "00123"),
        ("double", "00123", 123.0),
        ("currency", "-3.1", -3.1),
        ("double", "much", "much"),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("boolean", "perhaps", "perhaps"),
        ("date", "2026-06-30", "2026-06-30"),
        ("double", None, None),
    ],
)
def test_a_text_is_told_as_its_field_keeps_it(kind: str, text: str | None, value: object) -> None:
    assert json_value(kind, text) == value
    assert type(json_value(kind, text)) is type(value)


@pytest.mark.parametrize(
    ("told", "held", "same"),
    [
        ("0.1234567890123456789", as_text(0.1234567890123456789), True),
        ("12345678901234567891", as_text(12345678901234567891.0), True),
        ("12345678901234567891", "12345678901234567890", False),
        ("9" * 400, "8" * 400, False),
        ("0.1", "0.10000001", False),
        ("7", "007", False),
        ("007", "7", False),
        ("1000", "1_000", False),
        ("7", "٧", False),
        ("nan", "NaN", False),
        ("7", None, False),
        (None, "0", False),
        (None, None, True),
    ],
)
def test_a_system_that_keeps_doubles_holds_the_nearest_one_and_no_other_text(
    told: str | None, held: str | None, same: bool
) -> None:
    assert same_double(told, held) is same


ANSWERED = "Tue, 30 Jun 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0.5 "}, 0.5),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "Tue, 30 Jun 2026 12:00:30 GMT", "Date": ANSWERED}, 30.0),
        ({"Retry-After": "Tue, 30 Jun 2026 11:00:00 GMT", "Date": ANSWERED}, 0.0),
        ({"Retry-After": "Tue, 30 Jun 2026 12:00:30 -0000", "Date": ANSWERED}, None),
        ({"Retry-After": "Tue, 30 Jun 2026 12:00:30 GMT"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "٧"}, None),
        ({"Retry-After": "soon", "Date": ANSWERED}, None),
        ({"Date": ANSWERED}, None),
    ],
)
def test_how_long_to_wait_is_read_in_seconds_or_as_a_date(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("named", "waits"), [({"Retry-After": "0"}, 120), ({"Retry-After": "121"}, 0), ({}, 12)]
)
def test_patience_ends_whatever_is_named(named: dict[str, str], waits: int) -> None:
    waited: list[float] = []
    patience = Patience()
    while patience.block(Alone(waited.append), named, 10.0):
        assert len(waited) <= 120
    assert len(waited) == waits


def test_results_are_those_of_the_rows_in_order_or_none() -> None:
    sent = rows("1", "2", "3")
    done = [{"id": row.record_id, "success": True, "errors": []} for row in sent]
    assert read_results(done, sent).confirmed == sent
    assert read_results(done[:2], sent).missing == sent
    assert read_results({}, sent).missing == sent
    assert read_results([done[0], None, 3], sent).missing == sent[1:]
    refused = {"success": False, "errors": [{"statusCode": "C", "message": "m"}]}
    answer = read_results([done[0], refused, done[1]], sent)  # the third is the result of another record
    assert (answer.confirmed, answer.refused, answer.missing) == ([sent[0]], [(sent[1], "C: m")], [sent[2]])


def test_a_csv_keeps_what_a_row_does_not_name_and_empties_what_it_clears() -> None:
    sent = [Row("1", "A", "a1", {"x": '1, 2\n"3"', "y": None}), Row("2", "B", "b2", {"z": "三"})]
    assert list(csv.reader(io.StringIO(as_csv(sent), newline=""))) == [
        ["Id", "x", "y", "z"],
        ["a1", '1, 2\n"3"', "#N/A", ""],
        ["b2", "", "", "三"],
    ]


@pytest.mark.parametrize(
    "connection",
    [
        '{"conn_type": "http", "password": "t", "extra": {"burst_calls": 7, "burst_seconds": 2.5, "daily_budget": "9"}}',
        "http://:t@127.0.0.1:1?burst_calls=7&burst_seconds=2.5&daily_budget=9",
    ],
)
def test_a_connection_states_its_limits_in_either_form(
    monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_X", connection)
    usual = Limits(burst=190, window_s=10.5, daily=100)
    assert usual.stated(get_connection("x")) == Limits(7, 2.5, 100, 9)
    assert usual.stated(get_login("x")) == Limits(7, 2.5, 100, 9)
    assert usual.stated(ApiConnection("x", None, "t", {"other": "-1"})) == usual


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5", "nan", "1e3"])
def test_a_limit_that_is_no_number_of_calls_is_said(given: str) -> None:
    with pytest.raises(StratumError, match=f"'x' has daily_budget: {given} in its extra"):
        Limits().stated(ApiConnection("x", None, "t", {"daily_budget": given}))
