"""What BottleCRM is told is read back record by record; a stand-in answers as it does, test_bottlecrm.py asks itself."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from include.connections import get_connection
from include.sources.bottlecrm_api import BottleCrmApi
from include.sync import trickle
from include.sync.target import NoAnswer, Refused, Row
from include.sync.targets.bottlecrm import BottleCrmTarget
from tests.integration.bottlecrm_fixture import Bottle, reach, running_bottle

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
KINDS = {"stratum_text": "string", "stratum_number": "number", "stratum_date": "date", "stratum_flag": "bool"}


@pytest.fixture
def crm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bottle]:
    with running_bottle(NOW) as bottle:
        reach(monkeypatch, bottle.url)
        yield bottle


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def target(crm: Bottle, slept: list[float]) -> Iterator[BottleCrmTarget]:
    api = BottleCrmApi(get_connection("bottlecrm_default"), slept.append)
    made = BottleCrmTarget(api)
    assert made.setup(KINDS, make=True).made == list(KINDS)
    yield made
    api.close()


def row(crm: Bottle, **values: str | None) -> Row:
    record_id = crm.add("accounts", NOW)
    return Row(f"key-{record_id}", f"A-{record_id}", record_id, values)


def no_note(job_id: str) -> None:
    raise AssertionError("a call that answers at once has no job")


def failing(times: int, method_path: str, answer: Any) -> Callable[[str, dict[str, str]], Any]:
    """Answer a path so for the first calls, and as the CRM does after them."""
    left = iter(range(times))

    def answers(path: str, query: dict[str, str]) -> Any:
        return answer if path.startswith(method_path) and next(left, None) is not None else None

    return answers


def test_each_record_is_one_call_and_one_reading(crm: Bottle, target: BottleCrmTarget) -> None:
    sent = [
        row(crm, stratum_text="华 🚀", stratum_number="-3.1", stratum_flag="true"),
        row(crm, stratum_text="00123"),
    ]
    before = target.calls
    answer = target.write(sent, no_note)
    assert (answer.confirmed, answer.proof, target.calls - before) == (sent, "read_back", 4)
    assert target.batch_size(1_000_000) == 1


def test_a_day_and_a_moment_are_held_as_they_were_told(crm: Bottle, target: BottleCrmTarget) -> None:
    assert target.setup({"stratum_moment": "moment"}, make=True).made == ["stratum_moment"]
    sent = row(crm, stratum_date="2011-12-30", stratum_moment="2026-06-30T12:00:00Z")
    assert target.write([sent], no_note).confirmed == [sent]
    assert target.read([sent.record_id], list(sent.values)) == {sent.record_id: sent.values}
    assert target.is_same("2026-06-30T12:00:00Z", "2026-06-30T20:00:00+08:00")


def test_a_field_that_is_dropped_with_200_refuses_its_row_by_name(
    crm: Bottle, target: BottleCrmTarget
) -> None:
    sent = row(crm, stratum_text="kept", not_there="lost")
    answer = target.write([sent], no_note)
    assert answer.refused == [(sent, "BottleCRM answered 200 and dropped not_there")]


def test_a_null_clears_its_field_and_no_other(crm: Bottle, target: BottleCrmTarget) -> None:
    first = row(crm, stratum_text="old", stratum_flag="true")
    target.write([first], no_note)
    cleared = Row("2", "A", first.record_id, {"stratum_text": None})
    assert target.write([cleared], no_note).confirmed == [cleared]
    assert target.read([first.record_id], list(KINDS))[first.record_id] == {
        "stratum_text": None,
        "stratum_number": None,
        "stratum_date": None,
        "stratum_flag": "true",
    }


def test_a_refused_value_and_a_record_that_is_gone_fail_alone(crm: Bottle, target: BottleCrmTarget) -> None:
    odd, gone, sound = row(crm, stratum_number="much"), row(crm, stratum_text="x"), row(crm, stratum_text="y")
    del crm.records["accounts"][gone.record_id]
    answer = target.write([odd, gone, sound], no_note)
    assert answer.confirmed == [sound]
    assert [(each.key, reason[:8]) for each, reason in answer.refused] == [
        (odd.key, "HTTP 400"),
        (gone.key, "HTTP 404"),
    ]
    assert target.read([gone.record_id, sound.record_id], ["stratum_text"]) == {
        sound.record_id: {"stratum_text": "y"}
    }


def test_a_write_is_made_once_and_its_reading_again(
    crm: Bottle, target: BottleCrmTarget, slept: list[float]
) -> None:
    sent = row(crm, stratum_text="A")
    crm.answers = failing(1, f"accounts/{sent.record_id}", (502, b"bad gateway"))
    with pytest.raises(NoAnswer, match="HTTP 502"):
        target.write([sent], no_note)
    assert (slept, crm.patched) == ([], [])
    assert target.settle([sent], None).missing == [sent]
    assert target.write([sent], no_note).confirmed == [sent]
    crm.answers = failing(2, f"accounts/{sent.record_id}", (502, b"bad gateway"))
    assert target.settle([sent], None).confirmed == [sent]
    assert slept == [1.0, 2.0]
    assert len(crm.patched) == 1


def test_being_turned_away_is_waited_out(crm: Bottle, target: BottleCrmTarget, slept: list[float]) -> None:
    sent = row(crm, stratum_text="A")
    crm.answers = failing(2, f"accounts/{sent.record_id}", (429, b"{}"))
    assert target.write([sent], no_note).confirmed == [sent]
    assert (slept, len(crm.patched)) == ([10.0, 10.0], 1)


@pytest.mark.parametrize(("retry_after", "wait"), [("0", 1.0), ("50", 50.0), ("soon", 10.0)])
def test_being_turned_away_for_ever_ends_after_two_minutes(
    crm: Bottle, target: BottleCrmTarget, slept: list[float], retry_after: str, wait: float
) -> None:
    sent = row(crm, stratum_text="A")
    crm.answers = failing(500, f"accounts/{sent.record_id}", (429, b"{}"))
    crm.headers = {"Retry-After": retry_after}
    with pytest.raises(NoAnswer, match="HTTP 429"):
        target.write([sent], no_note)
    assert slept == [wait] * int(120 // wait)
    assert crm.patched == []


class Left:
    """A limiter that lets so many calls through."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def take(self) -> None:
        if not self.calls:
            raise Refused(429, "no call is left")
        self.calls -= 1


def test_a_budget_that_is_used_up_is_told_before_a_write_and_leaves_open_what_cannot_be_read_back(
    crm: Bottle, target: BottleCrmTarget
) -> None:
    sent = row(crm, stratum_text="A")
    target.api.limiter = Left(0)  # type: ignore[assignment]
    with pytest.raises(Refused, match="No call to BottleCRM is left") as spent:
        target.write([sent], no_note)
    assert (spent.value.status, spent.value.is_of_rows, crm.patched) == (429, False, [])
    target.api.limiter = Left(1)  # type: ignore[assignment]
    with pytest.raises(NoAnswer, match="it was changed, and may not be read back"):
        target.write([sent], no_note)
    assert len(crm.patched) == 1


def test_an_answer_that_trickles_or_cannot_be_decoded_is_given_up(
    crm: Bottle, target: BottleCrmTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = row(crm, stratum_text="A"), row(crm, stratum_text="B")
    crm.trickle_s = 0.02
    with monkeypatch.context() as patch:
        patch.setattr(trickle, "WHOLE_ANSWER_S", 0.05)
        with pytest.raises(NoAnswer, match="ReadTimeout"):
            target.write([first], no_note)
    crm.trickle_s, crm.headers = 0.0, {"Content-Encoding": "gzip"}
    with pytest.raises(NoAnswer, match="DecodingError"):
        target.write([second], no_note)
    crm.headers = {}
    assert target.settle([first, second], None).confirmed == [first, second]
    assert len(crm.patched) == 2


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_change_that_was_made_and_may_not_be_read_back_has_no_answer(
    crm: Bottle, target: BottleCrmTarget, status: int
) -> None:
    sent = row(crm, stratum_text="A")
    crm.answers = lambda path, query: (status, {"detail": "no more"}) if crm.patched else None
    with pytest.raises(NoAnswer, match=f"HTTP {status}: no more"):
        target.write([sent], no_note)
    crm.answers = lambda path, query: None
    assert target.settle([sent], None).confirmed == [sent]


def test_an_answer_to_a_change_that_cannot_be_read_is_none(
    crm: Bottle, target: BottleCrmTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = row(crm, stratum_text="A")
    original = crm.write
    monkeypatch.setattr(crm, "write", lambda *what: (original(*what)[0], b'{"error": fal'))
    with pytest.raises(NoAnswer, match="is no BottleCRM API"):
        target.write([sent], no_note)
    assert target.settle([sent], None).confirmed == [sent]
    assert len(crm.patched) == 1


def test_a_lost_write_is_not_taken_for_done_where_texts_look_like_one_number(
    crm: Bottle, target: BottleCrmTarget
) -> None:
    held = row(crm, stratum_text="007", stratum_number="0.1")
    assert target.write([held], no_note).confirmed == [held]
    lost = Row("2", "A2", held.record_id, {"stratum_text": "7"})
    assert target.settle([lost], None).missing == [lost]
    assert target.settle([held], None).confirmed == [held]


def test_a_token_that_is_refused_blames_no_row(crm: Bottle, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, crm.url, "another token")
    target = BottleCrmTarget(BottleCrmApi(get_connection("bottlecrm_default")))
    with pytest.raises(Refused, match="HTTP 403: Organization context") as refused:
        target.write([row(crm, stratum_text="A")], no_note)
    assert not refused.value.is_of_rows
    target.api.close()


def test_setup_makes_only_fields_of_ours_and_only_as_an_administrator(
    crm: Bottle, target: BottleCrmTarget
) -> None:
    seen = target.setup({"stratum_new": "number"}, make=False)
    assert (seen.made, seen.by_hand) == ([], {"stratum_new": "a custom field of accounts, type number"})
    done = target.setup({"stratum_new": "number", "their_own": "string"}, make=True)
    assert (done.made, done.by_hand) == (
        ["stratum_new"],
        {"their_own": "a custom field of accounts, type textarea"},
    )
    crm.kinds |= {"stratum_date": "checkbox", "stratum_flag": "text"}
    unfit = target.setup(KINDS, make=True)
    assert (unfit.made, unfit.by_hand) == ([], {})
    assert unfit.unfit == {
        "stratum_date": "the custom field of accounts is there and of type checkbox, which "
        "does not take a date: name another one"
    }
    crm.role = "USER"
    refused = target.setup({"stratum_other": "string"}, make=True)
    assert refused.made == []
    assert "BottleCRM said: HTTP 403: Only admins" in refused.by_hand["stratum_other"]
