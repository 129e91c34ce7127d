"""What the CRM is told, against the real sandbox server and the unmodified official client."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from include.errors import StratumError, TransientError
from include.sync.ledger import Ledger
from include.sync.mapping import FieldRule
from include.sync.run import raise_if_failed, replay_dead_letters, set_up_target, sync_crm
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import reach, record_id
from tests.integration.sync_stage import AS_OF, NO_BRAKES, SyncStage, crash_in, row, sync_stage

IN_CRM = 230  # three batches: 100, 100, 30
FIELDS = {"stratum_tier": "tier", "stratum_revenue": "revenue", "stratum_dormant": "is_dormant"}


@pytest.fixture
def stage(
    emptied_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SyncStage]:
    rules = {"fields": FIELDS, "brakes": NO_BRAKES}
    with sync_stage(emptied_warehouse, tmp_path, monkeypatch, IN_CRM, **rules) as stage:
        stage.publish(*(row(n) for n in range(IN_CRM)), row(IN_CRM, crm_record_id=None))
        yield stage


def test_a_record_id_of_another_crm_is_never_sent(stage: SyncStage) -> None:
    stage.publish(*(row(n, crm_system="salesforce") for n in range(IN_CRM)))
    result = stage.sync()
    assert (result.queried, result.sent, result.held) == (IN_CRM, 0, IN_CRM)
    assert result.reasons == {"not_in_crm": IN_CRM}
    assert stage.crm.writes == 0


def test_the_first_sync_sends_all_and_the_second_calls_nobody(stage: SyncStage) -> None:
    first = stage.sync()
    assert (first.queried, first.sent, first.unchanged, first.failed, first.held) == (231, 230, 0, 0, 1)
    assert first.reasons == {"not_in_crm": 1}
    assert stage.crm.writes == 3
    stage.assert_ledger_is_what_the_crm_holds()
    assert stage.crm.held(7, *FIELDS) == {
        "stratum_tier": "A",
        "stratum_revenue": "100.5",
        "stratum_dormant": "false",
    }
    raise_if_failed(first)

    second = stage.sync()
    assert (second.sent, second.unchanged, second.held, second.calls) == (0, 230, 1, 0)
    assert stage.crm.writes == 3


def test_only_the_changed_field_of_a_changed_row_is_sent(stage: SyncStage) -> None:
    stage.sync()
    stage.publish(*(row(n, tier="S" if n == 4 else "A") for n in range(IN_CRM)))
    result = stage.sync()
    assert (result.sent, result.unchanged) == (1, 229)
    payload = stage.warehouse.value("select payload from sync.attempts where sync_id = %s", result.sync_id)
    assert payload == {"stratum_tier": "S"}
    told = stage.warehouse.rows(
        "select account_id, record_id, field, old_value, new_value, run_id, as_of_date, proof "
        "from sync.deliveries where sync_id = %s",
        result.sync_id,
    )
    assert told == [("A0004", record_id(4), "stratum_tier", "A", "S", stage.run_id, AS_OF, "answer")]
    stage.assert_ledger_is_what_the_crm_holds()


def test_a_refused_row_fails_alone_and_alone_comes_back(stage: SyncStage) -> None:
    stage.crm.fault(refuse_ids=[record_id(5)])
    first = stage.sync()
    assert (first.sent, first.failed, first.reasons) == (229, 1, {"not_in_crm": 1, "refused": 1})
    assert record_id(5) not in stage.confirmed()
    with pytest.raises(StratumError, match="1 of 231 accounts could not be told"):
        raise_if_failed(first)
    stage.crm.fault(refuse_ids=[])
    second = stage.sync()
    assert (second.sent, second.unchanged, second.failed) == (1, 229, 0)
    assert stage.crm.writes == 4
    assert stage.warehouse.value("select count(*) from sync.failures") == 0
    stage.assert_ledger_is_what_the_crm_holds()


def test_a_batch_refused_whole_is_halved_down_to_the_guilty_row(stage: SyncStage) -> None:
    stage.crm.fault(reject_batch_ids=[record_id(42)])
    result = stage.sync()
    assert (result.sent, result.failed) == (229, 1)
    (failed,) = stage.warehouse.rows("select record_id, detail from sync.outcomes where outcome = 'failed'")
    assert failed == (record_id(42), "HTTP 400: One or more rows of the batch are not valid")
    assert stage.crm.writes <= 3 + 2 * 7
    assert stage.warehouse.value("select count(*) from sync.attempts where status = 'open'") == 0
    stage.assert_ledger_is_what_the_crm_holds()


def test_a_refusal_of_every_row_stops_before_it_spends_the_tries_of_all(stage: SyncStage) -> None:
    stage.crm.fault(reject_batch_ids=[record_id(n) for n in range(IN_CRM)])
    result = stage.sync()
    assert (result.sent, result.failed) == (0, 230)
    assert result.reasons == {"not_in_crm": 1, "refused": 100, "not_sent": 130}
    assert stage.crm.writes == 199
    assert stage.warehouse.value("select count(*) from sync.failures") == 100
    stage.crm.fault(reject_batch_ids=[])
    assert stage.sync().sent == 230


def test_after_the_last_try_a_row_is_a_dead_letter_until_it_is_replayed(stage: SyncStage) -> None:
    stage.crm.fault(refuse_ids=[record_id(5)])
    for _ in range(3):
        assert stage.sync(max_tries=3).failed == 1
    (letter,) = stage.warehouse.rows("select tries, reason, dead_at is not null from sync.failures")
    assert letter == (3, "refused: VALIDATION_ERROR: The record is locked by a workflow", True)
    writes = stage.crm.writes
    held = stage.sync(max_tries=3)
    assert (held.failed, held.held, held.reasons) == (0, 2, {"dead_letter": 1, "not_in_crm": 1})
    assert stage.crm.writes == writes
    stage.crm.fault(refuse_ids=[])
    assert replay_dead_letters(stage.sources, "crm") == 1
    assert stage.sync().sent == 1
    stage.assert_ledger_is_what_the_crm_holds()


@pytest.mark.parametrize(("retry_after", "wait"), [(None, 10.5), (3, 3.0)])
def test_a_rate_limit_is_waited_out(stage: SyncStage, retry_after: int | None, wait: float) -> None:
    stage.crm.fault(rate_limited=4, retry_after=retry_after)
    result = stage.sync()
    assert (result.sent, result.failed) == (230, 0)
    assert stage.time.slept == [wait] * 4
    assert stage.crm.writes == 3


def test_a_limit_that_does_not_end_fails_the_sync_and_spends_no_try(stage: SyncStage) -> None:
    stage.sync()
    stage.publish(*(row(n, tier="B") for n in range(IN_CRM)))
    stage.crm.fault(rate_limited=14)  # one for the properties' list, and more than its patience after it
    with pytest.raises(TransientError, match="HTTP 429"):
        stage.sync()
    assert stage.warehouse.rows("select status, queried from sync.runs order by sync_id")[1] == ("failed", 0)
    assert stage.warehouse.value("select count(*) from sync.failures") == 0
    stage.crm.fault(rate_limited=0)
    assert stage.sync().sent == 230


def test_a_lost_answer_is_resolved_by_reading_and_not_written_again(stage: SyncStage) -> None:
    stage.crm.fault(drop_answer=1)
    result = stage.sync()
    assert (result.sent, result.failed) == (230, 0)
    assert stage.crm.writes == 3
    proofs = stage.warehouse.rows("select proof, count(distinct record_id) from sync.deliveries group by 1")
    assert dict(proofs) == {"read_back": 100, "answer": 130}
    stage.assert_ledger_is_what_the_crm_holds()


def test_a_server_fault_is_outlived(stage: SyncStage) -> None:
    stage.crm.fault(server_error=2)
    result = stage.sync()
    assert (result.sent, result.failed) == (230, 0)
    assert stage.crm.writes == 5
    assert stage.warehouse.value("select count(*) from sync.attempts where status = 'not_landed'") == 200
    stage.assert_ledger_is_what_the_crm_holds()


def test_a_crm_that_stays_down_fails_the_rows_without_spending_tries(stage: SyncStage) -> None:
    stage.crm.fault(server_error=1000)
    result = stage.sync()
    assert (result.sent, result.failed, result.held) == (0, 230, 1)
    assert stage.warehouse.value("select count(*) from sync.failures") == 0
    with pytest.raises(TransientError, match="230 no_answer"):
        raise_if_failed(result)
    stage.crm.fault(server_error=0)
    assert stage.sync().sent == 230


def test_a_complete_answer_without_results_confirms_nothing(stage: SyncStage) -> None:
    stage.crm.fault(empty_complete=1)
    first = stage.sync()
    assert (first.sent, first.failed) == (130, 100)
    assert first.reasons["missing_from_answer"] == 100
    assert len(stage.confirmed()) == 130
    second = stage.sync()
    assert (second.sent, second.failed) == (100, 0)
    stage.assert_ledger_is_what_the_crm_holds()


@pytest.mark.parametrize(
    ("method", "call", "sent_later", "writes"),
    [
        ("attempt", 2, 130, 3),  # before the second batch is noted: it was never sent
        ("confirm", 1, 130, 3),  # the CRM has the first batch, the ledger does not
        ("confirm", 3, 0, 3),
    ],
)
def test_a_crash_neither_loses_nor_doubles_a_row(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch, method: str, call: int, sent_later: int, writes: int
) -> None:
    with crash_in(monkeypatch, Ledger, method, call):
        stage.sync()
    result = stage.sync()
    assert (result.sent, result.unchanged, result.failed) == (sent_later, 230 - sent_later, 0)
    assert stage.crm.writes == writes
    stage.assert_ledger_is_what_the_crm_holds()
    doubled = stage.warehouse.rows(
        "select record_id, field from sync.deliveries group by 1, 2 having count(*) <> 1"
    )
    assert doubled == []
    assert stage.warehouse.value("select count(*) from sync.deliveries") == 3 * 230
    runs = stage.warehouse.rows("select status, queried = sent + unchanged + failed + held from sync.runs")
    assert runs == [("interrupted", True), ("finished", True)]


def test_what_a_crash_left_is_read_before_a_newer_value_is_planned(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRM took S, we crashed, and the value went back to A: without reading, the S would stay for ever."""
    stage.sync()
    stage.publish(row(0, tier="S"))
    with crash_in(monkeypatch, Ledger, "confirm", 1):
        stage.sync()
    stage.publish(row(0, tier="A"))
    assert stage.sync().sent == 1
    assert stage.crm.held(0, "stratum_tier") == {"stratum_tier": "A"}


def test_a_crm_that_cannot_be_read_back_gets_nothing_newer(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crash_in(monkeypatch, Ledger, "confirm", 1):
        stage.sync()
    monkeypatch.setenv("AIRFLOW_CONN_HUBSPOT_DEFAULT", "http://:a-token@127.0.0.1:9")
    with pytest.raises(TransientError, match="100 rows of an earlier sync have no answer"):
        stage.sync()
    assert stage.warehouse.value("select count(*) from sync.attempts where status = 'open'") == 100
    reach(monkeypatch, stage.crm)
    assert stage.sync().sent == 130


def test_a_null_or_an_empty_text_never_overwrites(stage: SyncStage) -> None:
    stage.sync()
    nothing = dict.fromkeys(("tier", "revenue", "is_dormant"))
    stage.publish(row(0, tier=None), row(1, tier=""), row(2, **nothing), row(3, tier=None, revenue="7"))
    result = stage.sync()
    assert (result.sent, result.unchanged) == (1, 3)
    assert stage.crm.held(0, "stratum_tier") == {"stratum_tier": "A"}
    assert stage.crm.held(1, "stratum_tier") == {"stratum_tier": "A"}
    assert stage.crm.held(3, "stratum_tier", "stratum_revenue") == {
        "stratum_tier": "A",
        "stratum_revenue": "7",
    }


def test_null_and_doubled_keys_are_held_and_never_sent(stage: SyncStage) -> None:
    stage.publish(
        row(0, account_id=None),
        row(1, account_id="X"),
        row(2, account_id="X", tier="B"),
        row(3, account_id="Y"),
        row(3, account_id="Z", tier="B"),
        row(4, crm_record_id=""),
        row(9),
    )
    result = stage.sync()
    assert (result.sent, result.held) == (1, 6)
    assert result.reasons == {"key_is_null": 1, "key_is_doubled": 2, "record_is_doubled": 2, "not_in_crm": 1}
    assert list(stage.confirmed()) == [record_id(9)]


def test_a_record_archived_meanwhile_fails_alone(stage: SyncStage) -> None:
    stage.crm.client.crm.companies.basic_api.archive(record_id(8))
    result = stage.sync()
    assert (result.sent, result.failed) == (229, 1)
    stage.assert_ledger_is_what_the_crm_holds()


def test_an_open_token_error_fails_the_task_in_one_line(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = stage.crm.url.removeprefix("http://")
    monkeypatch.setenv("AIRFLOW_CONN_HUBSPOT_DEFAULT", f"http://:wrong-token@{address}")
    with pytest.raises(StratumError, match="HTTP 401") as refused:
        stage.sync()
    assert "wrong-token" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert stage.warehouse.rows("select status, queried from sync.runs") == [("failed", 0)]


def test_a_date_that_is_not_the_newest_is_not_told(stage: SyncStage) -> None:
    with pytest.raises(StratumError, match="The published set is of 2026-06-30, not of 2026-06-29"):
        sync_crm(stage.sources, date(2026, 6, 29), "crm")
    stage.warehouse.rows("delete from published.current_run")
    with pytest.raises(StratumError, match="Nothing is published yet"):
        sync_crm(stage.sources, AS_OF, "crm")
    assert stage.crm.sandbox.calls.by_endpoint.total() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"fields": {"stratum_tier": FieldRule(column="teir")}},
            "teir, which published.customer_360 does not have",
        ),
        ({"fields": {"my_tier": FieldRule(column="tier")}}, "has no field my_tier"),
        ({"make_fields": False}, "has no field stratum_tier, stratum_revenue, stratum_dormant"),
        ({"connection": "nowhere"}, "No connection 'nowhere'"),
    ],
)
def test_a_wrong_mapping_is_said_in_one_line_and_nothing_is_sent(
    stage: SyncStage, change: dict, words: str
) -> None:
    wanted = stage.sources.sync["crm"].model_copy(update=change)
    sources = stage.sources.model_copy(update={"sync": {"crm": wanted}})
    with pytest.raises(StratumError, match=words) as refused:
        sync_crm(sources, AS_OF, "crm")
    assert "\n" not in str(refused.value)
    assert stage.crm.writes == 0


def test_a_target_that_is_not_configured_is_said(stage: SyncStage) -> None:
    sources = stage.sources.model_copy(update={"sync": {}})
    with pytest.raises(StratumError, match="No sync target 'crm'"):
        sync_crm(sources, AS_OF, "crm")


def test_setup_makes_what_it_may_and_names_the_rest(stage: SyncStage) -> None:
    rules = {name: FieldRule(column=column) for name, column in FIELDS.items()}
    wanted = stage.sources.sync["crm"].model_copy(
        update={"fields": rules | {"my_tier": FieldRule(column="tier")}, "make_fields": False}
    )
    sources = stage.sources.model_copy(update={"sync": {"crm": wanted}})
    done = set_up_target(sources, "crm")
    assert (done.made, done.by_hand) == (list(FIELDS), {"my_tier": "a company property of type string"})
    again = set_up_target(sources, "crm")
    assert (again.made, list(again.by_hand)) == ([], ["my_tier"])


def test_a_target_that_is_switched_off_gets_nothing_more(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Ledger.confirm, iter(range(1000))

    def confirm(self: Ledger, *arguments: object, **options: object) -> None:
        original(self, *arguments, **options)  # type: ignore[arg-type]
        if next(calls) == 0:
            stage.warehouse.rows(
                "insert into sync.switches (target, switched_by, reason) "
                "values ('hubspot:hubspot_default', 'anna', 'wrong tiers')"
            )

    monkeypatch.setattr(Ledger, "confirm", confirm)
    result = stage.sync()
    assert (result.sent, result.failed, result.held) == (100, 0, 131)
    assert result.reasons == {"not_in_crm": 1, "switched_off": 130}
    assert stage.crm.writes == 1
    stage.warehouse.rows("delete from sync.switches")
    assert stage.sync().sent == 130


def test_an_auditor_reads_who_received_what_and_writes_nothing(stage: SyncStage) -> None:
    stage.sync()
    with connect("auditor") as connection:
        (count,) = connection.execute("select count(*) from sync.deliveries").fetchone()
        assert count == 690
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from sync.deliveries")
