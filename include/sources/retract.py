"""Take a bad load out of the raw tables again, and queue what it touched for the next build.

What the load landed is deleted; of each row it had corrected the version before is the current one again. The
load itself stays in the books, marked retracted. Rows that a later load found unchanged, since this one had
landed them, are gone with it: loading that date again lands them anew.
"""

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from include.errors import StratumError
from include.sources.cursors import set_back
from include.sources.loads import lock_entity
from include.sources.record_contract import ENTITIES, Entity
from include.sources.record_contract import SOURCE as RECORDS
from include.sources.retract_events import take_out_events
from include.warehouse.connect import connect
from include.warehouse.lock import keep_builds_out


@dataclass(frozen=True)
class Kind:
    """How the versions of one entity lie in the raw tables: their table, and what names the row they are of."""

    table: tuple[str, str]
    key: str
    queue: str | None
    """The statement that queues the places of `gone` (this load's versions) and `remaining` (all others of the same
    rows); `%(load_id)s` is the load, `company.timezone` the company's time zone. None where they touch no account."""


# An order counts once, on the first of its days: with a line gone, its other lines' days count anew.
_ORDER_DAYS = """
insert into intermediate.account_day_queue (load_id, customer_id, order_date)
select distinct %(load_id)s::uuid, coalesce(places.customer_id, ''),
    (places.ordered_at at time zone company.timezone)::date
from (
    select customer_id, ordered_at from gone
    union all
    select customer_id, ordered_at from remaining
    union all
    select others.customer_id, others.ordered_at
    from gone
    inner join raw_files.order_lines as others
        on gone.customer_id = others.customer_id and gone.order_id = others.order_id
) as places
cross join audit.company
on conflict do nothing"""

# Records that name whose they are: a CRM's by their company's id, which stands behind the system's name; files' by a key.
_OWNED = """
insert into intermediate.restatement_queue (load_id, account_key, from_date)
select %(load_id)s::uuid, {prefix}places.{owner}, min((gone.valid_from at time zone company.timezone)::date)
from gone
cross join audit.company
cross join lateral (
    select gone.{owner}
    union
    select remaining.{owner} from remaining where remaining.record_id = gone.record_id
) as places
where places.{owner} is not null
group by places.{owner}
on conflict do nothing"""
_CRM_CHILD = _OWNED.format(owner="company_record_id", prefix="%(system)s::text || ':' || ")
_KEYED = _OWNED.format(owner="account_key", prefix="")

# A company says which account all its records belong to, on every day: both accounts are made anew from its first.
_CRM_COMPANY = """
insert into intermediate.restatement_queue (load_id, account_key, from_date)
select %(load_id)s::uuid, places.account_key, min((places.valid_from at time zone company.timezone)::date)
from audit.company
cross join (
    select %(system)s::text || ':' || record_id as account_key, valid_from from gone
    union all
    select account_number, valid_from from gone
    union all
    select %(system)s::text || ':' || record_id, valid_from from remaining
    union all
    select account_number, valid_from from remaining
) as places
where places.account_key is not null
group by places.account_key
on conflict do nothing"""

_CUSTOMERS = """
insert into intermediate.restatement_queue (load_id, account_key, from_date)
select %(load_id)s::uuid, gone.record_id, min((gone.valid_from at time zone company.timezone)::date)
from gone
cross join audit.company
group by gone.record_id
on conflict do nothing"""

_STAGES = """
insert into intermediate.restatement_queue (load_id, account_key, from_date)
select %(load_id)s::uuid, 'files:' || opportunities.company_record_id,
    min((gone.valid_from at time zone company.timezone)::date)
from gone
cross join audit.company
inner join raw_files.opportunities as opportunities on gone.record_id = opportunities.record_id
where opportunities.company_record_id is not null
group by opportunities.company_record_id
on conflict do nothing"""

# Lines that do not say their category themselves have that of the catalogue on their day.
_PRODUCTS = """
insert into intermediate.account_day_queue (load_id, customer_id, order_date)
select distinct %(load_id)s::uuid, lines.customer_id, (lines.ordered_at at time zone company.timezone)::date
from gone
cross join audit.company
inner join raw_files.order_lines as lines on gone.record_id = lines.product_id
where lines.customer_id is not null and nullif(trim(lines.product_category), '') is null
    and (lines.ordered_at at time zone company.timezone)::date
        >= (gone.valid_from at time zone company.timezone)::date
on conflict do nothing"""

_OF_OWNERS = {"account_number": _CRM_COMPANY, "company_record_id": _CRM_CHILD, "account_key": _KEYED}
_OF_ENTITIES = {"customers": _CUSTOMERS, "opportunity_stages": _STAGES, "products": _PRODUCTS}


def _kind_of_records(entity: Entity) -> Kind:
    queue = _OF_OWNERS[entity.owner[0]] if entity.owner else _OF_ENTITIES.get(entity.name)
    return Kind(("raw_files", entity.name), "record_id", queue)


KINDS: dict[tuple[str, str], Kind] = {
    ("orders", "order_lines"): Kind(("raw_files", "order_lines"), "row_key", _ORDER_DAYS),
    ("crm", "companies"): Kind(("raw_hubspot", "companies"), "record_id", _CRM_COMPANY),
    **{
        ("crm", entity): Kind(("raw_hubspot", entity), "record_id", _CRM_CHILD)
        for entity in ("contacts", "deals", "tickets", "feedback_submissions")
    },
    ("salesforce", "accounts"): Kind(("raw_salesforce", "accounts"), "record_id", _CRM_COMPANY),
    **{
        ("salesforce", entity): Kind(("raw_salesforce", entity), "record_id", _CRM_CHILD)
        for entity in ("contacts", "contact_roles", "opportunities", "cases")
    },
    ("bottlecrm", "accounts"): Kind(("raw_bottlecrm", "accounts"), "record_id", _CRM_COMPANY),
    **{
        ("bottlecrm", entity): Kind(("raw_bottlecrm", entity), "record_id", _CRM_CHILD)
        for entity in ("contacts", "opportunities", "tickets")
    },
    **{(RECORDS, name): _kind_of_records(entity) for name, entity in ENTITIES.items()},
}


@dataclass(frozen=True)
class Retracted:
    """A load that was taken out: how many of its rows, the first day they touched, and what is to be run again."""

    load_id: uuid.UUID
    source: str
    entity: str
    as_of: date
    rows: int
    first_day: date | None
    dates_to_load: list[date]
    """As-of dates whose later loads may have passed over rows of this one as unchanged, and the load's own."""
    published_dates: list[date]
    """Dates from `first_day` on that the history shows, made with the load's rows; the oldest first."""
    replays: list[str]
    """Loads of replays that landed rows which this load had refused: those rows stand until they are retracted too."""


def list_loads(as_of: date | None = None) -> list[dict[str, Any]]:
    """Return the loads, of one as-of date or all, the newest first, with their books."""
    with connect("auditor") as connection:
        connection.row_factory = dict_row  # type: ignore[assignment]
        return connection.execute(
            "select load_id, load_seq, source, entity, as_of_date, status, loaded_at, rows_in, rows_new, "
            "rows_corrected, rows_unchanged, rows_quarantined, rows_replayed, rows_later, files, retracted_at, "
            "retracted_why, "
            "rows_retracted from audit.loads where %(as_of)s::date is null or as_of_date = %(as_of)s "
            "order by load_seq desc",
            {"as_of": as_of},
        ).fetchall()  # type: ignore[return-value]


def retract(load_id: str, why: str) -> Retracted:
    """Take a load out of its raw table, in one transaction in which no build begins and its entity is not loaded.

    Raises StratumError where there is no such load, it is retracted already or was absent, or `why` is empty;
    TransientError where a run holds the build lock: it would see one half with the load and one without.
    """
    if not why.strip():
        raise StratumError("Say why the load is taken out: --why 'the export was cut off'.")
    with connect("housekeeper") as connection:
        load = _find(connection, load_id)
        lock_entity(connection, load["source"], load["entity"])
        keep_builds_out(connection, f"load {load['load_id']} cannot be taken out")
        load = _find(connection, load_id)
        kind = KINDS.get((load["source"], load["entity"]))
        if (load["source"], load["entity"]) == ("behavior", "events"):
            rows = take_out_events(connection, load)
        elif kind is not None:
            rows = _take_out(connection, kind, load["load_id"])
        else:
            raise StratumError(f"Loads of {load['source']}.{load['entity']} cannot be retracted.")
        first_day, replays = _first_queued(connection, load["load_id"]), _replays(connection, load["load_id"])
        _settle_quarantine(connection, load["load_id"])
        set_back(connection, load["source"], load["entity"], load["load_seq"])
        connection.execute(
            "update audit.loads set status = 'retracted', retracted_at = clock_timestamp(), retracted_why = %s, "
            "rows_retracted = %s where load_id = %s",
            [" ".join(why.split()), rows, load["load_id"]],
        )
        return Retracted(
            load["load_id"],
            load["source"],
            load["entity"],
            load["as_of_date"],
            rows,
            first_day,
            _dates_to_load(connection, load),
            _published_dates(connection, first_day),
            replays,
        )


def _find(connection: psycopg.Connection, load_id: str) -> dict[str, Any]:
    cursor = connection.cursor(row_factory=dict_row)
    rows = cursor.execute(
        "select load_id, load_seq, source, entity, as_of_date, status, retracted_at, retracted_why from audit.loads "
        "where load_id::text like %s || '%%'",
        [load_id.lower().replace("%", "").replace("_", "") or "none"],
    ).fetchall()
    if len(rows) != 1:
        found = f"{len(rows)} loads begin so" if rows else "there is none"
        raise StratumError(f"'{load_id}' does not name a load: {found}. See `stratum loads list`.")
    load = rows[0]
    if load["status"] == "retracted":
        raise StratumError(
            f"Load {load['load_id']} was retracted on {load['retracted_at']:%Y-%m-%d %H:%M %Z}: {load['retracted_why']}"
        )
    if load["status"] == "absent":
        raise StratumError(
            f"Load {load['load_id']} landed nothing: {load['source']} was absent on {load['as_of_date']}."
        )
    return load


def _take_out(connection: psycopg.Connection, kind: Kind, load_id: uuid.UUID) -> int:
    """Delete the load's versions and queue their places; return how many there were."""
    table, key = sql.Identifier(*kind.table), sql.Identifier(kind.key)
    connection.execute(
        sql.SQL("create temp table gone on commit drop as select * from {} where load_id = {}").format(
            table, sql.Literal(load_id)
        )
    )
    deleted = connection.execute(sql.SQL("delete from {} where load_id = %s").format(table), [load_id])
    connection.execute(
        sql.SQL(
            "create temp table remaining on commit drop as "
            "select versions.* from {} as versions where {} in (select {} from gone)"
        ).format(table, key, key)
    )
    system = kind.table[0].removeprefix("raw_")
    if kind.queue is not None:
        connection.execute(kind.queue, {"load_id": load_id, "system": system})
    return deleted.rowcount


def _first_queued(connection: psycopg.Connection, load_id: uuid.UUID) -> date | None:
    first = connection.execute(
        "select least("
        "(select min(order_date) from intermediate.account_day_queue where load_id = %(load_id)s), "
        "(select min(usage_date) from intermediate.usage_day_queue where load_id = %(load_id)s), "
        "(select min(from_date) from intermediate.restatement_queue where load_id = %(load_id)s))",
        {"load_id": load_id},
    ).fetchone()
    return first[0] if first else None


def _replays(connection: psycopg.Connection, load_id: uuid.UUID) -> list[str]:
    """Return the replays that landed rows which this load alone had refused, the oldest first."""
    rows = connection.execute(
        "select load_id::text from audit.loads where status = 'replayed' and load_id in ("
        "  select resolved_load_id from quarantine.rows where first_load_id = %(load)s and last_load_id = %(load)s) "
        "order by load_seq",
        {"load": load_id},
    ).fetchall()
    return [row[0] for row in rows]


def _settle_quarantine(connection: psycopg.Connection, load_id: uuid.UUID) -> None:
    """Open again what this load had settled, and take out the refused rows that it alone has seen.

    The others stand under the load that is left.
    """
    connection.execute(
        "update audit.loads set rows_replayed = rows_replayed - reopened.rows "
        "from (select last_load_id, count(*) as rows from quarantine.rows where resolved_load_id = %(load)s group by 1)"
        " as reopened where loads.load_id = reopened.last_load_id "
        "and exists (select from audit.loads as replay where replay.load_id = %(load)s and replay.status = 'replayed')",
        {"load": load_id},
    )
    connection.execute(
        "update quarantine.rows set resolved_load_id = null, resolved_at = null where resolved_load_id = %s",
        [load_id],
    )
    connection.execute(
        "delete from quarantine.rows where first_load_id = %(load)s and last_load_id = %(load)s",
        {"load": load_id},
    )
    connection.execute(
        "update quarantine.rows set first_load_id = last_load_id where first_load_id = %s", [load_id]
    )
    connection.execute(
        "update quarantine.rows set last_load_id = first_load_id where last_load_id = %s", [load_id]
    )


def _dates_to_load(connection: psycopg.Connection, load: dict[str, Any]) -> list[date]:
    rows = connection.execute(
        "select distinct as_of_date from audit.loads where source = %(source)s and entity = %(entity)s "
        "and load_seq > %(load_seq)s and status = 'loaded' and rows_unchanged > 0",
        load,
    ).fetchall()
    return sorted({load["as_of_date"], *(row[0] for row in rows)})


def _published_dates(connection: psycopg.Connection, first_day: date | None) -> list[date]:
    rows = connection.execute(
        "select as_of_date from published.history_run where as_of_date >= %s order by as_of_date", [first_day]
    ).fetchall()
    return [row[0] for row in rows]


HEADING = f"{'load':<36}  {'as of':<10}  {'rows of':<30} {'status':<9} {'loaded at':<16} rows and what became of them"
"""What stands above the lines of `in_words`."""


def in_words(load: dict[str, Any]) -> str:
    """Return a load as one line of a list, under HEADING."""
    when: datetime = load["loaded_at"]
    start = f"{load['load_id']}  {load['as_of_date']}  {load['source'] + '.' + load['entity']:<30} {load['status']:<9}"
    if load["status"] == "absent":
        return start
    counts = (
        f" {load['rows_in']:,} in = {load['rows_new']:,} new + {load['rows_corrected']:,} corrected + "
        f"{load['rows_unchanged']:,} unchanged + {load['rows_quarantined']:,} quarantined"
    )
    if load["rows_replayed"]:
        counts += f" ({load['rows_replayed']:,} of them replayed since)"
    if load["status"] == "retracted":
        counts += f"; {load['rows_retracted']:,} rows taken out: {load['retracted_why']}"
    return f"{start} {when:%Y-%m-%d %H:%M}{counts}"
