"""Pull the CRM from BottleCRM and land it as versions: accounts, contacts, opportunities, tickets.

BottleCRM lists everything or nothing: every pull reads all records, and what has not changed lands nothing.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

from psycopg import sql

from include.connections import get_connection
from include.dates import day_end
from include.errors import StratumError, TransientError
from include.sources.bottlecrm_api import BottleCrmApi, Record, Refused, bottlecrm
from include.sources.bottlecrm_versions import KINDS, Kind, Sight, reduced, timeline
from include.sources.config import Sources
from include.sources.crm_landing import Landing, farewell, quarantine
from include.sources.crm_versions import ENTITIES as HUBSPOT_ENTITIES
from include.sources.crm_versions import Timeline, Unreadable
from include.sources.cursors import Position, keep_position, position_of
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sources.resolution import resolve_unseen
from include.sources.row_sources import Company
from include.warehouse.connect import connect

log = logging.getLogger(__name__)

SOURCE = "bottlecrm"
ORGANIZATION = "organization"
"""What audit.cursors says was asked; its position is the organization that the accounts were pulled from."""


@dataclass
class _Pulled:
    """What BottleCRM shows of one object type, reduced, and when; and what it shows no more."""

    records: list[tuple[Record, datetime]]
    gone: dict[str, datetime]
    position: Position
    """Where the pull began; `organization` is where it leaves it."""
    organization: str | None


def ingest_bottlecrm(
    sources: Sources,
    as_of: date,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Load]:
    """Land the CRM as of the end of `as_of`: one load per entity, by name. `sources.crm` is a BottleCRM.

    rows_in = rows_new (record not seen before) + rows_corrected (seen, and changed or deleted) + rows_unchanged +
    rows_quarantined (no id, or a date that cannot be read). A record created after the day is counted in rows_later; one
    of no account (an account of no number) in rows_unattributed, and kept. An entity that the token may not read, other
    than accounts, is written down as absent and is not in the result. Raises StratumError where BottleCRM refuses or
    does not answer, or is not the organization that was loaded before; then nothing is landed.
    """
    if sources.crm is None:
        raise ValueError("the sources name no CRM")
    company, end = sources.company, day_end(as_of, sources.company.timezone)
    with bottlecrm(get_connection(sources.crm.connection), "loader", clock, sleep) as api:
        check_access(api, sources.crm.account_number_field)
        pulled = {kind: _pull(api, kind, sources.crm.account_number_field, end) for kind in KINDS}
    log.info("BottleCRM was asked %d times.", api.calls)
    loads: dict[str, Load] = {}
    for kind, found in pulled.items():
        if found is None:
            record_absent(SOURCE, kind.entity.name, as_of)
            continue
        with landing(SOURCE, kind.entity.name, as_of) as load:
            bind_company(load.connection, company.name, company.timezone, company.currency)
            _land(load, kind, found, company, end)
        loads[kind.entity.name] = load
    for entity in HUBSPOT_ENTITIES:
        record_absent("crm", entity.name, as_of)
    return loads


def check_access(api: BottleCrmApi, account_number_field: str) -> list[str]:
    """Check that the token sees all records, and that accounts have the field; return their other custom fields.

    Raises StratumError where not.
    A member who is no administrator sees the records assigned to them: all others would look deleted.
    """
    try:
        role = api.get("profile/").body["user_obj"]["role"]
        fields = api.get("custom-fields/", target_model="Account").body["definitions"]
    except Refused as refused:
        raise unreachable(api, refused, "in") from None
    if role != "ADMIN":
        raise StratumError(
            f"The token of the connection '{api.conn_id}' belongs to a member of BottleCRM who sees only their own "
            "records. Use the token of an administrator of the organization."
        )
    known = sorted(each["key"] for each in fields if each["target_model"] == "Account" and each["is_active"])
    if account_number_field not in known:
        raise StratumError(
            f"Accounts in BottleCRM have no custom field '{account_number_field}' (there are: "
            f"{', '.join(known) or 'none'}). Correct crm.account_number_field in the sources, or add the field."
        )
    return [key for key in known if key != account_number_field]


def unreachable(api: BottleCrmApi, refused: Refused, what: str) -> StratumError:
    """Return the error for the user where BottleCRM did not let Stratum do `what` ("read the accounts")."""
    return StratumError(
        f"BottleCRM at {api.host} did not let Stratum {what} ({refused}). Put a personal access token that is valid, "
        f"with the scopes of docs/contracts/sources.md, into the connection '{api.conn_id}'."
    )


def _pull(api: BottleCrmApi, kind: Kind, account_number_field: str, end: datetime) -> _Pulled | None:
    """Return all records of an object type and those it has deleted; None where BottleCRM does not let us read it."""
    name = kind.entity.name
    position = position_of(SOURCE, name, ORGANIZATION)
    try:
        listed = api.all(kind.listing)
        organization = _organization(api, kind, listed, position.value)
        ids = {record.get("id") for record, _ in listed}
        gone = {}
        for record_id in sorted(_standing(kind, end) - ids):
            gone_at = api.is_gone(kind.listing.path, record_id)
            if gone_at is None:
                raise TransientError(
                    f"The {name} of BottleCRM at {api.host} changed while they were read. Try again later."
                )
            gone[record_id] = gone_at
    except Refused as refused:
        if kind.entity.is_company:
            raise unreachable(api, refused, "read the accounts") from None
        try:
            api.get("profile/")
        except Refused as locked_out:
            # Not this list alone: the token has expired or was revoked meanwhile.
            raise unreachable(api, locked_out, f"read the {name}") from None
        log.warning(
            "BottleCRM does not let Stratum read the %s (%s): written down as absent. Give the token the scope, or "
            "switch the module on, to load them.",
            name,
            refused,
        )
        return None
    return _Pulled(
        [(reduced(kind, each, account_number_field), at) for each, at in listed], gone, position, organization
    )


def _organization(
    api: BottleCrmApi, kind: Kind, listed: list[tuple[Record, datetime]], loaded: str | None
) -> str | None:
    """Return the organization whose accounts these are; of other kinds None. `loaded` is that of the last load.

    Raises StratumError where accounts of another one were loaded before, or none is shown where some were: what is
    missing is taken for deleted, and a wrong token must not delete a company.
    """
    if not kind.entity.is_company:
        return None
    found = str(listed[0][0]["org"]["id"]) if listed else None
    if loaded is not None and found != loaded:
        raise StratumError(
            f"BottleCRM at {api.host} shows {'another organization' if found else 'no account at all'}, where accounts "
            f"of the organization {loaded} were loaded before. Put a token of that one into the connection "
            f"'{api.conn_id}'."
        )
    return found


def _standing(kind: Kind, end: datetime) -> set[str]:
    """Return the ids of the landed records that are not archived at the end of the day."""
    with connect("loader") as connection:
        rows = connection.execute(
            sql.SQL(
                "select record_id from (select distinct on (record_id) record_id, is_archived from {} "
                "where valid_from < %s order by record_id, valid_from desc, load_seq desc) as newest "
                "where not is_archived"
            ).format(sql.Identifier("raw_bottlecrm", kind.entity.name)),
            [end],
        ).fetchall()
    return {row[0] for row in rows}


def _land(load: Load, kind: Kind, pulled: _Pulled, company: Company, end: datetime) -> None:
    place = Landing(load, SOURCE, kind.entity, company, end)
    ids = [record["id"] for record, _ in pulled.records if record["id"]]
    held = place.held([*ids, *pulled.gone])
    is_first_of_day = load.covered_until is None or load.as_of > load.covered_until
    timelines: list[Timeline] = []
    for record, at in pulled.records:
        sight = Sight(at, end, is_first_of_day)
        try:
            timelines.append(timeline(kind, record, held.get(record["id"]), sight, company.timezone))
        except Unreadable as error:
            quarantine(load, record, str(error))
    resolve_unseen(load)  # a pull reads every record
    for record_id, at in pulled.gone.items():
        sight = Sight(at, end, is_first_of_day)
        if sight.counts and record_id in held:
            timelines.append(farewell(kind.entity, record_id, held[record_id], sight.moment))
    place.land(timelines, held)
    before = pulled.position
    through = max(load.as_of, before.through or load.as_of)
    keep_position(load, Position(ORGANIZATION, pulled.organization or before.value, through), before)
