"""The parts of the sync that need no server: connections, texts, answers."""

import json
import uuid
from datetime import UTC, date, datetime

import pytest

from include.connections import get_connection
from include.errors import StratumError
from include.sync.switches import status_lines
from include.sync.target import Row, as_text, same_text
from include.sync.targets.hubspot import read_answer


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("http://:s%40cret@127.0.0.1:8794", "http://127.0.0.1:8794"),
        ("hubspot://:s%40cret@api.example.com", "https://api.example.com"),
        ("hubspot://https://:s%40cret@api.example.com", "https://api.example.com"),
        ("http://:s%40cret@api.example.com/https", "https://api.example.com"),
        ("hubspot://:s%40cret@", None),
        (json.dumps({"conn_type": "http", "password": "s@cret"}), None),
        (
            json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": 80, "password": "s@cret"}),
            "http://127.0.0.1:80",
        ),
        (
            json.dumps({"conn_type": "http", "host": "https://api.example.com/", "password": "s@cret"}),
            "https://api.example.com",
        ),
    ],
)
def test_a_connection_is_read_in_both_forms(
    monkeypatch: pytest.MonkeyPatch, written: str, host: str | None
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_CRM", written)
    connection = get_connection("my_crm")
    assert (connection.host, connection.token) == (host, "s@cret")
    assert "s@cret" not in repr(connection)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("http://127.0.0.1:8794", "has no password"),
        ("{not json", "AIRFLOW_CONN_MY_CRM is not a connection"),
        ("no-scheme", "AIRFLOW_CONN_MY_CRM is not a connection"),
        ("http://:s@h:port", "AIRFLOW_CONN_MY_CRM is not a connection"),
        (None, "No connection 'my_crm'. Set AIRFLOW_CONN_MY_CRM"),
    ],
)
def test_a_connection_that_is_none_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, written: str | None, words: str
) -> None:
    if written is not None:
        monkeypatch.setenv("AIRFLOW_CONN_MY_CRM", written)
    with pytest.raises(StratumError, match=words) as refused:
        get_connection("my_crm")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", None),
        ("S", "S"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-0.0, "0"),
        (100.50, "100.5"),
        (1e21, "1000000000000000000000"),
        (0.1, "0.1"),
        (float("nan"), None),
    ],
)
def test_a_value_that_a_crm_shows_is_read_as_the_text_it_is_told(value: object, text: str | None) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("told", "held", "same"),
    [
        ("A", "A", True),
        ("A", "B", False),
        ("A", None, False),
        (None, None, True),
        (None, "", True),
        (None, "A", False),
        ("100.5", "100.50", True),
        ("100.5", "100.6", False),
        ("120000", "1.2E5", True),
        ("0", "0.00", True),
        ("7", "007", False),
        ("007", "7", False),
        ("7.50", "7.5", False),
        ("7", " 7 ", False),
        ("1000", "1_000", False),
        ("7", "٧", False),
        ("2026-06-30", "2026-06-30T00:00:00Z", True),
        ("2026-06-30", "2026-06-30T00:00:00+08:00", True),
        ("2026-06-30", "2026-06-30T08:00:00+0800", True),
        ("2026-06-30", "1782777600000", True),
        ("2026-06-30", "2026-06-29T16:00:00Z", False),
        ("2026-06-30", "2026-06-30T00:30:00Z", False),
        ("2026-06-30", "9" * 15, False),
        ("2026-06-30", "soon", False),
        ("2026-06-30T12:00:00Z", "2026-06-30T20:00:00.000+0800", True),
        ("2026-06-30T12:00:00Z", "1782820800000", True),
        ("2026-06-30T12:00:00Z", "2026-06-30T12:00:00", False),
        ("2026-06-30T12:00:00Z", "2026-06-30T12:00:01Z", False),
        ("2026-06-30T12:00:00Z", "2026-06-30", False),
    ],
)
def test_a_value_written_in_another_way_is_the_same(told: str, held: str | None, same: bool) -> None:
    assert same_text(told, held) is same


def rows(*record_ids: str) -> list[Row]:
    return [Row(str(uuid.uuid4()), "A" + each, each, {"stratum_tier": "A"}) for each in record_ids]


def test_each_row_of_an_answer_is_confirmed_refused_or_missing() -> None:
    sent = rows("1", "2", "3", "4", "5", "6")
    body = {
        "status": "COMPLETE",
        "results": [
            {"id": "1", "properties": {"stratum_tier": "A"}},
            # A merged record: answered under the id of the one that remains, which now holds its value.
            {"id": "77", "objectWriteTraceId": sent[1].key, "properties": {"stratum_tier": "A"}},
            {"id": "6", "properties": {"stratum_tier": "B"}},
        ],
        "errors": [
            {
                "category": "VALIDATION_ERROR",
                "message": "no",
                "context": {"objectWriteTraceId": [sent[2].key]},
            },
            {"category": "OBJECT_NOT_FOUND", "message": "gone", "context": {"ids": ["4"]}},
        ],
    }
    answer = read_answer(body, sent)
    assert answer.confirmed == sent[:1]
    assert answer.overwritten == {"77": {"stratum_tier"}}
    assert answer.refused == [
        (sent[1], "record_is_gone: it was merged into 77, which was told in its place"),
        (sent[2], "VALIDATION_ERROR: no"),
        (sent[3], "OBJECT_NOT_FOUND: gone"),
        (sent[5], "the CRM kept another value of stratum_tier"),
    ]
    assert answer.missing == [sent[4]]


def test_a_row_that_is_both_in_results_and_errors_is_refused() -> None:
    sent = rows("1")
    body = {
        "results": [{"id": "1", "properties": {}}],
        "errors": [{"category": "C", "message": "m", "context": {"ids": ["1"]}}],
    }
    assert read_answer(body, sent).refused == [(sent[0], "C: m")]


@pytest.mark.parametrize(("status", "shown"), [("held", False), ("failed", True)])
def test_a_hold_is_told_once_and_hides_no_failure_of_another_kind(status: str, shown: bool) -> None:
    counts = dict.fromkeys(("queried", "sent", "unchanged", "failed", "held"), 0)
    lines = status_lines(
        {
            "target": "crm",
            "switch": None,
            "last": counts | {"as_of_date": date(2026, 6, 30), "status": status, "failure": "why it ended"},
            "hold": {
                "hold_id": 1,
                "as_of_date": date(2026, 6, 30),
                "expires_at": datetime(2026, 7, 1, tzinfo=UTC),
                "to_send": 3,
                "reasons": [{"brake": "first_sync", "says": "nothing was told before"}],
            },
            "open_attempts": 0,
            "dead_letters": [],
            "reconciled": None,
            "drift": [],
        }
    )
    assert ("  why it ended" in lines) is shown
    assert "    first_sync: nothing was told before" in lines
