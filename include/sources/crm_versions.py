"""What a CRM record was on each day of its past: versions, from HubSpot's own property histories."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any

from include.dates import zone


@dataclass(frozen=True)
class Entity:
    """An object type of a CRM: the name of its table, and the properties that make versions.

    What Stratum itself writes to HubSpot is not among them.
    """

    name: str
    properties: tuple[str, ...]
    number: str | None = None
    """Of companies alone: which of the properties is the account number."""

    @property
    def is_company(self) -> bool:
        """Whether the records are accounts, not things that belong to one."""
        return self.number is not None


COMPANIES = Entity(
    "companies",
    (
        "name",
        "industry",
        "country",
        "account_number",
        "domain",
        "hs_parent_company_id",
        "hs_merged_object_ids",
    ),
    "account_number",
)
ENTITIES = (
    COMPANIES,
    Entity("contacts", ("jobtitle", "hs_buying_role", "hs_email_optout")),
    Entity(
        "deals",
        (
            "dealname",
            "amount",
            "deal_currency_code",
            "dealstage",
            "pipeline",
            "dealtype",
            "closedate",
            "hs_is_closed_won",
            "hs_analytics_source",
        ),
    ),
    Entity("tickets", ("subject", "hs_ticket_priority", "hs_pipeline_stage", "closed_date")),
    Entity("feedback_submissions", ("hs_survey_type", "hs_value", "hs_submission_timestamp")),
)
"""No name and no address of a person is pulled."""
MERGED = "hs_merged_object_ids"
"""HubSpot's property of a record that others were merged into: their ids, joined by `;`."""


class Unreadable(Exception):
    """A record that no version can be made of; the text is the reason of its quarantine."""


@dataclass(frozen=True)
class Version:
    """A record as it was from `valid_from` on."""

    values: dict[str, str | None]
    is_archived: bool
    valid_from: datetime

    def row_hash(self, entity: Entity, company_record_id: str | None) -> str:
        """Return a fingerprint of the properties, of whether it is archived, and of the company it belongs to."""
        content: list[Any] = [[self.values[name] for name in entity.properties], self.is_archived]
        if not entity.is_company:
            content.append(company_record_id)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Timeline:
    """A record's versions up to the end of a day, oldest first; none where it was created later."""

    record_id: str
    company_record_id: str | None
    """The company it belongs to now, which HubSpot does not date; None where the answer names none."""
    is_archived_now: bool
    created_at: datetime
    modified_at: datetime
    """When anything of the record was last modified, by whomever; may lie after the day."""
    versions: tuple[Version, ...]


def timeline(entity: Entity, record: dict[str, Any], end: datetime, timezone: str) -> Timeline:
    """Return a record's past before `end` from HubSpot's JSON with the histories of the entity's properties.

    There is one version for each day of `timezone` on which a property changed or the record was created or
    archived: what it was at the end of that day, dated by the day's last change. The histories make the answer
    the same whenever it is asked, and blind to modifications that do not concern us, such as our own writes. A
    value whose history HubSpot has dropped is null as of its day, not today's value.
    Raises Unreadable for a record without id or with a date that cannot be read.
    """
    record_id = record.get("id")
    if not record_id:
        raise Unreadable("no_id")
    created_at = instant(record.get("createdAt"))
    is_archived_now = bool(record.get("archived"))
    return Timeline(
        record_id=str(record_id),
        company_record_id=None
        if entity is COMPANIES
        else primary_company(
            ((record.get("associations") or {}).get("companies") or {}).get("results") or []
        ),
        is_archived_now=is_archived_now,
        created_at=created_at,
        modified_at=instant(record.get("updatedAt")),
        versions=day_versions(entity, _changes(entity, record, created_at, is_archived_now), end, timezone),
    )


Change = tuple[datetime, str | None, str | None]
"""When, which property (None: created, or archived), and its value from then on."""
ARCHIVED = "archived"
"""The value of a change without a property that archives."""


def _changes(
    entity: Entity, record: dict[str, Any], created_at: datetime, is_archived_now: bool
) -> list[Change]:
    """Return every change of a record in order of time, its creation first."""
    histories = record.get("propertiesWithHistory") or {}
    changes: list[Change] = []
    for name in entity.properties:
        # HubSpot lists the newest first; of two at one instant the newer has to come last.
        for entry in reversed(histories.get(name) or []):
            # A value kept from before a merge, or set milliseconds before the record's own stamp.
            changed_at = max(instant(entry.get("timestamp")), created_at)
            changes.append((changed_at, name, entry.get("value") or None))
    if is_archived_now:
        changes.append((instant(record.get("archivedAt")), None, ARCHIVED))
    return [(created_at, None, None), *sorted(changes, key=itemgetter(0))]


def day_versions(entity: Entity, changes: list[Change], end: datetime, timezone: str) -> tuple[Version, ...]:
    """Return a version for each day of `timezone` on which changes, in order of time, made a difference, up to `end`."""
    local = zone(timezone)
    values: dict[str, str | None] = dict.fromkeys(entity.properties)
    is_archived = False
    days: dict[date, Version] = {}
    for changed_at, name, value in changes:
        if changed_at >= end:
            break
        if name is not None:
            values[name] = value
        elif value == ARCHIVED:
            is_archived = True
        days[changed_at.astimezone(local).date()] = Version(dict(values), is_archived, changed_at)
    kept: list[Version] = []
    for version in days.values():
        last = kept[-1] if kept else None
        if last is None or (last.values, last.is_archived) != (version.values, version.is_archived):
            kept.append(version)
    return tuple(kept)


def primary_company(links: list[dict[str, str]]) -> str | None:
    """Return the id of the company that a record with these links belongs to.

    HubSpot lists each company once as `<object>_to_company_unlabeled`; the primary one also as
    `<object>_to_company`. Without a primary one it is the lowest id, so that the answer does not waver.
    """
    primary = [link for link in links if str(link.get("type", "")).endswith("_to_company")]
    ids = (str(link["id"]) for link in primary or links)
    return min(ids, key=lambda each: (len(each), each), default=None)


def merged_at(record: dict[str, Any]) -> dict[str, datetime]:
    """Return the ids of records that were merged into this one, and since when its history names them.

    Their own pasts are part of its past then; HubSpot lists them no more, archived or not, and answers for their ids with
    this one. Raises Unreadable where a moment cannot be read.
    """
    found: dict[str, datetime] = {}
    for entry in reversed((record.get("propertiesWithHistory") or {}).get(MERGED) or []):
        for record_id in str(entry.get("value") or "").split(";"):
            if record_id.strip() and record_id.strip() != str(record.get("id")):
                found.setdefault(record_id.strip(), instant(entry.get("timestamp")))
    return found


def instant(text: Any) -> datetime:
    """Return the moment a text names. Raises Unreadable where it names none."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise Unreadable("unreadable_date") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
