"""The CRMs of the sync's proofs: each a sandbox, seen past its API, and how it can fail."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

from include.sandbox.salesforce import app as salesforce_app
from include.sandbox.salesforce import ingest
from tests.integration import salesforce_fixture, sandbox_fixture, webhook_fixture
from tests.integration.salesforce_fixture import JANUARY

Values = dict[str, str | None]
FOR_EVER_S = 3600.0
"""How long a call that hangs is without an answer: till the client leaves."""


@dataclass(frozen=True)
class Applied:
    """One row that the CRM carried out: which record, what it was told, the attempt and the job that told it.

    Attempt and job are None where the CRM does not know of them.
    """

    record_id: str
    values: dict[str, str]
    attempt: str | None = None
    job: str | None = None


class Crm(Protocol):
    """A sandbox as the proofs see it: its own record, not what its API or our books say."""

    system: str
    fields: dict[str, str]
    """Field of the CRM → column of what is published."""
    calls: dict[str, str]
    """The calls of a write, in their order: name → pattern of "METHOD /path body"."""
    keeps_keys: bool
    """Whether its log names the attempt of each row."""
    creation: dict[str, Any]
    """What sync.yml says of creation; nothing where every account has a record."""

    def account_id(self, index: int) -> str:
        """Return the id of an account, counted from 0."""

    def pulled(self, index: int) -> str | None:
        """Return the record that the newest pull knows of an account."""

    def short_batches(self, rows: int) -> dict[str, Any]:
        """Return dotted name → value of what the product is set to, so that a batch is of so many rows."""

    def record_id(self, index: int) -> str:
        """Return the id of an account's record."""

    def held(self) -> dict[str, Values]:
        """Return record id → the mapped fields' values."""

    def applied(self) -> list[Applied]:
        """Return every row that was ever carried out, in order."""

    def reset(self) -> None:
        """Forget all that was told."""

    def faults(self) -> list[dict[str, Any]]:
        """Return what can go wrong, one set of faults each."""

    def fault(self, **faults: Any) -> None:
        """Put faults in."""

    def left(self, fault: str) -> Any:
        """Return what is left of a fault: those that strike so many times count down."""

    def lose(self, answer_too: bool) -> None:
        """Do not carry the next write out, and say nothing; then lose the answer of one that is carried out."""

    def forget(self) -> None:
        """Answer the next write without a word of its rows, of which none is carried out."""

    def refuse(self, indexes: list[int]) -> None:
        """Refuse the rows of these accounts from now on."""

    def calm(self) -> None:
        """Take all faults out."""


class EachHasOne(ABC):
    """A CRM that has had a record of every account from the beginning."""

    creation: ClassVar[dict[str, Any]] = {}

    def account_id(self, index: int) -> str:
        return f"A{index:04d}"

    def pulled(self, index: int) -> str | None:
        return self.record_id(index)

    @abstractmethod
    def record_id(self, index: int) -> str:
        """Return the id of an account's record."""

    def named(self, index: int) -> list[str]:
        """Return what rows of an account are named by."""
        return [self.record_id(index)]


class HubSpotCrm(EachHasOne):
    """The companies of the HubSpot sandbox."""

    system = "hubspot"
    fields: ClassVar = {
        "stratum_tier": "tier",
        "stratum_next_action": "next_action",
        "stratum_revenue": "net_revenue_365d",
    }
    calls: ClassVar = {"http": r"POST \S+/batch/update "}
    keeps_keys = True

    def __init__(self, running: sandbox_fixture.Running) -> None:
        self.running = running
        self.store = running.sandbox.store
        self._fresh = self.store.db.execute("select id, properties from records").fetchall()

    def short_batches(self, rows: int) -> dict[str, Any]:
        return {"include.sync.targets.hubspot.BATCH_SIZE": rows}

    def record_id(self, index: int) -> str:
        return sandbox_fixture.record_id(index)

    def held(self) -> dict[str, Values]:
        rows = self.store.db.execute("select id, properties from records where archived_at is null")
        shown = {str(row["id"]): json.loads(row["properties"]) for row in rows}
        return {each: {name: of.get(name) or None for name in self.fields} for each, of in shown.items()}

    def applied(self) -> list[Applied]:
        return [Applied(each["record_id"], each["values"], each["trace"]) for each in self.store.written()]

    def edit(self, index: int, values: dict[str, str]) -> None:
        """Change a record as a person in the CRM does."""
        self.store.update([(self.record_id(index), values)], datetime(2026, 7, 1, tzinfo=UTC))

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
            {"reject_batch_ids": self.named(3)},
            {"cut_answer": 1, "drop_answer": 1},
            {"hang_before": 1, "hang_s": FOR_EVER_S},
            {"hang_after": 1, "hang_s": FOR_EVER_S},
            # A token that a person must renew: here by the next `calm`.
            {"expires_after": 1},
            {"expires_after": 2},
        ]

    def fault(self, **faults: Any) -> None:
        self.running.fault(**faults)

    def left(self, fault: str) -> Any:
        return getattr(self.running.sandbox.faults, fault)

    def lose(self, answer_too: bool) -> None:
        self.fault(drop_before=1, drop_answer=int(answer_too))

    def forget(self) -> None:
        self.fault(empty_complete=1)

    def refuse(self, indexes: list[int]) -> None:
        self.fault(refuse_ids=[name for each in indexes for name in self.named(each)])

    def calm(self) -> None:
        self.running.sandbox.faults.__init__()  # type: ignore[misc]


class SalesforceCrm(EachHasOne):
    """The accounts of the Salesforce sandbox, told by collections."""

    system = "salesforce"
    fields: ClassVar = {
        "Stratum_Tier__c": "tier",
        "Stratum_Next_Action__c": "next_action",
        "Stratum_Revenue__c": "net_revenue_365d",
    }
    calls: ClassVar = {"http": r"PATCH \S+/composite/sobjects "}
    keeps_keys = False
    steps = ("collection_update",)
    """The sandbox's names of the calls of a write that change anything."""
    reads: tuple[str, ...] = ()
    """Its names of those that only ask."""

    def __init__(self, running: salesforce_fixture.Running, records: int) -> None:
        self.running = running
        self.org = running.org
        self.ids = [self.org.insert("Account", JANUARY, Name=f"Account {n}") for n in range(records)]

    def short_batches(self, rows: int) -> dict[str, Any]:
        return {"include.sync.targets.salesforce.COLLECTION_ROWS": rows}

    def record_id(self, index: int) -> str:
        return self.ids[index]

    def held(self) -> dict[str, Values]:
        shown = {each: self.org.row(each)["values"] for each in self._told()}
        return {each: {name: text(of.get(name)) for name in self.fields} for each, of in shown.items()}

    def _told(self) -> list[str]:
        return self.ids

    def applied(self) -> list[Applied]:
        ingest.carry_out(self.running.sandbox)  # a job that is still to come counts
        return [
            Applied(
                each["record_id"],
                {name: text(value) or "" for name, value in each["values"].items()},
                job=self._job(each["request"]),
            )
            for each in self.org.written()
            if each["object"] == "Account" and each["error"] is None
        ]

    def _job(self, request: str) -> str | None:
        return None

    def reset(self) -> None:
        self.calm()
        with self.org.db as db:
            db.execute("delete from writes")
        for each in self.ids:
            self.org.update(each, JANUARY, **dict.fromkeys(self.fields))

    def faults(self) -> list[dict[str, Any]]:
        lost = ("drop_before", "drop_after", "hang_before", "hang_after")
        return [
            {"rate_limited": 2},
            {"rate_limited": 1, "retry_after": 3},
            {"server_error": 1},
            {"expire_session": 1},
            *({"write_fault_at": at, how: 1, "hang_s": FOR_EVER_S} for at, how in product(self.steps, lost)),
            *({"server_error": 2, "server_error_at": at} for at in (*self.steps, *self.reads)),
            *({"expire_session": 1, "expire_session_at": at} for at in (*self.steps, *self.reads)),
            *self._own_faults(),
        ]

    def _own_faults(self) -> list[dict[str, Any]]:
        return [
            {"write_fault_at": self.steps[0], "drop_before": 1, "drop_after": 1},
            {"write_fault_at": self.steps[0], "malformed": 1},
            {"locked_rows": dict.fromkeys(self.named(4), 1)},
            {"reject_ids": self.named(3)},
            {"empty_results": 1},
        ]

    def fault(self, **faults: Any) -> None:
        self.running.fault(**faults)

    def left(self, fault: str) -> Any:
        return getattr(self.running.sandbox.faults, fault)

    def lose(self, answer_too: bool) -> None:
        self.fault(write_fault_at=self.steps[-1], drop_before=1, drop_after=int(answer_too))

    def forget(self) -> None:
        self.fault(empty_results=1)

    def refuse(self, indexes: list[int]) -> None:
        names = [name for each in indexes for name in self.named(each)]
        self.fault(refuse_rows=dict.fromkeys(names, "FIELD_CUSTOM_VALIDATION_EXCEPTION"))

    def calm(self) -> None:
        self.running.sandbox.faults = type(self.running.sandbox.faults)()


class SalesforceBulkCrm(SalesforceCrm):
    """The accounts of the Salesforce sandbox, told by jobs of Bulk 2.0, however few they are."""

    calls: ClassVar = {
        "create_job": r"POST \S+/jobs/ingest ",
        "upload": r"PUT \S+/jobs/ingest/\w+/batches ",
        "close_job": r"PATCH \S+/jobs/ingest/\w+ .*UploadComplete",
        "look": r"GET \S+/jobs/ingest/\w+ ",
        "results": r"GET \S+/jobs/ingest/\w+/\w+ ",
        "abort_job": r"PATCH \S+/jobs/ingest/\w+ .*Aborted",
    }
    steps = ("create_ingest", "upload", "set_state")
    reads = ("show_ingest", "successful", "unsuccessful")

    def short_batches(self, rows: int) -> dict[str, Any]:
        module = "include.sync.targets.salesforce"
        return {f"{module}.JOB_ROWS": rows, f"{module}.COLLECTION_ROWS": 0, f"{module}.BULK_FROM": 0}

    def _job(self, request: str) -> str | None:
        return request

    def _own_faults(self) -> list[dict[str, Any]]:
        return [
            {"write_fault_at": "create_ingest", "malformed": 1},
            {"write_fault_at": "set_state", "malformed": 1},
            {"locked_rows": dict.fromkeys(self.named(4), 1)},
            {"ingest_delay_s": 0.05},
            {"fail_ingest": 1},
            {"fail_ingest": 1, "fail_ingest_rows": 3},
            {"empty_ingest": 1},
        ]

    def forget(self) -> None:
        self.fault(empty_ingest=1)


class WebhookCrm(EachHasOne):
    """A receiver of a webhook. What it holds of an account are the rows that it took of it, each key once, in order.

    Nobody can read it, so that what became of a lost call is learnt by posting its rows again under their keys.
    """

    system = "webhook"
    fields: ClassVar = {"tier": "tier", "next_action": "next_action", "revenue": "net_revenue_365d"}
    calls: ClassVar = {"post": r"POST /rows "}
    keeps_keys = True

    def __init__(self, receiver: webhook_fixture.Receiver) -> None:
        self.receiver = receiver

    def short_batches(self, rows: int) -> dict[str, Any]:
        return {"include.sync.targets.webhook.BATCH_SIZE": rows}

    def record_id(self, index: int) -> str:
        return self.account_id(index)

    def held(self) -> dict[str, Values]:
        held: dict[str, Values] = defaultdict(lambda: dict.fromkeys(self.fields))
        for row in self.receiver.applied.values():
            held[row["account_id"]] |= row["values"]
        return held

    def applied(self) -> list[Applied]:
        return [
            Applied(row["account_id"], {name: value or "" for name, value in row["values"].items()}, key)
            for key, row in self.receiver.applied.items()
        ]

    def reset(self) -> None:
        self.receiver.forget()

    def faults(self) -> list[dict[str, Any]]:
        return [
            {"rate_limited": 2},
            {"rate_limited": 1, "retry_after": 3},
            {"server_error": 1},
            {"server_error": 2, "server_error_status": 502},
            {"drop_after": 1},
            {"drop_before": 1},
            {"drop_after": 1, "drop_before": 1},
            {"drop_after": 2},
            {"empty_complete": 1},
            {"empty_complete": 1, "drop_after": 1},
            {"reject": self.named(3)},
            {"reject": self.named(3), "drop_after": 1},
            {"malformed": 1},
            {"undecodable": 1},
            {"page": 1},
            {"hang_before": 1, "hang_s": FOR_EVER_S},
            {"hang_after": 1, "hang_s": FOR_EVER_S},
            # A secret that a person must put right: the receiver does so by itself.
            {"forgets_secret": 1},
            {"drop_after": 1, "forgets_secret": 1},
        ]

    def fault(self, **faults: Any) -> None:
        self.receiver.fault(**faults)

    def left(self, fault: str) -> Any:
        return getattr(self.receiver.faults, fault)

    def lose(self, answer_too: bool) -> None:
        # The rows that are posted again are not spoken of either: else they would be taken then.
        self.fault(drop_before=1, empty_complete=1, drop_after=int(answer_too))

    def forget(self) -> None:
        self.fault(empty_complete=1)

    def refuse(self, indexes: list[int]) -> None:
        self.fault(refuse=[name for each in indexes for name in self.named(each)])

    def calm(self) -> None:
        self.receiver.faults = type(self.receiver.faults)()


def text(value: Any) -> str | None:
    """Return a value as a CRM is told it, written here anew: numbers without zeros at their end."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    plain = f"{value or 0:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


@contextmanager
def hubspot(
    crm: type[HubSpotCrm], folder: Path, records: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubSpotCrm]:
    """Run the HubSpot sandbox with so many empty companies."""
    accounts = [sandbox_fixture.account(n) for n in range(records)]
    state = folder / "crm.sqlite"
    with sandbox_fixture.running_sandbox(state, accounts, burst_calls=1_000_000) as running:
        sandbox_fixture.reach(monkeypatch, running)
        yield crm(running)


@contextmanager
def salesforce(
    crm: type[SalesforceCrm], folder: Path, records: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SalesforceCrm]:
    """Run the Salesforce sandbox with so many empty accounts."""
    # Hundreds of syncs make more calls than an org allows in a day.
    monkeypatch.setattr(salesforce_app, "DAILY_CALLS", 100_000_000)
    with salesforce_fixture.running_salesforce(folder / "salesforce.sqlite") as running:
        salesforce_fixture.reach(monkeypatch, running)
        yield crm(running, records)


@contextmanager
def webhook(
    crm: type[WebhookCrm], folder: Path, records: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebhookCrm]:
    """Run a receiver, for any number of accounts. When a call was signed it does not mind: the syncs do not wait."""
    with webhook_fixture.running_receiver(time.time, window_s=math.inf) as receiver:
        webhook_fixture.reach(monkeypatch, receiver)
        yield crm(receiver)


CRMS: dict[str, Any] = {
    "hubspot": partial(hubspot, HubSpotCrm),
    "collections": partial(salesforce, SalesforceCrm),
    "bulk": partial(salesforce, SalesforceBulkCrm),
    "webhook": partial(webhook, WebhookCrm),
}
"""Name → what opens the CRM, of a folder, a number of records and a MonkeyPatch."""
