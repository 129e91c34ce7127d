"""Bring the rows of record files to versions, in DuckDB: what a row says, since when, and which rows are refused.

Rows go through the expressions and rules of sources.yml as orders do (include/sources/mapping.py); what is a record's
own, its key and its dates, is added here.
"""

from datetime import date, datetime, timedelta

import duckdb

from include.dates import day_end
from include.sources.config import Company, RecordFile
from include.sources.files import SOURCE
from include.sources.mapping import MAPPED, Contract, computed_sql, reasons
from include.sources.plausible import IMPLAUSIBLE, earliest_date
from include.sources.record_contract import IS_ARCHIVED, MODIFIED_AT, Entity
from include.sources.record_contract import SOURCE as RECORDS

VERSIONS = "record_versions"
"""One row per version that the kept rows make: row_no, record_id, valid_from, is_dated (its row says since when it is
true), is_guessed (nothing says since when), is_archived, owner, properties (JSON text), row_hash."""
REPEATED, CONTRADICTORY = "repeated", "contradictory"
NO_RATE = (
    "coalesce((select min(effective_from) from rates where rates.currency = computed.currency), 'infinity')"
)
DAYS = "between date '0001-01-01' and date '9999-12-31'"


def contract_of(entity: Entity, as_of: date) -> Contract:
    """Return the contract of an entity's rows, with the earliest plausible date of policy on `as_of`."""
    dates = [name for name, column in entity.columns.items() if column.kind in ("instant", "day")]
    floor = earliest_date(as_of)
    too_early = " or ".join(f"{_day(entity, name)} < date '{floor}'" for name in dates)
    refused = tuple(
        (f"unreadable_{name}", f"{name} not {DAYS}") for name in dates if entity.columns[name].kind == "day"
    )
    no_rate = " or ".join(f"{name} is not null" for name in entity.money)
    return Contract(
        source=RECORDS,
        entity=entity.name,
        table=entity.table,
        types=entity.types,
        required=entity.required,
        at=entity.since or entity.created[0],
        queue="intermediate.restatement_queue",
        queue_day="from_date",
        forms={name: "[A-Z]{3}" for name, column in entity.columns.items() if column.kind == "currency"},
        refused=(*refused, (IMPLAUSIBLE, too_early), *entity.refused),
        refused_last=(
            (
                "no_exchange_rate",
                f"({no_rate}) and currency is not null and {NO_RATE} > coalesce(local_day, date '{as_of}')",
            ),
        )
        if no_rate
        else (),
    )


def _day(entity: Entity, name: str) -> str:
    """Return the SQL of a column's calendar day in the company's time zone."""
    return name if entity.columns[name].kind == "day" else f"timezone($timezone, {name})::date"


def _instant(entity: Entity, name: str) -> str:
    """Return the SQL of the instant a column names: of a day its first, in the company's time zone."""
    return f"timezone($timezone, {name}::timestamp)" if entity.columns[name].kind == "day" else name


def map_records(
    engine: duckdb.DuckDBPyConnection, entity: Entity, given: RecordFile, company: Company, as_of: date
) -> None:
    """Fill MAPPED from SOURCE: the entity's columns, record_id, since (null: nothing says), is_dated, local_day,
    is_later, reason. Call `check_mapping` and `load_rates` before.

    Two rows of one record that hold since the same moment, or neither of which says since when, cannot both be true:
    equal ones count once (`repeated`), of others none (`contradictory`).
    """
    contract = contract_of(entity, as_of)
    cases = "\n".join(f"when {condition} then '{reason}'" for reason, condition in reasons(contract, given))
    own = [_instant(entity, name) for name in ([entity.since] if entity.since else entity.created)]
    begins = f"coalesce({', '.join(own)})"
    modified = MODIFIED_AT if MODIFIED_AT in entity.columns else "null::timestamptz"
    is_dated = "true" if entity.since else f"{modified} is not null"
    parts = [
        f"replace(replace(coalesce({name}::varchar, ''), '\\', '\\\\'), '|', '\\|')" for name in entity.key
    ]
    record_id = f"{entity.key[0]}::varchar" if len(parts) == 1 else " || '|' || ".join(parts)
    content = ", ".join(f"coalesce({_text(entity, name)}, chr(30))" for name in entity.columns)
    engine.execute(
        f"""
create table {MAPPED} as
with placed as (
    select * exclude (local_day), {record_id} as record_id, {is_dated} as is_dated,
        case when {modified} is null then {begins} else greatest({modified}, {begins}) end as since
    from ({computed_sql(contract, given, SOURCE, "rowid as row_no, stratum_file, stratum_row", "$timezone")}
        select * from computed)
), dated as (
    select *, timezone($timezone, since)::date as local_day, coalesce(since >= $day_end, false) as is_later
    from placed
), judged as (
    select row_no, stratum_file, stratum_row, record_id, {", ".join(entity.columns)}, since, is_dated, local_day,
        is_later, case {cases} end as reason, md5(concat_ws(chr(31), {content})) as content
    from dated as computed
), grouped as (
    select *, reason is null and not is_later as is_kept,
        row_number() over same_rows as place, min(content) over twins as lowest, max(content) over twins as highest
    from judged
    window twins as (partition by record_id, case when is_dated then since end, reason is null and not is_later),
        same_rows as (
            partition by record_id, case when is_dated then since end, reason is null and not is_later order by row_no
        )
)
select * exclude (is_kept, place, lowest, highest, content) replace (
    case when is_kept and lowest <> highest then '{CONTRADICTORY}' when is_kept and place > 1 then '{REPEATED}'
        else reason end as reason)
from grouped order by row_no
""",  # noqa: S608 - every expression of the user has passed check_mapping
        {"day_end": day_end(as_of, company.timezone), "timezone": company.timezone},
    )


def make_versions(
    engine: duckdb.DuckDBPyConnection, entity: Entity, company: Company, as_of: date, crm: str | None
) -> None:
    """Fill VERSIONS from the kept rows of MAPPED; `crm` is the system whose accounts `account_id` names.

    A row is a version since its own moment, and one more since each later date of its steps that the day has reached:
    what a step brings is null before. A row of which nothing says since when begins with the end of the day.
    """
    kept = f"{MAPPED} where reason is null and not is_later"
    moments = [f"select row_no, since as moment, false as is_step from {kept}"]  # noqa: S608
    for name in entity.steps:
        at = _instant(entity, name)
        moments.append(f"select row_no, {at}, true from {kept} and {at} > since and {at} < $day_end")  # noqa: S608
    steps = {brought: name for name, columns in entity.steps.items() for brought in columns}
    properties = ", ".join(
        f"'{name}', {_stepped(entity, name, steps.get(name))}"
        for name in entity.columns
        if name not in (MODIFIED_AT, IS_ARCHIVED)
    )
    is_archived = f"coalesce({IS_ARCHIVED}, false)" if IS_ARCHIVED in entity.columns else "false"
    engine.execute(
        f"""
create table {VERSIONS} as
with moments as (
    {" union all ".join(moments)}
), versions as (
    select row_no, record_id, coalesce(moment, $last) as valid_from, is_dated, moment is null as is_guessed,
        {is_archived} as is_archived, {_owner(entity, crm)} as owner, json_object({properties})::varchar as properties
    from moments inner join {MAPPED} using (row_no)
    -- Of two at one moment, the row that begins then says more than one that had foreseen it.
    qualify row_number() over (partition by record_id, moment order by is_dated desc, is_step, row_no desc) = 1
)
select *, md5(concat_ws(chr(31), properties, is_archived, coalesce(owner, chr(30)))) as row_hash from versions
""",  # noqa: S608
        {
            "day_end": day_end(as_of, company.timezone),
            "timezone": company.timezone,
            "last": last_moment(as_of, company),
        },
    )


def last_moment(as_of: date, company: Company) -> datetime:
    """Return the last microsecond of the day: since when what nothing dates holds."""
    return day_end(as_of, company.timezone) - timedelta(microseconds=1)


def _stepped(entity: Entity, name: str, step: str | None) -> str:
    """Return the SQL of a column as text, null at a moment before its step; a plan for a day to come stays unsaid."""
    text = _text(entity, name)
    if step is None:
        return text
    at = _instant(entity, step)
    return f"case when {at} is null or {at} <= coalesce(moment, $last) then {text} end"


def _text(entity: Entity, name: str) -> str:
    """Return the SQL of a column as text that says the same in every time zone."""
    if entity.columns[name].kind == "instant":
        return f"strftime(timezone('UTC', {name}), '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"{name}::varchar"


def _owner(entity: Entity, crm: str | None) -> str:
    if entity.owner is None:
        return "null::varchar"
    column, told_by = entity.owner
    if column != "account_key":
        return told_by
    return f"coalesce('{crm}:' || {told_by}, {entity.customer})"
