"""A running sandbox for tests: the real HTTP server in a thread, seeded with rows of the test."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hubspot import HubSpot
from hubspot.crm.companies import BatchReadInputSimplePublicObjectId as ReadBatch
from hubspot.crm.companies import SimplePublicObjectId as RecordId

from include.sandbox.app import BURST_CALLS, BURST_WINDOW_S, Sandbox
from include.sandbox.store import FIRST_RECORD_ID, RECORD_ID_STEP, Account, Store
from tests.conftest import free_port

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
) -> Iterator[Running]:
    store = Store(state)
    if store.is_empty():
        store.seed(accounts)
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
