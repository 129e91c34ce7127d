"""After a change of CRM: what the system of before still has standing is archived, so that it speaks for no account."""

from datetime import date, datetime, timedelta

from psycopg import sql

from include.dates import day_end
from include.sources.cursors import Position, keep_position
from include.sources.loads import Load, bind_company, landing
from include.sources.record_contract import ENTITIES, FILES, SOURCE
from include.sources.retract import KINDS, Kind
from include.sources.row_sources import Company
from include.warehouse.connect import connect

SYSTEMS: dict[str, dict[tuple[str, str], Kind]] = {
    **{
        system: {key: kind for key, kind in KINDS.items() if kind.table[0] == f"raw_{system}"}
        for system in ("hubspot", "salesforce", "bottlecrm")
    },
    FILES: {
        (SOURCE, name): KINDS[SOURCE, name]
        for name, entity in ENTITIES.items()
        if entity.is_crm and entity.owner
    },
}
"""Each CRM's loads, by source and entity, and the tables they fill."""
COMPANY_ENTITIES = ("companies", "accounts")
# A company says on every day which account its records belong to: its accounts are made anew from its first day on.
QUEUE_COMPANIES = sql.SQL("""
insert into intermediate.restatement_queue (load_id, account_key, from_date)
select %(load_id)s, places.account_key, min((versions.valid_from at time zone %(timezone)s)::date)
from {table} as gone
inner join {table} as versions on versions.record_id = gone.record_id
cross join lateral (values (%(system)s || ':' || gone.record_id), (gone.account_number)) as places (account_key)
where gone.load_id = %(load_id)s and places.account_key is not null
group by places.account_key""")
QUEUE_OTHERS = sql.SQL("""
insert into intermediate.restatement_queue (load_id, account_key, from_date)
select distinct load_id, %(system)s || ':' || company_record_id, (valid_from at time zone %(timezone)s)::date
from {table}
where load_id = %(load_id)s and company_record_id is not null""")
RETIRED = "retired"
"""What audit.cursors says was asked of a system that is configured no more: its next pull begins anew."""


def retire_others(system: str, company: Company, as_of: date) -> dict[str, Load]:
    """Archive, as of the end of `as_of`, all that stands of CRMs other than the configured one; return the loads by table.

    Each entity gets a load of its own, which can be retracted like any other: rows_in = rows_corrected, the records
    archived. Earlier days keep what they had. A date older than one that the other system was loaded for changes
    nothing: on that date it was the CRM. Call it when the configured CRM has been landed for the date.
    """
    loads: dict[str, Load] = {}
    for other, entities in SYSTEMS.items():
        if other == system or not _is_due(entities, as_of):
            continue
        for (source, entity), kind in entities.items():
            with landing(source, entity, as_of) as load:
                bind_company(load.connection, company.name, company.timezone, company.currency)
                _archive(load, kind, other, company, day_end(as_of, company.timezone))
                keep_position(load, Position(RETIRED))
            loads[".".join(kind.table)] = load
    return loads


def _is_due(entities: dict[tuple[str, str], Kind], as_of: date) -> bool:
    """Whether a system has anything standing, and was loaded for no later date."""
    with connect("loader") as connection:
        ((covered_until,),) = connection.execute(
            "select max(as_of_date) from audit.loads where status = 'loaded' "
            "and (source, entity) in (select * from unnest(%s::text[], %s::text[]))",
            [[source for source, _ in entities], [entity for _, entity in entities]],
        ).fetchall()
        if covered_until is None or as_of < covered_until:
            return False
        return any(
            connection.execute(
                sql.SQL("select from ({}) as standing limit 1").format(_standing(kind))
            ).fetchall()
            for kind in entities.values()
        )


def _standing(kind: Kind) -> sql.Composed:
    """Return the query of the newest versions of the records that are not archived."""
    return sql.SQL(
        "select * from (select distinct on (record_id) * from {} order by record_id, valid_from desc, load_seq desc) "
        "as newest where not is_archived"
    ).format(sql.Identifier(*kind.table))


def _archive(load: Load, kind: Kind, system: str, company: Company, end: datetime) -> None:
    """Append an archived version of every standing record, count them, and queue the accounts they touch."""
    is_company = load.entity in COMPANY_ENTITIES
    owner = sql.Identifier("account_number" if is_company else "company_record_id")
    table = sql.Identifier(*kind.table)
    archived = load.connection.execute(
        sql.SQL(
            "insert into {} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, {}, is_archived, row_hash, "
            "properties) select %s, %s, %s, %s, %s, record_id, {}, true, md5(row_hash || 'archived'), properties "
            "from ({}) as standing"
        ).format(table, owner, owner, _standing(kind)),
        [load.load_id, load.load_seq, load.started_at, load.as_of, end - timedelta(microseconds=1)],
    ).rowcount
    load.rows_in = load.rows_corrected = archived
    load.connection.execute(
        (QUEUE_COMPANIES if is_company else QUEUE_OTHERS).format(table=table),
        {"load_id": load.load_id, "system": system, "timezone": company.timezone},
    )
