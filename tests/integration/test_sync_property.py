"""Any sequence of changes, edits, faults, crashes and repairs ends with a CRM that holds what is published.

The model is a dict of what is published. Each example is a sequence of steps that Hypothesis draws, and shrinks where one
fails; every step ends with books that add up.
"""

import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include.errors import StratumError
from include.sync.books import backup, rebuild, restore
from include.sync.dry_run import plan_sync
from include.sync.ledger import Ledger
from include.sync.reconcile import reconcile
from include.sync.run import replay_dead_letters, sync_crm
from include.warehouse.embedded import Cluster
from tests.integration.sync_proof import (
    FIELDS,
    Published,
    assert_books_add_up,
    assert_each_write_counted,
    proving_ground,
)
from tests.integration.sync_stage import AS_OF

pytestmark = pytest.mark.extended

ACCOUNTS = 6
BATCH = 2
CRASHES = (
    "open_run",
    "note_plan",
    "attempt",
    "confirm",
    "refuse",
    "settle",
    "_write_deliveries",
    "close_run",
)

# Not among them are 7 and 7.0: a text told as 7 is taken for held where the CRM holds 7.0, whatever the field's type.
TEXTS = st.one_of(
    st.sampled_from(["S", "A", "B", "", "7", "007", " 7 ", "北京某某有限公司", "🤝 Zoë", "x" * 60_000]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
)
NUMBERS = st.one_of(
    st.none(), st.sampled_from([Decimal(0), Decimal("-0.00"), Decimal("120000.00"), Decimal("-3.10")])
) | st.decimals(-(10**15), 10**15, places=2)
ACCOUNT = st.integers(0, ACCOUNTS - 1)
VALUES = st.fixed_dictionaries(
    {}, optional={"tier": st.none() | TEXTS, "next_action": st.none() | TEXTS, "net_revenue_365d": NUMBERS}
)
STEP = st.one_of(
    st.tuples(st.just("publish"), st.dictionaries(ACCOUNT, VALUES, min_size=1)),
    st.tuples(st.just("remove"), ACCOUNT),
    st.tuples(st.just("edit"), st.tuples(ACCOUNT, st.sampled_from(list(FIELDS)[:2]), TEXTS)),
    st.tuples(st.just("fault"), st.integers(0, 99)),
    st.tuples(st.just("refuse"), st.lists(ACCOUNT, max_size=2)),
    st.tuples(st.just("sync"), st.none()),
    st.tuples(st.just("sync"), st.none()),
    st.tuples(st.just("crash"), st.tuples(st.sampled_from(CRASHES), st.integers(1, 3), st.booleans())),
    st.tuples(st.just("crash"), st.tuples(st.sampled_from(CRASHES), st.integers(1, 3), st.booleans())),
    st.tuples(st.just("reconcile"), st.booleans()),
    st.tuples(st.just("replay"), st.none()),
    st.tuples(st.just("restore"), st.none()),
    st.tuples(st.just("rebuild"), st.none()),
)


class PowerCut(Exception):
    """What a crash is here: nobody in the product catches it."""


class Story:
    """Does the steps of one example."""

    def __init__(self, published: Published, folder: Path) -> None:
        self.published = published
        self.crm = published.crm
        self.folder = folder
        self.said: list[str] = []
        self.edited = False
        self.is_rebuilt = False

    def do(self, name: str, given: Any) -> None:
        getattr(self, name)(given)
        if name not in ("publish", "remove", "edit", "fault", "refuse"):
            assert_books_add_up(self.published.warehouse, self.is_rebuilt)

    def publish(self, changes: dict[int, dict[str, Any]]) -> None:
        empty = dict.fromkeys(FIELDS.values())
        for index, values in changes.items():
            self.published.accounts[index] = self.published.accounts.get(index, empty) | values
        self.published.write()

    def remove(self, index: int) -> None:
        self.published.accounts.pop(index, None)
        self.published.write()

    def edit(self, change: tuple[int, str, str]) -> None:
        index, name, value = change
        self.crm.edit(index, {name: value})
        self.edited = True

    def fault(self, which: int) -> None:
        faults = self.crm.faults()
        self.crm.fault(**faults[which % len(faults)])

    def refuse(self, indexes: list[int]) -> None:
        self.crm.refuse(indexes)

    def sync(self, _: None) -> None:
        """Sync; a null is never told, and an error for the user is none of a test's."""
        before = self.crm.held()
        try:
            sync_crm(self.published.sources, AS_OF, "crm", max_tries=2, sleep=lambda _: None)
        except StratumError as error:
            self.said.append(str(error))
        after = self.crm.held()
        for index in range(ACCOUNTS):
            values = self.published.accounts.get(index, {})
            record = self.crm.record_id(index)
            for name, column in FIELDS.items():
                if values.get(column) in (None, ""):
                    assert after[record][name] == before[record][name], f"{record} {name} was not published"

    def crash(self, where: tuple[str, int, bool]) -> None:
        """Break off in the n-th call of a step of the books, before or after it."""
        method, nth, is_after = where
        original = getattr(Ledger, method)
        left = iter(range(nth - 1, -1, -1))

        def crashing(ledger: Ledger, *arguments: Any, **options: Any) -> Any:
            is_now = next(left, None) == 0
            if is_now and not is_after:
                raise PowerCut
            result = original(ledger, *arguments, **options)
            if is_now:
                raise PowerCut
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, method, crashing)
            try:
                self.sync(None)
            except PowerCut:
                self.said.append(f"broken off in {method}")

    def reconcile(self, heal: bool) -> None:
        self.crm.calm()
        found = reconcile(self.published.sources, "crm", heal=heal, sleep=lambda _: None)
        assert found.records_read == found.equal + found.drifted + found.gone
        assert self.edited or found.drift == []

    def replay(self, _: None) -> None:
        replay_dead_letters(self.published.sources, "crm")

    def restore(self, _: None) -> None:
        """Put a backup in the place of a ledger that is lost."""
        self.crm.calm()
        self.sync(None)  # what is open is not in a backup
        file = self.folder / "books.gz"
        saved = backup(self.published.sources, "crm", file)
        self.published.warehouse.rows("delete from sync.failures; delete from sync.ledger")
        assert restore(self.published.sources, "crm", file) == saved

    def rebuild(self, _: None) -> None:
        """Lose all books, with what is open, and make the ledger anew without a write."""
        self.crm.calm()
        before = len(self.crm.applied())
        self.published.forget()
        self.is_rebuilt = True
        done = rebuild(self.published.sources, "crm", sleep=lambda _: None)
        assert done.known == done.equal + done.differing + done.gone
        assert len(self.crm.applied()) == before
        planned = plan_sync(self.published.sources, AS_OF, "crm")
        assert planned.changes == done.differing

    def end(self) -> None:
        """Let the CRM be well, mend what people edited, and sync: all that is published is held."""
        self.crm.calm()
        for _ in range(2):
            replay_dead_letters(self.published.sources, "crm")
            self.sync(None)
            reconcile(self.published.sources, "crm", heal=True, everything=True, sleep=lambda _: None)
        result = sync_crm(self.published.sources, AS_OF, "crm", sleep=lambda _: None)
        assert (result.failed, result.held) == (0, 0)
        assert result.queried == len(self.published.accounts) == result.sent + result.unchanged
        assert sync_crm(self.published.sources, AS_OF, "crm", sleep=lambda _: None).sent == 0
        assert self.published.differing() == {}
        assert_books_add_up(self.published.warehouse, self.is_rebuilt)
        open_ones = "select count(*) from sync.attempts where status = 'open'"
        assert self.published.warehouse.value(open_ones) == 0
        if not self.edited and not self.is_rebuilt:
            assert_each_write_counted(self.published.warehouse, self.crm)


@pytest.fixture(scope="module")
def ground(
    cluster: Cluster, bare_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("crm")
    with (
        proving_ground("hubspot", cluster, bare_template, folder, ACCOUNTS) as published,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, rows in published.crm.short_batches(BATCH).items():
            patch.setattr(name, rows)
        yield published


def tell(ground: Published, folder: Path, steps: list[tuple[str, Any]]) -> None:
    ground.reset()
    ground.write()
    story = Story(ground, folder)
    for name, given_ in steps:
        story.do(name, given_)
    story.end()


def test_a_sequence_of_every_step_ends_equal(ground: Published, tmp_path: Path) -> None:
    """One fixed sequence, so that each step is done in every run of the tests."""
    chance = random.Random(5)
    everyone = {
        each: {"tier": "A", "next_action": "续约 🤝", "net_revenue_365d": each} for each in range(ACCOUNTS)
    }
    steps: list[tuple[str, Any]] = [("publish", everyone), ("sync", None)]
    for method in CRASHES:
        steps += [
            ("publish", {each: {"tier": chance.choice("SAB")} for each in range(ACCOUNTS)}),
            ("fault", chance.randrange(100)),
            ("refuse", [chance.randrange(ACCOUNTS)]),
            ("crash", (method, 1, chance.random() < 0.5)),
        ]
    steps += [("fault", 0), ("refuse", []), ("sync", None), ("replay", None), ("sync", None)]
    steps += [("publish", {2: {"tier": None, "next_action": ""}}), ("sync", None)]
    steps += [("remove", 3), ("edit", (1, "stratum_tier", "gold")), ("reconcile", True), ("restore", None)]
    steps += [("replay", None), ("rebuild", None), ("publish", {3: everyone[3]})]
    tell(ground, tmp_path, steps)


COMMON = {"deadline": None, "database": None, "print_blob": True, "report_multiple_bugs": False}
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(
    max_examples=12,
    derandomize=True,
    suppress_health_check=CHECKS,
    phases=[Phase.generate, Phase.shrink],
    **COMMON,
)
@given(steps=st.lists(STEP, max_size=10))
def test_a_drawn_sequence_ends_equal(
    ground: Published, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    tell(ground, tmp_path_factory.getbasetemp(), steps)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=300, suppress_health_check=CHECKS, **COMMON)
@given(steps=st.lists(STEP, max_size=30))
def test_any_sequence_ends_equal(
    ground: Published, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    tell(ground, tmp_path_factory.getbasetemp(), steps)
