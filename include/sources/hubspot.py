"""Pull the companies of HubSpot and land them as versions: what each was at the end of the as-of date."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from include.connections import get_connection
from include.dates import day_end, zone
from include.sources.config import Company, Sources
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sync.hubspot_api import HubSpotApi, NoAnswer, Refused, hubspot, unreachable

SOURCE = "crm"
ENTITY = "companies"
BUSINESS = ["name", "industry", "country", "account_number"]
"""The properties whose change makes a new version. What Stratum itself writes to HubSpot is not among them."""
STAMPS = ["createdate", "hs_lastmodifieddate"]
COLUMNS = (
    "load_id, load_seq, loaded_at, known_on, valid_from, record_id, account_number, is_archived, row_hash, "
    "properties"
)


class _Unreadable(Exception):
    """A company that cannot be a version; the text is the reason of its quarantine."""


@dataclass(frozen=True)
class Version:
    """A company as it was at the end of a day."""

    record_id: str
    values: dict[str, str | None]
    is_archived: bool
    created_at: datetime
    valid_from: datetime
    """When the newest of `values` was set, or the company was archived or created."""
    modified_at: datetime
    """When anything of the company was last modified, by whomever; may lie after the day."""

    @property
    def row_hash(self) -> str:
        """A fingerprint of the business properties and of whether it is archived."""
        content = json.dumps([[self.values[name] for name in BUSINESS], self.is_archived])
        return hashlib.sha256(content.encode()).hexdigest()


def ingest_crm(
    sources: Sources,
    as_of: date,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Load | None:
    """Land the companies of the CRM as of the end of `as_of`; None, and written down, where there is no CRM.

    rows_in = rows_new (record not seen before) + rows_corrected (a changed one) + rows_unchanged +
    rows_quarantined (no id, or no readable date). A company created after the day is counted in rows_later.
    Raises StratumError where HubSpot refuses or does not answer; then nothing is landed.
    """
    if sources.crm is None:
        record_absent(SOURCE, ENTITY, as_of)
        return None
    access = get_connection(sources.crm.connection)
    with hubspot(access, "loader", clock, sleep) as api:
        try:
            pulled = list(_pull(api))
        except (Refused, NoAnswer) as error:
            raise unreachable(error, f"let Stratum read the companies at {api.host}") from error
    with landing(SOURCE, ENTITY, as_of) as load:
        company = sources.company
        bind_company(load.connection, company.name, company.timezone, company.currency)
        _land(load, pulled, company)
        return load


def _pull(api: HubSpotApi) -> Iterator[dict[str, Any]]:
    for archived in (False, True):
        for page in api.pages(STAMPS, BUSINESS, archived):
            yield from page


def _land(load: Load, pulled: list[dict[str, Any]], company: Company) -> None:
    end = day_end(load.as_of, company.timezone)
    versions: dict[str, Version] = {}
    for each in pulled:
        try:
            version = version_as_of(each, end)
        except _Unreadable as error:
            _quarantine(load, each, str(error))
            continue
        # Archived while we pulled, it is in both lists; the later answer holds.
        versions[version.record_id] = version
    newest, seen = _held(load, end)
    changed = []
    for version in versions.values():
        if version.created_at >= end:
            load.rows_later += 1
            continue
        load.rows_unattributed += version.values["account_number"] is None
        held = newest.get(version.record_id)
        if held is not None and held[0] == version.row_hash:
            load.rows_unchanged += 1
            continue
        if version.record_id in seen:
            load.rows_corrected += 1
        else:
            load.rows_new += 1
        changed.append((version, _valid_from(version, held[1] if held else None, end)))
    load.rows_in = load.rows_new + load.rows_corrected + load.rows_unchanged + load.rows_quarantined
    _append(load, changed, company.timezone)


def version_as_of(company: dict[str, Any], end: datetime) -> Version:
    """Return what a company, in HubSpot's JSON with the histories of BUSINESS, was just before `end`.

    The histories make the answer the same whenever it is asked, and blind to modifications that do not
    concern us, such as our own writes. Raises _Unreadable for one without id or without readable dates.
    """
    record_id = company.get("id")
    if not record_id:
        raise _Unreadable("no_id")
    properties = company.get("properties") or {}
    created_at = _instant(company.get("createdAt") or properties.get("createdate"))
    modified_at = _instant(properties.get("hs_lastmodifieddate") or company.get("updatedAt"))
    stamps = [created_at]
    values: dict[str, str | None] = {}
    for name in BUSINESS:
        known = [
            (_instant(entry.get("timestamp")), entry.get("value") or None)
            for entry in (company.get("propertiesWithHistory") or {}).get(name) or []
        ]
        past = [entry for entry in known if entry[0] < end]
        newest = max(past, key=lambda entry: entry[0]) if past else None
        values[name] = newest[1] if newest else None
        if newest:
            stamps.append(newest[0])
    is_archived = False
    if company.get("archived"):
        archived_at = _instant(company.get("archivedAt"))
        is_archived = archived_at < end
        if is_archived:
            stamps.append(archived_at)
    return Version(str(record_id), values, is_archived, created_at, max(stamps), modified_at)


def _instant(text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise _Unreadable("unreadable_date") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _valid_from(version: Version, held_from: datetime | None, end: datetime) -> datetime:
    """Return from when a version holds: its own stamp, unless the version before it is newer than that.

    Restoring an archived company, for one, leaves no stamp but the modification of the whole record.
    """
    if held_from is None or version.valid_from > held_from:
        return version.valid_from
    if held_from < version.modified_at < end:
        return version.modified_at
    return end - timedelta(microseconds=1)


def _held(load: Load, end: datetime) -> tuple[dict[str, tuple[str, datetime]], set[str]]:
    """Return the newest version of each record before `end` (hash, valid_from), and all records ever seen."""
    newest = load.connection.execute(
        "select distinct on (record_id) record_id, row_hash, valid_from from raw_hubspot.companies "
        "where valid_from < %s order by record_id, valid_from desc, load_seq desc",
        [end],
    ).fetchall()
    seen = load.connection.execute("select distinct record_id from raw_hubspot.companies").fetchall()
    return {row[0]: (row[1], row[2]) for row in newest}, {row[0] for row in seen}


def _append(load: Load, changed: list[tuple[Version, datetime]], timezone: str) -> None:
    local = zone(timezone)
    with (
        load.connection.cursor() as cursor,
        cursor.copy(f"copy raw_hubspot.companies ({COLUMNS}) from stdin") as copy,
    ):
        for version, valid_from in changed:
            copy.write_row(
                [
                    load.load_id,
                    load.load_seq,
                    load.started_at,
                    _known_on(load, valid_from.astimezone(local).date()),
                    valid_from,
                    version.record_id,
                    version.values["account_number"],
                    version.is_archived,
                    version.row_hash,
                    Jsonb(version.values | {"createdate": version.created_at.isoformat()}),
                ]
            )


def _known_on(load: Load, day: date) -> date:
    if load.covered_until is None or day > load.covered_until:
        return day
    return load.as_of


def _quarantine(load: Load, company: dict[str, Any], reason: str) -> None:
    load.reasons[reason] += 1
    original = json.dumps(company, sort_keys=True)
    load.connection.execute(
        "insert into quarantine.rows "
        "(source, entity, row_hash, reason, original, first_load_id, last_load_id) "
        "values (%s, %s, %s, %s, %s, %s, %s) on conflict (source, entity, row_hash) do update set "
        "reason = excluded.reason, last_load_id = excluded.last_load_id",
        [
            load.source,
            load.entity,
            hashlib.sha256(original.encode()).hexdigest(),
            reason,
            Jsonb(company),
            load.load_id,
            load.load_id,
        ],
    )
