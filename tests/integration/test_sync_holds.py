"""A hold and its answer: what it holds for, when it is over, and who gave it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from include.errors import StratumError
from include.local.summary import _syncs
from include.quality.gate import GateFailed, run_sync_gate
from include.sync.holds import decide, newest_hold, read_hold
from include.sync.ledger import Ledger
from include.sync.run import raise_if_failed, tell
from include.sync.switches import status_lines, status_of
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import reach, record_id
from tests.integration.sync_stage import AS_OF, TARGET, SyncStage, sync_stage

N = 10
ALL_A = [("A", "0.5")] * N


@pytest.fixture
def stage(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncStage]:
    """Ten accounts whose first sync is held: hold 1."""
    with sync_stage(warehouse, tmp_path, monkeypatch, accounts=N) as stage:
        stage.publish(*ALL_A)
        assert stage.sync().hold is not None
        yield stage


def statuses(stage: SyncStage) -> list[str]:
    """Of all holds, the newest first."""
    return [status for _, status, _ in stage.holds()]


def test_approved_the_next_sync_of_the_run_is_sent_and_says_by_whose_leave(stage: SyncStage) -> None:
    hold = decide(newest_hold(TARGET).hold_id, True, "anna", "first day")
    assert (hold.status, hold.decided_by, hold.why) == ("approved", "anna", "first day")
    result = stage.sync()
    assert (result.status, result.sent, result.hold) == ("finished", N, None)
    assert stage.warehouse.rows("select status, hold_id from sync.runs order by sync_id") == [
        ("held", hold.hold_id),
        ("finished", hold.hold_id),
    ]
    assert decide(hold.hold_id, True, "bert", None).decided_by == "anna", "the first answer stands"


def test_a_hold_that_waits_is_not_asked_twice(stage: SyncStage) -> None:
    result = stage.sync()
    assert result.status == "held"
    assert statuses(stage) == ["waiting"]
    raise_if_failed(result)


def test_rejected_the_run_is_never_sent_and_fails_and_a_new_run_asks_anew(stage: SyncStage) -> None:
    hold = decide(newest_hold(TARGET).hold_id, False, "anna", "not these tiers")
    result = stage.sync()
    assert (result.status, result.sent, result.held) == ("held", 0, N)
    with pytest.raises(StratumError, match="was rejected by anna: not these tiers"):
        raise_if_failed(result)
    with pytest.raises(StratumError, match=r"too late: .* rejected by anna"):
        decide(hold.hold_id, True, "bert", None)
    stage.publish(*ALL_A)
    assert stage.sync().hold is not None
    assert statuses(stage) == ["waiting", "rejected"]
    assert stage.crm.writes == 0


def test_the_summary_of_a_run_names_the_hold_only_while_it_waits(stage: SyncStage) -> None:
    def waiting() -> list[int | None]:
        with connect("auditor") as connection:
            connection.row_factory = dict_row  # type: ignore[assignment]
            return [sync["waiting_hold_id"] for sync in _syncs(connection, hold.run_id)]

    hold = newest_hold(TARGET)
    assert waiting() == [hold.hold_id]
    decide(hold.hold_id, False, "anna", "not these tiers")
    assert waiting() == [None]


@pytest.mark.parametrize(
    ("is_answered", "words"),
    [(True, "was rejected by anna: not these tiers"), (False, r"expired at .* without an answer")],
)
def test_a_run_that_was_refused_stays_unsent_whatever_the_brakes_say_and_however_many_records_it_is(
    stage: SyncStage, is_answered: bool, words: str
) -> None:
    hold = newest_hold(TARGET)
    if is_answered:
        decide(hold.hold_id, False, "anna", "not these tiers")
    stage.warehouse.rows(
        "update sync.holds set to_send = to_send - 1, expires_at = clock_timestamp() + %s * interval '1 hour'",
        int(is_answered),
    )
    assert stage.sync().status == "held"
    stage.configure(brakes={"first_sync": False})
    result = stage.sync()
    assert (result.status, result.sent, result.held, result.hold) == ("held", 0, N, read_hold(hold.hold_id))
    with pytest.raises(StratumError, match=words):
        raise_if_failed(result)
    assert statuses(stage) == ["rejected" if is_answered else "expired"]
    assert stage.warehouse.rows("select distinct hold_id from sync.runs") == [(hold.hold_id,)]
    assert stage.crm.writes == 0
    stage.publish(*ALL_A)
    assert stage.sync().sent == N, "the next run is another one"


def test_an_unanswered_hold_expires_and_counts_as_rejected(stage: SyncStage) -> None:
    hours = stage.warehouse.value("select extract(epoch from expires_at - opened_at) / 3600 from sync.holds")
    assert float(hours) == pytest.approx(24, abs=0.01)
    stage.warehouse.rows("update sync.holds set expires_at = clock_timestamp()")
    assert status_of(TARGET)["hold"] is None
    hold = newest_hold(TARGET)
    assert (hold.status, hold.decided_by, hold.decided_at) == ("expired", None, hold.expires_at)
    result = stage.sync()
    assert (result.status, result.held) == ("held", N)
    with pytest.raises(StratumError, match=r"expired at .* without an answer"):
        raise_if_failed(result)
    with pytest.raises(StratumError, match=r"too late: .* expired"):
        decide(hold.hold_id, True, "anna", None)


def test_a_hold_expires_for_each_who_looks_at_it(stage: SyncStage) -> None:
    """Whoever comes first to a hold that nobody answered in time: who decides, who reads, or the next sync."""
    over = "update sync.holds set status = 'waiting', decided_at = null, expires_at = clock_timestamp()"
    hold = newest_hold(TARGET)
    stage.warehouse.rows(over)
    with pytest.raises(StratumError, match=r"too late: .* expired at .* without an answer"):
        decide(hold.hold_id, True, "anna", None)
    stage.warehouse.rows(over)
    assert read_hold(hold.hold_id).status == "expired"
    stage.warehouse.rows(over)
    assert stage.sync().status == "held"
    assert statuses(stage) == ["expired"]
    assert stage.crm.writes == 0


def test_a_hold_lasts_as_long_as_sync_yml_says_and_an_answer_says_when_it_came(stage: SyncStage) -> None:
    stage.configure(brakes={"expire_hours": 1.5})
    stage.publish(*ALL_A)
    stage.sync()
    hold = newest_hold(TARGET)
    assert ((hold.expires_at - hold.opened_at).total_seconds(), hold.as_of_date) == (
        pytest.approx(5400, abs=1),
        AS_OF,
    )
    before = stage.warehouse.value("select clock_timestamp()")
    answer = decide(hold.hold_id, True, "anna", None)
    assert answer.decided_at
    assert before <= answer.decided_at <= stage.warehouse.value("select clock_timestamp()")


def test_holds_of_two_targets_have_nothing_to_do_with_each_other(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, stage.crm, "hubspot_other")
    first = newest_hold(TARGET)
    stage.configure(connection="hubspot_other")
    stage.sync()
    other = newest_hold("hubspot:hubspot_other")
    assert other.hold_id != first.hold_id
    assert newest_hold(TARGET) == first, "it waits as before"
    decide(other.hold_id, True, "anna", None)
    assert read_hold(first.hold_id).status == "waiting"
    # What another target was told of another run ends no answer of this one.
    stage.warehouse.rows(
        "insert into sync.runs (target, as_of_date, run_id, status) values (%s, %s, 'run-9', 'finished')",
        TARGET,
        AS_OF,
    )
    assert stage.sync().sent == N
    stage.configure(connection="hubspot_default")
    assert stage.sync().status == "held"


def test_a_newer_published_run_supersedes_what_waits(stage: SyncStage) -> None:
    first = newest_hold(TARGET)
    stage.publish(*ALL_A)
    with pytest.raises(StratumError, match=r"too late: .* superseded"):
        decide(first.hold_id, True, "anna", None)
    stage.sync()
    assert statuses(stage) == ["waiting", "superseded"]


def test_a_sync_no_brake_stops_any_more_supersedes_what_waits(stage: SyncStage) -> None:
    stage.configure(brakes={"first_sync": False})
    assert stage.sync().sent == N
    assert statuses(stage) == ["superseded"]


def test_an_approval_is_for_the_mapping_it_was_asked_about(stage: SyncStage) -> None:
    decide(newest_hold(TARGET).hold_id, True, "anna", None)
    stage.configure(fields={"stratum_tier": "tier"})
    assert stage.sync().status == "held"
    assert statuses(stage) == ["waiting", "approved"]
    stage.configure(fields={"stratum_tier": "tier", "stratum_score": "churn_probability"})
    assert stage.sync().sent == N, "the other answer stands"
    assert statuses(stage) == ["superseded", "approved"]


def test_a_changed_brake_or_schedule_asks_nothing_anew(stage: SyncStage) -> None:
    """Neither changes what is sent, and to that the answer was."""
    decide(newest_hold(TARGET).hold_id, True, "anna", None)
    stage.configure(brakes={"first_sync": True, "expire_hours": 2}, reconcile={"sample": 5})
    assert stage.sync().sent == N
    assert statuses(stage) == ["approved"]


def test_a_hold_that_was_superseded_is_no_answer(stage: SyncStage) -> None:
    mapping = dict(stage.mapping)
    stage.configure(fields={"stratum_tier": "tier"})
    stage.sync()
    stage.configure(**mapping)
    assert stage.sync().status == "held"
    assert statuses(stage) == ["waiting", "superseded", "superseded"]
    decide(newest_hold(TARGET).hold_id, True, "anna", None)
    assert stage.sync().sent == N


def test_of_two_answers_to_one_question_the_newer_one_stands(stage: SyncStage) -> None:
    first = decide(newest_hold(TARGET).hold_id, True, "anna", None)
    fewer = "update sync.holds set to_send = to_send + %s where hold_id = %s"
    stage.warehouse.rows(fewer, -1, first.hold_id)
    stage.sync()
    decide(newest_hold(TARGET).hold_id, False, "bert", None)
    stage.warehouse.rows(fewer, 1, first.hold_id)
    result = stage.sync()
    assert (result.status, result.hold and result.hold.decided_by) == ("held", "bert")


def test_an_approval_holds_for_no_more_records_than_were_held(stage: SyncStage) -> None:
    decide(newest_hold(TARGET).hold_id, True, "anna", None)
    stage.warehouse.rows("update sync.holds set to_send = to_send - 1")
    assert stage.sync().status == "held"


def test_an_approval_is_over_once_another_run_was_synced(stage: SyncStage) -> None:
    """run-2 was told, and then run-1 was published again: what it would send now, nobody has seen."""
    stage.configure(brakes={"first_sync": True, "max_tier_changes": 0.1})
    hold = decide(newest_hold(TARGET).hold_id, True, "anna", None)
    assert stage.sync().sent == N
    stage.publish(*[("S", "0.5")] * N)
    second = stage.sync().hold
    assert second
    decide(second.hold_id, True, "anna", None)
    assert stage.sync().sent == N
    stage.publish(*ALL_A)
    stage.warehouse.rows("update published.current_run set run_id = %s", hold.run_id)
    again = stage.sync()
    assert (again.status, again.held) == ("held", N)
    assert again.hold
    assert again.hold.hold_id not in (hold.hold_id, second.hold_id)


def test_status_says_what_waits_why_and_what_died(stage: SyncStage) -> None:
    told = "\n".join(status_lines(status_of(TARGET)))
    assert "held: 10 queried = 0 sent + 0 unchanged + 0 failed + 10 held" in told
    assert "first_sync: the first sync to this target would write to 10 records" in told
    assert "stratum sync approve" in told
    decide(newest_hold(TARGET).hold_id, True, "anna", None)
    stage.crm.fault(refuse_ids=[record_id(5)])
    for _ in range(5):
        stage.sync()
    status = status_of(TARGET)
    assert status["hold"] is None
    assert [letter["rows"] for letter in status["dead_letters"]] == [1]
    assert "1 dead letters, 0 attempts without an answer" in "\n".join(status_lines(status))


def test_a_hold_keeps_each_brake_that_spoke_with_its_words(stage: SyncStage) -> None:
    stage.told(*ALL_A)
    stage.publish(*[("S", "0.9")] * N)
    assert stage.sync().hold == newest_hold(TARGET)
    hold = newest_hold(TARGET)
    assert [reason["brake"] for reason in hold.reasons] == ["tier_changes", "score_moves"]
    assert hold.says == "; ".join(reason["says"] for reason in hold.reasons)
    assert str(hold).endswith(hold.says)


def test_a_hold_nobody_opened_is_said(stage: SyncStage) -> None:
    with pytest.raises(StratumError, match="There is no hold 99"):
        read_hold(99)
    with pytest.raises(StratumError, match="No sync to salesforce:x was ever held"):
        newest_hold("salesforce:x")


def test_two_holds_of_a_target_never_wait_at_once(stage: SyncStage) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        stage.warehouse.rows(
            "insert into sync.holds (target, sync_id, run_id, as_of_date, fingerprint, to_send, reasons, expires_at) "
            "select target, sync_id, run_id, as_of_date, fingerprint, to_send, reasons, expires_at from sync.holds"
        )


def test_two_syncs_of_a_target_wait_for_each_other(stage: SyncStage) -> None:
    with connect("syncer") as first, connect("syncer") as second:
        first.autocommit = second.autocommit = True
        Ledger(first, "hubspot:hubspot_default").lock()
        second.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            Ledger(second, "hubspot:hubspot_default").lock()


def test_the_books_cannot_hold_numbers_that_do_not_add_up(stage: SyncStage) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        stage.warehouse.rows(
            "insert into sync.runs (target, as_of_date, run_id, status, queried, sent) "
            "values ('t', '2026-06-30', 'r', 'finished', 2, 1)"
        )


def test_the_gate_passes_the_books_of_a_held_and_of_a_sent_sync(stage: SyncStage) -> None:
    hold = tell(stage.sources, AS_OF, "crm")
    assert hold
    decide(hold.hold_id, True, "anna", None)
    stage.crm.fault(refuse_ids=[record_id(5)], empty_complete=0)
    with pytest.raises(StratumError, match="1 of 10 accounts could not be told"):
        tell(stage.sources, AS_OF, "crm")
    kept = stage.warehouse.rows("select gate, run_id, success from audit.checks group by 1, 2, 3")
    assert kept == [("sync", "run-1", True)]


def test_an_answer_that_leaves_rows_out_passes_the_gate_as_failed_rows(stage: SyncStage) -> None:
    decide(newest_hold(TARGET).hold_id, True, "anna", None)
    stage.crm.fault(empty_complete=1)
    with pytest.raises(StratumError, match="missing_from_answer"):
        tell(stage.sources, AS_OF, "crm")
    assert tell(stage.sources, AS_OF, "crm") is None


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (
            "delete from sync.outcomes {of_it} and record_id = '{first}'",
            "Each row that failed or was held is listed",
        ),
        (
            "update sync.runs set sent = sent - 1, failed = failed + 1 {of_it}",
            "Each row that failed or was held is listed",
        ),
        (
            "update sync.runs set sent = sent - 1, unchanged = unchanged + 1 {of_it}",
            "Each row that was sent has an attempt",
        ),
        (
            "update sync.attempts set status = 'open', answered_at = null where record_id = '{last}'",
            "An attempt without an answer is a row that failed",
        ),
        ("delete from sync.deliveries where record_id = '{last}'", "What the ledger says the CRM confirmed"),
        ("update sync.runs set status = 'running' {of_it}", "The sync has ended"),
        ("update sync.runs set status = 'held' {of_it}", "A sync that was held has sent nothing"),
        ('update sync.holds set reasons = \'[{{"brake": ""}}]\'', "A hold says of each brake"),
    ],
)
def test_the_gate_finds_books_that_do_not_agree(stage: SyncStage, tamper: str, words: str) -> None:
    decide(newest_hold(TARGET).hold_id, True, "anna", None)
    stage.crm.fault(refuse_ids=[record_id(0)])
    result = stage.sync()
    assert (result.sent, result.failed) == (N - 1, 1)
    run_sync_gate(AS_OF, result.run_id, result.sync_id)
    stage.warehouse.rows(
        tamper.format(first=record_id(0), last=record_id(N - 1), of_it=f"where sync_id = {result.sync_id}")
    )
    with pytest.raises(GateFailed) as stopped:
        run_sync_gate(AS_OF, result.run_id, result.sync_id)
    assert words in str(stopped.value)
    failed = stage.warehouse.value("select count(*) from audit.checks where gate = 'sync' and not success")
    assert failed
