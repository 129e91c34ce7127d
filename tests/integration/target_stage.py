"""A published set and one target of each kind, for tests of what the target is told: a few rows, in batches of three."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.sources.config import Sources
from include.sync.run import SyncResult, replay_dead_letters, set_up_target, sync_crm
from include.sync.targets import hubspot, salesforce, webhook
from tests.conftest import Warehouse
from tests.integration import salesforce_fixture, sandbox_fixture, webhook_fixture
from tests.integration.salesforce_fixture import JANUARY

AS_OF = date(2026, 6, 30)
ROWS, BATCH, JOB = 7, 3, 4
SHORT_S = 1.0
"""How long an impatient client waits for an answer."""
MARKS = count(1)
"""Each test tells values of its own: what an earlier one left cannot be taken for what this one sent."""
KINDS = ("hubspot", "collections", "bulk", "webhook")


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


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


class Stage:
    """A published set of seven accounts and a sync of it to one system."""

    def __init__(self, warehouse: Warehouse, place: Place, time: Time) -> None:
        self.warehouse, self.place, self.time = warehouse, place, time
        self.time.slept.clear()
        self.mark = next(MARKS)
        self.records = place.records()
        self.accounts = [f"A{self.mark}-{n}" for n in range(len(self.records))]
        if place.system == "webhook":
            self.records = self.accounts
        mapping = {
            "system": place.system,
            "fields": {
                place.fields[name]: column for name, column in (("tier", "tier"), ("revenue", "revenue"))
            },
            "brakes": {"first_sync": False, "max_shrink": None, "max_tier_changes": None},
        }
        self.sources = Sources.model_validate(
            {"company": {"name": "Test", "timezone": "UTC", "currency": "CNY"}, "sync": {"crm": mapping}}
        )
        place.mend()
        self.forget()
        self.publish([(f"T{self.mark}", f"{self.mark}.5")] * len(self.records))

    def forget(self) -> None:
        """Empty the books."""
        tables = self.warehouse.rows("select tablename from pg_tables where schemaname = 'sync'")
        names = ", ".join(f"sync.{name}" for (name,) in tables)
        self.warehouse.rows(f"truncate {names} restart identity cascade")

    def publish(self, values: list[tuple[str | None, str | None]]) -> None:
        """Publish tier and revenue of each account."""
        with psycopg.connect(self.warehouse.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute("truncate published.customer_360")
            cursor.executemany(
                "insert into published.customer_360 (account_id, crm_record_id, crm_system, tier, revenue) "
                "values (%s, %s, %s, %s, %s)",
                [
                    (account, record, self.place.system, *told)
                    for account, record, told in zip(self.accounts, self.records, values, strict=True)
                ],
            )

    def sync(self, **options: Any) -> SyncResult:
        """Sync, and check that the books add up."""
        result = sync_crm(
            self.sources, AS_OF, "crm", clock=lambda: self.time.now, sleep=self.time.sleep, **options
        )
        assert result.queried == len(self.records)
        assert result.queried == result.sent + result.unchanged + result.failed + result.held
        outcomes = self.warehouse.rows(
            "select outcome, count(*) from sync.outcomes where sync_id = %s group by 1", result.sync_id
        )
        counted = {"failed": result.failed, "held": result.held}
        assert dict(outcomes) == {name: rows for name, rows in counted.items() if rows}
        return result

    def replay(self) -> int:
        return replay_dead_letters(self.sources, "crm")

    def dead(self) -> int:
        return int(str(self.warehouse.value("select count(*) from sync.dead_letters")))

    def open_attempts(self) -> int:
        return int(str(self.warehouse.value("select count(*) from sync.attempts where status = 'open'")))

    def told(self) -> dict[str, list[str]]:
        """Return record → the tiers that writes applied to it, oldest first, by the system's own log."""
        tier = self.place.fields["tier"]
        return {each: [str(values.get(tier)) for values in self.place.written(each)] for each in self.records}

    def confirmed(self) -> dict[str, dict[str, str]]:
        return dict(self.warehouse.rows("select record_id, confirmed from sync.ledger"))


def prepare(warehouse: Warehouse) -> None:
    """Publish an empty set."""
    warehouse.rows("""
        create table published.customer_360 (
            account_id text, crm_record_id text, crm_system text, tier text, revenue numeric(18, 4),
            met_on date, seen_at timestamptz
        );
        grant usage on schema published to stratum_syncer;
        grant select on published.customer_360 to stratum_syncer;
        insert into published.current_run (run_id, as_of_date, published_at) values ('run-1', '2026-06-30', now())
    """)


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
