"""A running sandbox for tests: the real HTTP server in a thread, seeded with rows of the test."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hubspot import HubSpot
from hubspot.crm.companies import BatchReadInputSimplePublicObjectId as ReadBatch
from hubspot.crm.companies import SimplePublicObjectId as RecordId

from include.sandbox.app import BURST_CALLS, BURST_WINDOW_S, Sandbox
from include.sandbox.store import FIRST_RECORD_ID, RECORD_ID_STEP, Account, Record, Store
from include.sources.config import Sources
from include.sources.hubspot import ingest_crm
from tests.conftest import Warehouse, free_port

TOKEN = "sandbox-test-token"
CREATED = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)


def record_id(index: int) -> str:
    return str(FIRST_RECORD_ID + index * RECORD_ID_STEP)


def account(number: int, created_at: datetime = CREATED) -> Account:
    return Account(f"A{number:04d}", f"Account {number}", "Retail", "Norway", created_at)


class Running:
    """A started sandbox: its switchboard, its address, and the official client, used as anybody would."""

    def __init__(self, sandbox: Sandbox, port: int) -> None:
        self.sandbox = sandbox
        self.url = f"http://127.0.0.1:{port}"
        self.client = HubSpot(access_token=TOKEN, host=self.url)

    @property
    def writes(self) -> int:
        return self.sandbox.calls.writes

    def fault(self, **faults: Any) -> None:
        self.sandbox.faults.set(faults)

    def held(self, index: int, *names: str) -> dict[str, str | None]:
        body = ReadBatch(
            inputs=[RecordId(id=record_id(index))], properties=list(names), properties_with_history=[]
        )
        (found,) = self.client.crm.companies.batch_api.read(body).results
        return {name: found.properties[name] for name in names}


@contextmanager
def running_sandbox(
    state: Path,
    accounts: list[Account],
    burst_calls: int = BURST_CALLS,
    burst_window_s: float = BURST_WINDOW_S,
    records: tuple[Record, ...] = (),
) -> Iterator[Running]:
    store = Store(state)
    if store.is_empty():
        store.seed(accounts)
        store.seed_records(records)
    sandbox = Sandbox(store, TOKEN, burst_calls, burst_window_s)
    port = free_port()
    config = uvicorn.Config(
        sandbox.app(), host="127.0.0.1", port=port, log_level="critical", lifespan="off", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the sandbox did not start"
        time.sleep(0.01)
    yield Running(sandbox, port)
    server.should_exit = True
    thread.join(20)
    store.close()


def reach(monkeypatch: pytest.MonkeyPatch, running: Running, conn_id: str = "hubspot_default") -> None:
    """Point the Airflow connection at the sandbox."""
    address = running.url.removeprefix("http://")
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", f"http://:{TOKEN}@{address}")


class Stage:
    """A company whose CRM is a running sandbox, and a warehouse to ingest it into."""

    def __init__(self, warehouse: Warehouse, crm: Running) -> None:
        self.warehouse = warehouse
        self.crm = crm
        self.sources = Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": "Asia/Shanghai", "currency": "CNY"},
                "crm": {"system": "hubspot", "connection": "hubspot_default"},
            }
        )

    def ingest(self, as_of: date, entity: str = "companies") -> tuple[int, int, int, int]:
        """Ingest all, and return new, corrected, unchanged, quarantined of an entity."""
        loads = ingest_crm(self.sources, as_of)
        assert loads is not None
        load = loads[entity]
        booked = self.warehouse.rows(
            "select rows_in, rows_new, rows_corrected, rows_unchanged, rows_quarantined, rows_later "
            "from audit.loads where load_id = %s",
            load.load_id,
        )
        counts = (load.rows_new, load.rows_corrected, load.rows_unchanged, load.rows_quarantined)
        assert booked == [(sum(counts), *counts, load.rows_later)]
        return counts

    def edit(self, index: int, at: datetime, **values: str) -> None:
        """Change a company as a salesperson would have at that moment."""
        self.crm.sandbox.store.update([(record_id(index), values)], at)

    def as_of(self, index: int, day: date) -> tuple | None:
        """Return what a reader as of a day sees of a company: industry, archived."""
        seen = self.seen("companies", record_id(index), day)
        return seen and (seen[1]["industry"], seen[2])

    def seen(self, entity: str, record: str, day: date) -> tuple | None:
        """Return what a reader as of a day sees of a record: its owner, its properties, whether it is archived."""
        owner = "account_number" if entity == "companies" else "company_record_id"
        rows = self.warehouse.rows(
            f"select {owner}, properties, is_archived from raw_hubspot.{entity} where record_id = %s "
            "and valid_from < ((%s::date + 1)::timestamp at time zone 'Asia/Shanghai') "
            "order by valid_from desc, load_seq desc limit 1",
            record,
            day,
        )
        return rows[0] if rows else None
