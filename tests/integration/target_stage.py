"""A published set and one target of each kind, for tests of what the target is told: a few rows, in batches of three."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from include.sync.run import replay_dead_letters, set_up_target
from include.sync.targets import hubspot, salesforce, webhook
from tests.conftest import Warehouse
from tests.integration import salesforce_fixture, sandbox_fixture, webhook_fixture
from tests.integration.salesforce_fixture import JANUARY
from tests.integration.sync_stage import NO_BRAKES, TargetStage, Time

ROWS, BATCH, JOB = 7, 3, 4
SHORT_S = 1.0
"""How long an impatient client waits for an answer."""
MARKS = count(1)
"""Each test tells values of its own: what an earlier one left cannot be taken for what this one sent."""
KINDS = ("hubspot", "collections", "bulk", "webhook")


@dataclass
class Place:
    """A running system of one kind, and how a test reaches its records, its faults and its own log of writes."""

    kind: str
    system: str
    fields: dict[str, str]
    """tier and revenue → what the system calls them."""
    records: Callable[[], list[str]]
    """Make, or name, the records of a test."""
    faults: Callable[..., None]
    left: Callable[[str], int]
    """What is left of a fault: those that strike so many times count down."""
    mend: Callable[[], None]
    written: Callable[[str], list[dict[str, Any]]]
    """A record's applied writes, oldest first, as field → value."""
    reach: Callable[[pytest.MonkeyPatch], None]
    running: Any


class Stage(TargetStage):
    """A published set of seven accounts and a sync of it to one system."""

    def __init__(self, warehouse: Warehouse, place: Place, time: Time) -> None:
        fields = {place.fields[name]: name for name in ("tier", "revenue")}
        super().__init__(warehouse, time, system=place.system, fields=fields, brakes=NO_BRAKES)
        self.time.slept.clear()
        self.place = place
        self.mark = next(MARKS)
        self.records = place.records()
        self.accounts = [f"A{self.mark}-{n}" for n in range(len(self.records))]
        if place.system == "webhook":
            self.records = self.accounts
        place.mend()
        self.forget()
        self.publish(
            *(
                {
                    "account_id": account,
                    "crm_record_id": record,
                    "crm_system": place.system,
                    "tier": f"T{self.mark}",
                    "revenue": f"{self.mark}.5",
                }
                for account, record in zip(self.accounts, self.records, strict=True)
            )
        )

    def replay(self) -> int:
        return replay_dead_letters(self.sources, "crm")

    def dead(self) -> int:
        return int(str(self.warehouse.value("select count(*) from sync.dead_letters")))

    def told(self) -> dict[str, list[str]]:
        """Return record → the tiers that writes applied to it, oldest first, by the system's own log."""
        tier = self.place.fields["tier"]
        return {each: [str(values.get(tier)) for values in self.place.written(each)] for each in self.records}


@dataclass
class Places:
    """The systems that were started so far, by kind."""

    folder: Path
    time: Time
    stack: ExitStack
    started: dict[str, Place] = field(default_factory=dict)

    def of(self, kind: str) -> Place:
        """Return a running system; collections and bulk share one org."""
        if kind not in self.started:
            if kind == "hubspot":
                self.started[kind] = _hubspot(self.stack, self.folder)
            elif kind == "webhook":
                self.started[kind] = _webhook(self.stack, self.time)
            else:
                self.started |= _salesforce(self.stack, self.folder)
        return self.started[kind]


@contextmanager
def places(folder: Path) -> Iterator[Places]:
    """Start systems as they are asked for, and stop them all at the end."""
    with ExitStack() as stack:
        yield Places(folder, Time(), stack)


def small_batches(patch: pytest.MonkeyPatch, kind: str) -> None:
    """Let seven rows be several batches, or several jobs."""
    patch.setattr(hubspot, "BATCH_SIZE", BATCH)
    patch.setattr(webhook, "BATCH_SIZE", BATCH)
    patch.setattr(salesforce, "JOB_ROWS", JOB)
    patch.setattr(salesforce, "COLLECTION_ROWS", 1 if kind == "bulk" else BATCH)
    patch.setattr(salesforce, "BULK_FROM", 2 if kind == "bulk" else 2_000)


def _hubspot(stack: ExitStack, folder: Path) -> Place:
    accounts = [sandbox_fixture.account(n) for n in range(ROWS)]
    crm = stack.enter_context(
        sandbox_fixture.running_sandbox(folder / "hubspot.sqlite", accounts, burst_calls=100_000)
    )
    records = [sandbox_fixture.record_id(n) for n in range(ROWS)]

    def mend() -> None:
        crm.sandbox.faults = type(crm.sandbox.faults)()

    def fresh() -> list[str]:
        crm.sandbox.store.db.execute("delete from writes")
        crm.sandbox.store.db.commit()
        return records

    return Place(
        "hubspot",
        "hubspot",
        {"tier": "stratum_tier", "revenue": "stratum_revenue"},
        fresh,
        crm.fault,
        lambda fault: getattr(crm.sandbox.faults, fault),
        mend,
        lambda record: [each["values"] for each in crm.sandbox.store.written(record)],
        lambda patch: sandbox_fixture.reach(patch, crm),
        crm,
    )


def _salesforce(stack: ExitStack, folder: Path) -> dict[str, Place]:
    crm = stack.enter_context(salesforce_fixture.running_salesforce(folder / "salesforce.sqlite"))

    def mend() -> None:
        crm.sandbox.faults = type(crm.sandbox.faults)()

    def written(record: str) -> list[dict[str, Any]]:
        return [each["values"] for each in crm.org.written(record) if each["error"] is None]

    fields = {"tier": "Stratum_Tier__c", "revenue": "Stratum_Revenue__c"}
    return {
        kind: Place(
            kind,
            "salesforce",
            fields,
            lambda: [crm.org.insert("Account", JANUARY, Name=f"Account {n}") for n in range(ROWS)],
            crm.fault,
            lambda fault: getattr(crm.sandbox.faults, fault),
            mend,
            written,
            lambda patch: salesforce_fixture.reach(patch, crm),
            crm,
        )
        for kind in ("collections", "bulk")
    }


def _webhook(stack: ExitStack, time: Time) -> Place:
    receiver = stack.enter_context(webhook_fixture.running_receiver(lambda: time.now))

    def mend() -> None:
        receiver.faults = type(receiver.faults)()
        receiver.answers_with_results = True

    return Place(
        "webhook",
        "webhook",
        {"tier": "tier", "revenue": "revenue"},
        lambda: [""] * ROWS,
        receiver.fault,
        lambda fault: getattr(receiver.faults, fault),
        mend,
        receiver.written,
        lambda patch: webhook_fixture.reach(patch, receiver),
        receiver,
    )


def make_fields(stage: Stage) -> None:
    """Make the fields a system lacks, as `stratum sync setup` does."""
    set_up_target(stage.sources, "crm")
