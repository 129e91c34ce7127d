"""Pull the CRM from HubSpot and land it as versions: companies, contacts, deals, tickets, survey answers."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from include.connections import get_connection
from include.dates import day_end
from include.sources.config import Sources
from include.sources.crm_landing import Landing, quarantine
from include.sources.crm_versions import COMPANIES, ENTITIES, Entity, Timeline, Unreadable, timeline
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sync.hubspot_api import HubSpotApi, NoAnswer, Refused, hubspot, unreachable

log = logging.getLogger(__name__)

SOURCE = "crm"
SYSTEM = "hubspot"
NOT_OURS_TO_READ = (403, 404)
"""HubSpot's answers where the token lacks the scope of an object type, or the account's plan has none of it."""
UNKNOWN_TYPE = "infer object type"
"""In HubSpot's 400 for an object type that the account does not have."""


@dataclass
class _Pulled:
    """What HubSpot holds of one entity: the readable records by id, and the others with their reason."""

    timelines: dict[str, Timeline] = field(default_factory=dict)
    refused: list[tuple[dict[str, Any], str]] = field(default_factory=list)


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
    Raises StratumError where HubSpot refuses or does not answer; then nothing is landed.
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
            for record, reason in records.refused:
                quarantine(load, record, reason)
            place = Landing(load, SYSTEM, entity, company, end)
            place.land(list(records.timelines.values()), place.held())
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
    try:
        known = timeline(entity, record, end, timezone)
    except Unreadable as error:
        pulled.refused.append((record, str(error)))
    else:
        # Archived while we pulled, it is in both lists; the later answer holds.
        pulled.timelines[known.record_id] = known
