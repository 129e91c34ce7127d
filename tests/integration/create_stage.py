"""Accounts without a record, and one target of each kind that may make them: what it holds, by its own record."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from include.sync.run import set_up_target
from tests.conftest import Warehouse
from tests.integration.salesforce_fixture import JANUARY
from tests.integration.sync_stage import NO_BRAKES, TargetStage, Time
from tests.integration.target_stage import MARKS, Place

CREATED_BY = ("hubspot", "collections", "bulk")
"""The kinds that have records of their own, by which a second one is seen."""
MAKES = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.extended] if kind != "hubspot" else []) for kind in CREATED_BY],
)
"""The everyday run has one kind of each rule."""
MAPPINGS: dict[str, dict[str, Any]] = {
    "hubspot": {
        "fields": {"stratum_tier": "tier"},
        "external_key": "stratum_account_id",
        "create_fields": {"name": "account_name"},
    },
    "salesforce": {
        "fields": {"Stratum_Tier__c": "tier"},
        "external_key": "Stratum_Account_Id__c",
        "create_fields": {"Name": "account_name"},
    },
    "webhook": {"fields": {"tier": "tier"}},
}


class CreateStage(TargetStage):
    """Publishes accounts with and without a record, syncs them, and counts what the target holds."""

    def __init__(self, warehouse: Warehouse, place: Place, time: Time) -> None:
        rules = {"system": place.system, "create": True, "brakes": dict(NO_BRAKES)}
        super().__init__(warehouse, time, **rules, **MAPPINGS[place.system])
        self.place = place
        self.time.slept.clear()
        self.mark = next(MARKS)
        place.mend()
        place.records()
        self.forget()
        set_up_target(self.sources, "crm")

    @property
    def tier(self) -> str:
        """What the target calls the tier."""
        return next(iter(self.mapping["fields"]))

    @property
    def key(self) -> str:
        """What the target calls the account's id; a webhook's rows bear it beside their values."""
        return str(self.mapping.get("external_key") or "account_id")

    def account(self, index: int) -> str:
        """Return the id of an account of this test."""
        return f"N{self.mark}-{index}"

    def publish(self, accounts: int | list[int] = 5, **columns: Any) -> None:  # type: ignore[override]
        """Publish accounts that have no record, or the one, or the columns, that are given for all or by index."""
        rows = []
        for index in range(accounts) if isinstance(accounts, int) else accounts:
            given = {
                name: value[index] if isinstance(value, dict) and index in value else value
                for name, value in columns.items()
            }
            row = {"tier": "A", "account_name": f"Company {index}", "may_be_told": True} | {
                name: value for name, value in given.items() if not isinstance(value, dict)
            }
            if row.get("crm_record_id"):
                row["crm_system"] = self.place.system
            rows.append({"account_id": self.account(index)} | row)
        super().publish(*rows)

    def records(self) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """Return account → the records that bear its key (id, fields), by the target's own store.

        Of a webhook: the rows that were taken, each key once, and said that the account is new.
        """
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for record_id, values in self._all_records():
            if str(values.get(self.key, "")).startswith(f"N{self.mark}-"):
                found.setdefault(values[self.key], []).append((record_id, values))
        return found

    def _all_records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self.place.system == "hubspot":
            store = self.place.running.sandbox.store
            for row in store.db.execute(
                "select id, properties from records where kind = 'companies' and archived_at is null"
            ):
                yield str(row["id"]), json.loads(row["properties"])
        elif self.place.system == "salesforce":
            db = self.place.running.org.db
            for row in db.execute("select id, field_values from rows where object = 'Account'"):
                values = json.loads(row["field_values"])
                if not values["IsDeleted"]:
                    yield row["id"], values
        else:
            for row in self.place.running.applied.values():
                if row.get("create"):
                    yield row["account_id"], row["values"] | {"account_id": row["account_id"]}

    def total(self) -> int:
        """Return how many records the target has, whoever made them."""
        return len(list(self._all_records()))

    def other_record(self) -> str:
        """Return the id of a record that nobody here made."""
        store = self.place.running
        if self.place.system == "hubspot":
            values = {"name": f"Other of {self.mark}"}
            return str(store.sandbox.store.create(values, datetime(2026, 1, 1, tzinfo=UTC)))
        return str(store.org.insert("Account", JANUARY, Name=f"Other of {self.mark}"))

    def edit(self, record_id: str, **values: str) -> None:
        """Change a record as a person in the CRM does."""
        if self.place.system == "hubspot":
            self.place.running.sandbox.store.update([(record_id, values)], datetime(2026, 7, 1, tzinfo=UTC))
        else:
            self.place.running.org.update(record_id, JANUARY, **values)

    def delete(self, record_id: str) -> None:
        """Delete a record as a person in the CRM does."""
        if self.place.system == "hubspot":
            self.place.running.sandbox.store.archive(record_id, datetime(2026, 7, 1, tzinfo=UTC))
        else:
            self.place.running.org.delete(record_id, JANUARY)

    def shown(self, record_id: str) -> str | None:
        """Return the tier that a record holds."""
        return dict(self._all_records())[record_id].get(self.tier) or None

    def record_of(self, index: int) -> str:
        """Return the one record that bears an account's key."""
        ((record_id, _),) = self.records()[self.account(index)]
        return record_id

    def assert_one_record_each(self, accounts: int, tier: str = "A") -> None:
        """By the target's own record: each account has one, with what is published, and the books know its id."""
        held = self.records()
        assert sorted(held) == sorted(self.account(n) for n in range(accounts))
        assert {account: len(records) for account, records in held.items()} == dict.fromkeys(held, 1)
        assert {records[0][1][self.tier] for records in held.values()} == {tier}
        known = dict(self.warehouse.rows("select account_id, record_id from sync.ledger"))
        assert {account: records[0][0] for account, records in held.items()} == known
        assert self.warehouse.value("select count(*) from sync.attempts where status = 'open'") == 0
