"""What tests of the sync are played on: a published set, a target, the mapping between them, and the books of both."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.sources.config import Sources
from include.sync.dry_run import DryRun, plan_sync
from include.sync.plan import Change, make_plan
from include.sync.run import SyncResult, sync_crm
from include.warehouse.connect import connect
from tests.conftest import Warehouse, empty
from tests.integration.sandbox_fixture import Running, account, reach, record_id, running_sandbox

AS_OF = date(2026, 6, 30)
TARGET = "hubspot:hubspot_default"
COLUMNS = {
    "account_id": "text",
    "crm_record_id": "text",
    "crm_system": "text",
    "account_name": "text",
    "tier": "text",
    "next_action": "text",
    "phone": "varchar(200)",
    "revenue": "numeric(30, 4)",
    "net_revenue_365d": "numeric",
    "score": "float8",
    "churn_probability": "numeric",
    "visits": "integer",
    "since": "date",
    "seen_at": "timestamptz",
    "is_dormant": "boolean",
    "may_be_told": "boolean",
}
"""Of published.customer_360: one of each kind that a field may be told."""
FIELDS = {"stratum_tier": "tier", "stratum_revenue": "revenue"}
NO_BRAKES = dict.fromkeys(
    ("max_shrink", "max_tier_changes", "max_score_moves", "max_removals", "max_removals_count")
) | {"first_sync": False}

BOOKED = """
    select (select count(*) from published.customer_360),
        (select count(*) from sync.outcomes where outcomes.sync_id = runs.sync_id and outcome = 'failed'),
        (select count(*) from sync.outcomes where outcomes.sync_id = runs.sync_id and outcome = 'held'),
        (select count(distinct attempt_id) from sync.deliveries join sync.attempts using (attempt_id)
         where attempts.sync_id = runs.sync_id and deliveries.sync_id = runs.sync_id)
    from sync.runs where sync_id = %s
"""


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def prepare(warehouse: Warehouse) -> None:
    """Publish an empty set."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    warehouse.rows(f"""
        create table if not exists published.customer_360 ({columns});
        grant usage on schema published to stratum_syncer;
        grant select on published.customer_360 to stratum_syncer;
        insert into published.current_run (run_id, as_of_date, published_at) values ('run-0', '{AS_OF}', now())
    """)


class TargetStage:
    """Publishes rows, syncs them to one target by a mapping, and reads the books; `prepare` made the warehouse ready."""

    def __init__(self, warehouse: Warehouse, time: Time, **mapping: Any) -> None:
        self.warehouse, self.time, self.mapping = warehouse, time, mapping
        self.timezone = "UTC"
        self.run = 0

    @property
    def sources(self) -> Sources:
        return self.with_rules()

    def with_rules(self, **rules: Any) -> Sources:
        """Return the sources with other rules of the target."""
        return Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": self.timezone, "currency": "CNY"},
                "sync": {"crm": self.mapping | rules},
            }
        )

    @property
    def run_id(self) -> str:
        """The run that is published."""
        return f"run-{self.run}"

    def configure(self, **changes: Any) -> None:
        """Change the mapping."""
        self.mapping |= changes

    def publish(self, *rows: dict[str, Any]) -> None:
        """Publish a new run in the place of the last: each row as column → value, and null in all other columns."""
        self.run += 1
        assert all(row.keys() <= COLUMNS.keys() for row in rows)
        places = ", ".join(["%s"] * len(COLUMNS))
        with psycopg.connect(self.warehouse.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute("delete from published.customer_360")
            cursor.executemany(
                f"insert into published.customer_360 ({', '.join(COLUMNS)}) values ({places})",
                [[row.get(name) for name in COLUMNS] for row in rows],
            )
            cursor.execute("update published.current_run set run_id = %s", [self.run_id])

    def sync(self, **options: Any) -> SyncResult:
        """Sync without waiting, and see that the books add up."""
        result = sync_crm(self.sources, AS_OF, "crm", clock=self.time, sleep=self.time.sleep, **options)
        self.assert_adds_up(result)
        return result

    def assert_adds_up(self, result: SyncResult) -> None:
        """Each account, and each record that is cleared of one that is gone, has one outcome, and a proof if it was sent."""
        assert result.queried == result.sent + result.unchanged + result.failed + result.held
        ((accounts, failed, held, told),) = self.warehouse.rows(BOOKED, result.sync_id)
        assert result.queried == accounts or (
            self.mapping.get("removal") == "clear" and result.queried > accounts
        )
        assert (failed, held, told) == (result.failed, result.held, result.sent)

    def plan(self, read: bool = False) -> DryRun:
        """Return what a sync would do, with what the target holds if it is to be read."""
        return plan_sync(self.sources, AS_OF, "crm", read)

    def planned(self) -> list[Change]:
        """Return what a sync would send before it reads the target."""
        with connect("syncer") as books:
            books.autocommit = True
            return list(make_plan(books, self.sources.sync["crm"], self.run_id, AS_OF).changes)

    def held(self, result: SyncResult) -> list[tuple]:
        """Account, reason and detail of each row that a sync held."""
        return self.warehouse.rows(
            "select account_id, reason, detail from sync.outcomes where sync_id = %s and outcome = 'held' "
            "order by outcome_id",
            result.sync_id,
        )

    def holds(self) -> list[tuple[int, str, list[str]]]:
        """Number, status and brakes of each hold, the newest first."""
        return [
            (hold_id, status, [reason["brake"] for reason in reasons])
            for hold_id, status, reasons in self.warehouse.rows(
                "select hold_id, status, reasons from sync.holds order by hold_id desc"
            )
        ]

    def confirmed(self) -> dict[str, dict[str, str | None]]:
        """Return the ledger: record → field → what the target confirmed."""
        return dict(self.warehouse.rows("select record_id, confirmed from sync.ledger"))

    def seen(self) -> set[str]:
        """Return the accounts whose rows need no comparing field by field."""
        return {
            each
            for (each,) in self.warehouse.rows("select account_id from sync.ledger where seen is not null")
        }

    def open_attempts(self) -> int:
        return int(str(self.warehouse.value("select count(*) from sync.attempts where status = 'open'")))

    def forget(self) -> None:
        """Empty the books."""
        empty(self.warehouse, "sync")


class SyncStage(TargetStage):
    """Tells a CRM, a HubSpot of the sandbox, and shows what it holds."""

    def __init__(self, warehouse: Warehouse, crm: Running, **mapping: Any) -> None:
        fields = {"stratum_tier": "tier", "stratum_score": "churn_probability"}
        super().__init__(
            warehouse, Time(), **({"system": "hubspot", "make_fields": True, "fields": fields} | mapping)
        )
        self.crm = crm

    def publish(self, *rows: dict[str, Any] | tuple[str | None, str | None]) -> None:
        """Publish a new run; short for the row of the account 0, 1, ... is its (tier, churn_probability)."""
        super().publish(
            *(
                row(n, tier=each[0], churn_probability=each[1]) if isinstance(each, tuple) else each
                for n, each in enumerate(rows)
            )
        )

    def told(self, *rows: dict[str, Any] | tuple[str | None, str | None]) -> None:
        """Publish, and let the CRM be told without being asked whether it may."""
        self.publish(*rows)
        self.configure(brakes={"first_sync": False})
        result = self.sync()
        assert (result.status, result.sent) == ("finished", len(rows))
        self.configure(brakes={})

    def ledger(self, index: int) -> dict[str, str | None] | None:
        """Return what the CRM confirmed of a record."""
        return self.confirmed().get(record_id(index))

    def edit(self, index: int, **values: str) -> None:
        """Change a company as a salesperson would."""
        self.crm.sandbox.store.update([(record_id(index), values)], datetime.now(UTC))

    def shows(self, index: int, name: str = "stratum_tier") -> str | None:
        """Return a value as the unmodified official client reads it; HubSpot shows an empty one as null or ''."""
        return self.crm.held(index, name)[name] or None

    def assert_ledger_is_what_the_crm_holds(self) -> None:
        """Compare every record that holds anything of ours with the ledger."""
        wanted = list(self.mapping["fields"])
        held = {
            each.id: {name: each.properties[name] for name in wanted if each.properties[name] is not None}
            for each in self.crm.client.crm.companies.get_all(properties=wanted)
        }
        assert self.confirmed() == {each: values for each, values in held.items() if values}


def row(index: int, **values: Any) -> dict[str, Any]:
    """Return a row to publish, of an account that is in the CRM as record_id(index)."""
    return {
        "account_id": f"A{index:04d}",
        "crm_record_id": record_id(index),
        "crm_system": "hubspot",
        "tier": "A",
        "revenue": "100.50",
        "is_dormant": False,
        "may_be_told": True,
    } | values


@contextmanager
def crash_in(patch: pytest.MonkeyPatch, owner: type, method: str, nth: int = 1) -> Iterator[None]:
    """Let the process break off where the nth call of a method would begin, and nothing after it be done."""
    original, calls = getattr(owner, method), iter(range(1, 1_000))

    def crashing(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= nth:
            raise RuntimeError("power cut")
        return original(*arguments, **options)

    with patch.context() as within:
        within.setattr(owner, method, crashing)
        with pytest.raises(RuntimeError, match="power cut"):
            yield


@contextmanager
def sync_stage(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch, accounts: int = 20, **mapping: Any
) -> Iterator[SyncStage]:
    """A stage on an empty warehouse, whose CRM holds so many companies; nothing was told yet.

    `mapping` is what sync.yml says besides, or instead: tier and score are told, and the brakes are on.
    """
    prepare(warehouse)
    companies = [account(n) for n in range(accounts)]
    # The clock of a stage is not the one the sandbox counts its window by.
    with running_sandbox(folder / "crm.sqlite", companies, burst_calls=100_000) as crm:
        reach(monkeypatch, crm)
        yield SyncStage(warehouse, crm, **mapping)
