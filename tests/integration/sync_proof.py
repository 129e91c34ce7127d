"""What the proofs of the sync share: what is published, what a CRM holds, and what the books must say of both."""

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.warehouse.embedded import Cluster
from tests.conftest import Warehouse, fresh_warehouse
from tests.integration.sync_crms import CRMS, Applied, Crm, HubSpotCrm, Values, WebhookCrm, text
from tests.integration.sync_making_crms import MAKING, Making
from tests.integration.sync_stage import NO_BRAKES, TargetStage, Time, prepare

COLUMNS = ("tier", "next_action", "net_revenue_365d")
FIELDS = HubSpotCrm.fields
TOLD = 24
"""Accounts of `published` (conftest.py), all of them told."""


class Published(TargetStage):
    """What is published, as a dict: account number → column → value. The dict is the model of the proofs."""

    def __init__(self, warehouse: Warehouse, crm: Crm) -> None:
        rules = {"make_fields": True, "brakes": NO_BRAKES, **crm.creation}
        super().__init__(warehouse, Time(), system=crm.system, fields=crm.fields, **rules)
        self.crm = crm
        self.accounts: dict[int, dict[str, Any]] = {}

    def write(self) -> None:
        """Publish the accounts, in the place of what was published."""
        rows = []
        for index, values in self.accounts.items():
            record_id = self.crm.pulled(index)
            keys = (self.crm.account_id(index), record_id, record_id and self.crm.system)
            rows.append((*keys, *(values[name] for name in COLUMNS)))
        names = ", ".join(("account_id", "crm_record_id", "crm_system", *COLUMNS))
        with psycopg.connect(self.warehouse.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute("delete from published.customer_360")
            cursor.executemany(
                f"insert into published.customer_360 ({names}) values (%s, %s, %s, %s, %s, %s)", rows
            )

    def reset(self) -> None:
        """Empty the books and what is published."""
        self.accounts = {}
        self.crm.reset()
        self.forget()
        self.warehouse.rows("delete from published.customer_360")

    def forget(self) -> None:
        """Empty the books, hundreds of times in one test."""
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
            told = {name: text(values[column]) for name, column in self.crm.fields.items()}
            shown = held[self.crm.record_id(index)]
            if any(value is not None and value != shown[name] for name, value in told.items()):
                found[self.crm.record_id(index)] = (told, shown)
        return found


@contextmanager
def proving_ground(
    system: str, cluster: Cluster, template: str, folder: Path, records: int
) -> Iterator[Published]:
    """A CRM of so many empty records, and a warehouse that publishes to it; `template` is a migrated database.

    `system` is of CRMS, or of MAKING: then none of the records is an account's.
    """
    with (
        fresh_warehouse(cluster, template, folder) as warehouse,
        pytest.MonkeyPatch.context() as patch,
        (CRMS | MAKING)[system](folder, records, patch) as crm,
    ):
        prepare(warehouse)
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

    What was carried out of a record is, in its order, what the books know as confirmed of it, with the same values, under
    the attempt's own id where the CRM keeps it and in the attempt's own job; and no row was told what its record held
    already.
    """
    attempts = warehouse.rows(
        "select attempt_id, job_id, record_id, status, payload from sync.attempts order by attempted_at, attempt_id"
    )
    confirmed: dict[str, list[Applied]] = defaultdict(list)
    for attempt, job, record, status, payload in attempts:
        if status in ("confirmed", "landed"):
            values = {name: value or "" for name, value in payload.items()}
            named = str(attempt) if crm.keeps_keys else None
            confirmed[record].append(Applied(record, values, named, job))
    applied: dict[str, list[Applied]] = defaultdict(list)
    held: dict[str, dict[str, str]] = defaultdict(dict)
    for write in crm.applied():
        applied[write.record_id].append(write)
        before = held[write.record_id]
        assert not write.values.items() <= before.items(), f"{write.record_id} was told {write.values} again"
        before |= write.values
    for record in {*applied, *confirmed}:
        assert applied[record] == confirmed[record], f"{record}: carried out, and known as such"
    statuses = [status for _, _, _, status, _ in attempts]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def assert_sent_again_without_an_answer_alone(warehouse: Warehouse, crm: WebhookCrm) -> int:
    """Compare what came to a receiver with the attempts; return how many rows came again.

    What comes under a key is always the same row, and it comes again only as long as the books know no answer.
    """
    answered = dict(warehouse.rows("select attempt_id::text, answered_at from sync.attempts"))
    arrived = crm.receiver.arrived
    for key, arrivals in arrived.items():
        assert [row for _, row in arrivals] == [arrivals[0][1]] * len(arrivals), (
            f"{key} came with other values"
        )
        assert [at for at, _ in arrivals if at > answered[key]] == [], f"{key} came again after its answer"
    return sum(len(arrivals) - 1 for arrivals in arrived.values())


def assert_one_record_each(warehouse: Warehouse, crm: Making) -> int:
    """Count the records that bear each account's key in the CRM's own store; return how many there are.

    Never two bear the same. Each account of the ledger has the one that the ledger names, with the values that it says were
    confirmed; no other account has one, but by a person's hand.
    """
    records = crm.records()
    assert {account: found for account, found in records.items() if len(found) != 1} == {}
    ledger = warehouse.rows("select account_id, record_id, confirmed from sync.ledger")
    known = {account: record for account, record, _ in ledger}
    assert len(known) == len(ledger)
    assert known == {
        account: record
        for account, (record,) in records.items()
        if account in known or account not in crm.by_hand
    }
    held = crm.held()
    confirmed = {record: {name: told.get(name) for name in crm.fields} for _, record, told in ledger}
    assert {record: held[record] for record in confirmed} == confirmed
    return len(records)
