"""The rules of sync.yml: what is told of a value, of a null, over whose value, and with whose consent."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.errors import StratumError
from include.sync.hubspot_api import HubSpotApi
from include.sync.plan import _has_key
from include.sync.target import NoAnswer
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import record_id
from tests.integration.sync_stage import FIELDS, NO_BRAKES, SyncStage, row, sync_stage

CLEARING = {"stratum_tier": {"column": "tier", "when_null": "clear"}, "stratum_revenue": "revenue"}


def guarded(overwrite: str) -> dict[str, Any]:
    return {"stratum_tier": {"column": "tier", "overwrite": overwrite}, "stratum_revenue": "revenue"}


@pytest.fixture
def stage(
    emptied_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SyncStage]:
    with sync_stage(emptied_warehouse, tmp_path, monkeypatch, fields=FIELDS, brakes=NO_BRAKES) as stage:
        yield stage


VALUES = [
    ("tier", "S", "S"),
    ("tier", "", None),
    ("tier", None, None),
    ("tier", "王小明 🚀 é\u0301", "王小明 🚀 é\u0301"),
    ("tier", 'a "quoted" \\ line\nand %s {b}', 'a "quoted" \\ line\nand %s {b}'),
    ("phone", "0086010", "0086010"),
    ("phone", "1.50", "1.50"),
    ("revenue", "0.0000", "0"),
    ("revenue", "100.5000", "100.5"),
    ("revenue", "120000", "120000"),
    ("revenue", "-3.10", "-3.1"),
    ("revenue", "NaN", None),
    ("score", 1e21, "1000000000000000000000"),
    ("score", 0.1, "0.1"),
    ("score", -0.0, "0"),
    ("score", 1.5e-7, "0.00000015"),
    ("score", float("nan"), None),
    ("score", float("inf"), None),
    ("visits", 120, "120"),
    ("since", date(2026, 6, 30), "2026-06-30"),
    ("since", "infinity", None),
    ("is_dormant", True, "true"),
    ("is_dormant", False, "false"),
]


def test_a_value_is_told_as_plain_text(stage: SyncStage) -> None:
    stage.configure(fields={f"stratum_{column}": column for column, _, _ in VALUES})
    bare = dict.fromkeys(("tier", "revenue", "is_dormant"))
    stage.publish(*(row(n, **(bare | {column: value})) for n, (column, value, _) in enumerate(VALUES)))
    told = {change.account_id: change.values for change in stage.planned()}
    assert told == {
        f"A{n:04d}": {f"stratum_{column}": text}
        for n, (column, _, text) in enumerate(VALUES)
        if text is not None
    }


def test_texts_of_any_script_numbers_as_text_and_dates_come_back_as_they_were_told(stage: SyncStage) -> None:
    stage.configure(fields={"stratum_tier": "tier", "stratum_phone": "phone", "stratum_since": "since"})
    stage.publish(row(0, tier="上海 🚀 Ünïcode", phone="0086010", since=date(2026, 2, 28)))
    assert stage.sync().sent == 1
    assert [stage.shows(0, name) for name in stage.mapping["fields"]] == [
        "上海 🚀 Ünïcode",
        "0086010",
        "2026-02-28",
    ]
    assert stage.sync().unchanged == 1


def test_a_text_the_crm_finds_too_long_fails_alone(stage: SyncStage) -> None:
    stage.publish(row(0, tier="x" * 65_537), row(1, tier="x" * 65_536))
    result = stage.sync()
    assert (result.sent, result.reasons) == (1, {"refused": 1})
    assert stage.seen() == {"A0001"}


def test_more_fields_than_a_function_takes_arguments_are_compared(stage: SyncStage) -> None:
    stage.configure(fields={f"stratum_{n}": "tier" for n in range(120)})
    stage.publish(row(0))
    assert [len(change.values) for change in stage.planned()] == [120]


def test_a_null_keeps_what_is_there_unless_the_rule_clears_what_we_wrote(stage: SyncStage) -> None:
    stage.publish(*(row(n) for n in range(3)))
    stage.sync()
    stage.publish(row(0, tier=None), row(1, tier=""), row(2))
    assert stage.sync().unchanged == 3
    assert stage.shows(0) == "A"
    stage.configure(fields=CLEARING)  # the same rows under another rule: settled rows are compared anew
    result = stage.sync()
    assert (result.sent, result.unchanged) == (2, 1)
    assert [stage.shows(n) for n in range(3)] == [None, None, "A"]
    assert stage.ledger(0) == {"stratum_tier": None, "stratum_revenue": "100.5"}
    assert stage.shows(0, "stratum_revenue") == "100.5"
    again = stage.sync()
    assert (again.unchanged, again.calls) == (3, 0)
    stage.publish(row(0, tier="B"))
    assert stage.sync().sent == 1
    assert stage.shows(0) == "B"


def test_a_null_never_clears_a_value_that_is_not_ours(stage: SyncStage) -> None:
    stage.publish(row(0, tier="A"))
    stage.sync()  # makes the fields
    stage.edit(1, stratum_tier="theirs")
    stage.configure(fields=CLEARING)
    stage.publish(row(1, tier=None, revenue=None))
    assert stage.sync().unchanged == 1
    assert stage.shows(1) == "theirs"


def test_only_an_empty_field_is_filled(stage: SyncStage) -> None:
    stage.publish(row(5))
    stage.sync()
    stage.edit(0, stratum_tier="theirs", stratum_revenue="1")
    stage.configure(fields=guarded("if_empty"))
    stage.publish(row(0), row(1))
    first = stage.sync()
    assert (first.sent, first.held) == (2, 0)
    # The rest of the row is told, and what was left out is not forgotten: it is held from then on.
    assert (stage.shows(0), stage.shows(0, "stratum_revenue"), stage.shows(1)) == ("theirs", "100.5", "A")
    assert stage.ledger(0) == {"stratum_revenue": "100.5"}
    assert stage.seen() == {"A0001", "A0005"}
    second = stage.sync()
    assert (second.sent, second.unchanged) == (0, 1)
    assert stage.held(second) == [("A0000", "not_empty", "stratum_tier")]
    stage.publish(row(0), row(1, tier="B"))
    assert [each[:2] for each in stage.held(stage.sync())] == [("A0000", "not_empty"), ("A0001", "not_empty")]
    stage.edit(0, stratum_tier="")
    assert stage.sync().sent == 1
    assert (stage.shows(0), stage.shows(1)) == ("A", "A")


def test_only_our_own_value_is_overwritten(stage: SyncStage) -> None:
    stage.configure(fields=guarded("if_ours"))
    stage.publish(row(0), row(1), row(2))
    assert stage.sync().sent == 3
    stage.edit(1, stratum_tier="theirs")
    stage.edit(2, stratum_tier="")  # somebody emptied it: that is an edit too
    stage.publish(row(0, tier="B"), row(1, tier="B"), row(2, tier="B"))
    result = stage.sync()
    assert result.sent == 1
    assert stage.held(result) == [
        ("A0001", "not_ours", "stratum_tier"),
        ("A0002", "not_ours", "stratum_tier"),
    ]
    assert [stage.shows(n) for n in range(3)] == ["B", "theirs", None]
    assert stage.ledger(1) == {"stratum_tier": "A", "stratum_revenue": "100.5"}
    stage.edit(1, stratum_tier="B")  # it holds what is to be told: nothing of anybody's is lost
    result = stage.sync()
    assert (result.sent, result.unchanged) == (1, 1)
    assert stage.held(result) == [("A0002", "not_ours", "stratum_tier")]


def test_a_guarded_null_clears_our_value_and_no_other(stage: SyncStage) -> None:
    stage.configure(fields={"stratum_tier": {"column": "tier", "when_null": "clear", "overwrite": "if_ours"}})
    stage.publish(row(0), row(1))
    stage.sync()
    stage.edit(1, stratum_tier="theirs")
    stage.publish(row(0, tier=None), row(1, tier=None))
    result = stage.sync()
    assert (result.sent, stage.held(result)) == (1, [("A0001", "not_ours", "stratum_tier")])
    assert (stage.shows(0), stage.shows(1)) == (None, "theirs")


def test_a_crm_that_cannot_be_read_lets_nothing_be_overwritten(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise NoAnswer("ReadTimeoutError")

    stage.configure(fields=guarded("if_ours"))
    stage.publish(row(0))
    monkeypatch.setattr(HubSpotApi, "read", silent)
    with pytest.raises(StratumError, match="did not tell what it holds now"):
        stage.sync()
    assert stage.crm.writes == 0


def test_accounts_without_consent_are_held(stage: SyncStage) -> None:
    stage.configure(consent="may_be_told")
    stage.publish(
        row(0),
        row(1, may_be_told=False),
        row(2, may_be_told=None),
        row(3, may_be_told=False, crm_record_id=""),
    )
    result = stage.sync()
    assert result.sent == 1
    assert [each[:2] for each in stage.held(result)] == [
        ("A0001", "no_consent"),
        ("A0002", "no_consent"),
        ("A0003", "not_in_crm"),
    ]
    stage.publish(row(0, may_be_told=False, tier="B"), row(1))
    result = stage.sync()  # removal is keep: what was told stays, and nothing newer is told
    assert (result.sent, stage.held(result)) == (1, [("A0000", "no_consent", None)])
    assert (stage.shows(0), stage.shows(1)) == ("A", "A")


def test_doubled_keys_are_held_though_one_of_them_was_settled(stage: SyncStage) -> None:
    stage.publish(*(row(n) for n in range(4)))
    stage.sync()
    assert stage.seen() == {f"A{n:04d}" for n in range(4)}
    stage.publish(
        row(0),
        row(0),  # the same account twice, word for word
        row(1),
        row(1, crm_record_id=record_id(7)),  # a second record for a settled account
        row(2),
        row(8, crm_record_id=record_id(2)),  # a second account for a settled record
        row(3),
        row(9, account_id=None),
    )
    result = stage.sync()
    assert (result.sent, result.unchanged) == (0, 1)
    assert sorted(each[:2] for each in stage.held(result) if each[0]) == [
        ("A0000", "key_is_doubled"),
        ("A0000", "key_is_doubled"),
        ("A0001", "key_is_doubled"),
        ("A0001", "key_is_doubled"),
        ("A0002", "record_is_doubled"),
        ("A0008", "record_is_doubled"),
    ]
    assert result.reasons["key_is_null"] == 1
    assert stage.crm.writes == 1


def test_only_a_key_of_account_and_run_saves_the_search_for_doubled_keys(stage: SyncStage) -> None:
    def is_keyed(key: str) -> bool:
        with psycopg.connect(stage.warehouse.owner_url) as connection:
            connection.execute(
                f"create table published.customer_360_by_run (run_id text, account_id text, tier text, {key})"
            )
            is_known = _has_key(connection)
            connection.rollback()
        return is_known

    assert is_keyed("primary key (run_id, account_id)")
    assert not is_keyed("primary key (run_id, account_id, tier)")
    assert not is_keyed("check (run_id <> '')")


def test_two_settled_accounts_of_which_each_moves_to_the_others_record(stage: SyncStage) -> None:
    stage.publish(row(0), row(1, tier="B"))
    stage.sync()
    stage.publish(row(0, crm_record_id=record_id(1)), row(1, tier="B", crm_record_id=record_id(0)))
    assert stage.sync().sent == 2
    assert (stage.shows(0), stage.shows(1)) == ("B", "A")
    assert stage.sync().calls == 0


def test_a_row_is_settled_only_when_all_it_wants_is_confirmed(stage: SyncStage) -> None:
    stage.crm.fault(refuse_ids=[record_id(1)])
    stage.publish(row(0), row(1))
    stage.sync()
    assert stage.seen() == {"A0000"}
    stage.warehouse.rows("update sync.ledger set seen = null")  # as after an upgrade of PostgreSQL
    stage.crm.fault(refuse_ids=[])
    result = stage.sync()
    assert (result.sent, result.unchanged) == (1, 1)
    assert stage.seen() == {"A0000", "A0001"}


def test_what_somebody_writes_into_the_ledger_is_compared_again(stage: SyncStage) -> None:
    stage.publish(row(0), row(1))
    stage.sync()
    stage.warehouse.rows(
        'update sync.ledger set confirmed = confirmed || \'{"stratum_tier": "edited"}\' where record_id = %s',
        record_id(1),
    )
    assert stage.seen() == {"A0000"}
    assert [change.values for change in stage.planned()] == [{"stratum_tier": "A"}]


def test_a_planning_by_another_rule_forgets_nothing_of_what_was_told(stage: SyncStage) -> None:
    stage.publish(row(0))
    stage.sync()
    stage.configure(fields=FIELDS | {"stratum_phone": "phone"})
    stage.publish(row(0, phone="7"))
    assert [change.values for change in stage.planned()] == [{"stratum_phone": "7"}]


def test_to_a_webhook_an_account_is_its_own_record(stage: SyncStage) -> None:
    stage.configure(system="webhook")
    stage.publish(row(0, crm_record_id=None), row(1, account_id=None))
    assert [(change.account_id, change.record_id) for change in stage.planned()] == [("A0000", "A0000")]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"consent": "agreed"}, "sync.yml names agreed, which published.customer_360 does not have"),
        ({"consent": "tier"}, "consent in sync.yml names tier, which is not a boolean column"),
    ],
)
def test_a_consent_that_is_none_is_said_and_nothing_is_sent(
    stage: SyncStage, mapping: dict, words: str
) -> None:
    stage.configure(**mapping)
    stage.publish(row(0))
    with pytest.raises(StratumError, match=words):
        stage.sync()
    assert stage.crm.writes == 0
