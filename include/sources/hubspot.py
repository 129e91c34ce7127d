"""Pull the CRM from HubSpot and land it as versions: companies, contacts, deals, tickets, survey answers."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from include.connections import get_connection
from include.dates import day_end, zone
from include.errors import StratumError
from include.sources.config import Company, Sources
from include.sources.crm_versions import COMPANIES, ENTITIES, Entity, Timeline, Unreadable, Version, timeline
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sources.resolution import resolve_unseen
from include.sync.hubspot_api import HubSpotApi, NoAnswer, Refused, hubspot, unreachable

log = logging.getLogger(__name__)

SOURCE = "crm"
NOT_OURS_TO_READ = (403, 404)
"""HubSpot's answers where the token lacks the scope of an object type, or the account's plan has none of it."""
UNKNOWN_TYPE = "infer object type"
"""In HubSpot's 400 for an object type that the account does not have."""


@dataclass
class _Pulled:
    """What HubSpot holds of one entity: the readable records by id, and the others with their reason."""

    timelines: dict[str, Timeline] = field(default_factory=dict)
    refused: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    properties: set[str] = field(default_factory=set)
    """The properties that any record has a history of."""


@dataclass(frozen=True)
class _Held:
    """The newest landed version of a record before the end of the day; `owner` as in _Landed."""

    row_hash: str
    valid_from: datetime
    owner: str | None


@dataclass(frozen=True)
class _Landed:
    """A version to append, of which record, and who owns the record.

    `owner` is the record id of its company; of a company, its account number. `owner_before` is that of the
    newest version landed before.
    """

    record: Timeline
    version: Version
    owner: str | None
    owner_before: str | None


def ingest_crm(
    sources: Sources,
    as_of: date,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Load] | None:
    """Land the CRM as of the end of `as_of`: one load per entity, by name; None where there is no CRM.

    rows_in = rows_new (record not seen before) + rows_corrected (seen, and changed) + rows_unchanged +
    rows_quarantined (no id, or a date that cannot be read). A record created after the day is counted in
    rows_later; one of no company (a company of no account) in rows_unattributed, and kept. An entity that the
    token may not read, other than companies, is written down as absent and is not in the result.
    Raises StratumError where HubSpot refuses or does not answer; then nothing is landed. Also where it no longer
    gives a property that records have: then the entities before that one are landed.
    """
    if sources.crm is None:
        for entity in ENTITIES:
            record_absent(SOURCE, entity.name, as_of)
        return None
    access = get_connection(sources.crm.connection)
    end = day_end(as_of, sources.company.timezone)
    with hubspot(access, "loader", clock, sleep) as api:
        pulled = {entity: _pull(api, entity, end, sources.company.timezone) for entity in ENTITIES}
        log.info("HubSpot was asked %d times.", api.calls)
    loads: dict[str, Load] = {}
    for entity, records in pulled.items():
        if records is None:
            record_absent(SOURCE, entity.name, as_of)
            continue
        with landing(SOURCE, entity.name, as_of) as load:
            company = sources.company
            bind_company(load.connection, company.name, company.timezone, company.currency)
            _land(load, entity, records, company, end)
        loads[entity.name] = load
    return loads


def _pull(api: HubSpotApi, entity: Entity, end: datetime, timezone: str) -> _Pulled | None:
    """Return all records of an entity, archived ones included; None where HubSpot does not let us read it."""
    associations = [] if entity is COMPANIES else [COMPANIES.name]
    pulled = _Pulled()
    try:
        for archived in (False, True):
            for page in api.pages(entity.name, list(entity.properties), associations, archived):
                for record in page:
                    _read(pulled, entity, record, end, timezone)
    except (Refused, NoAnswer) as error:
        if entity is not COMPANIES and isinstance(error, Refused) and _is_out_of_reach(error):
            log.warning(
                "HubSpot does not let Stratum read %s (%s): written down as absent. "
                "Give the token the scope crm.objects.%s.read to load them.",
                entity.name,
                error,
                entity.name,
            )
            return None
        raise unreachable(error, f"let Stratum read the {entity.name} at {api.host}") from error
    return pulled


def _is_out_of_reach(error: Refused) -> bool:
    return error.status in NOT_OURS_TO_READ or (error.status == 400 and UNKNOWN_TYPE in str(error))


def _read(pulled: _Pulled, entity: Entity, record: dict[str, Any], end: datetime, timezone: str) -> None:
    histories = record.get("propertiesWithHistory") or {}
    pulled.properties |= {name for name, history in histories.items() if history}
    try:
        known = timeline(entity, record, end, timezone)
    except Unreadable as error:
        pulled.refused.append((record, str(error)))
    else:
        # Archived while we pulled, it is in both lists; the later answer holds.
        pulled.timelines[known.record_id] = known


def _require_properties(load: Load, entity: Entity, pulled: _Pulled) -> None:
    """Raise StratumError where HubSpot no longer gives a property that records it still has were landed with.

    HubSpot leaves out a property that was deleted, or that the token may not see, without a word: every record
    would be landed anew without it.
    """
    for name in sorted(set(entity.properties) - pulled.properties):
        landed = load.connection.execute(
            sql.SQL(
                "select count(distinct record_id) from {} where properties ->> %s is not null and record_id = any(%s)"
            ).format(sql.Identifier("raw_hubspot", entity.name)),
            [name, list(pulled.timelines)],
        ).fetchone()
        if landed and landed[0]:
            raise StratumError(
                f"HubSpot no longer gives the property '{name}' of {entity.name}: {landed[0]} records had it when they "
                "were landed. Was it deleted or renamed, or is it hidden from the token? Bring it back there."
            )


def _land(load: Load, entity: Entity, pulled: _Pulled, company: Company, end: datetime) -> None:
    _require_properties(load, entity, pulled)
    for record, reason in pulled.refused:
        _quarantine(load, record, reason)
    resolve_unseen(load)  # a pull reads every record
    held, seen = _held(load, entity, end)
    landed: list[_Landed] = []
    for known in pulled.timelines.values():
        if not known.versions:
            load.rows_later += 1
            continue
        before = held.get(known.record_id)
        owner = _owner(entity, known, before)
        load.rows_unattributed += owner is None
        changed = _changed(load, entity, known, owner, before, end)
        if not changed:
            load.rows_unchanged += 1
        elif known.record_id in seen:
            load.rows_corrected += 1
        else:
            load.rows_new += 1
        was = before.owner if before else None
        landed += [_Landed(known, version, owner, was) for version in changed]
    load.rows_in = load.rows_new + load.rows_corrected + load.rows_unchanged + load.rows_quarantined
    _append(load, entity, landed, company.timezone)
    _queue(load, entity, landed, company.timezone)


def _owner(entity: Entity, known: Timeline, before: _Held | None) -> str | None:
    """Return who owns a record; of an archived one the company it had, since HubSpot shows none of those."""
    if entity is COMPANIES:
        return known.versions[-1].values["account_number"]
    if known.is_archived_now and known.company_record_id is None and before:
        return before.owner
    return known.company_record_id


def _changed(
    load: Load, entity: Entity, known: Timeline, owner: str | None, before: _Held | None, end: datetime
) -> list[Version]:
    """Return the versions of a record that the warehouse lacks.

    Those are all of a record never landed, else those dated after the newest landed one. Of what HubSpot does
    not date (another company, a return from the archive) only a day that no later load has covered, and that
    saw the record's last modification, makes a version: else a later change would be seen on an earlier date.
    """
    if before is None:
        return list(known.versions)
    newer = [version for version in known.versions if version.valid_from > before.valid_from]
    if newer:
        return newer[1:] if newer[0].row_hash(entity, owner) == before.row_hash else newer
    last = known.versions[-1]
    is_newest_day = load.covered_until is None or load.as_of >= load.covered_until
    if last.row_hash(entity, owner) == before.row_hash or not is_newest_day or known.modified_at >= end:
        return []
    moment = max(known.modified_at, last.valid_from)
    return [
        replace(last, valid_from=moment if moment > before.valid_from else end - timedelta(microseconds=1))
    ]


def _held(load: Load, entity: Entity, end: datetime) -> tuple[dict[str, _Held], set[str]]:
    """Return the newest version of each record before `end`, and all records ever seen."""
    table = sql.Identifier("raw_hubspot", entity.name)
    newest = load.connection.execute(
        sql.SQL(
            "select distinct on (record_id) record_id, row_hash, valid_from, {} from {} "
            "where valid_from < %s order by record_id, valid_from desc, load_seq desc"
        ).format(_owner_column(entity), table),
        [end],
    ).fetchall()
    seen = load.connection.execute(sql.SQL("select distinct record_id from {}").format(table)).fetchall()
    return {row[0]: _Held(*row[1:]) for row in newest}, {row[0] for row in seen}


def _owner_column(entity: Entity) -> sql.Identifier:
    return sql.Identifier("account_number" if entity is COMPANIES else "company_record_id")


def _append(load: Load, entity: Entity, landed: list[_Landed], timezone: str) -> None:
    local = zone(timezone)
    statement = sql.SQL(
        "copy {} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, {}, is_archived, row_hash, "
        "properties) from stdin"
    ).format(sql.Identifier("raw_hubspot", entity.name), _owner_column(entity))
    with load.connection.cursor() as cursor, cursor.copy(statement) as copy:
        for each in landed:
            version = each.version
            copy.write_row(
                [
                    load.load_id,
                    load.load_seq,
                    load.started_at,
                    _known_on(load, version.valid_from.astimezone(local).date()),
                    version.valid_from,
                    each.record.record_id,
                    version.values["account_number"] if entity is COMPANIES else each.owner,
                    version.is_archived,
                    version.row_hash(entity, each.owner),
                    Jsonb(version.values | {"createdate": each.record.created_at.isoformat()}),
                ]
            )


def _queue(load: Load, entity: Entity, landed: list[_Landed], timezone: str) -> None:
    """Queue the accounts whose features the landed versions change, each from the first of the days changed on.

    A company says on every day which account its records belong to: from its first day on, and the account it
    named before too.
    """
    local = zone(timezone)
    since: dict[str, date] = {}
    for each in landed:
        if entity is COMPANIES:
            moment = each.record.created_at
            keys = {_account_key(each.record.record_id), each.owner_before}
        else:
            moment = each.version.valid_from
            keys = {_account_key(each.owner), _account_key(each.owner_before)}
        day = moment.astimezone(local).date()
        for key in keys:
            if key is not None:
                since[key] = min(day, since.get(key, day))
    with (
        load.connection.cursor() as cursor,
        cursor.copy(
            "copy intermediate.restatement_queue (load_id, account_key, from_date) from stdin"
        ) as copy,
    ):
        for key, day in sorted(since.items()):
            copy.write_row([load.load_id, key, day])


def _account_key(company_record_id: str | None) -> str | None:
    return None if company_record_id is None else f"hubspot:{company_record_id}"


def _known_on(load: Load, day: date) -> date:
    if load.covered_until is None or day > load.covered_until:
        return day
    return load.as_of


def _quarantine(load: Load, record: dict[str, Any], reason: str) -> None:
    load.reasons[reason] += 1
    original = json.dumps(record, sort_keys=True)
    load.connection.execute(
        "insert into quarantine.rows "
        "(source, entity, row_hash, reason, original, first_load_id, last_load_id) "
        "values (%s, %s, %s, %s, %s, %s, %s) on conflict (source, entity, row_hash) do update set "
        "reason = excluded.reason, last_load_id = excluded.last_load_id, resolved_load_id = null, resolved_at = null",
        [
            load.source,
            load.entity,
            hashlib.sha256(original.encode()).hexdigest(),
            reason,
            Jsonb(record),
            load.load_id,
            load.load_id,
        ],
    )
