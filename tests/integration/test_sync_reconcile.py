"""Reading back what the CRM holds; the ledger saved, restored and rebuilt: against the sandbox's HTTP server."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from include.errors import StratumError, TransientError
from include.sync.books import backup, rebuild, restore
from include.sync.ledger import Ledger
from include.sync.reconcile import Reconciliation, reconcile, reconcile_ledger
from include.sync.run import SyncResult, mapping_of, replay_dead_letters, sync_crm
from include.sync.target import same_text
from include.warehouse.connect import connect
from include.warehouse.embedded import Cluster
from tests.integration.sync_proof import (
    AS_OF,
    FIELDS,
    Published,
    assert_books_add_up,
    change_some,
    proving_ground,
)

ACCOUNTS = 24
TARGET = "hubspot:hubspot_default"


@pytest.fixture(scope="module")
def ground(
    cluster: Cluster, bare_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("crm")
    with proving_ground("hubspot", cluster, bare_template, folder, ACCOUNTS) as published:
        yield published


@pytest.fixture
def published(ground: Published) -> Published:
    """All accounts told: tier A, revenue 1, no next action."""
    ground.reset()
    change_some(ground, random.Random(1), 0.0, ACCOUNTS)
    assert sync(ground).sent == ACCOUNTS
    return ground


def sync(published: Published, **rules: object) -> SyncResult:
    return sync_crm(published.with_rules(**rules), AS_OF, "crm", sleep=lambda _: None)


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
    listed = published.warehouse.value(
        "select count(*) from sync.drift where reconciliation_id = (select max(reconciliation_id) from sync.drift)"
    )
    assert not found.drift or listed == len(found.drift)
    return found


def test_a_crm_that_nobody_edited_holds_what_it_confirmed(published: Published) -> None:
    found = read(published)
    assert (found.records_read, found.equal, found.drifted, found.gone) == (ACCOUNTS, ACCOUNTS, 0, 0)
    assert found.drift == []
    assert found.calls == 1


def test_an_edit_in_the_crm_is_listed_and_left_by_the_policy_report(published: Published) -> None:
    published.crm.edit(3, {"stratum_tier": "S", "name": "not ours"})
    found = read(published)
    (drift,) = found.drift
    assert (found.equal, found.drifted, drift.account_id, drift.field) == (
        ACCOUNTS - 1,
        1,
        "A0003",
        "stratum_tier",
    )
    assert (drift.confirmed, drift.held, drift.done) == ("A", "S", "reported")
    assert sync(published).sent == 0
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
    assert sync(published).sent == 2
    assert [each.values for each in published.crm.applied()[before:]] == [
        {"stratum_tier": "A"},
        {"stratum_revenue": "1"},
    ]
    assert published.differing() == {}
    assert read(published).equal == ACCOUNTS
    assert_books_add_up(published.warehouse)


def test_a_number_the_crm_writes_in_another_way_is_no_drift(published: Published) -> None:
    published.crm.edit(3, {"stratum_revenue": "1.00"})
    assert read(published).equal == ACCOUNTS


def test_heal_does_not_touch_what_an_overwrite_rule_protects(published: Published) -> None:
    published.crm.edit(3, {"stratum_tier": "S"})
    published.crm.edit(4, {"stratum_tier": ""})
    fields = FIELDS | {"stratum_tier": {"column": "tier", "overwrite": "if_ours"}}
    found = read(published, {"fields": fields}, heal=True)
    assert [(each.held, each.done) for each in found.drift] == [("S", "reported"), (None, "healed")]


def test_a_sample_is_the_same_until_the_next_sync_and_then_another(published: Published) -> None:
    for index in range(ACCOUNTS):
        published.crm.edit(index, {"stratum_tier": "S"})
    drawn = [[each.record_id for each in read(published, sample=6).drift] for _ in range(2)]
    assert len(drawn[0]) == 6
    assert drawn[0] == drawn[1]
    sync(published)
    assert [each.record_id for each in read(published, sample=6).drift] != drawn[0]
    assert read(published, {"reconcile": {"sample": 5}}).records_read == 5
    assert read(published, {"reconcile": {"sample": 5}}, everything=True).records_read == ACCOUNTS


def test_a_record_that_is_gone_is_forgotten_and_told_anew_when_it_is_back(published: Published) -> None:
    gone = published.crm.record_id(7)
    store = published.crm.store  # type: ignore[attr-defined]
    store.archive(gone, datetime(2026, 7, 1, tzinfo=UTC))
    found = read(published)
    assert (found.equal, found.gone) == (ACCOUNTS - 1, 1)
    assert {(each.field, each.confirmed, each.done) for each in found.drift} == {
        ("stratum_tier", "A", "gone"),
        ("stratum_revenue", "1", "gone"),
    }
    assert published.warehouse.rows("select record_id from sync.ledger where gone_at is not null") == [
        (gone,)
    ]
    assert read(published).records_read == ACCOUNTS - 1
    store.restore(gone)
    published.crm.edit(7, {"stratum_tier": "", "stratum_revenue": ""})
    assert sync(published).sent == 1
    assert published.differing() == {}
    assert published.warehouse.value("select count(*) from sync.ledger where gone_at is not null") == 0


def published_at():
    from datetime import UTC, datetime

    return datetime(2026, 7, 1, tzinfo=UTC)


def test_a_crm_without_any_of_the_records_is_another_one_and_forgets_nothing(published: Published) -> None:
    class Empty(Dropping):
        def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
            return {}

    with pytest.raises(StratumError, match=f"has none of the {ACCOUNTS} records"), books() as ledger:
        reconcile_ledger(ledger, mapping_of(published.sources, "crm"), Empty(published), None)
    assert published.warehouse.value("select count(*) from sync.reconciliations") == 0
    assert read(published).equal == ACCOUNTS


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
    """The locked ledger of the target."""

    def __enter__(self) -> Ledger:
        self.opened = connect("syncer")
        connection = self.opened.__enter__()
        connection.autocommit = True
        ledger = Ledger(connection, TARGET)
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
    assert (first.drifted, first.healed, first.not_kept) == (ACCOUNTS, ACCOUNTS, [])
    assert {each.field for each in first.drift} == {"stratum_tier"}
    assert sync(published).sent == ACCOUNTS
    again = drop()
    assert (again.drifted, again.healed, again.not_kept) == (ACCOUNTS, 0, ["stratum_tier"])
    assert sync(published).sent == 0
    assert drop(heal=True).healed == ACCOUNTS


def test_a_record_without_an_answer_is_left_to_the_next_sync(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.accounts[2]["tier"] = "S"
    published.write()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "confirm", cut)
        with pytest.raises(RuntimeError, match="power cut"):
            sync(published)
    found = read(published)
    assert (found.records_read, found.equal, found.unresolved) == (ACCOUNTS - 1, ACCOUNTS - 1, 1)
    assert sync(published).failed == 0
    assert read(published).equal == ACCOUNTS


def cut(*_: object, **__: object) -> None:
    raise RuntimeError("power cut")


def test_what_cannot_be_read_is_said_and_nothing_is_written(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.crm.fault(unavailable=100)
    with pytest.raises(TransientError, match="does not tell what it holds"):
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


# Backup, restore, rebuild ----------------------------------------------------------------------------------------


def state(published: Published) -> tuple[list[tuple], list[tuple]]:
    ledger = (
        "select record_id, account_id, confirmed, confirmed_at, proof, gone_at from sync.ledger order by 1"
    )
    failures = "select record_id, account_id, tries, reason, payload, dead_at from sync.failures order by 1"
    return published.warehouse.rows(ledger), published.warehouse.rows(failures)


def lose(published: Published) -> None:
    published.warehouse.rows("delete from sync.ledger; delete from sync.failures; delete from sync.switches")


@pytest.fixture
def saved(published: Published, tmp_path: Path) -> Path:
    """A backup of books with a dead letter, an umlaut of every kind, and a target that is switched off."""
    published.accounts[0] |= {"next_action": "续约谈判 🤝\nmañana", "tier": "S"}
    published.accounts[1]["tier"] = "B"
    published.write()
    published.crm.refuse([1])
    sync_crm(published.sources, AS_OF, "crm", max_tries=1, sleep=lambda _: None)
    published.crm.calm()
    published.warehouse.rows(
        "insert into sync.switches (target, switched_by, reason) values (%s, 'anna', 'wrong tiers')", TARGET
    )
    file = tmp_path / "books.jsonl.gz"
    done = backup(published.sources, "crm", file)
    assert (done.ledger, done.failures, done.dead_letters, done.is_off) == (ACCOUNTS, 1, 1, True)
    return file


def test_what_a_backup_holds_is_restored_and_restoring_twice_changes_nothing(
    published: Published, saved: Path
) -> None:
    before = state(published)
    lose(published)
    done = restore(published.sources, "crm", saved)
    assert (done.ledger, done.failures, done.dead_letters, done.is_off) == (ACCOUNTS, 1, 1, True)
    assert state(published) == before
    assert restore(published.sources, "crm", saved) == done
    assert state(published) == before
    published.warehouse.rows("delete from sync.switches")
    result = sync(published)
    assert (result.sent, result.reasons) == (0, {"dead_letter": 1})


def test_equal_books_make_equal_files_with_nothing_secret(published: Published, saved: Path) -> None:
    again = saved.with_name("again.gz")
    backup(published.sources, "crm", again)
    assert again.read_bytes() == saved.read_bytes()
    lines = gzip.decompress(saved.read_bytes()).decode().splitlines()
    assert json.loads(lines[0]).keys() == {"format", "version", "target", "newest"}
    assert len(lines) == 1 + ACCOUNTS + 1 + 1 + 1
    assert "sandbox-test-token" not in "\n".join(lines)
    assert list(saved.parent.glob(".*")) == []


def edited(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda whole: gzip.compress(b"".join(change(gzip.decompress(whole).splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: whole[: len(whole) // 2], "not a whole backup"),
        (lambda whole: b"", "not a whole backup"),
        (lambda whole: b"no gzip at all", "not a whole backup"),
        (edited(lambda lines: lines[:-1]), "its last line is missing"),
        (edited(lambda lines: [lines[0], *lines[2:]]), "its checksum is another one"),
        (
            edited(lambda lines: [each.replace(b'"S"', b'"A"') for each in lines]),
            "its checksum is another one",
        ),
        (
            edited(lambda lines: [each.replace(b'"tries": 1', b'"tries": -1') for each in lines]),
            "not a whole",
        ),
        (edited(lambda lines: [lines[0].replace(b'"version": 1', b'"version": 9'), *lines[1:]]), "version 9"),
        (edited(lambda lines: [lines[0].replace(TARGET.encode(), b"x:y"), *lines[1:]]), "is a backup of x:y"),
        (edited(lambda lines: lines[1:]), "its first line is not that of a backup"),
    ],
)
def test_a_file_that_is_not_whole_restores_nothing(
    published: Published, saved: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    before = state(published)
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(StratumError, match=words) as refused:
        restore(published.sources, "crm", saved)
    assert "\n" not in str(refused.value)
    assert state(published) == before


def test_a_newer_ledger_is_not_lost_to_an_older_backup(published: Published, saved: Path) -> None:
    before = state(published)
    published.warehouse.rows("delete from sync.switches")
    published.accounts[5]["tier"] = "S"
    published.write()
    assert sync(published).sent == 1
    with pytest.raises(StratumError, match=r"was changed at .* after what is in"):
        restore(published.sources, "crm", saved)
    restore(published.sources, "crm", saved, force=True)
    assert state(published) == before


def test_what_has_no_answer_yet_is_not_in_a_backup(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.accounts[2]["tier"] = "S"
    published.write()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "confirm", cut)
        with pytest.raises(RuntimeError, match="power cut"):
            sync(published)
    file = tmp_path / "books.gz"
    backup(published.sources, "crm", file)
    published.warehouse.rows("delete from sync.attempts where status = 'open'")
    lose(published)
    restore(published.sources, "crm", file)
    published.accounts[2]["tier"] = "A"
    published.write()
    assert sync(published).sent == 1
    assert published.differing() == {}


def test_a_file_that_is_not_there_or_cannot_be_written_is_said(published: Published, tmp_path: Path) -> None:
    with pytest.raises(StratumError, match="There is no file"):
        restore(published.sources, "crm", tmp_path / "none.gz")
    with pytest.raises(StratumError, match="cannot be written: No such file or directory"):
        backup(published.sources, "crm", tmp_path / "nowhere" / "books.gz")


def test_a_lost_ledger_is_rebuilt_without_a_single_write(published: Published) -> None:
    published.crm.edit(2, {"stratum_revenue": "1.00"})  # as the CRM writes it
    told = dict(published.warehouse.rows("select record_id, confirmed from sync.ledger"))
    lose(published)
    writes = len(published.crm.applied())
    done = rebuild(published.sources, "crm", sleep=lambda _: None)
    assert (done.known, done.equal, done.differing, done.gone) == (ACCOUNTS, ACCOUNTS, 0, 0)
    assert dict(published.warehouse.rows("select record_id, confirmed from sync.ledger")) == told
    assert published.warehouse.rows("select distinct proof, sync_id from sync.ledger") == [
        ("read_back", None)
    ]
    result = sync(published)
    assert (result.sent, result.unchanged, result.calls) == (0, ACCOUNTS, 0)
    assert len(published.crm.applied()) == writes


def test_after_a_rebuild_exactly_what_differs_is_sent(published: Published) -> None:
    lose(published)
    published.accounts[1]["tier"] = "S"
    published.accounts[2]["next_action"] = "call"
    published.accounts[3]["net_revenue_365d"] = None
    published.write()
    published.crm.edit(4, {"stratum_tier": "gold"})
    writes = len(published.crm.applied())
    done = rebuild(published.sources, "crm", sleep=lambda _: None)
    assert (done.equal, done.differing) == (ACCOUNTS - 3, 3)
    assert sync(published).sent == 3
    assert [each.values for each in published.crm.applied()[writes:]] == [
        {"stratum_tier": "S"},
        {"stratum_next_action": "call"},
        {"stratum_tier": "A"},
    ]
    assert published.differing() == {}


def test_a_rebuild_takes_nobody_elses_value_for_ours(published: Published) -> None:
    lose(published)
    published.crm.edit(4, {"stratum_tier": "gold"})
    fields = FIELDS | {"stratum_tier": {"column": "tier", "overwrite": "if_ours"}}
    rebuild(published.with_rules(fields=fields), "crm", sleep=lambda _: None)
    confirmed = published.warehouse.value(
        "select confirmed from sync.ledger where record_id = %s", published.crm.record_id(4)
    )
    assert confirmed == {"stratum_revenue": "1"}


def test_a_ledger_that_is_there_is_not_rebuilt_and_a_broken_rebuild_leaves_none(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StratumError, match=f"has a ledger of {ACCOUNTS} records"):
        rebuild(published.sources, "crm")
    lose(published)
    monkeypatch.setattr("include.sync.books.READ_AT_ONCE", 10)
    calls = iter(range(100))

    def tiring(self: object, record_ids: list[str], fields: list[str]) -> dict:
        if next(calls) == 1:
            raise RuntimeError("power cut")
        return {each: {"stratum_tier": "A"} for each in record_ids}

    with monkeypatch.context() as patch:
        patch.setattr("include.sync.targets.hubspot.HubSpotTarget.read", tiring)
        with pytest.raises(RuntimeError, match="power cut"):
            rebuild(published.sources, "crm", sleep=lambda _: None)
    assert published.warehouse.value("select count(*) from sync.ledger") == 0
    assert rebuild(published.sources, "crm", sleep=lambda _: None).equal == ACCOUNTS


def test_a_replayed_dead_letter_of_a_backup_is_sent(published: Published, saved: Path) -> None:
    lose(published)
    restore(published.sources, "crm", saved)
    published.warehouse.rows("delete from sync.switches")
    assert replay_dead_letters(published.sources, "crm") == 1
    assert sync(published).sent == 1
    assert published.differing() == {}


def test_a_lost_write_is_not_taken_for_done_where_texts_look_like_one_number(published: Published) -> None:
    published.accounts[2]["next_action"] = "007"
    published.write()
    sync(published)
    published.accounts[2]["next_action"] = "7"
    published.write()
    published.crm.fault(drop_before=1)
    assert sync(published).sent == 1
    assert published.crm.held()[published.crm.record_id(2)]["stratum_next_action"] == "7"
