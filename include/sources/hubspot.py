"""Pull the CRM from HubSpot and land it as versions: companies, contacts, deals, tickets, survey answers.

Asked for is what was modified since the last pull, what is archived, and whatever else HubSpot changes without a stamp.
Now and then, as policy says, everything is read: docs/contracts/sync.md, "Pulling the CRM".
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from psycopg import sql

from include.connections import ApiConnection, get_connection
from include.dates import day_end
from include.errors import StratumError
from include.sources.config import Sources
from include.sources.crm_landing import Landing, farewell, quarantine
from include.sources.crm_versions import (
    COMPANIES,
    ENTITIES,
    MERGED,
    Entity,
    Timeline,
    Unreadable,
    instant,
    merged_at,
    primary_company,
    timeline,
)
from include.sources.cursors import Position, keep_position, position_of
from include.sources.limits import limit
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sources.resolution import resolve_records, resolve_unseen
from include.sources.row_sources import Company
from include.sync.hubspot_api import HubSpotApi, hubspot, unreachable
from include.sync.target import NoAnswer, Refused
from include.warehouse.connect import connect

log = logging.getLogger(__name__)

SOURCE = "crm"
SYSTEM = "hubspot"
NOT_OURS_TO_READ = (403, 404)
"""HubSpot's answers where the token lacks the scope of an object type, or the account's plan has none of it."""
UNKNOWN_TYPE = "infer object type"
"""In HubSpot's 400 for an object type that the account does not have."""
OVERLAP = timedelta(hours=1)
"""Searched again: HubSpot says that a search may show a change only "a few moments" after it, users tell of minutes."""
RESTORABLE = timedelta(days=90)
"""For so long HubSpot keeps an archived record, which can be restored; then it is gone for good."""

Links = dict[str, list[dict[str, str]]]
"""Record id → its links to companies, as a list of records has them."""


@dataclass
class _Pulled:
    """What HubSpot gave of one entity: the readable records by id, the others with their reason, and those that left."""

    position: Position
    """Where the pull began."""
    is_whole: bool
    """Whether every record was read, not only what has changed."""
    timelines: dict[str, Timeline] = field(default_factory=dict)
    refused: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    properties: set[str] = field(default_factory=set)
    """The properties that any record has a history of."""
    defined: set[str] | None = None
    """The properties that the object type has; None where the token may not see them."""
    merged: dict[str, datetime] = field(default_factory=dict)
    """Ids that were merged into another record, and when."""
    gone: set[str] = field(default_factory=set)
    """Ids of landed records that HubSpot no longer knows."""


@dataclass(frozen=True)
class _Standing:
    """What was landed last of a record: its company, and since when; whether it is archived."""

    owner: str | None
    valid_from: datetime
    is_archived: bool


def ingest_crm(
    sources: Sources,
    as_of: date,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Load] | None:
    """Land the CRM as of the end of `as_of`: one load per entity, by name; None where there is no CRM.

    Of the records that were pulled, rows_in = rows_new (record not seen before) + rows_corrected (seen, and changed)
    + rows_unchanged + rows_quarantined (no id, or a date that cannot be read). A record created after the day is
    counted in rows_later; one of no company (a company of no account) in rows_unattributed, and kept. An entity that
    the token may not read, other than companies, is written down as absent and is not in the result.
    Raises StratumError where HubSpot refuses or does not answer; then nothing is landed. Also where it no longer
    gives a property that records have: then the entities before that one are landed.
    """
    if sources.crm is None:
        for entity in ENTITIES:
            record_absent(SOURCE, entity.name, as_of)
        return None
    company, access = sources.company, get_connection(sources.crm.connection)
    end = day_end(as_of, company.timezone)
    with hubspot(access, "loader", clock, sleep) as api:
        pulled = {entity: _Pull(api, access, entity, as_of, company).run() for entity in ENTITIES}
        log.info("HubSpot was asked %d times.", api.calls)
    loads: dict[str, Load] = {}
    for entity, records in pulled.items():
        if records is None:
            record_absent(SOURCE, entity.name, as_of)
            continue
        with landing(SOURCE, entity.name, as_of) as load:
            bind_company(load.connection, company.name, company.timezone, company.currency)
            _land(load, entity, records, company, end)
        loads[entity.name] = load
    return loads


class _Pull:
    """One pull of one entity."""

    def __init__(
        self, api: HubSpotApi, access: ApiConnection, entity: Entity, as_of: date, company: Company
    ) -> None:
        self.api = api
        self.entity = entity
        self.as_of = as_of
        self.company = company
        self.end = day_end(as_of, company.timezone)
        self.historic = list(dict.fromkeys([*entity.properties, MERGED]))
        # Another portal, token or list of properties: what was pulled before does not answer for it.
        question = f"{api.host} {access.token} {entity.name} {' '.join(entity.properties)}"
        position = position_of(SOURCE, entity.name, hashlib.sha256(question.encode()).hexdigest())
        self.pulled = _Pulled(position, _is_whole_due(position, as_of))
        # What HubSpot does not date is landed by a load of the newest date alone.
        self.is_newest_date = position.through is None or as_of >= position.through

    def run(self) -> _Pulled | None:
        """Return what HubSpot has of the entity; None where it does not let us read it."""
        try:
            if self.pulled.is_whole:
                self._pull_all()
            else:
                self._pull_changes()
            self.pulled.defined = self._defined()
        except (Refused, NoAnswer) as error:
            if self.entity is not COMPANIES and isinstance(error, Refused) and _is_out_of_reach(error):
                log.warning(
                    "HubSpot does not let Stratum read %s (%s): written down as absent. "
                    "Give the token the scope crm.objects.%s.read to load them.",
                    self.entity.name,
                    error,
                    self.entity.name,
                )
                return None
            raise unreachable(error, f"let Stratum read the {self.entity.name} at {self.api.host}") from error
        return self.pulled

    def _defined(self) -> set[str] | None:
        try:
            return {each["name"] for each in self.api.definitions(self.entity.name)}
        except Refused as refused:
            log.info("HubSpot does not show the properties of %s (%s).", self.entity.name, refused)
            return None

    def _pull_all(self) -> None:
        """Read every record, archived ones included; what was landed and is not among them is asked for by its id."""
        for archived in (False, True):
            self._list(archived)
        standing = [record_id for record_id, last in self._standing().items() if not last.is_archived]
        listed = {*self.pulled.timelines, *(str(record.get("id")) for record, _ in self.pulled.refused)}
        if self.entity is COMPANIES and standing and not listed & set(standing):
            raise StratumError(
                f"HubSpot at {self.api.host} shows none of the {len(standing)} companies that were landed: is the "
                "token that of another portal? Put back the one of before, or take the loads of the other portal "
                "out (stratum loads retract)."
            )
        if self.is_newest_date:
            missing = set(standing) - listed - set(self.pulled.merged)
            self._read_by_id(missing, self._links(missing))
            self.pulled.gone = missing - set(self.pulled.timelines)

    def _pull_changes(self) -> None:
        """Read the archived records, those modified since the last pull, and those that moved or came back unmodified."""
        self._list(archived=True)
        pulled, standing = self.pulled, self._standing()
        since = instant(pulled.position.value) - OVERLAP
        wanted = self.api.modified_since(self.entity.name, since)
        if self.is_newest_date:
            wanted |= self._maybe_restored(standing)
        present = {record_id for record_id, last in standing.items() if not last.is_archived}
        asked = wanted | (present - set(pulled.timelines) if self.is_newest_date else set())
        links = self._links(asked)
        if self.entity is not COMPANIES:
            wanted |= {
                record_id
                for record_id in asked & present
                if primary_company(links.get(record_id, [])) != standing[record_id].owner
            }
        self._read_by_id(wanted, links)

    def _maybe_restored(self, standing: dict[str, _Standing]) -> set[str]:
        """Return the records landed as archived, as long as they can be restored, that are not listed as such now."""
        return {
            record_id
            for record_id, last in standing.items()
            if last.is_archived
            and record_id not in self.pulled.timelines
            and last.valid_from > self.end - RESTORABLE
        }

    def _standing(self) -> dict[str, _Standing]:
        """Return what was landed last of every record, whichever day's load brought it."""
        owner = "account_number" if self.entity is COMPANIES else "company_record_id"
        with connect("loader") as connection:
            rows = connection.execute(
                sql.SQL(
                    "select distinct on (record_id) record_id, {}, valid_from, is_archived from {} "
                    "order by record_id, valid_from desc, load_seq desc"
                ).format(sql.Identifier(owner), sql.Identifier("raw_hubspot", self.entity.name))
            ).fetchall()
        return {row[0]: _Standing(*row[1:]) for row in rows}

    def _list(self, archived: bool) -> None:
        associations = [] if self.entity is COMPANIES else [COMPANIES.name]
        for page in self.api.pages(self.entity.name, self.historic, associations, archived):
            for record in page:
                self._take(record)

    def _links(self, record_ids: set[str]) -> Links:
        """Return record id → its links to companies; companies have none."""
        if self.entity is COMPANIES:
            return {}
        return self.api.companies_of(self.entity.name, sorted(record_ids))

    def _read_by_id(self, record_ids: set[str], links: Links) -> None:
        for record in self.api.records(self.entity.name, sorted(record_ids), self.historic):
            record_id = str(record["id"])
            if record_id in record_ids:  # else it is what one of them was merged into, and comes by itself
                self._take(record | {"associations": {"companies": {"results": links.get(record_id, [])}}})

    def _take(self, record: dict[str, Any]) -> None:
        histories = record.get("propertiesWithHistory") or {}
        pulled = self.pulled
        pulled.properties |= {name for name, history in histories.items() if history}
        try:
            known = timeline(self.entity, record, self.end, self.company.timezone)
            left = merged_at(record)
        except Unreadable as error:
            pulled.refused.append((record, str(error)))
        else:
            # Archived or restored while we pulled, it comes twice; the later answer holds.
            pulled.timelines[known.record_id] = known
            pulled.merged |= left


def _is_whole_due(position: Position, as_of: date) -> bool:
    """Whether everything is to be read: at first, and so many days after it was last done as policy says."""
    if position.value is None or position.whole_on is None:
        return True
    return as_of - position.whole_on >= timedelta(days=int(limit("hubspot_whole_pull_days", as_of)))


def _is_out_of_reach(error: Refused) -> bool:
    return error.status in NOT_OURS_TO_READ or (error.status == 400 and UNKNOWN_TYPE in str(error))


def _land(load: Load, entity: Entity, pulled: _Pulled, company: Company, end: datetime) -> None:
    _require_properties(load, entity, pulled)
    for record, reason in pulled.refused:
        quarantine(load, record, reason)
    if pulled.is_whole:
        resolve_unseen(load)
    else:
        refused = [str(record.get("id")) for record, _ in pulled.refused]
        resolve_records(load, "id", [*pulled.timelines, *refused])  # as they were, they are no more
    place = Landing(load, SYSTEM, entity, company, end)
    held = place.held(None if pulled.is_whole else list(pulled.timelines))
    left = {each: at for each, at in pulled.merged.items() if at < end and each not in pulled.timelines}
    if (
        load.covered_until is None or load.as_of >= load.covered_until
    ):  # since when they are gone nobody tells
        left |= dict.fromkeys(pulled.gone, end - timedelta(microseconds=1))
    departed = place.held(list(left))
    timelines = [
        *pulled.timelines.values(),
        *(farewell(entity, each, departed[each], at) for each, at in left.items() if each in departed),
    ]
    place.land(timelines, held | departed)
    keep_position(load, _reached(pulled, load.as_of, end), pulled.position)


def _reached(pulled: _Pulled, as_of: date, end: datetime) -> Position:
    """Return until when everything has landed: the newest modification seen, or the end of the load's day.

    What was modified after the day is landed up to its end only, and so is asked for again. A load of an older date
    leaves the position where it is.
    """
    before = pulled.position
    seen = [min(known.modified_at, end) for known in pulled.timelines.values()]
    if before.value is not None:
        seen.append(instant(before.value))
    return replace(
        before,
        value=max(seen).astimezone(UTC).isoformat() if seen else None,
        through=max(as_of, before.through or as_of),
        whole_on=max(as_of, before.whole_on or as_of) if pulled.is_whole else before.whole_on,
    )


def _require_properties(load: Load, entity: Entity, pulled: _Pulled) -> None:
    """Raise StratumError where HubSpot no longer gives a property that records it still has were landed with.

    HubSpot leaves out a property that was deleted, or that the token may not see, without a word: every record that
    is read would be landed anew without it, and new ones would never have it.
    """
    for name in sorted(entity.properties):
        if pulled.defined is not None and name not in pulled.defined:
            of_these = None
        elif name not in pulled.properties:
            of_these = list(pulled.timelines)
        else:
            continue
        landed = load.connection.execute(
            sql.SQL(
                "select count(distinct record_id) from {} where properties ->> %(name)s is not null "
                "and (%(ids)s::text[] is null or record_id = any(%(ids)s))"
            ).format(sql.Identifier("raw_hubspot", entity.name)),
            {"name": name, "ids": of_these},
        ).fetchone()
        if landed and landed[0]:
            raise StratumError(
                f"HubSpot no longer gives the property '{name}' of {entity.name}: {landed[0]} records had it when they "
                "were landed. Was it deleted or renamed, or is it hidden from the token? Bring it back there."
            )
