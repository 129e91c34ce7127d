"""Accounts without a record: which of them the CRM has by their key after all."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import psycopg

from include.sync.asking import asking
from include.sync.ledger import Ledger
from include.sync.mapping import SyncMapping
from include.sync.plan import Change, Plan, make_plan
from include.sync.setup import lacking_fields
from include.sync.target import Target

ASKED_AT_ONCE = 5_000
# Joined, since none of the tables is told by record alone: a look at each for each record would take for ever.
TAKEN = """
with found as (
    select * from unnest(%(accounts)s::text[], %(records)s::text[]) as found (account_id, record_id)
),
known as (
    select record_id, account_id from sync.ledger where target = %(target)s
    union all
    select crm_record_id, account_id from published.customer_360 where crm_system = split_part(%(target)s, ':', 1)
    union all
    -- What a dry run found on a page before: it notes nothing in the ledger.
    select record_id, account_id from pg_temp.planned where state = 'change' and not by_key
)
select found.account_id, found.record_id
from found inner join known on known.record_id = found.record_id and known.account_id <> found.account_id
-- A CRM may take two keys for one, as where they differ in upper and lower case alone.
union
select found.account_id, found.record_id
from found inner join found as other on other.record_id = found.record_id and other.account_id < found.account_id
"""


def adopt_found(ledger: Ledger, mapping: SyncMapping, target: Target, plan: Plan) -> Plan:
    """Return the plan in which only accounts are made of which the CRM has no record that bears their key.

    A record that is found (the ledger was lost, or a person made it) is noted in the ledger and told as any other, by
    the rules of its fields; one that is another account's holds its row as key_is_taken. Raises StratumError or
    TransientError where the CRM does not tell.
    """
    taken: dict[str, str] = {}
    is_found = False
    for found, of_others in _found(ledger.connection, mapping.target, target, plan):
        is_found = True
        ledger.note_found(found)
        taken |= of_others
    if is_found:
        plan = make_plan(ledger.connection, mapping, plan.run_id, plan.as_of)
    _hold_taken(plan, taken)
    return plan


def show_found(target: Target, mapping: SyncMapping, plan: Plan) -> None:
    """Change the plan as `adopt_found` would have it, and write nothing to the books: for a dry run."""
    for found, of_others in _found(plan.connection, mapping.target, target, plan):
        plan.adopt(found, list(mapping.fields))
        _hold_taken(plan, of_others)


def _found(
    connection: psycopg.Connection, name: str, target: Target, plan: Plan
) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield account → record id of what was found by key, some at a time: of the accounts' own, and of others'."""
    creations = (change for change in plan.changes if change.by_key)
    while some := list(islice(creations, ASKED_AT_ONCE)):
        if found := found_by_key(target, some):
            taken = _taken(connection, name, found)
            yield {account: record for account, record in found.items() if account not in taken}, taken


def _taken(connection: psycopg.Connection, name: str, found: dict[str, str]) -> dict[str, str]:
    """Return those of the records that are another account's: by the books, by what is published, or found for both."""
    return dict(
        connection.execute(
            TAKEN, {"target": name, "accounts": list(found), "records": list(found.values())}
        ).fetchall()
    )


def _hold_taken(plan: Plan, taken: dict[str, str]) -> None:
    for account_id, record_id in taken.items():
        plan.hold_creation(account_id, "key_is_taken", f"record {record_id} is another account's")


def can_find(target: Target, mapping: SyncMapping) -> bool:
    """Tell whether the target can be asked by the key of `mapping`: no record bears one that is yet to be set up.

    Raises StratumError or TransientError where it does not tell.
    """
    key = mapping.external_key
    return key is not None and not lacking_fields(target, {key: "string"})


def found_by_key(target: Target, changes: list[Change]) -> dict[str, str]:
    """Return account → record id of the accounts, of those to be made, whose key a record bears."""
    keys = [change.account_id for change in changes if change.by_key]
    if not keys:
        return {}
    with asking(target, "which accounts it has by their key", "Nothing was sent."):
        return target.find(keys)


def with_records(changes: list[Change], found: dict[str, str], mapping: SyncMapping) -> list[Change]:
    """Return the changes, those that were found by their key (account → record id) as changes of that record."""
    return [
        replace(
            change,
            record_id=found[change.account_id],
            values={name: text for name, text in change.values.items() if name in mapping.fields},
            by_key=False,
        )
        if change.by_key and change.account_id in found
        else change
        for change in changes
    ]
