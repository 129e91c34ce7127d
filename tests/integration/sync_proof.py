"""What the proofs of the sync share: what is published, what a CRM holds, and what the books must say of both."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from include.sources.config import Sources
from include.sync.run import SyncResult, sync_crm
from include.warehouse.embedded import Cluster
from tests.conftest import Warehouse, fresh_warehouse
from tests.integration.sandbox_fixture import Running, account, reach, record_id, running_sandbox

AS_OF = date(2026, 6, 30)
FIELDS = {"stratum_tier": "tier", "stratum_next_action": "next_action", "stratum_revenue": "net_revenue_365d"}
COLUMNS = tuple(FIELDS.values())
TARGET = "hubspot:hubspot_default"
TOLD = 24
"""Accounts of `published` (conftest.py), all of them told."""
NO_BRAKES = dict.fromkeys(
    ("max_shrink", "max_tier_changes", "max_score_moves", "max_removals", "max_removals_count")
) | {"first_sync": False}
Values = dict[str, str | None]


@dataclass(frozen=True)
class Applied:
    """One row that the CRM carried out: which record, which attempt named it, what it was told."""

    record_id: str
    key: str
    values: dict[str, str]


class Crm(Protocol):
    """A sandbox as the proofs see it: its own record, not what its API or our books say."""

    system: str
    write_path: str
    """What the URL of a call that writes rows contains."""
    batch_size: str
    """The module's name of the size of a batch: the crash test has short ones."""

    def record_id(self, index: int) -> str:
        """Return the id of a record, counted from 0."""

    def held(self) -> dict[str, Values]:
        """Return record id → the mapped fields' values."""

    def applied(self) -> list[Applied]:
        """Return every row that was ever carried out, in order."""

    def edit(self, index: int, values: dict[str, str]) -> None:
        """Change a record as a person in the CRM does."""

    def reset(self) -> None:
        """Forget all that was told."""

    def faults(self) -> list[dict[str, Any]]:
        """Return what can go wrong, one set of faults each."""

    def fault(self, **faults: Any) -> None:
        """Put faults in."""

    def refuse(self, indexes: list[int]) -> None:
        """Refuse the rows of these records from now on."""

    def calm(self) -> None:
        """Take all faults out."""


class HubSpotCrm:
    """The companies of the HubSpot sandbox."""

    system = "hubspot"
    write_path = "/batch/update"
    batch_size = "include.sync.targets.hubspot.BATCH_SIZE"

    def __init__(self, running: Running, records: int) -> None:
        self.running = running
        self.records = records
        self.store = running.sandbox.store
        self._fresh = self.store.db.execute("select id, properties from records").fetchall()

    def record_id(self, index: int) -> str:
        return record_id(index)

    def held(self) -> dict[str, Values]:
        rows = self.store.db.execute("select id, properties from records where archived_at is null")
        shown = {str(row["id"]): json.loads(row["properties"]) for row in rows}
        return {each: {name: of.get(name) or None for name in FIELDS} for each, of in shown.items()}

    def applied(self) -> list[Applied]:
        return [Applied(each["record_id"], each["trace"], each["values"]) for each in self.store.written()]

    def edit(self, index: int, values: dict[str, str]) -> None:
        self.store.update([(record_id(index), values)], datetime(2026, 7, 1, tzinfo=UTC))

    def reset(self) -> None:
        self.calm()
        with self.store.db as db:
            db.execute("delete from writes")
            db.execute("delete from history")
            for row in self._fresh:
                db.execute("update records set properties = ? where id = ?", [row["properties"], row["id"]])

    def faults(self) -> list[dict[str, Any]]:
        return [
            {"rate_limited": 2},
            {"rate_limited": 1, "retry_after": 3},
            {"server_error": 1},
            {"server_error": 2},
            {"unavailable": 2},
            {"drop_answer": 1},
            {"drop_before": 1},
            {"drop_answer": 1, "drop_before": 1},
            {"empty_complete": 1},
            {"reject_batch_ids": [record_id(3)]},
            {"cut_answer": 1, "drop_answer": 1},
        ]

    def fault(self, **faults: Any) -> None:
        self.running.fault(**faults)

    def refuse(self, indexes: list[int]) -> None:
        self.fault(refuse_ids=[record_id(each) for each in indexes])

    def calm(self) -> None:
        self.running.sandbox.faults.__init__()  # type: ignore[misc]


class Published:
    """What is published, as a dict: account number → column → value. The dict is the model of the proofs."""

    def __init__(self, warehouse: Warehouse, crm: Crm) -> None:
        self.warehouse = warehouse
        self.crm = crm
        self.accounts: dict[int, dict[str, Any]] = {}
        self.sources = Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": "UTC", "currency": "CNY"},
                "sync": {
                    "crm": {
                        "system": crm.system,
                        "make_fields": True,
                        "fields": FIELDS,
                        "brakes": NO_BRAKES,
                    }
                },
            }
        )

    def with_rules(self, **rules: Any) -> Sources:
        """Return the sources with other rules of the target."""
        wanted = self.sources.model_dump(exclude_unset=True)
        wanted["sync"]["crm"] |= rules
        return Sources.model_validate(wanted)

    def sync(self, **rules: Any) -> SyncResult:
        """Sync, without waiting, by other rules of the target if they are given."""
        return sync_crm(self.with_rules(**rules), AS_OF, "crm", sleep=lambda _: None)

    def write(self) -> None:
        """Publish the accounts, in the place of what was published."""
        rows = [
            (f"A{index:04d}", self.crm.record_id(index), self.crm.system, *(values[name] for name in COLUMNS))
            for index, values in self.accounts.items()
        ]
        with psycopg.connect(self.warehouse.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute("delete from published.customer_360")
            cursor.executemany("insert into published.customer_360 values (%s, %s, %s, %s, %s, %s)", rows)

    def reset(self) -> None:
        """Empty the books and what is published."""
        self.accounts = {}
        self.crm.reset()
        self.lose_books()
        self.warehouse.rows("delete from published.customer_360")

    def lose_books(self) -> None:
        """Empty the books."""
        tables = self.warehouse.rows(
            "select format('delete from %I.%I', schemaname, tablename) from pg_tables where schemaname = 'sync'"
        )
        # Rows are deleted, as truncating takes longer, and without a look at who refers to whom.
        self.warehouse.rows(
            "; ".join(["set session_replication_role = replica", *(delete for (delete,) in tables)])
        )

    def differing(self) -> dict[str, tuple[Values, Values]]:
        """Return record id → published, held, where the CRM does not hold each published value that is not null."""
        held = self.crm.held()
        found = {}
        for index, values in self.accounts.items():
            told = {name: text(values[column]) for name, column in FIELDS.items()}
            shown = held[self.crm.record_id(index)]
            if any(value is not None and value != shown[name] for name, value in told.items()):
                found[self.crm.record_id(index)] = (told, shown)
        return found


def power_cut(*_: Any, **__: Any) -> None:
    """What a method is replaced by where the sync breaks off."""
    raise RuntimeError("power cut")


def text(value: Any) -> str | None:
    """Return a value as a CRM is told it, written here anew: numbers without zeros at their end."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    plain = f"{value or 0:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


@contextmanager
def hubspot_crm(folder: Path, records: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubSpotCrm]:
    accounts = [account(n) for n in range(records)]
    with running_sandbox(folder / "crm.sqlite", accounts, burst_calls=1_000_000) as running:
        reach(monkeypatch, running)
        yield HubSpotCrm(running, records)


CRMS = {"hubspot": hubspot_crm}


@contextmanager
def proving_ground(
    system: str, cluster: Cluster, template: str, folder: Path, records: int
) -> Iterator[Published]:
    """A CRM of so many empty records, and a warehouse that publishes to it; `template` is a migrated database."""
    with (
        fresh_warehouse(cluster, template, folder) as warehouse,
        pytest.MonkeyPatch.context() as patch,
        CRMS[system](folder, records, patch) as crm,
    ):
        warehouse.rows("""
            create table published.customer_360 (
                account_id text, crm_record_id text, crm_system text, tier text, next_action text,
                net_revenue_365d numeric
            );
            grant usage on schema published to stratum_syncer;
            grant select on published.customer_360 to stratum_syncer;
            insert into published.current_run (run_id, as_of_date, published_at)
            values ('run-1', '2026-06-30', now())
        """)
        yield Published(warehouse, crm)


def change_some(published: Published, chance: random.Random, share: float, accounts: int) -> None:
    """Give a share of the accounts another value in one to three columns, from so few that old ones come back."""
    for index in range(accounts):
        known = published.accounts.setdefault(
            index, {"tier": "A", "next_action": None, "net_revenue_365d": 1}
        )
        if chance.random() < share:
            for column in chance.sample(COLUMNS, chance.randint(1, 3)):
                known[column] = chance.choice(
                    {
                        "tier": ["S", "A", "B"],
                        "next_action": ["续约谈判 🤝", "call", "visit"],
                        "net_revenue_365d": [1, 2, 3],
                    }[column]
                )
    published.write()


def assert_books_add_up(warehouse: Warehouse, is_rebuilt: bool = False) -> None:
    """What must be true of the books at any moment at which no sync runs; a rebuilt ledger has no deliveries."""
    with psycopg.connect(warehouse.owner_url) as connection:
        sums = connection.execute(RUNS).fetchall()
        assert connection.execute(DELIVERIES_WITHOUT_REASON).fetchall() == []
        assert connection.execute(BROKEN_CHAINS).fetchall() == []
        assert is_rebuilt or connection.execute(LEDGER_BESIDE_DELIVERIES).fetchall() == []
    for sync_id, status, sent, failed, held, told, failures, held_rows, is_older in sums:
        assert (sent, held) == (told, held_rows), f"sync {sync_id}"
        assert failed >= failures, f"sync {sync_id}"
        if status == "finished":
            assert failed == failures, f"sync {sync_id}"
        assert not (status == "running" and is_older), f"sync {sync_id} was killed and is not marked"


RUNS = """
    select runs.sync_id, status, sent, failed, held,
        (select count(distinct attempt_id) from sync.deliveries join sync.attempts using (attempt_id)
         where deliveries.sync_id = runs.sync_id and attempts.sync_id = runs.sync_id) as told,
        (select count(*) from sync.outcomes where sync_id = runs.sync_id and outcome = 'failed') as failures,
        (select count(*) from sync.outcomes where sync_id = runs.sync_id and outcome = 'held') as held_rows,
        sync_id < max(sync_id) over () as is_older
    from sync.runs
"""
# A value is delivered once for each attempt that was confirmed, and never for another.
DELIVERIES_WITHOUT_REASON = """
    select attempt_id, status, payload, count(delivery_id)
    from sync.attempts left join sync.deliveries using (attempt_id)
    group by attempt_id
    having count(delivery_id) <> case when status in ('confirmed', 'landed')
        then (select count(*) from jsonb_object_keys(payload)) else 0 end
"""
# What a delivery calls the old value is what the delivery before it called the new one.
BROKEN_CHAINS = """
    select * from (
        select record_id, field, old_value, lag(new_value) over of_field as before,
            lag(delivery_id) over of_field as earlier
        from sync.deliveries window of_field as (partition by record_id, field order by delivery_id)
    ) as chain
    where earlier is not null and old_value is distinct from before
        and not exists (select from sync.drift where drift.record_id = chain.record_id and drift.field = chain.field)
"""
# The ledger is the newest deliveries, but for what a reconciliation let it forget.
LEDGER_BESIDE_DELIVERIES = """
    select record_id, field, newest.new_value, confirmed from (
        select distinct on (record_id, field) record_id, field, new_value
        from sync.deliveries order by record_id, field, delivery_id desc
    ) as newest full join (
        select record_id, field, value as confirmed from sync.ledger, jsonb_each_text(confirmed) as told (field, value)
    ) as told using (record_id, field)
    where newest.new_value is distinct from confirmed and not (confirmed is null and exists (
        select from sync.drift where drift.record_id = newest.record_id and drift.field = newest.field
        and done in ('healed', 'gone')
    ))
"""


def assert_each_write_counted(warehouse: Warehouse, crm: Crm) -> dict[str, int]:
    """Compare the CRM's own log, row by row, with the attempts; return how many there are of which kind.

    A row that was carried out belongs to one attempt that the books know as confirmed, with the same values; a
    confirmed one was carried out once; and no row was told what its record held already.
    """
    attempts = {
        str(attempt): (record, status, payload)
        for attempt, record, status, payload in warehouse.rows(
            "select attempt_id, record_id, status, payload from sync.attempts"
        )
    }
    held: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for write in crm.applied():
        assert write.key not in seen, f"attempt {write.key} was carried out twice"
        seen.add(write.key)
        record, status, payload = attempts[write.key]
        assert (record, {name: value or "" for name, value in payload.items()}) == (
            write.record_id,
            write.values,
        )
        assert status in ("confirmed", "landed"), f"attempt {write.key} was carried out and is {status}"
        before = held.setdefault(write.record_id, {})
        assert not write.values.items() <= before.items(), f"{write.record_id} was told {write.values} again"
        before |= write.values
    confirmed = {key for key, (_, status, _) in attempts.items() if status in ("confirmed", "landed")}
    assert confirmed == seen
    statuses = [status for _, status, _ in attempts.values()]
    return {status: statuses.count(status) for status in sorted(set(statuses))}
