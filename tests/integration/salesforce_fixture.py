"""A running Salesforce sandbox for tests, the official client against it, and a company that is pulled from it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from simple_salesforce import Salesforce

from include.sandbox.salesforce.app import REST_PAGE, SalesforceSandbox
from include.sandbox.salesforce.store import Store
from include.sources.config import Sources
from include.sources.salesforce import ingest_salesforce
from include.sources.salesforce_api import Elsewhere
from tests.conftest import Warehouse, free_port

SECRET = "sandbox-test-secret"
ENTITIES = ("accounts", "contacts", "contact_roles", "opportunities", "cases")


class Running:
    """A started sandbox: its switchboard, its records, its address."""

    def __init__(self, sandbox: SalesforceSandbox, port: int) -> None:
        self.sandbox = sandbox
        self.org = sandbox.store
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def fault(self, **faults: Any) -> None:
        self.sandbox.faults.set(faults)

    def session(self) -> requests.Session:
        """Return a session that leads the official client here: it only knows Salesforce's own addresses."""
        session = requests.Session()
        session.mount("https://", Elsewhere(self.url))
        return session

    def client(self) -> Salesforce:
        return Salesforce(
            consumer_key="key", consumer_secret=SECRET, domain="acme.my", session=self.session()
        )

    @property
    def queries(self) -> list[str]:
        return self.sandbox.calls.queries


@contextmanager
def running_salesforce(
    state: Path, tracked: dict[str, set[str]] | None = None, rest_page: int = REST_PAGE
) -> Iterator[Running]:
    store = Store(state, tracked)
    sandbox = SalesforceSandbox(store, SECRET, rest_page)
    port = free_port()
    config = uvicorn.Config(
        sandbox.app(),
        host="127.0.0.1",
        port=port,
        log_level="critical",
        lifespan="off",
        access_log=False,
        http="h11",  # as include/sandbox/__main__.py
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


def reach(monkeypatch: pytest.MonkeyPatch, crm: Running, secret: str = SECRET) -> None:
    """Point the Airflow connection at the sandbox."""
    connection = {
        "conn_type": "salesforce",
        "host": "http://127.0.0.1",
        "port": crm.port,
        "extra": {"consumer_key": "key", "consumer_secret": secret, "domain": "acme.my"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SALESFORCE_DEFAULT", json.dumps(connection))


class Stage:
    """A company whose CRM is a running sandbox, and a warehouse to ingest it into."""

    def __init__(self, warehouse: Warehouse, crm: Running) -> None:
        self.warehouse = warehouse
        self.crm = crm
        self.org = crm.org
        self.slept: list[float] = []
        self.sources = self.sources_with()

    def sources_with(self, **crm: str) -> Sources:
        return Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": "Asia/Shanghai", "currency": "CNY"},
                "crm": {"system": "salesforce", **crm},
            }
        )

    def ingest(self, as_of: date) -> dict[str, tuple[int, int, int, int]]:
        """Ingest all, check the books, and return new, corrected, unchanged, quarantined by entity."""
        loads = ingest_salesforce(self.sources, as_of, sleep=self.slept.append)
        counts = {}
        for entity, load in loads.items():
            counts[entity] = (
                load.rows_new,
                load.rows_corrected,
                load.rows_unchanged,
                load.rows_quarantined,
            )
            booked = self.warehouse.rows(
                "select rows_in, rows_new, rows_corrected, rows_unchanged, rows_quarantined "
                "from audit.loads where load_id = %s",
                load.load_id,
            )
            assert booked == [(sum(counts[entity]), *counts[entity])]
        return counts

    def seen(self, entity: str, record_id: str, day: date) -> tuple[str | None, dict, bool] | None:
        """Return what a reader as of a day sees of a record: its owner, its properties, whether it is deleted."""
        owner = "account_number" if entity == "accounts" else "company_record_id"
        rows = self.warehouse.rows(
            f"select {owner}, properties, is_archived from raw_salesforce.{entity} where record_id = %s "
            "and valid_from < ((%s::date + 1)::timestamp at time zone 'Asia/Shanghai') "
            "order by valid_from desc, load_seq desc limit 1",
            record_id,
            day,
        )
        return rows[0] if rows else None

    def value(self, entity: str, record_id: str, day: date, name: str) -> str | None:
        """Return a property as of a day; the record has to be there."""
        found = self.seen(entity, record_id, day)
        assert found is not None
        return found[1][name]

    def versions(self) -> set[tuple]:
        """Return all versions of all entities, without what says which load brought them."""
        found = set()
        for entity in ENTITIES:
            owner = "account_number" if entity == "accounts" else "company_record_id"
            rows = self.warehouse.rows(
                f"select record_id, valid_from, {owner}, is_archived, row_hash, properties::text "
                f"from raw_salesforce.{entity}"
            )
            found |= {(entity, *row) for row in rows}
            assert len(rows) == len({row[:2] for row in rows}), "a version landed twice"
        return found

    def forget(self) -> None:
        """Empty the warehouse of all that was pulled."""
        tables = ", ".join(f"raw_salesforce.{entity}" for entity in ENTITIES)
        self.warehouse.rows(f"truncate audit.loads cascade; truncate {tables}, quarantine.rows")
        self.warehouse.rows("delete from intermediate.restatement_queue")


def moment(day: date, hour: int = 4) -> datetime:
    """Return a moment of that day in Shanghai as well as in UTC."""
    return datetime.fromisoformat(f"{day}T{hour:02d}:00:00+00:00")
