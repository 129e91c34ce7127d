"""The CRMs of the sync's proofs in which an account has no record until the sync makes it."""

import random
import sqlite3
from abc import abstractmethod
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

from tests.integration.salesforce_fixture import JANUARY
from tests.integration.sync_crms import (
    EachHasOne,
    HubSpotCrm,
    SalesforceBulkCrm,
    SalesforceCrm,
    WebhookCrm,
    hubspot,
    salesforce,
    webhook,
)


class MadeByKey(EachHasOne):
    """A CRM whose records are made by key, and new accounts, which have none, that come all the time."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.begin()

    def begin(self) -> None:
        """Forget which accounts came, and whose record is known."""
        self._came: Counter[int] = Counter()
        self._pulled: dict[int, str] = {}
        self.by_hand: set[str] = set()
        """Accounts whose record a person made."""

    def account_id(self, index: int) -> str:
        return f"A{index:04d}-{self._came[index]}"

    def pulled(self, index: int) -> str | None:
        return self._pulled.get(index)

    def record_id(self, index: int) -> str:
        (only,) = self.records()[self.account_id(index)]
        return only

    def named(self, index: int) -> list[str]:
        account = self.account_id(index)
        return [account, *self.records().get(account, [])]

    def records(self) -> dict[str, list[str]]:
        """Return account → the records that bear its key, by the CRM's own store."""
        found: dict[str, list[str]] = {}
        for account, record in self._keys():
            found.setdefault(account, []).append(record)
        return found

    @abstractmethod
    def _keys(self) -> list[tuple[str, str]]:
        """Return each key that there is, and the record that bears it."""

    def reset(self) -> None:
        """Forget all that was told, and the records that were made."""
        super().reset()
        self.begin()

    def turn_over(self, chance: random.Random, accounts: int, by_hand: bool) -> None:
        """Let a pull bring some of the records that were made, and other accounts make room for new ones.

        With `by_hand`, a person makes the record of a few of these before the sync does.
        """
        records = self.records()
        for index in chance.sample(range(accounts), accounts // 3):
            if made := records.get(self.account_id(index)):
                self._pulled[index] = made[0]
        new = chance.sample(range(accounts), chance.choice([3, 6, 12]))
        for index in new:
            self._came[index] += 1
            self._pulled.pop(index, None)
        for index in new[:2] if by_hand else []:
            if self._make(self.account_id(index)):
                self.by_hand.add(self.account_id(index))

    @abstractmethod
    def _make(self, account: str) -> bool:
        """Make an account's record as a person does; return whether that is possible."""


class MadeInStore(MadeByKey):
    """One whose records bear their key in a field, and lie in a database."""

    key: str
    """The field that holds the account's id."""
    name: str
    """The field without which there is no record."""
    listed: str
    """The SQL of each `key` that there is, and the `id` of the record that bears it, by the CRM's own store."""
    erased: str
    """The SQL that takes these records out."""

    @abstractmethod
    def _db(self) -> sqlite3.Connection:
        """Return the CRM's own store."""

    def _keys(self) -> list[tuple[str, str]]:
        return [(row["key"], str(row["id"])) for row in self._db().execute(self.listed)]

    def reset(self) -> None:
        super().reset()
        with self._db() as db:
            db.execute(self.erased)


class HubSpotMaking(MadeInStore, HubSpotCrm):
    """The HubSpot sandbox, whose companies are made by a unique property."""

    key, name = "stratum_account_id", "name"
    creation: ClassVar = {"create": True, "external_key": key, "create_fields": {name: "account_id"}}
    calls: ClassVar = {
        "find": r"POST \S+/companies/batch/read .*idProperty",
        "upsert": r"POST \S+/companies/batch/upsert ",
    }

    listed = (
        "select json_extract(properties, '$.stratum_account_id') as key, id from records "
        "where key is not null and archived_at is null order by id"
    )
    erased = "delete from records where json_extract(properties, '$.stratum_account_id') is not null"

    def _db(self) -> sqlite3.Connection:
        return self.store.db

    def _make(self, account: str) -> bool:
        values = {self.key: account, self.name: "Made by hand"}
        self.store.create(values, datetime(2026, 7, 1, tzinfo=UTC))
        return True


class SalesforceMaking(MadeInStore, SalesforceCrm):
    """The Salesforce sandbox, whose accounts are made by an external id, in collections."""

    key, name = "Stratum_Account_Id__c", "Name"
    creation: ClassVar = {"create": True, "external_key": key, "create_fields": {name: "account_id"}}
    calls: ClassVar = {
        "find": r"GET \S+/query/",
        "upsert": r"PATCH \S+/composite/sobjects/Account/\w+ ",
    }
    steps = ("collection_upsert",)
    reads = ("query",)

    listed = (
        "select json_extract(field_values, '$.Stratum_Account_Id__c') as key, id from rows "
        "where object = 'Account' and key is not null order by seq"
    )
    erased = "delete from rows where json_extract(field_values, '$.Stratum_Account_Id__c') is not null"

    def _db(self) -> sqlite3.Connection:
        return self.org.db

    def _told(self) -> list[str]:
        return [record for _, record in self._keys()]

    def _make(self, account: str) -> bool:
        self.org.insert("Account", JANUARY, **{self.key: account, self.name: "Made by hand"})
        return True


class SalesforceBulkMaking(SalesforceMaking, SalesforceBulkCrm):
    """The same by jobs of Bulk 2.0."""

    calls: ClassVar = SalesforceBulkCrm.calls | {"find": SalesforceMaking.calls["find"]}
    steps = SalesforceBulkCrm.steps
    reads = (*SalesforceBulkCrm.reads, *SalesforceMaking.reads)


class WebhookMaking(MadeByKey, WebhookCrm):
    """A receiver that makes a record of each row that says `create`; what it calls the record, nobody else learns."""

    creation: ClassVar = {"create": True}

    def record_id(self, index: int) -> str:
        return self.account_id(index)

    def _keys(self) -> list[tuple[str, str]]:
        made = [row["account_id"] for row in self.receiver.applied.values() if row.get("create")]
        return list(zip(made, made, strict=True))

    def _make(self, account: str) -> bool:
        return False  # nobody can ask the receiver for a key, so a record made by hand would never be found


Making = HubSpotMaking | SalesforceMaking | WebhookMaking
MAKING: dict[str, Any] = {
    "hubspot creation": partial(hubspot, HubSpotMaking),
    "collections creation": partial(salesforce, SalesforceMaking),
    "bulk creation": partial(salesforce, SalesforceBulkMaking),
    "webhook creation": partial(webhook, WebhookMaking),
}
"""As CRMS."""
