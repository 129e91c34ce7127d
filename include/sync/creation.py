"""Accounts without a record: which of them the CRM has by their key after all."""

from dataclasses import replace
from itertools import islice

from include.sync.asking import asking
from include.sync.ledger import Ledger
from include.sync.mapping import SyncMapping
from include.sync.plan import Change, Plan, make_plan
from include.sync.setup import lacking_fields
from include.sync.target import Target

ASKED_AT_ONCE = 5_000


def adopt_found(ledger: Ledger, mapping: SyncMapping, target: Target, plan: Plan) -> Plan:
    """Return the plan in which only accounts are made of which the CRM has no record that bears their key.

    A record that is found (the ledger was lost, or a person made it) is noted in the ledger and told as any other, by
    the rules of its fields; one that is another account's holds its row as key_is_taken. Raises StratumError or
    TransientError where the CRM does not tell.
    """
    creations = (change for change in plan.changes if change.by_key)
    taken: dict[str, str] = {}
    is_found = False
    while some := list(islice(creations, ASKED_AT_ONCE)):
        if found := found_by_key(target, some):
            is_found = True
            taken |= ledger.note_found(found)
    if is_found:
        plan = make_plan(ledger.connection, mapping, plan.run_id, plan.as_of)
    for account_id, record_id in taken.items():
        plan.hold_creation(account_id, "key_is_taken", f"record {record_id} is another account's")
    return plan


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
