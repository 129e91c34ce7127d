"""A published set of tiers and scores, a sandbox CRM, and a sync between them whose brakes are on."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.sources.config import Sources
from include.sync.run import SyncResult, sync_crm
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import Running, account, reach, record_id, running_sandbox

AS_OF = date(2026, 6, 30)
TARGET = "hubspot:hubspot_default"


class SyncStage:
    """What is published, the CRM, and the mapping between them."""

    def __init__(self, warehouse: Warehouse, crm: Running) -> None:
        self.warehouse = warehouse
        self.crm = crm
        self.mapping: dict[str, Any] = {
            "system": "hubspot",
            "make_fields": True,
            "fields": {"stratum_tier": "tier", "stratum_score": "churn_probability"},
        }
        self.run = 0

    @property
    def sources(self) -> Sources:
        return Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": "UTC", "currency": "CNY"},
                "sync": {"crm": self.mapping},
            }
        )

    def configure(self, **changes: object) -> None:
        """Change the mapping."""
        self.mapping |= changes

    def publish(self, *rows: tuple[str | None, str | None]) -> None:
        """Publish a new run: (tier, churn_probability) of the accounts 0, 1, ..."""
        self.run += 1
        with psycopg.connect(self.warehouse.owner_url) as connection:
            connection.execute("truncate published.customer_360")
            with connection.cursor() as cursor:
                cursor.executemany(
                    "insert into published.customer_360 values (%s, %s, %s, %s, 'hubspot')",
                    [(f"A{n:04d}", record_id(n), *row) for n, row in enumerate(rows)],
                )
            connection.execute(
                "update published.current_run set run_id = %s, as_of_date = %s", [f"run-{self.run}", AS_OF]
            )

    def told(self, *rows: tuple[str | None, str | None]) -> None:
        """Publish, and let the CRM be told without being asked whether it may."""
        self.publish(*rows)
        self.configure(brakes={"first_sync": False})
        result = self.sync()
        assert (result.status, result.sent) == ("finished", len(rows))
        self.configure(brakes={})

    def sync(self) -> SyncResult:
        result = sync_crm(self.sources, AS_OF, "crm")
        assert result.queried == result.sent + result.unchanged + result.failed + result.held
        outcomes = dict(
            self.warehouse.rows(
                "select outcome, count(*) from sync.outcomes where sync_id = %s group by 1", result.sync_id
            )
        )
        assert (outcomes.get("failed", 0), outcomes.get("held", 0)) == (result.failed, result.held)
        return result

    def holds(self) -> list[tuple[int, str, list[str]]]:
        """Number, status and brakes of each hold, the newest first."""
        return [
            (hold_id, status, [reason["brake"] for reason in reasons])
            for hold_id, status, reasons in self.warehouse.rows(
                "select hold_id, status, reasons from sync.holds order by hold_id desc"
            )
        ]


@contextmanager
def sync_stage(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch, accounts: int
) -> Iterator[SyncStage]:
    """A stage whose CRM holds so many accounts; nothing was told yet."""
    warehouse.rows("""
        create table published.customer_360 (
            account_id text, crm_record_id text, tier text, churn_probability numeric, crm_system text
        );
        grant usage on schema published to stratum_syncer;
        grant select on published.customer_360 to stratum_syncer;
        insert into published.current_run (run_id, as_of_date, published_at) values ('run-0', '2026-06-30', now())
    """)
    with running_sandbox(folder / "crm.sqlite", [account(n) for n in range(accounts)]) as crm:
        reach(monkeypatch, crm)
        yield SyncStage(warehouse, crm)
