"""The sync's process is killed between every two steps and at random moments, with a CRM that fails: nothing is lost.

Each write of each row is counted in the CRM's own log. The histogram of where it was killed is printed (make test-slow).
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from include.settings import PROJECT_DIR
from include.sync.run import replay_dead_letters, set_up_target
from include.warehouse.embedded import Cluster
from tests.integration.sync_child import points
from tests.integration.sync_crms import CRMS, WebhookCrm
from tests.integration.sync_making_crms import MAKING, Making
from tests.integration.sync_proof import (
    Published,
    assert_books_add_up,
    assert_each_write_counted,
    assert_one_record_each,
    assert_sent_again_without_an_answer_alone,
    change_some,
    proving_ground,
)
from tests.integration.sync_stage import AS_OF

ACCOUNTS = 30
BATCH = 8  # four batches, where all accounts changed
ONCE = {"open_run", "resolve", "make_plan", "adopt_found", "find", "note_found", "note_plan", "close_run"}
"""Steps that a sync does once."""
OF_LOST = {"settle", "close", "abort_job"}
"""Steps that a lost call leads to."""
OF_FAULTS = OF_LOST | {"refuse", "forgotten"}
"""Steps that only a fault leads to."""
IMPATIENT = {
    "include.sync.hubspot_api.TIMEOUT_S": (5.0, 1.0),
    "include.sources.salesforce_api.TIMEOUT_S": (5.0, 1.0),
    "include.sync.targets.webhook.TIMEOUT": (5.0, 1.0, 5.0, 5.0),
}
"""To connect, and to answer, then to write and to get a connection: what never comes is given up soon."""
KILLED = -signal.SIGKILL


class Syncs:
    """Starts syncs in processes of their own."""

    def __init__(self, published: Published, folder: Path) -> None:
        self.published = published
        self.faults: list[dict[str, Any]] = []
        """Those that were not put in yet, in this round of all."""
        self.struck: Counter[str] = Counter()
        """How often each fault struck that strikes so many times."""
        self._given: dict[str, Any] = {}
        self.marks = folder / "marks"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.sync_child"],
            cwd=PROJECT_DIR,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        point: str | None = None,
        nth: int = 1,
        kill_after_s: float | None = None,
        is_patient: bool = False,
    ) -> int:
        """Do a sync that is killed when it comes to a step for the nth time, or after so long; return its exit status.

        The status of an error that is none of ours is a failed test.
        """
        crm = self.published.crm
        order = {
            "sources": self.published.sources.model_dump(mode="json", exclude_unset=True),
            "as_of": AS_OF.isoformat(),
            "calls": crm.calls,
            "settings": crm.short_batches(BATCH) | ({} if is_patient else IMPATIENT),
            "marks": str(self.marks),
            "point": point,
            "nth": nth,
            "kill_after_s": kill_after_s,
        }
        self.marks.unlink(missing_ok=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        self.struck.update(
            name
            for name, times in self._given.items()
            if isinstance(times, int) and crm.left(name) < times  # of any other kind are those that stay
        )
        assert status in (0, 3, KILLED), f"the sync broke with status {status}: see its words above"
        return status

    def spoil(self, chance: random.Random) -> None:
        """Let the CRM fail in one way; each way comes once in a round."""
        if not self.faults:
            self.faults = self.published.crm.faults()
            chance.shuffle(self.faults)
        self._given = self.faults.pop()
        self.published.crm.fault(**self._given)

    def calm(self) -> None:
        """Let the CRM be well."""
        self._given = {}
        self.published.crm.calm()

    def last_step(self) -> str:
        """Return the last step the sync came by."""
        steps = self.marks.read_text().split() if self.marks.exists() else []
        return steps[-1] if steps else "start"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@contextmanager
def syncing(published: Published, folder: Path) -> Iterator[Syncs]:
    syncs = Syncs(published, folder)
    try:
        yield syncs
    finally:
        syncs.close()


@pytest.fixture(scope="module", params=[*CRMS, *MAKING])
def ground(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    bare_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("crm")
    with proving_ground(request.param, cluster, bare_template, folder, ACCOUNTS) as published:
        if (
            request.param in MAKING
        ):  # so that a record which a person makes can bear a key before the first sync
            set_up_target(published.sources, "crm")
        yield published


@pytest.fixture
def published(ground: Published) -> Published:
    ground.reset()
    return ground


def prepare(point: str | None, syncs: Syncs, chance: random.Random) -> None:
    """Publish other values, and let the CRM fail in a way that leads to the step."""
    published, crm = syncs.published, syncs.published.crm
    syncs.calm()
    replay_dead_letters(published.sources, "crm")
    step = (point or "").partition(".")[0]
    if step in OF_LOST and isinstance(crm, WebhookCrm):
        syncs.run()  # what is open is posted again: that would be lost, and nothing newer be sent
    share = 1.0 if step in OF_FAULTS else chance.choice([0.1, 0.5, 0.9])
    if isinstance(crm, Making):
        crm.turn_over(chance, ACCOUNTS, by_hand=step == "note_found" or chance.random() < 0.2)
        share = chance.choice(
            [0.0, share]
        )  # records are told before others are made: often there are none to tell
    change_some(published, chance, share, ACCOUNTS)
    if step in OF_LOST:
        crm.lose(answer_too=chance.random() < 0.5)
    elif step == "forgotten":
        crm.forget()
    elif chance.random() < 0.7:
        syncs.spoil(chance)
    if step == "refuse" or chance.random() < 0.3:
        crm.refuse(chance.sample(range(ACCOUNTS), 6))


def crash_at_points(syncs: Syncs, chance: random.Random, times: int) -> Counter[str]:
    """Kill syncs at each step so many times; return how often each was hit."""
    hits: Counter[str] = Counter()
    every = points(syncs.published.crm.calls)
    for _ in range(times * len(every) * 4):
        wanted = [point for point in every if hits[point] < times]
        if not wanted:
            return hits
        point = chance.choice(wanted)
        prepare(point, syncs, chance)
        once = point.partition(".")[0] in ONCE
        if syncs.run(point, 1 if once else chance.choice([1, 1, 2, 3])) == KILLED:
            assert syncs.last_step() == point
            hits[point] += 1
        assert_books_add_up(syncs.published.warehouse)
    raise AssertionError(f"not hit often enough: {dict(hits)}")


def crash_at_random(syncs: Syncs, chance: random.Random, times: int) -> Counter[str]:
    """Kill syncs so many times whenever it falls; return after which step."""
    hits: Counter[str] = Counter()
    prepare(None, syncs, chance)
    began = time.monotonic()
    syncs.run()
    longest = time.monotonic() - began
    for _ in range(times * 6):
        if hits.total() == times:
            return hits
        prepare(None, syncs, chance)
        if syncs.run(kill_after_s=chance.uniform(0, longest)) == KILLED:
            hits[syncs.last_step()] += 1
        assert_books_add_up(syncs.published.warehouse)
    raise AssertionError(f"killed only {hits.total()} times at random")


def settle_down(syncs: Syncs) -> None:
    """Let the CRM be well, replay what was given up, and sync till nothing is left to tell."""
    syncs.calm()
    replay_dead_letters(syncs.published.sources, "crm")
    for _ in range(2):
        assert syncs.run(is_patient=True) == 0
    assert_books_add_up(syncs.published.warehouse)


def prove(published: Published, folder: Path, times: int, at_random: int, seed: int) -> Counter[str]:
    """Kill, restart, kill again; then compare the CRM, the books and what is published. Return which faults struck."""
    chance = random.Random(seed)
    with syncing(published, folder) as syncs:
        hits = crash_at_points(syncs, chance, times)
        moments = crash_at_random(syncs, chance, at_random)
        settle_down(syncs)
    warehouse = published.warehouse
    assert published.differing() == {}
    attempts = assert_each_write_counted(warehouse, published.crm)
    runs = dict(warehouse.rows("select status, count(*) from sync.runs group by 1 order by 1"))
    assert "running" not in runs
    newest = warehouse.rows(
        "select queried, sent, unchanged, failed, held, calls from sync.runs order by sync_id desc limit 1"
    )
    assert newest == [(ACCOUNTS, 0, ACCOUNTS, 0, 0, 0)]
    print(f"\n{len(hits)} steps: {hits.total()} kills there, and {moments.total()} at random moments")
    print(f"killed at each step: {json.dumps(hits, sort_keys=True)}")
    print(f"faults that struck: {json.dumps(syncs.struck, sort_keys=True)}")
    print(f"killed at random, after: {json.dumps(moments, sort_keys=True)}")
    print(f"syncs: {runs}; attempts: {attempts}; rows the CRM carried out: {len(published.crm.applied())}")
    if isinstance(published.crm, WebhookCrm):
        again = assert_sent_again_without_an_answer_alone(warehouse, published.crm)
        print(f"rows that came again under their key, for want of an answer: {again}")
    if isinstance(published.crm, Making):
        by_key = warehouse.rows(
            "select status, count(*) from sync.attempts where by_key group by 1 order by 1"
        )
        records = assert_one_record_each(warehouse, published.crm)
        by_hand = len(published.crm.by_hand)
        print(
            f"records: {records}, each account's own, {by_hand} of them made by hand; attempts by key: {dict(by_key)}"
        )
    assert all(hits[point] >= times for point in points(published.crm.calls))
    assert moments.total() == at_random
    return syncs.struck


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_a_kill_at_each_step_loses_nothing_and_doubles_nothing(published: Published, tmp_path: Path) -> None:
    prove(published, tmp_path, times=1, at_random=5, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_hundred_kills_lose_nothing_and_double_nothing(published: Published, tmp_path: Path) -> None:
    struck = prove(published, tmp_path, times=10, at_random=50, seed=2)
    assert {"hang_before", "hang_after"} <= struck.keys()
    assert struck.keys() & {"expires_after", "expire_session", "forgets_secret"}
