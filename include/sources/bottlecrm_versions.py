"""What a BottleCRM record was on each day: from the few dates the CRM keeps, and from having been looked at.

BottleCRM tells what a record is, and of a few of its fields since when. What has no date there is known of a day
only where it was looked at on that day, or by the day's own load the day after (`Sight.counts`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from include.sources.bottlecrm_api import Listing, Record
from include.sources.crm_landing import Held
from include.sources.crm_versions import (
    ARCHIVED,
    Change,
    Entity,
    Timeline,
    Unreadable,
    day_versions,
    instant,
)

LAST_MOMENT = timedelta(microseconds=1)
"""How long before the end of a day the state lies that a load after that end has seen."""
GRACE = timedelta(days=1)
"""How long after its end a day's own load may see how it ended."""


@dataclass(frozen=True)
class Kind:
    """An object type that is pulled, where it is listed, and which of its properties BottleCRM dates."""

    entity: Entity
    listing: Listing
    account: Callable[[Record], str | None] | None = None
    """The id of the account a record belongs to; None of accounts themselves."""
    modified: str | None = None
    """The field that dates everything a record is."""
    dated: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Fields that date single properties, and those."""

    @property
    def dates(self) -> dict[str, str]:
        """Property → the field that says since when it is what it is."""
        return {name: source for source, names in self.dated for name in names}


@dataclass(frozen=True)
class Sight:
    """When a record was looked at, for which day, and whether what has no date counts for that day.

    `end` is the end of the day. It counts where the day was not over yet, and in the first load of the day where it was
    over for no longer than GRACE: then it stands for the day's last moment. A date that is loaded again is not looked
    at anew, so that it gives the same rows.
    """

    at: datetime
    end: datetime
    is_first_of_day: bool

    @property
    def counts(self) -> bool:
        """Whether what has no date counts for the day."""
        return self.at < self.end or (self.is_first_of_day and self.at < self.end + GRACE)

    @property
    def moment(self) -> datetime:
        """The moment of the day that what was seen stands for."""
        return min(self.at, self.end - LAST_MOMENT)


def reduced(kind: Kind, record: Record, account_number_field: str) -> Record:
    """Return of a record as BottleCRM gives it what Stratum keeps: ids, dates and the properties, no person."""
    values = {name: _text(record.get(name)) for name in kind.entity.properties}
    if "assigned_to" in values:
        # A person comes with name and address; the id of the profile is enough.
        ids = sorted(str(profile["id"]) for profile in record.get("assigned_to") or [])
        values["assigned_to"] = ";".join(ids) or None
    if kind.entity.number is not None:
        values[kind.entity.number] = _text((record.get("custom_fields") or {}).get(account_number_field))
    dates = {name: record.get(name) for name in ("created_at", kind.modified, *kind.dates.values()) if name}
    return {
        "id": record.get("id"),
        "account": kind.account(record) if kind.account else None,
        "is_active": bool(record.get("is_active", True)),
        "properties": values,
        **dates,
    }


def timeline(kind: Kind, record: Record, held: Held | None, sight: Sight, timezone: str) -> Timeline:
    """Return a reduced record's past before the end of the day, a version for each day of `timezone` it changed on.

    `held` is what the warehouse holds of it at that end, which stands until something newer is known. Raises Unreadable
    for a record without id or with a date that cannot be read.
    """
    if not record["id"]:
        raise Unreadable("no_id")
    created_at = instant(record["created_at"])
    modified_at = _modified_at(kind, record, created_at, sight)
    changes: list[Change] = [
        (max(created_at, instant(record[source])), name, record["properties"][name])
        for name, source in kind.dates.items()
        if record[source] is not None
    ]
    later = {name for at, name, _ in changes if at >= sight.end}
    if held is not None and held.values is not None:
        changes += [
            (held.valid_from, name, value)
            for name in kind.entity.properties
            if (value := held.values.get(name)) is not None
        ]
    before = sorted((change for change in changes if change[0] < sight.end), key=itemgetter(0))
    ordered: list[Change] = [(created_at, None, None), *before]
    if modified_at < sight.end:
        # What has no date is as it was seen, after everything that has one.
        moment = max(modified_at, *(at for at, _, _ in ordered))
        ordered += [
            (moment, name, value) for name, value in record["properties"].items() if name not in later
        ]
        if not record["is_active"]:
            ordered.append((moment, None, ARCHIVED))
    return Timeline(
        record_id=str(record["id"]),
        company_record_id=record["account"],
        is_archived_now=not record["is_active"],
        created_at=created_at,
        modified_at=modified_at,
        versions=day_versions(kind.entity, ordered, sight.end, timezone),
    )


def _modified_at(kind: Kind, record: Record, created_at: datetime, sight: Sight) -> datetime:
    """Return since when a record is what it is: by its own date, else by the sight; after the day where that is too late."""
    if kind.modified is not None:
        return max(created_at, instant(record[kind.modified]))
    return sight.moment if sight.counts else max(sight.at, sight.end)


def _account_of(record: Record) -> str | None:
    return str(record["account"]["id"]) if record.get("account") else None


def _account_of_contact(record: Record) -> str | None:
    """Return the account a contact names as its own; else of those that list it the lowest id, which does not waver."""
    if record.get("account"):
        return str(record["account"])
    return min((str(account["id"]) for account in record.get("linked_accounts") or []), default=None)


def _text(value: Any) -> str | None:
    """Return a value as text, null for nothing: yes and no as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value not in (None, "") else None


KINDS = (
    Kind(
        Entity(
            "accounts",
            ("name", "industry", "country", "website", "assigned_to", "account_number"),
            "account_number",
        ),
        Listing(
            "accounts/",
            (("active_accounts", "open_accounts"), ("closed_accounts", "close_accounts")),
            (("active_accounts", "open_accounts_count"), ("closed_accounts", "close_accounts_count")),
        ),
    ),
    Kind(
        Entity("contacts", ("title", "do_not_call")),
        Listing("contacts/", (("results",),), (("count",),)),
        account=_account_of_contact,
        modified="updated_at",
    ),
    Kind(
        Entity(
            "opportunities",
            (
                "name",
                "amount",
                "currency",
                "stage",
                "stage_kind",
                "pipeline",
                "opportunity_type",
                "closed_on",
                "lead_source",
                "assigned_to",
            ),
        ),
        Listing("opportunities/", (("opportunities",),), (("opportunities_count",),)),
        account=_account_of,
        dated=(("stage_changed_at", ("stage", "stage_kind")),),
    ),
    Kind(
        Entity("tickets", ("name", "status", "priority", "case_type", "closed_on", "resolved_at")),
        Listing(
            "cases/",
            (("cases",),),
            (("cases_count",),),
            (("slim", "true"), ("include_deleted", "true"), ("show_merged", "true")),
        ),
        account=_account_of,
        dated=(("resolved_at", ("resolved_at", "status", "closed_on")),),
    ),
)
"""What is pulled, accounts first. No name and no address of a person is kept."""
