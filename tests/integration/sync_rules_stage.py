"""A published set with columns of every kind, a CRM, and a sync of any mapping between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.sources.config import Sources
from include.sync.plan import Change, make_plan
from include.sync.run import SyncResult, sync_crm
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import Running, account, reach, record_id, running_sandbox
from tests.integration.sync_proof import NO_BRAKES

AS_OF = date(2026, 6, 30)
COLUMNS = {
    "account_id": "text",
    "crm_record_id": "text",
    "crm_system": "text",
    "tier": "text",
    "phone": "varchar(200)",
    "revenue": "numeric(30, 4)",
    "score": "float8",
    "visits": "integer",
    "since": "date",
    "is_dormant": "boolean",
    "may_be_told": "boolean",
}
FIELDS = {"stratum_tier": "tier", "stratum_revenue": "revenue"}


class Stage:
    """Publishes rows, syncs them by a mapping, and shows what the CRM holds and the books say."""

    def __init__(self, warehouse: Warehouse, crm: Running) -> None:
        self.warehouse = warehouse
        self.crm = crm
        self.mapping: dict[str, Any] = {"fields": FIELDS}

    @property
    def sources(self) -> Sources:
        return Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": "UTC", "currency": "CNY"},
                "sync": {
                    "crm": {"system": "hubspot", "make_fields": True, "brakes": NO_BRAKES} | self.mapping
                },
            }
        )

    def publish(self, *rows: dict[str, Any]) -> None:
        """Replace what is published; of an account `row(n)` is in the CRM as record_id(n)."""
        with psycopg.connect(self.warehouse.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute("truncate published.customer_360")
            for row in rows:
                cursor.execute(
                    sql.SQL("insert into published.customer_360 ({}) values ({})").format(
                        sql.SQL(", ").join(map(sql.Identifier, row)),
                        sql.SQL(", ").join(map(sql.Literal, row.values())),
                    )
                )

    def sync(self) -> SyncResult:
        """Sync, and see that the books add up: each account and each cleared record has one outcome."""
        result = sync_crm(self.sources, AS_OF, "crm", sleep=lambda seconds: None)
        outcomes = dict(
            self.warehouse.rows(
                "select outcome, count(*) from sync.outcomes where sync_id = %s group by 1", result.sync_id
            )
        )
        assert (outcomes.get("failed", 0), outcomes.get("held", 0)) == (result.failed, result.held)
        assert result.queried == result.sent + result.unchanged + result.failed + result.held
        return result

    def planned(self) -> list[Change]:
        """Return what a sync would send before it reads the CRM."""
        with connect("syncer") as books:
            books.autocommit = True
            return list(make_plan(books, self.sources.sync["crm"], "run-1", AS_OF).changes)

    def held(self, result: SyncResult) -> list[tuple]:
        return self.warehouse.rows(
            "select account_id, reason, detail from sync.outcomes where sync_id = %s and outcome = 'held' "
            "order by outcome_id",
            result.sync_id,
        )

    def ledger(self, index: int) -> dict[str, str | None] | None:
        rows = self.warehouse.rows("select confirmed from sync.ledger where record_id = %s", record_id(index))
        return rows[0][0] if rows else None

    def seen(self) -> set[str]:
        """Return the accounts whose rows need no comparing field by field."""
        return {
            each
            for (each,) in self.warehouse.rows("select account_id from sync.ledger where seen is not null")
        }

    def edit(self, index: int, **values: str) -> None:
        """Change a company as a salesperson would."""
        self.crm.sandbox.store.update([(record_id(index), values)], datetime.now(UTC))

    def shows(self, index: int, name: str = "stratum_tier") -> str | None:
        """Return a value as the unmodified official client reads it; HubSpot shows an empty one as null or ''."""
        return self.crm.held(index, name)[name] or None


def row(index: int, **values: Any) -> dict[str, Any]:
    return {
        "account_id": f"A{index:04d}",
        "crm_record_id": record_id(index),
        "crm_system": "hubspot",
        "tier": "A",
        "revenue": "100.50",
        "may_be_told": True,
    } | values


@contextmanager
def staged(warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage on an empty warehouse, with 20 companies in the CRM."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    warehouse.rows(f"create table if not exists published.customer_360 ({columns})")
    warehouse.rows("grant usage on schema published to stratum_syncer")
    warehouse.rows("grant select on published.customer_360 to stratum_syncer")
    warehouse.rows(
        "insert into published.current_run (run_id, as_of_date, published_at) values ('run-1', %s, now())",
        AS_OF,
    )
    with running_sandbox(folder / "crm.sqlite", [account(n) for n in range(20)], burst_calls=100_000) as crm:
        reach(monkeypatch, crm)
        yield Stage(warehouse, crm)
