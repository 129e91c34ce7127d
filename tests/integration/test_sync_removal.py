"""Accounts that are merged, deleted, moved or opted out: what we wrote is cleared, and nothing else is touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hubspot.crm.companies import PublicMergeInput

from include.sync.run import MAX_TRIES
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import record_id
from tests.integration.sync_stage import FIELDS, NO_BRAKES, SyncStage, row, sync_stage


@pytest.fixture
def stage(
    emptied_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SyncStage]:
    rules = {"removal": "clear", "consent": "may_be_told", "brakes": NO_BRAKES}
    with sync_stage(emptied_warehouse, tmp_path, monkeypatch, fields=FIELDS, **rules) as stage:
        stage.publish(row(0), row(1), row(2))
        assert stage.sync().sent == 3
        yield stage


def test_what_we_wrote_of_an_account_that_is_gone_is_cleared_and_nothing_else(stage: SyncStage) -> None:
    stage.edit(0, industry="Steel")
    stage.publish(row(1), row(2))
    result = stage.sync()
    assert (result.queried, result.sent, result.unchanged) == (3, 1, 2)
    assert (stage.shows(0), stage.shows(0, "stratum_revenue")) == (None, None)
    assert (stage.shows(0, "industry"), stage.shows(0, "name")) == ("Steel", "Account 0")
    assert stage.shows(1) == "A"
    assert stage.ledger(0) == {"stratum_tier": None, "stratum_revenue": None}
    again = stage.sync()
    assert (again.queried, again.unchanged, again.calls) == (2, 2, 0)
    stage.publish(row(0), row(1), row(2))  # it comes back
    assert stage.sync().sent == 1
    assert stage.shows(0) == "A"


def test_where_the_mapping_keeps_nothing_is_sent(stage: SyncStage) -> None:
    stage.configure(removal="keep")
    stage.publish(row(1))
    result = stage.sync()
    assert (result.queried, result.unchanged, result.calls) == (1, 1, 0)
    assert stage.shows(0) == "A"


def test_a_value_that_somebody_edited_is_left_alone_and_listed_once(stage: SyncStage) -> None:
    stage.edit(0, stratum_tier="theirs")
    stage.edit(1, stratum_tier="theirs", stratum_revenue="5")
    stage.publish(row(2))
    first = stage.sync()
    assert (first.queried, first.sent, first.held) == (3, 1, 1)
    assert stage.held(first) == [("A0001", "not_ours", "stratum_revenue, stratum_tier")]
    assert (stage.shows(0), stage.shows(0, "stratum_revenue")) == ("theirs", None)
    assert (stage.shows(1), stage.shows(1, "stratum_revenue")) == ("theirs", "5")
    assert stage.ledger(1) == {}
    second = stage.sync()  # what was left of the first record, by itself
    assert stage.held(second) == [("A0000", "not_ours", "stratum_tier")]
    third = stage.sync()
    assert (third.queried, third.unchanged, third.calls) == (1, 1, 0)


def test_an_account_that_moves_leaves_nothing_on_its_old_record(stage: SyncStage) -> None:
    stage.publish(row(0, crm_record_id=record_id(9)), row(1), row(2))
    result = stage.sync()
    assert (result.queried, result.sent, result.unchanged) == (4, 2, 2)
    assert (stage.shows(0), stage.shows(9)) == (None, "A")


def test_a_record_merged_into_another_does_not_clear_the_one_that_remains(stage: SyncStage) -> None:
    merge = PublicMergeInput(primary_object_id=record_id(1), object_id_to_merge=record_id(0))
    stage.crm.client.crm.companies.basic_api.merge(merge)
    stage.publish(row(1), row(2))
    result = stage.sync()
    assert (result.queried, result.sent, result.unchanged) == (3, 0, 2)
    assert stage.held(result) == [("A0000", "record_is_gone", "stratum_revenue, stratum_tier")]
    assert (stage.shows(1), stage.shows(1, "stratum_revenue")) == ("A", "100.5")
    assert stage.sync().queried == 2


def test_a_record_merged_after_the_pull_is_refused_and_the_one_that_remains_is_told_anew(
    stage: SyncStage,
) -> None:
    merge = PublicMergeInput(primary_object_id=record_id(1), object_id_to_merge=record_id(0))
    stage.crm.client.crm.companies.basic_api.merge(merge)
    stage.publish(row(0, tier="B"), row(1), row(2))
    result = stage.sync()
    assert (result.sent, result.failed, result.unchanged) == (0, 1, 2)
    ((failed, detail),) = stage.warehouse.rows(
        "select account_id, detail from sync.outcomes where outcome = 'failed'"
    )
    assert failed == "A0000"
    assert detail.startswith(f"record_is_gone: it was merged into {record_id(1)}")
    assert stage.shows(1) == "B", "HubSpot wrote it on the record that remains"
    assert (stage.ledger(0), stage.ledger(1)) == (
        {"stratum_tier": "A", "stratum_revenue": "100.5"},
        {"stratum_revenue": "100.5"},
    )
    stage.publish(row(1), row(2))  # the pull has seen the merge
    assert stage.sync().sent == 1
    assert stage.shows(1) == "A"


def test_a_record_in_the_bin_is_gone(stage: SyncStage) -> None:
    stage.crm.client.crm.companies.basic_api.archive(record_id(0))
    stage.publish(row(1), row(2))
    assert [each[1] for each in stage.held(stage.sync())] == ["record_is_gone"]
    again = stage.sync()
    assert (again.queried, again.calls) == (2, 0)


def test_consent_withdrawn_clears_and_consent_given_again_tells(stage: SyncStage) -> None:
    stage.publish(row(0, may_be_told=False, tier="B"), row(1, may_be_told=None), row(2))
    result = stage.sync()
    assert (result.queried, result.sent, result.unchanged) == (3, 2, 1)
    assert [stage.shows(n) for n in range(3)] == [None, None, "A"]
    again = stage.sync()
    assert (again.sent, again.unchanged, again.calls) == (0, 1, 0)
    assert [each[1] for each in stage.held(again)] == ["no_consent", "no_consent"]
    stage.publish(row(0, tier="B"), row(1, may_be_told=None), row(2))
    assert stage.sync().sent == 1
    assert (stage.shows(0), stage.shows(1)) == ("B", None)


def test_a_record_of_two_accounts_is_not_cleared_for_the_one_without_consent(stage: SyncStage) -> None:
    stage.publish(row(0, may_be_told=False), row(5, crm_record_id=record_id(0)), row(1), row(2))
    result = stage.sync()
    assert sorted(stage.held(result)) == [
        ("A0000", "record_is_doubled", None),
        ("A0005", "record_is_doubled", None),
    ]
    assert stage.shows(0) == "A"


def test_a_field_taken_out_of_the_mapping_is_no_longer_touched(stage: SyncStage) -> None:
    stage.configure(fields={"stratum_tier": "tier"})
    stage.publish(row(1), row(2))
    assert stage.sync().sent == 1
    assert (stage.shows(0), stage.shows(0, "stratum_revenue")) == (None, "100.5")
    assert stage.sync().queried == 2


def test_a_refused_clearing_is_tried_again_and_its_delivery_says_what_was_cleared(stage: SyncStage) -> None:
    stage.crm.fault(refuse_ids=[record_id(0)])
    stage.publish(row(1), row(2))
    assert stage.sync().failed == 1
    assert stage.shows(0) == "A"
    stage.crm.fault(refuse_ids=[])
    result = stage.sync()
    assert result.sent == 1
    told = stage.warehouse.rows(
        "select field, old_value, new_value from sync.deliveries where sync_id = %s order by field",
        result.sync_id,
    )
    assert told == [("stratum_revenue", "100.5", None), ("stratum_tier", "A", None)]


def test_a_dead_letter_keeps_no_opted_out_account_in_the_crm_and_a_clearing_has_its_own(
    stage: SyncStage,
) -> None:
    stage.crm.fault(refuse_ids=[record_id(0), record_id(1)])
    stage.publish(row(0, tier="B"), row(1, tier="B"), row(2))
    for _ in range(MAX_TRIES):
        assert stage.sync().failed == 2
    assert stage.sync().reasons == {"dead_letter": 2}
    stage.crm.fault(refuse_ids=[record_id(1)])
    stage.publish(row(0, tier="B", may_be_told=False), row(2))
    result = stage.sync()
    assert (result.sent, result.failed) == (1, 1)
    assert (stage.shows(0), stage.shows(0, "stratum_revenue"), stage.shows(1)) == (None, None, "A")
    letters = stage.warehouse.rows("select record_id, payload from sync.dead_letters")
    assert letters == [(record_id(1), {"stratum_tier": None, "stratum_revenue": None})]
    again = stage.sync()
    assert (again.sent, again.failed, again.reasons) == (0, 0, {"dead_letter": 1, "no_consent": 1})


def test_the_plan_counts_what_it_would_clear(stage: SyncStage) -> None:
    stage.publish(row(0, may_be_told=False), row(1, tier="B"))
    changes = stage.planned()
    assert sorted((change.account_id, change.is_removal) for change in changes) == [
        ("A0000", True),
        ("A0001", False),
        ("A0002", True),
    ]
