"""The rules by which a sync makes records: when not, what holds the row, what the books and a dry run say."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.commands.sync import dry_run_lines
from include.errors import StratumError
from include.quality.gate import run_sync_gate
from include.sync.books import backup, rebuild, restore
from include.sync.holds import decide
from include.sync.ledger import Ledger
from include.sync.reconcile import reconcile
from include.sync.run import replay_dead_letters, set_up_target
from include.sync.switches import switch_off, switch_on
from tests.conftest import Warehouse
from tests.integration import salesforce_fixture
from tests.integration.create_stage import MAKES, CreateStage
from tests.integration.sync_stage import AS_OF, crash_in, prepare


@pytest.fixture(scope="module")
def warehouse(module_warehouse: Warehouse) -> Warehouse:
    prepare(module_warehouse)
    return module_warehouse


@MAKES
def test_a_found_record_is_told_by_the_rules_of_its_fields(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    """The key finds it: what somebody wrote there is not overwritten by a first telling."""
    stage = stage_of(kind)
    stage.publish(3)
    stage.sync()
    stage.forget()
    stage.mapping["fields"] = {stage.tier: {"column": "tier", "overwrite": "if_empty"}}
    stage.publish(3, tier="B")
    result = stage.sync()
    assert (result.sent, result.reasons) == (0, {"not_empty": 3})
    assert {values[stage.tier] for ((_, values),) in stage.records().values()} == {"A"}


@MAKES
def test_a_dry_run_applies_the_rules_to_records_it_finds_as_the_sync_does(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.publish(3)
    stage.sync()
    other = stage.record_of(2)
    stage.forget()
    stage.mapping["fields"] = {stage.tier: {"column": "tier", "overwrite": "if_empty"}}
    stage.publish(4, crm_record_id={3: other}, tier="B")  # the third's record is the fourth's now
    known = stage.plan(read=True)
    books = stage.warehouse.rows("select count(*) from sync.ledger")
    result = stage.sync()
    assert (known.creations, known.changes, known.held) == (0, 0, {"not_empty": 3, "key_is_taken": 1})
    assert (result.sent, result.reasons) == (0, known.held)
    assert books == [(0,)]


@MAKES
def test_a_dry_run_counts_a_record_that_it_finds_and_that_needs_nothing_as_the_sync_does(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.publish(2)
    stage.sync()
    stage.forget()
    stage.publish(2, tier={0: None, 1: "B"})
    known = stage.plan(read=True)
    result = stage.sync()
    assert (known.changes, known.unchanged, known.held) == (1, 1, {})
    assert (result.sent, result.unchanged, result.held) == (1, 1, 0)


@pytest.mark.parametrize(
    "page",
    [None, "include.sync.creation.ASKED_AT_ONCE", "include.sync.targets.hubspot.BATCH_SIZE"],
    ids=["one-page", "pages-of-the-plan", "pages-of-the-crm"],
)
def test_of_two_accounts_that_a_crm_takes_for_one_the_second_is_held_as_the_dry_run_says(
    stage_of: Callable[[str], CreateStage], monkeypatch: pytest.MonkeyPatch, page: str | None
) -> None:
    """Their keys differ in upper and lower case alone; each may be asked for on a page of its own."""
    stage = stage_of("hubspot")
    stage.publish(1)
    stage.sync()
    record, total = stage.record_of(0), stage.total()
    stage.forget()
    stage.publish(1, tier="B")
    one, twin = stage.account(0), stage.account(0).lower()
    stage.warehouse.rows(
        "insert into published.customer_360 (account_id, account_name, tier, may_be_told) "
        "values (%s, 'Twin', 'B', true)",
        twin,
    )
    if page:
        monkeypatch.setattr(page, 1)
    known = stage.plan(read=True)
    result = stage.sync()
    assert (known.changes, known.creations, known.held) == (1, 0, {"key_is_taken": 1})
    assert (result.sent, result.reasons) == (1, known.held)
    ((held, _, detail),) = stage.held(result)
    ((told, told_record),) = stage.warehouse.rows("select account_id, record_id from sync.ledger")
    assert {held, told} == {one, twin}
    assert (told_record, detail) == (record, f"record {record} is another account's")
    assert [each.account_id for each in known.records] == [told]
    assert stage.total() == total


@pytest.mark.parametrize("batch", [1, 100], ids=["batches-of-their-own", "one-batch"])
def test_of_two_new_accounts_that_a_crm_takes_for_one_the_second_is_refused_and_the_first_told_again(
    stage_of: Callable[[str], CreateStage], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Their keys differ in upper and lower case alone, and neither has a record when both are told."""
    stage = stage_of("hubspot")
    stage.publish(1, tier="S")
    one, twin = stage.account(0), stage.account(0).lower()
    stage.warehouse.rows(
        "insert into published.customer_360 (account_id, account_name, tier, may_be_told) "
        "values (%s, 'Twin', 'B', true)",
        twin,
    )
    monkeypatch.setattr("include.sync.targets.hubspot.BATCH_SIZE", batch)
    total = stage.total()
    result = stage.sync()
    assert (result.sent, result.failed) == (1, 1)
    ((owner, record),) = stage.warehouse.rows("select account_id, record_id from sync.ledger")
    other = {one: twin, twin: one}[owner]
    ((reason,),) = stage.warehouse.rows("select reason from sync.failures where account_id = %s", other)
    assert reason == f"refused: the CRM takes its key for that of {owner}"
    result = stage.sync()
    assert (result.sent, result.reasons) == (1, {"key_is_taken": 1})
    assert stage.warehouse.rows("select account_id, record_id from sync.ledger") == [(owner, record)]
    assert stage.shown(record) == {one: "S", twin: "B"}[owner], "told anew over what the other one wrote"
    assert stage.total() == total + 1


def test_a_salesforce_is_logged_into_only_where_there_is_something_to_say(
    stage_of: Callable[[str], CreateStage],
) -> None:
    stage = stage_of("collections")
    stage.publish(2)
    stage.sync()
    before = stage.place.running.sandbox.calls.by_endpoint.total()
    switch_off(stage.sources.sync["crm"].target, "anna", "wrong tiers")
    stage.publish(2, tier="B")
    assert stage.sync().reasons == {"switched_off": 2}
    switch_on(stage.sources.sync["crm"].target)
    stage.mapping["brakes"] = {"max_tier_changes": 0.1}
    assert stage.sync().reasons == {"brake": 2}
    stage.publish(2)
    assert (stage.sync().unchanged, stage.place.running.sandbox.calls.by_endpoint.total()) == (2, before)


def test_a_login_that_is_refused_ends_the_run_in_the_books(
    stage_of: Callable[[str], CreateStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of("collections")
    stage.publish(2)
    salesforce_fixture.reach(monkeypatch, stage.place.running, secret="another")
    with pytest.raises(StratumError, match="refused the login"):
        stage.sync()
    [(status, failure)] = stage.warehouse.rows("select status, failure from sync.runs")
    assert (status, "refused the login" in failure) == ("failed", True)


@MAKES
def test_the_pull_that_brings_the_record_changes_nothing(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.publish(3)
    stage.sync()
    made = {n: stage.record_of(n) for n in range(3)}
    stage.publish(3, crm_record_id=made)
    result = stage.sync()
    assert (result.sent, result.unchanged, result.held, result.calls) == (0, 3, 0, 0)
    # It is an account's record like any other: one that leaves the CRM later is not made again.
    stage.publish(3)
    result = stage.sync()
    assert (result.sent, result.reasons) == (0, {"record_is_gone": 3})
    stage.assert_one_record_each(3)


@MAKES
def test_a_pull_that_names_another_record_is_told_for_that_row_and_nothing_is_written(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.mapping["removal"] = "clear"
    other = stage.other_record()
    stage.publish(3)
    stage.sync()
    made = stage.record_of(1)
    total = stage.total()
    stage.publish(3, crm_record_id={0: stage.record_of(0), 1: other, 2: None}, tier="S")
    result = stage.sync()
    assert stage.held(result) == [
        (stage.account(1), "record_disagrees", f"made as {made}, pulled as {other}")
    ]
    assert (result.queried, result.sent, stage.total()) == (3, 2, total)
    tiers = [stage.records()[stage.account(n)][0][1][stage.tier] for n in range(3)]
    assert tiers == ["S", "A", "S"]
    # The pull thinks better of it.
    stage.publish(3, crm_record_id={n: stage.record_of(n) for n in range(3)}, tier="S")
    assert (stage.sync().sent, stage.total()) == (1, total)
    stage.assert_one_record_each(3, "S")


def test_a_disagreement_ends_when_the_record_we_made_is_gone(stage_of: Callable[[str], CreateStage]) -> None:
    stage = stage_of("hubspot")
    other = stage.other_record()
    stage.publish(1)
    stage.sync()
    made = stage.record_of(0)
    stage.publish(1, crm_record_id=other)
    assert stage.sync().reasons == {"record_disagrees": 1}
    # As the runbook says: merged into the one that the pull names, and read back.
    stage.place.running.sandbox.store.merge(other, made, datetime(2026, 7, 1, tzinfo=UTC))
    found = reconcile(stage.sources, "crm", everything=True)
    assert found.gone == 1
    assert (stage.sync().sent, stage.shown(other)) == (1, "A")
    assert stage.record_of(0) == other


def test_a_dry_run_before_the_key_is_made_finds_nothing(stage_of: Callable[[str], CreateStage]) -> None:
    stage = stage_of("hubspot")
    stage.mapping["external_key"] = "stratum_not_made_yet"
    stage.publish(2)
    known = stage.plan(read=True)
    assert (known.changes, known.creations) == (2, 2)


@MAKES
def test_a_key_that_another_accounts_record_bears_holds_the_row(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    other = stage.other_record()
    stage.publish(2, crm_record_id={0: other, 1: None})
    stage.edit(other, **{stage.key: stage.account(1)})
    total = stage.total()
    result = stage.sync()
    assert (result.sent, result.held) == (1, 1)
    assert stage.held(result) == [(stage.account(1), "key_is_taken", f"record {other} is another account's")]
    assert stage.total() == total


@MAKES
def test_consent_and_removal_hold_for_records_we_made(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.mapping |= {"consent": "may_be_told", "removal": "clear"}
    stage.publish(4, may_be_told={0: False, 1: True, 2: True, 3: True})
    first = stage.sync()
    assert (first.sent, first.reasons) == (3, {"no_consent": 1})
    made = {n: stage.record_of(n) for n in (1, 2, 3)}
    total = stage.total()

    # One account is gone, one withdraws its consent: what we wrote is cleared, and no record is made or deleted.
    stage.publish([0, 1, 2], may_be_told={0: False, 1: False, 2: True})
    second = stage.sync()
    assert (second.queried, second.sent, second.unchanged, second.held) == (4, 2, 1, 1)
    assert [stage.shown(made[n]) for n in (1, 2, 3)] == [None, "A", None]

    # Both come back, still without a record of the pull: they are told in the records that they have.
    stage.publish(4, may_be_told=True)
    third = stage.sync()
    assert (third.sent, third.unchanged) == (3, 1)
    assert stage.total() == total + 1
    assert {n: stage.record_of(n) for n in (1, 2, 3)} == made
    stage.assert_one_record_each(4)


@MAKES
def test_a_record_that_a_person_deleted_is_not_made_again(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.publish(2)
    stage.sync()
    stage.delete(stage.record_of(0))
    total = stage.total()
    stage.publish(2, tier="S")
    first = stage.sync()
    assert (first.sent, first.reasons) == (1, {"refused": 1})
    # Reading back finds it gone, and then it is said and not tried.
    reconcile(stage.sources, "crm", everything=True, clock=lambda: stage.time.now, sleep=stage.time.sleep)
    second = stage.sync()
    assert (second.sent, second.unchanged, second.reasons) == (0, 1, {"record_is_gone": 1})
    assert stage.total() == total


def test_an_account_that_has_a_record_in_another_crm_is_not_made(
    stage_of: Callable[[str], CreateStage],
) -> None:
    stage = stage_of("hubspot")
    stage.publish(2)
    stage.warehouse.rows(
        "update published.customer_360 set crm_system = 'salesforce', crm_record_id = '001A' where account_id = %s",
        stage.account(0),
    )
    assert (result := stage.sync()).reasons == {"not_in_crm": 1}
    assert result.sent == 1


def test_a_record_that_would_lack_what_it_needs_is_held(stage_of: Callable[[str], CreateStage]) -> None:
    stage = stage_of("hubspot")
    stage.publish(3, account_name={0: None, 1: "", 2: "Company 2"})
    result = stage.sync()
    assert stage.held(result) == [(stage.account(n), "create_field_is_null", "name") for n in (0, 1)]
    assert (result.sent, list(stage.records())) == (1, [stage.account(2)])


@MAKES
def test_a_refused_creation_is_a_dead_letter_until_it_is_replayed(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.publish(3)
    refused = stage.account(1)
    faults = {"refuse_ids": [refused]} if kind == "hubspot" else {"refuse_rows": {refused: "INVALID_STATUS"}}
    stage.place.faults(**faults)
    first = stage.sync(max_tries=1)
    assert (first.sent, first.reasons) == (2, {"refused": 1})
    assert stage.sync().reasons == {"dead_letter": 1}
    stage.place.mend()
    assert replay_dead_letters(stage.sources, "crm", [f"new:{refused}"]) == 1
    assert stage.sync().sent == 1
    assert stage.warehouse.value("select count(*) from sync.failures") == 0
    stage.assert_one_record_each(3)


@MAKES
def test_many_creations_are_held_and_the_hold_says_how_many(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.mapping["brakes"] |= {"max_creations": 2}
    stage.publish(3)
    before = stage.total()
    result = stage.sync()
    assert (result.status, result.sent, result.held, result.reasons) == ("held", 0, 3, {"brake": 3})
    assert result.hold is not None
    (reason,) = result.hold.reasons
    assert (reason["brake"], reason["figure"], reason["limit"]) == ("creations", 3, 2)
    assert "3 records would be created, the limit is 2 (max_creations)" in reason["says"]
    assert (stage.total(), result.calls) == (before, 0)
    decide(result.hold.hold_id, True, "anna", "they are new customers")
    assert stage.sync().sent == 3
    assert stage.total() == before + 3


@MAKES
def test_a_dry_run_shows_what_would_be_made_and_makes_nothing(
    stage_of: Callable[[str], CreateStage], kind: str
) -> None:
    stage = stage_of(kind)
    stage.publish(2)
    stage.sync()
    stage.forget()
    stage.publish(3, tier="B")
    total = stage.total()
    guess = stage.plan()
    name = next(iter(stage.mapping["create_fields"]))
    assert (guess.changes, guess.creations, guess.kinds[stage.tier]) == (3, 3, {"create": 3})
    values = {each.name: (each.old, each.new, each.kind) for each in guess.records[2].fields}
    assert values == {
        stage.tier: (None, "B", "create"),
        stage.key: (None, stage.account(2), "create"),
        name: (None, "Company 2", "create"),
    }
    assert any("bears the key of an account to be created" in each for each in guess.cannot_know)
    said = "\n".join(dry_run_lines(guess))
    assert f"{stage.account(2)}  new record  " in said
    assert "3 of them make a record" in said

    known = stage.plan(read=True)
    assert (known.changes, known.creations, known.cannot_know) == (3, 1, [])
    assert known.kinds[stage.tier] == {"create": 1, "first": 2}
    assert [each.is_creation for each in known.records] == [False, False, True]
    assert stage.total() == total
    assert stage.warehouse.value("select count(*) from sync.ledger") == 0


@MAKES
def test_a_rebuilt_or_restored_ledger_knows_the_records_that_were_made(
    stage_of: Callable[[str], CreateStage], kind: str, tmp_path: Path
) -> None:
    stage = stage_of(kind)
    stage.publish(3)
    stage.sync()
    total = stage.total()
    backup(stage.sources, "crm", tmp_path / "books")
    stage.forget()
    stage.publish(4)
    rebuilt = rebuild(stage.sources, "crm", clock=lambda: stage.time.now, sleep=stage.time.sleep)
    assert (rebuilt.known, rebuilt.equal, rebuilt.gone) == (3, 3, 0)
    result = stage.sync()
    assert (result.sent, result.unchanged, result.held) == (1, 3, 0)
    stage.forget()
    restore(stage.sources, "crm", tmp_path / "books")
    result = stage.sync()  # it does not know of the fourth, and finds it by its key
    assert (result.sent, result.unchanged, stage.total()) == (1, 3, total + 1)
    stage.assert_one_record_each(4)


def test_the_gate_passes_the_books_of_a_sync_that_made_records(
    stage_of: Callable[[str], CreateStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of("hubspot")
    stage.publish(5)
    with crash_in(monkeypatch, Ledger, "confirm"):
        stage.sync()
    result = stage.sync()
    run_sync_gate(AS_OF, result.run_id, result.sync_id)


@pytest.mark.parametrize("system", ["hubspot", "salesforce"])
def test_setup_makes_a_unique_key_and_says_where_one_is_there_and_is_not_unique(
    stage_of: Callable[[str], CreateStage], system: str
) -> None:
    stage = stage_of("hubspot" if system == "hubspot" else "collections")
    stage.publish(1)
    # The stage's own set-up made it.
    again = set_up_target(stage.sources, "crm")
    assert (again.made, again.by_hand) == ([], {})
    stage.mapping |= {"external_key": "industry" if system == "hubspot" else "AccountNumber"}
    done = set_up_target(stage.sources, "crm")
    ((name, how),) = done.by_hand.items()
    assert (done.made, name) == ([], stage.key)
    assert ("is not unique" if system == "hubspot" else "is no unique external id") in how
    before = stage.total()
    with pytest.raises(StratumError, match=f"cannot make records by {stage.key}: .*[Nn]othing was sent"):
        stage.sync()
    assert stage.total() == before


def test_a_webhook_is_told_that_a_row_is_new_and_never_twice_under_two_keys(
    stage_of: Callable[[str], CreateStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of("webhook")
    receiver = stage.place.running

    def rows() -> list[tuple[str, bool]]:
        mine = [
            each for each in receiver.applied.values() if each["account_id"].startswith(f"N{stage.mark}-")
        ]
        assert all("record_id" not in each for each in mine)
        return sorted((each["account_id"], each.get("create", False)) for each in mine)

    stage.publish(5)
    stage.place.faults(drop_after=1)
    with crash_in(monkeypatch, Ledger, "confirm", nth=2):
        stage.sync()
    result = stage.sync()
    assert (result.sent, result.unchanged, result.failed) == (0, 5, 0)
    assert rows() == [(stage.account(n), True) for n in range(5)]
    stage.publish(6, tier="S")
    assert stage.sync().sent == 6
    told_twice = [(stage.account(n), is_new) for n in range(5) for is_new in (False, True)]
    assert rows() == [*told_twice, (stage.account(5), True)]

    # Without `create` no row says so.
    stage.forget()
    stage.mapping["create"] = False
    receiver.applied.clear()
    stage.sync()
    assert rows() == [(stage.account(n), False) for n in range(6)]
