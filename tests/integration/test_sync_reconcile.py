"""Reading back what the CRM holds, against the sandbox's HTTP server and a CRM that drops a field."""

import logging
import tracemalloc
from datetime import UTC, datetime

import psycopg
import pytest
import yaml

from include.errors import StratumError, TransientError
from include.sync.books import rebuild
from include.sync.ledger import Ledger
from include.sync.reconcile import SHOWN, Reconciliation, keep_watch, reconcile, reconcile_ledger, scheduled
from include.sync.run import mapping_of
from include.sync.switches import status_lines, status_of
from include.sync.target import same_text
from include.warehouse.connect import connect
from tests.integration.sync_proof import FIELDS, TOLD, Published, assert_books_add_up
from tests.integration.sync_stage import TARGET, crash_in


def read(published: Published, rules: dict | None = None, **options: object) -> Reconciliation:
    found = reconcile(published.with_rules(**rules or {}), "crm", sleep=lambda _: None, **options)  # type: ignore[arg-type]
    booked = published.warehouse.rows(
        "select policy, seed, sample, records_read, equal, drifted, gone, unresolved, fields from sync.reconciliations "
        "order by reconciliation_id desc limit 1"
    )
    assert booked == [
        (
            found.policy,
            found.seed,
            found.sample,
            found.records_read,
            found.equal,
            found.drifted,
            found.gone,
            found.unresolved,
            list(FIELDS),
        )
    ]
    listed: dict[str, dict[str, int]] = {}
    for name, done, records in published.warehouse.rows(
        "select field, done, count(*) from sync.drift where reconciliation_id = %s group by field, done",
        found.reconciliation_id,
    ):
        listed.setdefault(name, {})[done] = records
    assert listed == found.kinds
    return found


def test_a_crm_that_nobody_edited_holds_what_it_confirmed(published: Published) -> None:
    found = read(published)
    assert (found.records_read, found.equal, found.drifted, found.gone) == (TOLD, TOLD, 0, 0)
    assert found.drift == []
    assert found.calls == 1


def test_an_edit_in_the_crm_is_listed_and_left_by_the_policy_report(published: Published) -> None:
    published.crm.edit(3, {"stratum_tier": "S", "name": "not ours"})
    found = read(published)
    (drift,) = found.drift
    assert (found.equal, found.drifted, drift.account_id, drift.field) == (
        TOLD - 1,
        1,
        "A0003",
        "stratum_tier",
    )
    assert (drift.confirmed, drift.held, drift.done) == ("A", "S", "reported")
    assert published.sync().sent == 0
    assert published.crm.held()[published.crm.record_id(3)]["stratum_tier"] == "S"


def test_heal_lets_the_next_sync_send_what_drifted_and_nothing_else(published: Published) -> None:
    published.crm.edit(3, {"stratum_tier": "S"})
    published.crm.edit(5, {"stratum_revenue": ""})
    found = read(published, {"reconcile": {"policy": "heal"}})
    assert [(each.account_id, each.held, each.done) for each in found.drift] == [
        ("A0003", "S", "healed"),
        ("A0005", None, "healed"),
    ]
    before = len(published.crm.applied())
    assert published.sync().sent == 2
    assert [each.values for each in published.crm.applied()[before:]] == [
        {"stratum_tier": "A"},
        {"stratum_revenue": "1"},
    ]
    assert published.differing() == {}
    assert read(published).equal == TOLD
    assert_books_add_up(published.warehouse)


@pytest.mark.parametrize(
    ("written", "names"),
    [("{}", ["crm"]), ("{policy: heal}", ["crm"]), ("off", []), ("'off'", []), ("null", [])],
)
def test_a_target_is_on_the_schedule_where_sync_yml_says_so(
    published: Published, written: str, names: list[str]
) -> None:
    assert scheduled(published.sources) == []
    assert scheduled(published.with_rules(reconcile=yaml.safe_load(written))) == names


def test_the_schedule_tells_of_drift_by_policy_after_it_is_booked(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    def watch(**rules: str) -> None:
        with caplog.at_level(logging.WARNING, logger="include.sync.reconcile"):
            keep_watch(published.with_rules(reconcile=rules), "crm")

    watch(on_drift="fail")
    published.crm.edit(3, {"stratum_tier": "S"})
    assert caplog.records == []
    watch()
    (warned,) = caplog.records
    assert f"1 of {TOLD} records (stratum_tier)" in warned.getMessage()
    with pytest.raises(StratumError, match=rf"1 of {TOLD} records \(stratum_tier\).*--heal"):
        watch(on_drift="fail")
    booked = published.warehouse.rows("select drifted from sync.reconciliations order by reconciliation_id")
    assert booked == [(0,), (1,), (1,)]
    told = "\n".join(status_lines(status_of(TARGET)))
    assert f"by report: {TOLD} records read = {TOLD - 1} equal + 1 drifted + 0 gone" in told
    assert "1 stratum_tier reported" in told
    watch(on_drift="fail", policy="heal")  # what the next sync tells again is nobody's to look at
    assert "1 stratum_tier healed" in "\n".join(status_lines(status_of(TARGET)))


def test_what_is_read_counts_for_the_limit_of_the_burst_and_of_the_day(published: Published) -> None:
    def counted() -> tuple[int, int]:
        (sums,) = published.warehouse.rows("""
            select coalesce(sum(cardinality(calls)), 0), coalesce(sum((
                select sum(value::int) from jsonb_each_text(hours)
            )), 0)
            from sync.call_windows
        """)
        return sums

    published.warehouse.rows("update sync.call_windows set calls = '{}'")
    burst, day = counted()
    keep_watch(published.with_rules(reconcile={}), "crm")
    made = published.warehouse.value("select calls from sync.reconciliations")
    assert made > 0
    assert counted() == (burst + made, day + made)


def test_a_number_the_crm_writes_in_another_way_is_no_drift(published: Published) -> None:
    published.crm.edit(3, {"stratum_revenue": "1.00"})
    assert read(published).equal == TOLD


def test_heal_does_not_touch_what_an_overwrite_rule_protects(published: Published) -> None:
    published.crm.edit(3, {"stratum_tier": "S"})
    published.crm.edit(4, {"stratum_tier": ""})
    fields = FIELDS | {"stratum_tier": {"column": "tier", "overwrite": "if_ours"}}
    found = read(published, {"fields": fields}, heal=True)
    assert [(each.held, each.done) for each in found.drift] == [("S", "reported"), (None, "healed")]


def test_a_sample_is_the_same_until_the_next_sync_and_then_another(published: Published) -> None:
    for index in range(TOLD):
        published.crm.edit(index, {"stratum_tier": "S"})
    drawn = [[each.record_id for each in read(published, sample=6).drift] for _ in range(2)]
    assert len(drawn[0]) == 6
    assert drawn[0] == drawn[1]
    published.sync()
    assert [each.record_id for each in read(published, sample=6).drift] != drawn[0]
    assert read(published, {"reconcile": {"sample": 5}}).records_read == 5
    assert read(published, {"reconcile": {"sample": 5}}, everything=True).records_read == TOLD


def test_a_record_that_is_gone_is_forgotten_and_told_anew_when_it_is_back(published: Published) -> None:
    gone = published.crm.record_id(7)
    store = published.crm.store  # type: ignore[attr-defined]
    store.archive(gone, datetime(2026, 7, 1, tzinfo=UTC))
    found = read(published)
    assert (found.equal, found.gone) == (TOLD - 1, 1)
    assert {(each.field, each.confirmed, each.done) for each in found.drift} == {
        ("stratum_tier", "A", "gone"),
        ("stratum_revenue", "1", "gone"),
    }
    assert published.warehouse.rows("select record_id from sync.ledger where gone_at is not null") == [
        (gone,)
    ]
    assert read(published).records_read == TOLD - 1
    store.restore(gone)
    published.crm.edit(7, {"stratum_tier": "", "stratum_revenue": ""})
    assert published.sync().sent == 1
    assert published.differing() == {}
    assert published.warehouse.value("select count(*) from sync.ledger where gone_at is not null") == 0


def published_at():
    from datetime import UTC, datetime

    return datetime(2026, 7, 1, tzinfo=UTC)


def test_a_crm_without_any_of_the_records_is_another_one_and_forgets_nothing(published: Published) -> None:
    class Empty(Dropping):
        def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
            return {}

    with pytest.raises(StratumError, match=f"has none of the {TOLD} records"), books() as ledger:
        reconcile_ledger(ledger, mapping_of(published.sources, "crm"), Empty(published), None)
    assert published.warehouse.value("select count(*) from sync.reconciliations") == 0
    assert read(published).equal == TOLD


class Dropping:
    """A CRM that takes a field and does not keep it, as one does that does not know it."""

    name = "a CRM"
    calls = 0
    can_read = True

    def __init__(self, published: Published) -> None:
        self.published = published

    def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
        held = self.published.crm.held()
        return {each: {n: v for n, v in held[each].items() if n != "stratum_tier"} for each in record_ids}

    def is_same(self, told: str | None, held: str | None) -> bool:
        return same_text(told, held)


class books:
    """The locked ledger of a target."""

    def __init__(self, target: str = TARGET) -> None:
        self.target = target

    def __enter__(self) -> Ledger:
        self.opened = connect("syncer")
        connection = self.opened.__enter__()
        connection.autocommit = True
        ledger = Ledger(connection, self.target)
        ledger.lock()
        return ledger

    def __exit__(self, *error: object) -> None:
        self.opened.__exit__(None, None, None)


def test_a_field_the_crm_drops_is_found_told_once_more_and_then_said_to_be_lost(published: Published) -> None:
    def drop(heal: bool = False) -> Reconciliation:
        rules = {"reconcile": {"policy": "heal"}}
        with books() as ledger:
            mapping = mapping_of(published.with_rules(**rules), "crm")
            return reconcile_ledger(ledger, mapping, Dropping(published), None, heal)  # type: ignore[arg-type]

    first = drop()
    assert (first.drifted, first.healed, first.not_kept) == (TOLD, TOLD, [])
    assert {each.field for each in first.drift} == {"stratum_tier"}
    assert published.sync().sent == TOLD
    again = drop()
    assert (again.drifted, again.healed, again.not_kept) == (TOLD, 0, ["stratum_tier"])
    assert published.sync().sent == 0
    assert drop(heal=True).healed == TOLD


def test_memory_does_not_grow_with_the_accounts_where_a_crm_drops_a_field(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Losing(Dropping):
        def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
            return {each: {"stratum_revenue": "1"} for each in record_ids}

    monkeypatch.setattr("include.sync.reconcile.READ_AT_ONCE", 100)
    mapping = mapping_of(published.with_rules(reconcile={"policy": "heal"}), "crm")

    def peak(records: int) -> int:
        """Return the most bytes that reading back so many records held at once, by Python's own count."""
        target = f"hubspot:{records}"
        published.warehouse.rows(
            "insert into sync.ledger (target, record_id, account_id, confirmed) select %s, n::text, 'A' || n, "
            """'{"stratum_tier": "A", "stratum_revenue": "1"}' from generate_series(1, %s) as n""",
            target,
            records,
        )
        with books(target) as ledger:
            tracemalloc.start()
            try:
                found = reconcile_ledger(ledger, mapping, Losing(published), None)  # type: ignore[arg-type]
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert (found.drifted, found.healed, found.left) == (records, records, 0)
        assert (found.kinds, len(found.drift)) == ({"stratum_tier": {"healed": records}}, SHOWN)
        told = "select count(*) from sync.ledger where target = %s and confirmed ? 'stratum_tier'"
        assert published.warehouse.value(told, target) == 0
        return most

    peak(200)  # what is made at its first use is no matter
    assert peak(4_000) < 1.5 * peak(400)


def test_as_many_differences_are_returned_as_asked_and_all_are_counted_and_written(
    published: Published,
) -> None:
    for index in (2, 3, 5):
        published.crm.edit(index, {"stratum_tier": "S", "stratum_revenue": ""})
    found = read(published, limit=4)
    assert found.kinds == {"stratum_revenue": {"reported": 3}, "stratum_tier": {"reported": 3}}
    assert [each.account_id for each in found.drift] == ["A0002", "A0002", "A0003", "A0003"]
    assert (found.drifted, found.left, found.healed) == (3, 3, 0)
    assert read(published, limit=0).drift == []


def test_a_record_without_an_answer_is_left_to_the_next_sync(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.accounts[2]["tier"] = "S"
    published.write()
    with crash_in(monkeypatch, Ledger, "confirm"):
        published.sync()
    found = read(published)
    assert (found.records_read, found.equal, found.unresolved) == (TOLD - 1, TOLD - 1, 1)
    assert published.sync().failed == 0
    assert read(published).equal == TOLD


def test_what_cannot_be_read_is_said_and_nothing_is_written(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.crm.fault(unavailable=100)
    with pytest.raises(TransientError, match="did not tell what it holds"):
        reconcile(published.sources, "crm", sleep=lambda _: None)
    published.crm.calm()
    monkeypatch.setattr("include.sync.targets.hubspot.HubSpotTarget.can_read", False)
    with pytest.raises(StratumError, match="cannot be asked what it holds, so 'crm' cannot be reconciled"):
        reconcile(published.sources, "crm")
    with pytest.raises(StratumError, match="restore a backup"):
        rebuild(published.sources, "crm")
    assert published.warehouse.value("select count(*) from sync.reconciliations") == 0


def test_the_database_refuses_a_reconciliation_that_does_not_add_up(published: Published) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="records_add_up"):
        published.warehouse.rows(
            "insert into sync.reconciliations (target, policy, seed, records_read, equal, drifted, gone, unresolved, "
            "fields, calls) values ('t', 'report', '1', 3, 1, 1, 0, 0, '{}', 0)"
        )


def test_a_lost_write_is_not_taken_for_done_where_texts_look_like_one_number(published: Published) -> None:
    published.accounts[2]["next_action"] = "007"
    published.write()
    published.sync()
    published.accounts[2]["next_action"] = "7"
    published.write()
    published.crm.fault(drop_before=1)
    assert published.sync().sent == 1
    assert published.crm.held()[published.crm.record_id(2)]["stratum_next_action"] == "7"
