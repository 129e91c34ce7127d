"""What a Salesforce record was on each day of its past: from its field history where the org keeps it.

Salesforce tells what a record is and since when nothing of it has changed (SystemModstamp, S). What it was before
is known of a field whose history is kept, and of no other: that is null before S, or before what a load
captured earlier; never today's value.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from operator import itemgetter

from include.dates import zone
from include.sources.crm_landing import Held
from include.sources.crm_versions import ARCHIVED, Change, Entity, Timeline, Unreadable, day_versions, instant

Row = dict[str, str]
"""A row as Bulk 2.0 gives it: field → text, null an empty one."""

SYSTEM_FIELDS = ("Id", "IsDeleted", "CreatedDate", "SystemModstamp")
HISTORY_FIELDS = ("Field", "OldValue", "NewValue")
NUMBERS = ("currency", "double", "int", "long", "percent")
LOOKED_UP_ID = re.compile(r"00[15G][0-9A-Za-z]{12}([0-9A-Za-z]{3})?")
"""An id of an account, a user or a queue. A change of a lookup is kept twice: with the ids, and with the names, which
we leave."""


@dataclass(frozen=True)
class Kind:
    """An object type that is pulled, and where its past is kept."""

    name: str
    entity: Entity
    account: str | None = None
    """The field, of the record or of a parent, that holds its account's id; None of accounts themselves."""
    history: str | None = None
    """The object that keeps the history of its fields."""
    parent: str = ""
    """What the history calls the record: `<parent>Id`, and `<parent>.` before its fields."""
    snapshots: str | None = None
    """An object that keeps `snapshot_fields` at every change of one, whatever is tracked."""
    snapshot_fields: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    """Properties that never change."""
    self_dated: tuple[str, ...] = ()
    """Properties whose value is the moment it was set."""
    ties: tuple[str, ...] = ()
    """Properties by which a record is known to be somebody's."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields to ask for."""
        account = (self.account,) if self.account else ()
        return (*SYSTEM_FIELDS, *account, *self.entity.properties)


def kinds(account_number_field: str) -> tuple[Kind, ...]:
    """Return what is pulled, accounts first. No name and no address of a person is."""
    companies = ("Name", "Industry", "BillingCountry", "OwnerId", "Website", "ParentId", "MasterRecordId")
    number = account_number_field
    return (
        Kind(
            "Account",
            Entity("accounts", (*companies, number), number),
            history="AccountHistory",
            parent="Account",
            ties=(number, "Website"),
        ),
        Kind(
            "Contact",
            Entity("contacts", ("Title", "HasOptedOutOfEmail")),
            account="AccountId",
            history="ContactHistory",
            parent="Contact",
        ),
        Kind(
            "OpportunityContactRole",
            Entity("contact_roles", ("ContactId", "OpportunityId", "Role")),
            account="Contact.AccountId",
            fixed=("ContactId", "OpportunityId"),
        ),
        Kind(
            "Opportunity",
            Entity(
                "opportunities",
                (
                    "Name",
                    "Amount",
                    "CurrencyIsoCode",
                    "StageName",
                    "Type",
                    "CloseDate",
                    "IsWon",
                    "LeadSource",
                    "OwnerId",
                ),
            ),
            account="AccountId",
            history="OpportunityFieldHistory",
            parent="Opportunity",
            snapshots="OpportunityHistory",
            snapshot_fields=("StageName", "Amount", "CloseDate"),
        ),
        Kind(
            "Case",
            Entity("cases", ("Subject", "Priority", "Status", "ClosedDate")),
            account="AccountId",
            history="CaseHistory",
            parent="Case",
            self_dated=("ClosedDate",),
        ),
    )


@dataclass
class Past:
    """What the org keeps of the past of an object type's records: rows of its history and snapshots, by record id.

    `tracked` are the properties whose history is kept.
    """

    tracked: set[str] = field(default_factory=set)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    snapshots: dict[str, list[Row]] = field(default_factory=dict)


def timeline(
    kind: Kind,
    types: dict[str, str],
    record: Row,
    past: Past,
    held: Held | None,
    end: datetime,
    timezone: str,
) -> Timeline:
    """Return a record's past before `end`, one version for each day of `timezone` on which it changed.

    `types` are the types of the object's fields; `held` is what the warehouse holds of the record at `end`, which
    stands until something newer is known. Raises Unreadable for a record without id or with a date that cannot be
    read.
    """
    if not record.get("Id"):
        raise Unreadable("no_id")
    created_at, modified_at = instant(record["CreatedDate"]), instant(record["SystemModstamp"])
    changes = _changes(kind, types, record, past, created_at, modified_at)
    if held is not None and held.values is not None:
        changes += [
            (held.valid_from, name, value)
            for name in kind.entity.properties
            if (value := held.values.get(name)) is not None and held.valid_from < modified_at
        ]
    is_deleted = record["IsDeleted"] == "true"
    ordered: list[Change] = [(created_at, None, None), *sorted(changes, key=itemgetter(0))]
    # A tie without a history counts from the day that first sees it. From the last modification on, a date before it
    # would know of the records that nobody modified later, and of those alone: of the accounts that were to fall silent.
    told = {name for _, name, _ in changes}
    undated = [name for name in kind.ties if name not in told] if held is None else []
    last_day = (end - timedelta(microseconds=1)).astimezone(zone(timezone))
    first_seen = max(modified_at, last_day.replace(hour=0, minute=0, second=0, microsecond=0))
    ordered += [
        (modified_at, name, _value(types, name, record))
        for name in kind.entity.properties
        if name not in undated
    ]
    if is_deleted:
        ordered.append((modified_at, None, ARCHIVED))
    ordered += [(first_seen, name, _value(types, name, record)) for name in undated]
    return Timeline(
        record_id=record["Id"],
        company_record_id=(record[kind.account] or None) if kind.account else None,
        is_archived_now=is_deleted,
        created_at=created_at,
        modified_at=modified_at,
        versions=day_versions(kind.entity, ordered, end, timezone),
    )


def _changes(
    kind: Kind, types: dict[str, str], record: Row, past: Past, created_at: datetime, modified_at: datetime
) -> list[Change]:
    """Return what is known of a record before its last modification."""
    rows = past.rows.get(record["Id"], [])
    snapshots = past.snapshots.get(record["Id"], [])
    # Where the org kept history when the record was made, the first old value is that of its beginning.
    is_whole = any(row["Field"] == "created" for row in rows)
    found: list[Change] = []
    for name in kind.entity.properties:
        value = _value(types, name, record)
        if name in kind.fixed:
            found.append((created_at, name, value))
        elif name in kind.self_dated:
            if value is not None:
                found.append((max(created_at, instant(value)), name, value))
        elif snapshots and name in kind.snapshot_fields:
            found += [(instant(row["CreatedDate"]), name, _value(types, name, row)) for row in snapshots]
        else:
            own = [row for row in rows if _is_of(row, name, types)]
            if is_whole and (own or name in past.tracked):
                first = _text(types, name, own[0]["OldValue"]) if own else value
                found.append((created_at, name, first))
            found += [(instant(row["CreatedDate"]), name, _text(types, name, row["NewValue"])) for row in own]
    # What came after the record was read belongs to its next modification.
    return [(max(at, created_at), name, value) for at, name, value in found if at <= modified_at]


def _is_of(row: Row, name: str, types: dict[str, str]) -> bool:
    """Tell whether a row of a history is a change of a property; of a lookup, the one with the ids."""
    if types.get(name) != "reference":
        return row["Field"] == name
    ids = [text for text in (row["OldValue"], row["NewValue"]) if text]
    return row["Field"] == name.removesuffix("Id") and bool(ids) and all(map(LOOKED_UP_ID.fullmatch, ids))


def _value(types: dict[str, str], name: str, row: Row) -> str | None:
    """Return a property of a row; None where it is null, or where the user does not see the field."""
    return _text(types, name, row.get(name, ""))


def _text(types: dict[str, str], name: str, text: str) -> str | None:
    """Return a value in the one form that record and history share: 100.0 and 100 are one amount."""
    if types.get(name) in NUMBERS and text:
        try:
            return format(Decimal(text).normalize(), "f")
        except InvalidOperation:
            return text
    # A NUL is none to PostgreSQL; the client takes those of the records out, but not of what it escapes.
    return text.replace("\x00", "") or None
