"""A running Salesforce sandbox for tests, the official client against it, and a company that is pulled from it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from simple_salesforce import Salesforce

from include.sandbox.salesforce.app import REST_PAGE, SalesforceSandbox
from include.sandbox.salesforce.store import Store
from include.sources.loads import Load
from include.sources.salesforce import ingest_salesforce
from include.sources.salesforce_api import Elsewhere
from tests.conftest import Warehouse, free_port
from tests.integration.crm_stage import CrmStage

SECRET = "sandbox-test-secret"
JANUARY, FEBRUARY = datetime(2026, 1, 10, 4, tzinfo=UTC), datetime(2026, 2, 10, 4, tzinfo=UTC)
TRACKED = {"Account": {"Industry", "OwnerId", "AccountNumber"}, "Case": {"Priority"}}
MANY = 7
ENTITIES = ("accounts", "contacts", "contact_roles", "opportunities", "cases")
DAY_1, DAY_2, DAY_3 = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)
FIRST_LOAD = {
    "accounts": (MANY, 0, 0, 0),
    "contacts": (2, 0, 0, 0),
    "contact_roles": (1, 0, 0, 0),
    "opportunities": (1, 0, 0, 0),
    "cases": (1, 0, 0, 0),
}
"""Of the first load of the org: new, corrected, unchanged, quarantined."""


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


class Stage(CrmStage):
    """A company whose CRM is a running sandbox."""

    system = "salesforce"
    entities = ENTITIES

    def __init__(self, warehouse: Warehouse, crm: Running) -> None:
        super().__init__(warehouse)
        self.crm = crm
        self.org = crm.org
        self.now = 1_800_000_000.0

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.slept.append(seconds)
        self.now += seconds

    def pull(self, as_of: date) -> dict[str, Load]:
        return ingest_salesforce(self.sources, as_of, clock=lambda: self.now, sleep=self.sleep)


@dataclass
class Ids:
    """The records of the org."""

    users: list[str]
    accounts: list[str]
    contacts: list[str]
    role: str
    opportunity: str
    case: str


@dataclass
class World:
    """A stage and the records its org was made with."""

    stage: Stage
    ids: Ids


@contextmanager
def salesforce_world(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """An org of its own, and the warehouse emptied: a new one takes longer than most tests."""
    with running_salesforce(tmp_path / "salesforce.sqlite", TRACKED) as crm:
        org = crm.org
        users = [org.insert("User", JANUARY, Name=f"Somebody {number}") for number in range(2)]
        accounts = [
            org.insert(
                "Account",
                JANUARY,
                Name=f"Account {number}",
                AccountNumber=f"A{number}" if number else None,
                Industry="Retail",
                BillingCountry="Norway",
                OwnerId=users[0],
            )
            for number in range(MANY)
        ]
        contacts = [
            org.insert("Contact", JANUARY, AccountId=owner, LastName="Secret", Email="a@b.c", Title="Buyer")
            for owner in (accounts[1], None)
        ]
        deal = org.insert(
            "Opportunity",
            JANUARY,
            AccountId=accounts[1],
            Name="Deal",
            StageName="Prospecting",
            Amount=1000,
            CloseDate="2026-06-30",
            IsWon=False,
        )
        role = org.insert(
            "OpportunityContactRole",
            JANUARY,
            OpportunityId=deal,
            ContactId=contacts[0],
            Role="Decision Maker",
        )
        case = org.insert(
            "Case", FEBRUARY, AccountId=accounts[2], Subject="Late", Priority="Low", Status="New"
        )
        reach(monkeypatch, crm)
        stage = Stage(warehouse, crm)
        stage.forget()
        yield World(stage, Ids(users, accounts, contacts, role, deal, case))


def moment(day: date, hour: int = 4) -> datetime:
    """Return a moment of that day in Shanghai as well as in UTC."""
    return datetime.fromisoformat(f"{day}T{hour:02d}:00:00+00:00")
