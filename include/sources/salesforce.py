"""Pull the CRM from Salesforce and land it as versions: accounts, contacts and their roles, opportunities, cases."""

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter

from include.connections import get_login
from include.dates import day_end
from include.errors import StratumError
from include.sources.config import Sources
from include.sources.crm_landing import Landing, quarantine
from include.sources.crm_versions import ENTITIES as HUBSPOT_ENTITIES
from include.sources.crm_versions import Timeline, Unreadable, instant
from include.sources.cursors import Position, keep_position, position_of
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sources.resolution import resolve_records
from include.sources.row_sources import Company
from include.sources.salesforce_api import OutOfReach, SalesforceApi, salesforce
from include.sources.salesforce_versions import HISTORY_FIELDS, Kind, Past, Row, kinds, timeline

log = logging.getLogger(__name__)

SOURCE = "salesforce"
NO_PERSONS = "IsPersonAccount = false"
"""Where an org has person accounts: the name of such an account is that of a person."""
OVERLAP = timedelta(hours=1)
"""Asked for again: SystemModstamp is set before the transaction that sets it ends, and a query sees it only then."""


@dataclass
class _Pulled:
    """What Salesforce gave of one object type since the last pull."""

    position: Position
    """Where the pull began."""
    types: dict[str, str]
    since: datetime | None
    rows: list[Row] = field(default_factory=list)
    past: Past = field(default_factory=Past)


def ingest_salesforce(
    sources: Sources,
    as_of: date,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Load]:
    """Land the CRM as of the end of `as_of`: one load per entity, by name. `sources.crm` is a Salesforce.

    Asked for is what was modified since the last pull. rows_in = rows_new (record not seen before) + rows_corrected
    (seen, and changed) + rows_unchanged + rows_quarantined (no id, or a date that cannot be read). A record created
    after the day is counted in rows_later; one of no account (an account of no number) in rows_unattributed, and
    kept. An entity that the user may not read, other than accounts, is written down as absent and is not in the
    result. Raises StratumError where Salesforce refuses or does not answer; then nothing is landed.
    """
    if sources.crm is None:
        raise ValueError("the sources name no CRM")
    company, end = sources.company, day_end(as_of, sources.company.timezone)
    with salesforce(get_login(sources.crm.connection), "loader", clock, sleep) as api:
        pulled = {kind: _pull(api, kind) for kind in kinds(sources.crm.account_number_field)}
    log.info("Salesforce was asked %d times; of the day's calls: %s.", api.calls, api.usage or "not told")
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


def _pull(api: SalesforceApi, kind: Kind) -> _Pulled | None:
    """Return the records modified since the last pull, deleted ones included, and their past; None if out of reach."""
    try:
        types = api.describe(kind.name)
        if kind.account and "." in kind.account:
            api.describe(kind.account.partition(".")[0])
        fields = _readable(api, kind, types)
        # Other fields, or another org: what was pulled before does not answer for it.
        asked = hashlib.sha256(f"{api.instance} {kind.name} {' '.join(fields)}".encode()).hexdigest()
        position = position_of(SOURCE, kind.entity.name, asked)
        pulled = _Pulled(position, types, instant(position.value) - OVERLAP if position.value else None)
        pulled.rows = list(
            api.rows(kind.name, fields, "SystemModstamp", pulled.since, condition(kind, types))
        )
    except OutOfReach as error:
        if kind.entity.is_company:
            raise StratumError(
                f"Salesforce did not let Stratum read Account ({error}). Give the user of the connection "
                f"'{api.conn_id}' read access to accounts."
            ) from None
        log.warning(
            "Salesforce does not let Stratum read %s (%s): written down as absent. Give the user of the connection "
            "'%s' read access to load it.",
            kind.name,
            error,
            api.conn_id,
        )
        return None
    # After the records: what their history says beyond them is left for the next pull.
    if pulled.rows:
        _pull_past(api, kind, pulled)
    return pulled


def condition(kind: Kind, types: dict[str, str]) -> str | None:
    """Return the condition that records of an object type meet if they are ours to read; None for all."""
    return NO_PERSONS if kind.entity.is_company and "IsPersonAccount" in types else None


def _readable(api: SalesforceApi, kind: Kind, types: dict[str, str]) -> list[str]:
    """Return the fields to ask for that the user sees."""
    if kind.entity.number is not None and kind.entity.number not in types:
        raise StratumError(
            f"Account has no field {kind.entity.number} that the user of the connection '{api.conn_id}' sees. "
            "Correct crm.account_number_field in the sources, or give read access to the field."
        )
    fields = [name for name in kind.fields if name in types or "." in name]
    if unseen := [name for name in kind.fields if name not in fields]:
        log.warning("Salesforce shows no %s of %s: taken as null.", ", ".join(unseen), kind.name)
    return fields


def _pull_past(api: SalesforceApi, kind: Kind, pulled: _Pulled) -> None:
    """Add what the org keeps of the records' past: their whole history, as far as there is any."""
    if kind.history is not None:
        try:
            pulled.past.rows = _of_records(api, kind, pulled, kind.history, HISTORY_FIELDS)
            pulled.past.tracked = api.tracked(kind.name)
        except OutOfReach:
            log.info(
                "The org keeps no %s, or does not show it: the past of its fields is null.", kind.history
            )
    if kind.snapshots is not None:
        try:
            pulled.past.snapshots = _of_records(api, kind, pulled, kind.snapshots, kind.snapshot_fields)
        except OutOfReach:
            log.info("Salesforce does not show %s.", kind.snapshots)


def _of_records(
    api: SalesforceApi, kind: Kind, pulled: _Pulled, name: str, fields: tuple[str, ...]
) -> dict[str, list[Row]]:
    """Return the rows that an object keeps of the pulled records, oldest first, by record id."""
    parent = f"{kind.parent}Id"
    rows = api.rows(name, (parent, *fields, "CreatedDate"), f"{kind.parent}.SystemModstamp", pulled.since)
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=itemgetter("CreatedDate")):
        found[row[parent]].append(row)
    return found


def _land(load: Load, kind: Kind, pulled: _Pulled, company: Company, end: datetime) -> None:
    place = Landing(load, SOURCE, kind.entity, company, end)
    held = place.held([row["Id"] for row in pulled.rows])
    timelines: dict[str, Timeline] = {}
    for row in pulled.rows:
        try:
            known = timeline(kind, pulled.types, row, pulled.past, held.get(row["Id"]), end, company.timezone)
        except Unreadable as error:
            quarantine(load, dict(row), str(error))
        else:
            timelines[known.record_id] = known
    resolve_records(load, "Id", [row["Id"] for row in pulled.rows])  # as they were, they are no more
    place.land(list(timelines.values()), held)
    keep_position(load, _reached(pulled, list(timelines.values()), load.as_of, end), pulled.position)


def _reached(pulled: _Pulled, timelines: list[Timeline], as_of: date, end: datetime) -> Position:
    """Return until when everything has landed: the newest modification seen, or the end of the load's day.

    What was modified after the day is landed up to its end only, and so is asked for again. A load of an older date
    leaves the position where it is.
    """
    before = pulled.position
    seen = [min(known.modified_at, end) for known in timelines]
    if before.value is not None:
        seen.append(instant(before.value))
    value = max(seen).astimezone(UTC).isoformat() if seen else None
    return Position(before.asked, value, max(as_of, before.through or as_of))
