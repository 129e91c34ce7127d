"""Land versions of records beside those that are held: what is new, what has changed, what is gone, whom it touches."""

import logging
from collections.abc import Callable
from datetime import datetime

import duckdb
from psycopg import sql

from include.sources.file_loads import copy_rows, count_refused, csv_text
from include.sources.files import REFUSED, REFUSED_FILES
from include.sources.loads import Load
from include.sources.mapping import MAPPED
from include.sources.record_contract import FILES, Entity
from include.sources.record_mapping import VERSIONS, last_moment
from include.sources.row_sources import Company

log = logging.getLogger(__name__)

# What a version is compared with: the newest one of its record before the end of the day.
BEFORE = """
create temp table before on commit drop as
select distinct on (record_id) record_id, valid_from, row_hash, is_archived, {owner} as owner
from {table} where valid_from < %(end)s order by record_id, valid_from desc, load_seq desc"""
KNOWN = """
create temp table known on commit drop as
select distinct record_id from {table} where record_id in (select record_id from seen)"""

# Versions of rows that say since when they are true: what is held of that moment decides.
DATED = """
insert into landing (row_no, record_id, valid_from, is_archived, owner, row_hash, properties)
select row_no, record_id, valid_from, is_archived, owner, row_hash, properties from seen
where is_dated and row_hash is distinct from (
    select held.row_hash from {table} as held
    where held.record_id = seen.record_id and held.valid_from = seen.valid_from
    order by held.load_seq desc limit 1)"""

# Of all others those after the newest held one; a change that nothing dates holds since the end of the newest day.
UNDATED = """
insert into landing (row_no, record_id, valid_from, is_archived, owner, row_hash, properties)
with compared as (
    select seen.*, before.row_hash as held_hash, before.record_id is not null as is_held,
        seen.valid_from > before.valid_from and not seen.is_guessed as is_newer,
        row_number() over (partition by seen.record_id order by seen.valid_from desc) = 1 as is_last
    from seen left join before using (record_id) where not seen.is_dated
), followed as (
    select *, coalesce(lag(row_hash) over (partition by record_id, is_newer order by valid_from), held_hash) as hash_before
    from compared
)
select row_no, record_id, case when not is_held or is_newer then valid_from else %(last)s end, is_archived, owner,
    row_hash, properties
from followed
where not is_held or (is_newer and row_hash <> hash_before)
    or (is_last and not is_newer and row_hash <> held_hash and %(is_newest_day)s)"""

# A record that had left a snapshot is there again, with the date it always had.
BACK = """
insert into landing (row_no, record_id, valid_from, is_archived, owner, row_hash, properties)
select distinct on (seen.record_id) seen.row_no, seen.record_id, %(last)s, false, seen.owner, seen.row_hash, seen.properties
from seen inner join before using (record_id)
where seen.is_dated and not seen.is_archived and before.is_archived and before.valid_from > seen.valid_from
    and %(is_newest_day)s and seen.record_id not in (select record_id from landing)
order by seen.record_id, seen.valid_from desc"""

# A record that a snapshot no longer holds.
GONE = """
insert into landing (row_no, record_id, valid_from, is_archived, owner, row_hash, properties)
select null, newest.record_id, %(last)s, true, newest.owner, md5('archived|' || newest.row_hash), held.properties
from before as newest
inner join {table} as held on held.record_id = newest.record_id and held.valid_from = newest.valid_from
    and held.row_hash = newest.row_hash
where not newest.is_archived and %(is_newest_day)s
    and not exists (select from present where present.record_id = newest.record_id)
    and not exists (select from {table} as later where later.record_id = held.record_id
        and later.valid_from = held.valid_from and later.load_seq > held.load_seq)"""

APPEND = """
insert into {table} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, {columns}is_archived, row_hash,
    properties)
select %(load_id)s, %(load_seq)s, %(loaded_at)s,
    case when %(covered_until)s::date is null or day > %(covered_until)s then day else %(as_of)s end,
    valid_from, record_id, {values}is_archived, row_hash, properties
from (select *, (valid_from at time zone %(timezone)s)::date as day from landing) as landed"""

COUNTS = """
select count(*) filter (where is_landed and not is_known), count(*) filter (where is_landed and is_known),
    (select count(*) from landing where row_no is null),
    count(*) filter (where is_unattributed)
from (
    select seen.row_no, bool_or(landing.row_no is not null) as is_landed, bool_or(known.record_id is not null) as is_known,
        bool_or({unattributed}) as is_unattributed
    from seen left join known using (record_id) left join (select distinct row_no from landing) as landing using (row_no)
    group by seen.row_no
) as rows"""

QUEUE = """
insert into intermediate.restatement_queue (load_id, account_key, from_date)
select %(load_id)s, account_key, min((since at time zone %(timezone)s)::date)
from ({touched}) as touched where account_key is not null group by account_key
on conflict do nothing"""
# An account says on every day which one its records belong to: from its first day on.
OF_ACCOUNTS = """
select keys.account_key, (select min(held.valid_from) from {table} as held where held.record_id = landing.record_id) as since
from landing left join before using (record_id)
cross join lateral (values ('files:' || landing.record_id), (before.owner)) as keys (account_key)"""
OF_RECORDS = """
select {prefix} || keys.owner as account_key, landing.valid_from as since
from landing left join before using (record_id)
cross join lateral (values (landing.owner), (before.owner)) as keys (owner)"""
OF_CUSTOMERS = "select record_id as account_key, valid_from as since from landing"
# Lines that do not say their category themselves have that of the catalogue on their day.
QUEUE_OF_PRODUCTS = """
insert into intermediate.account_day_queue (load_id, customer_id, order_date)
select distinct %(load_id)s::uuid, lines.customer_id, (lines.ordered_at at time zone %(timezone)s)::date
from (select record_id, min((valid_from at time zone %(timezone)s)::date) as since from landing group by 1) as changed
inner join raw_files.order_lines as lines on lines.product_id = changed.record_id
where lines.customer_id is not null and nullif(trim(lines.product_category), '') is null
    and (lines.ordered_at at time zone %(timezone)s)::date >= changed.since
on conflict do nothing"""
OF_STAGES = """
select 'files:' || newest.company_record_id as account_key, landing.valid_from as since
from landing inner join (
    select distinct on (record_id) record_id, company_record_id from raw_files.opportunities
    order by record_id, valid_from desc, load_seq desc) as newest using (record_id)"""


def land_records(
    engine: duckdb.DuckDBPyConnection,
    entity: Entity,
    load: Load,
    company: Company,
    end: datetime,
    *,
    snapshot: bool,
) -> None:
    """Append what the warehouse lacks of VERSIONS, count the rows in the books, and queue the accounts touched.

    rows_new are rows of records that were not held, rows_corrected rows of held ones that land a version, and records
    that a snapshot no longer holds.
    """
    names = {
        "table": sql.Identifier(*entity.table.split(".")),
        "owner": sql.SQL("null::text") if entity.owner is None else sql.Identifier(entity.owner[0]),
    }
    given = {
        "end": end,
        "last": last_moment(load.as_of, company),
        "is_newest_day": load.covered_until is None or load.as_of >= load.covered_until,
    }

    def run(statement: str) -> None:
        load.connection.execute(sql.SQL(statement).format(**names), given)

    _send(engine, load)
    for statement in (KNOWN, BEFORE, DATED, UNDATED):
        run(statement)
    if snapshot:
        run(BACK)
        _leave(engine, entity, load, run)
    _append(entity, load, company)
    _count(engine, entity, load)
    _queue(entity, load, company)


def _send(engine: duckdb.DuckDBPyConnection, load: Load) -> None:
    """Bring the versions to PostgreSQL, into the temporary table seen; make the empty table landing."""
    load.connection.execute(
        "create temp table seen (row_no bigint, record_id text, valid_from timestamptz, is_dated boolean, "
        "is_guessed boolean, is_archived boolean, owner text, row_hash text, properties jsonb) on commit drop; "
        "create temp table landing (row_no bigint, record_id text, valid_from timestamptz, is_archived boolean, "
        "owner text, row_hash text, properties jsonb) on commit drop"
    )
    values = {
        "row_no": "row_no",
        "record_id": csv_text("record_id"),
        "valid_from": "strftime(timezone('UTC', valid_from), '%Y-%m-%d %H:%M:%S.%f+00')",
        "is_dated": "is_dated",
        "is_guessed": "is_guessed",
        "is_archived": "is_archived",
        "owner": csv_text("owner"),
        "row_hash": "row_hash",
        "properties": csv_text("properties"),
    }
    copy_rows(engine, load, f"seen ({', '.join(values)})", values, VERSIONS)
    load.connection.execute("analyze seen")


def _leave(engine: duckdb.DuckDBPyConnection, entity: Entity, load: Load, run: Callable[[str], None]) -> None:
    """Archive the records that no row names, of whatever date and whether refused or not."""
    unread = engine.execute(
        f"select (select count(*) from {REFUSED}) + (select count(*) from {REFUSED_FILES}) "  # noqa: S608
        f"+ (select count(*) from {MAPPED} where record_id is null)"
    ).fetchall()[0][0]
    if unread:
        log.warning(
            "records.%s: %s rows or files cannot be read, so nobody can tell what is gone: no record is archived.",
            entity.name,
            unread,
        )
        return
    load.connection.execute("create temp table present (record_id text) on commit drop")
    copy_rows(
        engine,
        load,
        "present (record_id)",
        {"record_id": csv_text("record_id")},
        f"(select distinct record_id from {MAPPED})",  # noqa: S608
    )
    load.connection.execute("analyze present")
    run(GONE)


def _append(entity: Entity, load: Load, company: Company) -> None:
    column = sql.SQL("") if entity.owner is None else sql.SQL("{}, ").format(sql.Identifier(entity.owner[0]))
    load.connection.execute(
        sql.SQL(APPEND).format(
            table=sql.Identifier(*entity.table.split(".")),
            columns=column,
            values=sql.SQL("" if entity.owner is None else "owner, "),
        ),
        {
            "load_id": load.load_id,
            "load_seq": load.load_seq,
            "loaded_at": load.started_at,
            "covered_until": load.covered_until,
            "as_of": load.as_of,
            "timezone": company.timezone,
        },
    )


def _count(engine: duckdb.DuckDBPyConnection, entity: Entity, load: Load) -> None:
    row = load.connection.execute(
        sql.SQL(COUNTS).format(unattributed=sql.SQL(_unattributed(entity)))
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    load.rows_new, corrected, gone, load.rows_unattributed = row
    load.rows_corrected = corrected + gone
    kept, load.rows_later = engine.execute(
        f"select count(*) filter (where reason is null and not is_later), count(*) filter (where is_later) from {MAPPED}"  # noqa: S608
    ).fetchall()[0]
    load.rows_unchanged = kept - load.rows_new - corrected
    count_refused(engine, load)
    load.rows_in = load.rows_new + load.rows_corrected + load.rows_unchanged + load.rows_quarantined


def _unattributed(entity: Entity) -> str:
    """Return the SQL that tells a version of no account: it names none, or one that the CRM's files do not have."""
    if entity.owner is None:
        return "false"
    if entity.is_crm and entity.owner[0] == "account_number":
        return "seen.owner is null"
    key = f"'{FILES}:' || seen.owner" if entity.is_crm else "seen.owner"
    return (
        f"seen.owner is null or ({key} like '{FILES}:%' and not exists (select from raw_files.accounts as account "
        f"where '{FILES}:' || account.record_id = {key}))"
    )


def _queue(entity: Entity, load: Load, company: Company) -> None:
    given = {"load_id": load.load_id, "timezone": company.timezone}
    if entity.name == "products":
        load.connection.execute(QUEUE_OF_PRODUCTS, given)
        return
    if entity.name == "opportunity_stages":
        touched = OF_STAGES
    elif entity.name == "customers":
        touched = OF_CUSTOMERS
    elif entity.owner is None:
        return
    elif entity.owner[0] == "account_number":
        touched = OF_ACCOUNTS.replace("{table}", entity.table)
    else:
        touched = OF_RECORDS.replace("{prefix}", "'files:'" if entity.is_crm else "''")
    load.connection.execute(sql.SQL(QUEUE).format(touched=sql.SQL(touched)), given)
