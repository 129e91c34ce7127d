"""The SQL of a plan: one join finds the rows that may differ, and only those are compared field by field."""

from collections.abc import Sequence

from psycopg import sql

from include.sync.mapping import SyncMapping

# PostgreSQL's type ids (pg_type.oid) of the columns that can be told → the CRM's kind of field, and a 64-bit hash. Hashes
# of single values cost half of what hash_record_extended does.
KINDS = {
    16: ("bool", "hashint4extended({column}::integer, {seed})"),
    20: ("number", "hashint8extended({column}, {seed})"),
    21: ("number", "hashint8extended({column}, {seed})"),
    23: ("number", "hashint8extended({column}, {seed})"),
    25: ("string", "hashtextextended({column}, {seed})"),
    700: ("number", "hashfloat8extended({column}, {seed})"),
    701: ("number", "hashfloat8extended({column}, {seed})"),
    1042: ("string", "hashtextextended({column}::text, {seed})"),
    1043: ("string", "hashtextextended({column}, {seed})"),
    1082: ("date", "timestamp_hash_extended({column}::timestamp, {seed})"),
    # A timestamp without a zone (1114) is not told: whose clock it is of is not known.
    1184: ("moment", "hash_numeric_extended(extract(epoch from {column}), {seed})"),
    1700: ("number", "hash_numeric_extended({column}, {seed})"),
}
# How a value of published.customer_360 is written to the CRM: a plain decimal without trailing zeros, YYYY-MM-DD, UTC to
# the second (which is all Salesforce keeps), true and false; the same whatever the session's time zone is. An empty text
# counts as nothing; so does a number that is none.
TEXTS = {
    "string": "nullif({column}::text, '')",
    "bool": "{column}::text",
    # By itself a date would become a timestamp of the session's zone, and some zones have left a day out.
    "date": "case when isfinite({column}) then to_char({column}::timestamp, 'YYYY-MM-DD') end",
    "moment": """case when isfinite({column})
        then to_char({column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') end""",
    "number": "substring(trim_scale({column}::text::numeric)::text from '^[-0-9.]+$')",
}
NEW = "new:"
"""What the books call a record that the CRM has not named yet, followed by the account's id."""
# Records that we made by key, and no pull has shown yet: there are few, and mostly none.
MADE = "select account_id, record_id from sync.ledger where target = {target} and awaits_pull and gone_at is null"
SUSPECTS = """
with account as (
    select {keys}, {consent} as has_consent{columns}
    from published.customer_360 as customer{made}
),
told as (
    -- Nothing else of the ledger: the hash table is as narrow as can be.
    select record_id, seen from sync.ledger where target = {target}
)
select
    account.account_id,
    coalesce(account.record_id, told.record_id) as record_id,
    account.has_consent,
    -- No account is published under this record.
    account.record_id is null and told.record_id is not null as is_gone,
    -- No record of any CRM is known to be the account's.
    account.account_id is not null and account.record_id is null and account.has_no_record as has_no_record,
    case when account.made_record_id <> account.record_id then account.made_record_id end as disagreeing,
    {fingerprint} as fingerprint,
    {texts} as texts,
    {creation_texts} as creation_texts
from account
{join} join told on told.record_id = account.record_id
"""
# What was told is the ledger's when the fingerprint is, and then nothing is to be done.
DIFFERENT = """
where (
    told.seen = {fingerprint} and account.has_consent
    and (account.made_record_id <> account.record_id) is not true{single}
) is not true
"""
DOUBLED = """
    and account.account_id not in (
        select account_id from published.customer_360
        where account_id is not null group by account_id having count(*) > 1
    )"""
# A record can be that of a suspect and of an account whose fingerprint holds: then both are to be held.
PARTNERS = """
select ledger.account_id, ledger.record_id
from pg_temp.suspects as suspect
join sync.ledger as ledger on ledger.target = %(target)s and ledger.record_id = suspect.record_id
where ledger.account_id <> suspect.account_id and ledger.seen is not null
"""
OF_PARTNERS = """
where (account.account_id, account.record_id) in (
        select * from unnest(%(accounts)s::text[], %(records)s::text[])
    )
    and (account.account_id, account.record_id) not in (
        select account_id, record_id from pg_temp.suspects where account_id is not null and record_id is not null
    )
"""
PLANNED = """
create temporary table planned on commit preserve rows as
with counted as (
    select *,
        count(*) over (partition by account_id) as same_account,
        count(*) over (partition by record_id) as same_record
    from pg_temp.suspects
),
judged as (
    select counted.*,
        ledger.account_id as told_account_id,
        ledger.confirmed,
        {changed} as changed,
        {told} as told,
        case
            when is_gone then null
            when counted.account_id is null then 'key_is_null'
            when same_account > 1 then 'key_is_doubled'
            when counted.record_id is null and not (%(creates)s and has_no_record) then 'not_in_crm'
            -- It had a record, which left the CRM: a person's doing, which is not undone.
            when counted.record_id is null and exists (
                select from sync.ledger as former
                where former.target = %(target)s and former.account_id = counted.account_id
            ) then 'record_is_gone'
            when counted.record_id is null and creation_texts <> jsonb_strip_nulls(creation_texts)
                then 'create_field_is_null'
            when counted.record_id is not null and same_record > 1 then 'record_is_doubled'
            when disagreeing is not null then 'record_disagrees'
        end as fault,
        coalesce(counted.record_id, '{new}' || counted.account_id) as told_record_id,
        {by_key} as is_unknown,
        failure.payload as letter,
        failure.dead_at is not null as has_letter,
        -- A record that we made is not gone because the pull names another one for its account.
        is_gone and ledger.awaits_pull and exists (
            select from published.customer_360 as customer where customer.account_id = ledger.account_id
        ) as is_replaced
    from counted
    left join sync.ledger as ledger on ledger.target = %(target)s and ledger.record_id = counted.record_id
    left join sync.failures as failure on failure.target = %(target)s
        and failure.record_id = coalesce(counted.record_id, '{new}' || counted.account_id)
),
decided as (
    select *,
        -- What we wrote is cleared of the accounts that are gone or withdrew their consent.
        {clears} and fault is null and (is_gone or not has_consent) and told <> '{{}}' as is_removal,
        fault is null and not is_gone and not has_consent as is_refused,
        fault is null and is_unknown as by_key
    from judged
),
resolved as (
    select *,
        case
            when is_removal then (select jsonb_object_agg(name, null) from jsonb_object_keys(told) as name)
            when by_key and not is_refused then changed || coalesce(creation_texts, '{{}}')
            when fault is null and not is_refused then changed
            else '{{}}'
        end as changes,
        -- The letter of a value that was refused keeps nothing from being cleared: that of a clearing does.
        has_letter and (not is_removal or jsonb_strip_nulls(letter) = '{{}}') as is_dead
    from decided
    -- What is asked below of a column is worked out once a row, not once a mention.
    offset 0
)
select
    row_number() over (order by by_key, account_id, record_id) as number,
    case
        when fault is not null then 'held'
        when is_refused and not is_removal then 'held'
        when changes = '{{}}' then 'same'
        when is_dead then 'held'
        else 'change'
    end as state,
    case
        when fault is not null then fault
        when is_refused and not is_removal then 'no_consent'
        when changes <> '{{}}' and is_dead then 'dead_letter'
    end as reason,
    case fault
        when 'record_disagrees' then format('made as %%s, pulled as %%s', disagreeing, record_id)
        when 'create_field_is_null' then (
            select string_agg(key, ', ' order by key) from jsonb_each_text(creation_texts) where value is null
        )
    end as detail,
    case when is_gone then told_account_id else account_id end as account_id,
    case when by_key and not is_refused then told_record_id else record_id end as record_id,
    changes,
    coalesce(confirmed, '{{}}') as confirmed,
    case when not is_removal and not is_gone then fingerprint end as fingerprint,
    is_removal,
    is_gone,
    by_key
from resolved
-- Of an account that is gone, what was never told, or is cleared already, needs nothing.
where (is_removal or not is_gone) and is_replaced is not true
"""


def suspects(
    mapping: SyncMapping,
    types: dict[str, int],
    seed: int,
    has_doubled: bool,
    has_made: bool,
    partners: bool = False,
) -> sql.Composed:
    """Return the statement that fills pg_temp.suspects with the rows that may need something.

    `types` gives each column's type id. `seed` tells this mapping's fingerprints from another's, `has_doubled` says
    that some account_id is there twice, `has_made` that some record of MADE is there: without, nothing is joined for it.
    With `partners`, those of `accounts` and `records` are added.
    """
    join_made = f" left join ({MADE}) as made on made.account_id = customer.account_id" if has_made else ""
    parts = {
        "keys": sql.SQL(_keys(mapping)).format(
            system=sql.Literal(mapping.system), made=sql.SQL("made.record_id" if has_made else "null::text")
        ),
        "made": sql.SQL(join_made).format(target=sql.Literal(mapping.target)),
        "consent": _consent(mapping),
        "columns": sql.SQL("").join(
            sql.SQL(", customer.{} as {}").format(sql.Identifier(column), alias)
            for column, alias in [*_aliases(mapping).items(), *_creation_aliases(mapping).items()]
        ),
        "creation_texts": _creation_texts(mapping, types),
        "target": sql.Literal(mapping.target),
        "fingerprint": _fingerprint(mapping, types, seed),
        "texts": _object(
            mapping,
            [
                sql.SQL(TEXTS[KINDS[types[rule.column]][0]]).format(column=_value(mapping, rule.column))
                for rule in mapping.fields.values()
            ],
        ),
        # Records without an account matter only where they are to be cleared.
        "join": sql.SQL("full" if mapping.removal == "clear" and not partners else "left"),
        "single": sql.SQL(DOUBLED if has_doubled else ""),
    }
    head = "insert into pg_temp.suspects" if partners else "create temporary table suspects as"
    return sql.SQL(head + SUSPECTS + (OF_PARTNERS if partners else DIFFERENT)).format(**parts)


def planned(mapping: SyncMapping) -> sql.Composed:
    """Return the statement that makes pg_temp.planned of the suspects; `target` is its parameter."""
    differing = [
        sql.SQL(
            "case when confirmed ->> {name} is distinct from texts ->> {name} then texts ->> {name} end"
        ).format(name=name)
        for name in _names(mapping)
    ]
    cleared = [
        sql.SQL(
            " || case when texts ->> {name} is null and confirmed ->> {name} is not null "
            "then jsonb_build_object({name}, null) else '{{}}' end"
        ).format(name=sql.Literal(name))
        for name, rule in mapping.fields.items()
        if rule.when_null == "clear"
    ]
    told = [sql.SQL("confirmed ->> {}").format(name) for name in _names(mapping)]
    return sql.SQL(PLANNED).format(
        # A null is nothing to tell, unless the rule lets it clear what we wrote.
        changed=sql.SQL("jsonb_strip_nulls({})").format(_object(mapping, differing))
        + sql.SQL("").join(cleared),
        told=sql.SQL("jsonb_strip_nulls({})").format(_object(mapping, told)),
        clears=sql.Literal(mapping.removal == "clear"),
        new=sql.SQL(NEW),
        # A webhook's record is the account itself: it is new where nothing of it was ever confirmed.
        by_key=sql.SQL(
            "not is_gone and %(creates)s and ledger.record_id is null"
            if mapping.system == "webhook"
            else "not is_gone and counted.record_id is null"
        ),
    )


def _object(mapping: SyncMapping, texts: Sequence[sql.Composable]) -> sql.Composed:
    """Return the SQL of a jsonb object of all fields, of any number."""
    return sql.SQL("jsonb_object(array[{}], array[{}]::text[])").format(
        sql.SQL(", ").join(_names(mapping)), sql.SQL(", ").join(texts)
    )


def _fingerprint(mapping: SyncMapping, types: dict[str, int], seed: int) -> sql.Composed:
    """Return the SQL of a hash of an account and all its values; each has a seed of its own."""
    hashes = [sql.SQL("hashtextextended(account.account_id, {})").format(sql.Literal(seed))]
    for place, column in enumerate(_aliases(mapping), start=1):
        hash_of = sql.SQL(KINDS[types[column]][1]).format(
            column=_value(mapping, column), seed=sql.Literal(seed ^ place)
        )
        hashes.append(sql.SQL("coalesce({}, 0)").format(hash_of))
    return sql.SQL("({})").format(sql.SQL(" # ").join(hashes))


def _keys(mapping: SyncMapping) -> str:
    if mapping.system == "webhook":
        return "customer.account_id, customer.account_id as record_id, null::text as made_record_id, false as has_no_record"
    return (
        "customer.account_id, {made} as made_record_id, "
        "nullif(customer.crm_record_id, '') is null as has_no_record, coalesce("
        "case when customer.crm_system = {system} then nullif(customer.crm_record_id, '') end, {made}"
        ") as record_id"
    )


def _consent(mapping: SyncMapping) -> sql.Composable:
    if mapping.consent is None:
        return sql.SQL("true")
    return sql.SQL("customer.{} is true").format(sql.Identifier(mapping.consent))


def _aliases(mapping: SyncMapping) -> dict[str, sql.Identifier]:
    """Return a name of its own for each column that is told, whatever it is called."""
    columns = dict.fromkeys(rule.column for rule in mapping.fields.values())
    return {column: sql.Identifier(f"value_{index}") for index, column in enumerate(columns)}


def _creation_aliases(mapping: SyncMapping) -> dict[str, sql.Identifier]:
    columns = dict.fromkeys(mapping.columns_at_creation.values())
    return {column: sql.Identifier(f"creation_{index}") for index, column in enumerate(columns)}


def _creation_texts(mapping: SyncMapping, types: dict[str, int]) -> sql.Composable:
    """Return the SQL of a jsonb object of what only a new record is told; null where the account has one."""
    told = mapping.columns_at_creation
    if not told:
        return sql.SQL("null::jsonb")
    aliases = _creation_aliases(mapping)
    texts = [
        sql.SQL(TEXTS[KINDS[types[column]][0]]).format(column=sql.SQL("account.{}").format(aliases[column]))
        for column in told.values()
    ]
    return sql.SQL(
        "case when account.record_id is null then jsonb_object(array[{}], array[{}]::text[]) end"
    ).format(sql.SQL(", ").join(map(sql.Literal, told)), sql.SQL(", ").join(texts))


def _value(mapping: SyncMapping, column: str) -> sql.Composed:
    return sql.SQL("account.{}").format(_aliases(mapping)[column])


def _names(mapping: SyncMapping) -> list[sql.Literal]:
    return [sql.Literal(name) for name in mapping.fields]
