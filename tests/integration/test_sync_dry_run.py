"""The dry run: old and new of each field, what the CRM holds now, and what cannot be known, with nothing written."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from include.commands.sync import dry_run_lines
from include.sync.dry_run import DryRun, FieldChange, plan_sync
from include.sync.reconcile import reconcile
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import record_id
from tests.integration.sync_stage import AS_OF, FIELDS, NO_BRAKES, SyncStage, row, sync_stage

UNKNOWN = "what the CRM holds now: fields never told have no old value, and an edit made there is not seen"


@pytest.fixture
def stage(
    emptied_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SyncStage]:
    """Three accounts were told; then A0000 changed, A0001 went, A0002 was opted out of, A0003 is new."""
    rules = {"removal": "clear", "consent": "may_be_told", "brakes": NO_BRAKES}
    with sync_stage(emptied_warehouse, tmp_path, monkeypatch, fields=FIELDS, **rules) as stage:
        stage.publish(row(0), row(1), row(2))
        assert stage.sync().sent == 3
        stage.publish(
            row(0, tier="B"), row(2, may_be_told=False), row(3, tier="S"), row(4, crm_record_id=None)
        )
        yield stage


def books(stage: SyncStage) -> list[list[tuple]]:
    """Return everything a run could write."""
    tables = ("runs", "ledger", "attempts", "deliveries", "outcomes", "failures")
    return [stage.warehouse.rows(f"select * from sync.{table} order by 1, 2") for table in tables]


def dry_run(stage: SyncStage, read: bool, limit: int = 20) -> DryRun:
    """Return the dry run, having seen that it wrote nothing, neither to the books nor to the CRM."""
    before, writes = books(stage), stage.crm.writes
    done = plan_sync(stage.sources, AS_OF, "crm", read, limit)
    assert (books(stage), stage.crm.writes) == (before, writes)
    assert done.queried == done.changes + done.unchanged + sum(done.held.values())
    return done


def fields(done: DryRun, account_id: str) -> dict[str, FieldChange]:
    (record,) = [each for each in done.records if each.account_id == account_id]
    return {each.name: each for each in record.fields}


def test_without_reading_what_was_never_told_is_not_known(stage: SyncStage) -> None:
    calls = stage.crm.sandbox.calls.by_endpoint.total()
    done = dry_run(stage, read=False)
    assert stage.crm.sandbox.calls.by_endpoint.total() == calls
    assert (done.queried, done.changes, done.unchanged, done.held) == (5, 4, 0, {"not_in_crm": 1})
    assert (done.removals, done.was_read) == (2, False)
    assert fields(done, "A0000") == {
        "stratum_tier": FieldChange("stratum_tier", "A", "B", "confirmed", "changed")
    }
    assert fields(done, "A0001")["stratum_tier"] == FieldChange(
        "stratum_tier", "A", None, "confirmed", "cleared"
    )
    assert fields(done, "A0003")["stratum_tier"] == FieldChange("stratum_tier", None, "S", "no", "first")
    assert done.kinds == {
        "stratum_revenue": {"cleared": 2, "first": 1},
        "stratum_tier": {"changed": 1, "cleared": 2, "first": 1},
    }
    assert UNKNOWN in done.cannot_know
    assert (
        "whether what is to be cleared is still ours: that depends on what the CRM holds" in done.cannot_know
    )
    said = "\n".join(dry_run_lines(done))
    assert "stratum_tier: (cannot know) → S" in said
    assert "stratum_tier: A → B" in said
    assert "5 queried = 4 to send + 0 unchanged + 1 held (1 not_in_crm)" in said
    assert "no change" not in said


def test_with_reading_the_old_values_are_the_crms_own(stage: SyncStage) -> None:
    stage.edit(0, stratum_tier="theirs")
    stage.edit(1, stratum_tier="theirs", stratum_revenue="7")
    stage.edit(3, stratum_tier="S", stratum_revenue="12")
    done = dry_run(stage, read=True)
    assert fields(done, "A0000")["stratum_tier"] == FieldChange(
        "stratum_tier", "theirs", "B", "read", "changed", True
    )
    assert fields(done, "A0003") == {
        "stratum_tier": FieldChange("stratum_tier", "S", "S", "read", "same"),
        "stratum_revenue": FieldChange("stratum_revenue", "12", "100.5", "read", "first"),
    }
    assert (done.changes, done.held, done.removals) == (3, {"not_in_crm": 1, "not_ours": 1}, 1)
    assert (done.was_read, done.cannot_know, done.drifted, done.not_there) == (True, [], 1, 0)
    said = "\n".join(dry_run_lines(done))
    assert "stratum_tier: theirs → B (edited there)" in said
    assert "stratum_tier: S → S (already there)" in said
    assert "stratum_tier: 1 changed, 1 cleared, 1 there already" in said


def test_a_record_the_crm_does_not_have_is_said(stage: SyncStage) -> None:
    stage.crm.client.crm.companies.basic_api.archive(record_id(3))
    done = dry_run(stage, read=True)
    assert done.not_there == 1
    assert "A0003" in next(line for line in dry_run_lines(done) if "no such record" in line)


def test_a_rule_that_depends_on_the_crm_is_named_where_it_was_not_read(stage: SyncStage) -> None:
    stage.configure(fields={"stratum_tier": {"column": "tier", "overwrite": "if_ours"}})
    stage.edit(0, stratum_tier="theirs")
    guess = dry_run(stage, read=False)
    assert guess.changes == 4
    assert any("whether stratum_tier may be overwritten" in each for each in guess.cannot_know)
    assert dry_run(stage, read=True).held == {"not_in_crm": 1, "not_ours": 1}


def test_what_a_dry_run_says_a_sync_then_does(stage: SyncStage) -> None:
    done = dry_run(stage, read=True)
    result = stage.sync()
    assert (result.queried, result.sent, result.unchanged, result.held) == (
        done.queried,
        done.changes,
        done.unchanged,
        sum(done.held.values()),
    )


def test_as_many_records_are_shown_as_asked_and_all_are_counted(stage: SyncStage) -> None:
    done = dry_run(stage, read=False, limit=1)
    assert (len(done.records), done.changes) == (1, 4)
    assert "... and 3 more records" in dry_run_lines(done)
    assert json.loads(json.dumps(asdict(done), default=str))["kinds"]["stratum_tier"]["changed"] == 1


def test_each_brake_is_shown_and_what_it_would_hold_a_sync_holds(stage: SyncStage) -> None:
    stage.configure(brakes={"first_sync": False, "max_tier_changes": None})
    done = dry_run(stage, read=False)
    assert {brake.brake: (brake.figure, brake.limit, brake.holds) for brake in done.brakes} == {
        "shrunken_source": (0, 0.2, False),
        "first_sync": (None, None, False),
        "tier_changes": (None, None, False),
        "score_moves": (None, 0.5, False),
        "creations": (0, 50, False),
        "removals": (pytest.approx(2 / 3), 0.2, True),
        "removals_count": (2, 1000, False),
    }
    said = "\n".join(dry_run_lines(done))
    assert "brake removals: would hold  fields of 2 of 3 records told before (66.7%) would be cleared" in said
    assert "brake removals_count: passes" in said
    assert "brake tier_changes: off  switched off (max_tier_changes)" in said
    assert json.loads(json.dumps(asdict(done), default=str))["brakes"][5]["holds"] is True
    result = stage.sync()
    assert (result.status, [each["brake"] for each in result.hold.reasons]) == ("held", ["removals"])


def test_what_a_reconciliation_lets_be_told_again_is_a_kind_of_its_own_until_it_is_told(
    stage: SyncStage,
) -> None:
    stage.configure(removal="keep", consent=None, reconcile={"policy": "heal"})
    stage.publish(row(0), row(1), row(2), row(3))
    stage.edit(1, stratum_tier="theirs")
    assert reconcile(stage.sources, "crm").healed == 1
    done = dry_run(stage, read=False)
    told = fields(done, "A0001")["stratum_tier"]
    assert (told.kind, told.old, told.known) == ("heal", "theirs", "reconciled")
    assert done.kinds["stratum_tier"] == {"first": 1, "heal": 1}
    said = "\n".join(dry_run_lines(done))
    assert f"stratum_tier: theirs → {told.new} (drifted)" in said
    assert "stratum_tier: 1 told for the first time, 1 healed" in said
    read = fields(dry_run(stage, read=True), "A0001")["stratum_tier"]
    assert (read.kind, read.old, read.known) == ("heal", "theirs", "read")
    assert stage.sync().sent == 2
    # What is lost by another way later is not the reconciliation's.
    stage.warehouse.rows(
        "update sync.ledger set confirmed = confirmed - 'stratum_tier' where account_id = 'A0001'"
    )
    assert dry_run(stage, read=False).kinds["stratum_tier"] == {"first": 1}
