"""The ledger saved, restored, and rebuilt from what the CRM holds, against the sandbox's HTTP server."""

import gzip
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.errors import StratumError
from include.sync.books import backup, rebuild, restore
from include.sync.ledger import Ledger
from include.sync.run import replay_dead_letters, sync_crm
from tests.integration.sync_proof import FIELDS, TOLD, Published
from tests.integration.sync_stage import AS_OF, TARGET, crash_in


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
    assert (done.ledger, done.failures, done.dead_letters, done.is_off) == (TOLD, 1, 1, True)
    return file


def test_what_a_backup_holds_is_restored_and_restoring_twice_changes_nothing(
    published: Published, saved: Path
) -> None:
    before = state(published)
    lose(published)
    done = restore(published.sources, "crm", saved)
    assert (done.ledger, done.failures, done.dead_letters, done.is_off) == (TOLD, 1, 1, True)
    assert state(published) == before
    assert restore(published.sources, "crm", saved) == done
    assert state(published) == before
    published.warehouse.rows("delete from sync.switches")
    result = published.sync()
    assert (result.sent, result.reasons) == (0, {"dead_letter": 1})


def test_equal_books_make_equal_files_with_nothing_secret(published: Published, saved: Path) -> None:
    again = saved.with_name("again.gz")
    backup(published.sources, "crm", again)
    assert again.read_bytes() == saved.read_bytes()
    lines = gzip.decompress(saved.read_bytes()).decode().splitlines()
    assert json.loads(lines[0]).keys() == {"format", "version", "target", "newest"}
    assert len(lines) == 1 + TOLD + 1 + 1 + 1
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
    assert published.sync().sent == 1
    with pytest.raises(StratumError, match=r"was changed at .* after what is in"):
        restore(published.sources, "crm", saved)
    torn = saved.with_name("torn.gz")
    torn.write_bytes(saved.read_bytes()[:-20])
    with pytest.raises(StratumError, match="not a whole backup"):  # nobody is told to force a damaged file
        restore(published.sources, "crm", torn)
    restore(published.sources, "crm", saved, force=True)
    assert state(published) == before


def test_what_has_no_answer_yet_is_not_in_a_backup(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.accounts[2]["tier"] = "S"
    published.write()
    with crash_in(monkeypatch, Ledger, "confirm"):
        published.sync()
    file = tmp_path / "books.gz"
    backup(published.sources, "crm", file)
    published.warehouse.rows("delete from sync.attempts where status = 'open'")
    lose(published)
    restore(published.sources, "crm", file)
    published.accounts[2]["tier"] = "A"
    published.write()
    assert published.sync().sent == 1
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
    assert (done.known, done.equal, done.differing, done.gone) == (TOLD, TOLD, 0, 0)
    assert dict(published.warehouse.rows("select record_id, confirmed from sync.ledger")) == told
    assert published.warehouse.rows("select distinct proof, sync_id from sync.ledger") == [
        ("read_back", None)
    ]
    result = published.sync()
    assert (result.sent, result.unchanged, result.calls) == (0, TOLD, 0)
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
    assert (done.equal, done.differing) == (TOLD - 3, 3)
    assert published.sync().sent == 3
    assert [each.values for each in published.crm.applied()[writes:]] == [
        {"stratum_tier": "S"},
        {"stratum_next_action": "call"},
        {"stratum_tier": "A"},
    ]
    assert published.differing() == {}


def test_what_was_told_before_the_consent_was_withdrawn_is_cleared_after_a_rebuild(
    published: Published,
) -> None:
    """Consent is a column of what is published; only a value that is the published one is surely ours."""
    rules = {"consent": "has_consent", "removal": "clear"}
    published.warehouse.rows(
        "alter table published.customer_360 add has_consent boolean generated always as (tier <> 'C') stored"
    )
    try:
        published.accounts[3]["tier"] = "C"
        published.write()
        assert published.sync().sent == 1
        lose(published)
        published.crm.edit(3, {"stratum_revenue": "77"})
        done = rebuild(published.with_rules(**rules), "crm", sleep=lambda _: None)
        assert (done.known, done.differing, done.not_read) == (TOLD, 1, {})
        assert sync_crm(published.with_rules(**rules), AS_OF, "crm", sleep=lambda _: None).sent == 1
        held = published.crm.held()[published.crm.record_id(3)]
        assert (held["stratum_tier"], held["stratum_revenue"]) == (None, "77")
    finally:
        published.warehouse.rows("alter table published.customer_360 drop has_consent")


def test_a_rebuild_says_which_accounts_it_could_not_read(published: Published) -> None:
    lose(published)
    published.warehouse.rows("update published.customer_360 set account_id = null where account_id = 'A0001'")
    done = rebuild(published.sources, "crm", sleep=lambda _: None)
    assert (done.known, done.not_read) == (TOLD - 1, {"key_is_null": 1})


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
    with pytest.raises(StratumError, match=f"has a ledger of {TOLD} records"):
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
    assert rebuild(published.sources, "crm", sleep=lambda _: None).equal == TOLD


def test_a_replayed_dead_letter_of_a_backup_is_sent(published: Published, saved: Path) -> None:
    lose(published)
    restore(published.sources, "crm", saved)
    published.warehouse.rows("delete from sync.switches")
    assert replay_dead_letters(published.sources, "crm") == 1
    assert published.sync().sent == 1
    assert published.differing() == {}


def test_the_commands_say_what_was_found_and_done(
    published: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("include.commands.sync_books.warehouse", lambda tell: nullcontext())
    monkeypatch.setattr(
        "include.commands.sync_books.read_sources", lambda *_, **__: (tmp_path, published.sources)
    )

    def stratum(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["sync", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    published.crm.edit(3, {"stratum_tier": "S"})
    said = stratum("reconcile", "--all")
    assert f"A0003  record {published.crm.record_id(3)}  stratum_tier: told A, holds S" in said
    assert f"{TOLD} records read = {TOLD - 1} equal + 1 drifted + 0 gone, by the policy report" in said
    assert "stratum_tier: 1 reported" in said
    published.crm.edit(5, {"stratum_tier": "S"})
    newest = "select max(reconciliation_id) from sync.reconciliations"
    said = stratum("reconcile", "--limit", "1")
    assert (
        f"... and 1 more, in sync.drift under reconciliation_id {published.warehouse.value(newest)}" in said
    )
    assert "stratum_tier: 2 reported" in said
    assert "A0005" not in said
    assert "The next sync tells 2 records again." in stratum("reconcile", "--heal")
    assert json.loads(stratum("reconcile", "crm", "--sample", "3", "--json"))["records_read"] == 3
    with pytest.raises(StratumError, match="not both"):
        stratum("reconcile", "--sample", "3", "--all")
    published.sync()
    file = str(tmp_path / "books.gz")
    assert f"{TOLD} records of {TARGET}, 0 failures (0 dead letters)" in stratum("backup", "--file", file)
    lose(published)
    assert f"{TOLD} records and 0 failures restored" in stratum("restore", "--file", file)
    lose(published)
    assert f"{TOLD} records known = {TOLD} hold what is published + 0 differ" in stratum("rebuild")
