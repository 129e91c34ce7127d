"""Bring the rows of a source to a contract, in DuckDB, by the expressions of sources.yml.

Each row becomes one row of MAPPED, with a reason where it is refused. A row has one primary reason: the
first that applies, in the order of `reasons()`; docs/contracts/sources.md lists them.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date

import duckdb

from include.dates import day_end
from include.sources.expressions import Guard
from include.sources.files import SOURCE
from include.sources.row_sources import OrderRows, RowSource

PLAIN = re.compile(r'[A-Za-z_]\w*|"[^"]+"')
MAPPED = "mapped"
"""One row per source row: row_no, stratum_file, stratum_row, the contract's columns and derived ones,
local_day (in the company's time zone), row_key, row_hash, is_later, reason (null where the row is kept)."""
BLANKS = "' ' || chr(9) || chr(10) || chr(13)"
YEARS = "between timestamptz '0001-01-01 00:00:00+00' and timestamptz '9999-12-31 00:00:00+00'"
# What DuckDB takes for JSON and PostgreSQL's jsonb does not: NaN and infinity, a comma too many, numbers beyond its range,
# and the character NUL. The first looks at it with a 0 for each text and word.
BEYOND_JSONB = (
    r"""regexp_matches(regexp_replace({0}::varchar, '"([^"\\]|\\.)*"|true|false|null', '0', 'g'), """
    r"""'[a-df-zA-DF-Z"]|[eE][+-]?[0-9]{{4,}}|[0-9]{{1000,}}|,\s*[\]}}]') """
    r"""or regexp_matches({0}::varchar, '(^|[^\\])(\\\\)*\\u0000')"""
)
# The kept rows that equal an earlier one in every column.
REPEATS = """
    select row_no from (
        select row_no, row_number() over (partition by row_hash order by row_no) as place from keyed
        where row_hash in (select row_hash from keyed where reason is null group by row_hash having count(*) > 1)
    ) where place > 1"""


@dataclass(frozen=True)
class Contract:
    """What rows of one entity must look like, and where they land. SQL in it is DuckDB's."""

    source: str
    """The source in the books, and its key in sources.yml."""
    entity: str
    table: str
    """The raw table; its columns are `types`, `derived` and those of every version."""
    types: Mapping[str, str]
    """The columns in their order, each with the type a value is cast to."""
    required: tuple[str, ...]
    """Columns that must have a value where they are mapped (sources.yml says which must be mapped)."""
    at: str
    """The column with the instant that says on which day a row belongs."""
    queue: str
    queue_day: str
    """The queue of the customers and days a load touched, and its column of the day."""
    forms: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions that the text of a column must match as a whole."""
    computed: Mapping[str, str] = field(default_factory=dict)
    """Columns that, where they are not mapped, are the value of SQL over other columns."""
    derived: Mapping[str, str] = field(default_factory=dict)
    """Columns more, whose value is SQL over the contract's columns and the flags rule_<name> of `rules`."""
    rules: tuple[str, ...] = ()
    """Keys of the section that hold a condition of the user; without one, rule_<name> is false."""
    left_out: str | None = None
    """The one of `rules` whose rows are none of the entity's: it stands before every reason to refuse one."""
    refused: tuple[tuple[str, str], ...] = ()
    refused_last: tuple[tuple[str, str], ...] = ()
    """(reason, SQL condition) pairs, before and after the user's own quarantine rules."""


def check_mapping(
    engine: duckdb.DuckDBPyConnection,
    contract: Contract,
    given: RowSource,
    columns: list[str],
    origin: str | None = None,
    binary: Collection[str] = (),
) -> set[str]:
    """Check every expression of the mapping against the columns of SOURCE; return those it uses, in small letters.

    SOURCE stands for `origin`, the whole of the source if not given.

    `binary` are columns that hold no text. Raises StratumError, one line naming the key, the expression, the
    source and its columns, for the first expression that names a missing or a binary column, does not fit the
    columns' types, or is not scalar.
    """
    guard = Guard(engine, SOURCE, columns, origin or given.origin, binary)
    used: set[str] = set()
    for place, expression in _columns_by_key(contract, given):
        used |= guard.check(place, expression)
    for place, rule in _rules_by_key(contract, given):
        used |= guard.check(place, rule, boolean=True)
    return used


def named_columns(engine: duckdb.DuckDBPyConnection, contract: Contract, given: RowSource) -> dict[str, str]:
    """Return each column that the mapping reads, in small letters → the first key of sources.yml that reads it.

    Raises StratumError where an expression cannot be parsed.
    """
    guard = Guard(engine, SOURCE, [], given.origin)
    named: dict[str, str] = {}
    for place, text in _columns_by_key(contract, given) + _rules_by_key(contract, given):
        for column in guard.columns(place, text):
            named.setdefault(column, place)
    return named


def _columns_by_key(contract: Contract, given: RowSource) -> list[tuple[str, str]]:
    """Return (key of sources.yml, expression) of the columns, and of the source's own columns in `key`."""
    mapped = [(f"{given.section}.columns.{name}", text) for name, text in given.columns.expressions().items()]
    return mapped + [(f"{given.section}.key", text) for text in _key_columns(contract, given).values()]


def _rules_by_key(contract: Contract, given: RowSource) -> list[tuple[str, str]]:
    return [(f"{given.section}.{name}", text) for name, text in _rules(contract, given).items()]


def map_rows(
    engine: duckdb.DuckDBPyConnection, contract: Contract, given: OrderRows, as_of: date, timezone: str
) -> None:
    """Fill MAPPED from SOURCE; `timezone` is the company's. Call `check_mapping` before."""
    engine.execute(_mapped_sql(contract, given), {"day_end": day_end(as_of, timezone), "timezone": timezone})
    _identify(engine, contract, given)


def _rules(contract: Contract, given: RowSource) -> dict[str, str]:
    rules = {name: rule for name in contract.rules if (rule := getattr(given, name)) is not None}
    return rules | {rule.reason: rule.when for rule in given.quarantine}


def _key_columns(contract: Contract, given: RowSource) -> dict[str, str]:
    """Return name in MAPPED → SQL of the columns of the source itself that are part of the natural key."""
    return {
        f"key_{number}": '"' + name.replace('"', '""') + '"'
        for number, name in enumerate(given.natural_key)
        if name not in contract.types
    }


def _mapped_sql(contract: Contract, given: OrderRows) -> str:
    derived = "".join(f", {text} as {name}" for name, text in contract.derived.items())
    key = _key_columns(contract, given)
    carried = ", ".join(
        ("rowid as row_no, stratum_file, stratum_row", *(f"{text} as {name}" for name, text in key.items()))
    )
    cases = "\n".join(f"when {condition} then '{reason}'" for reason, condition in reasons(contract, given))
    at = contract.at
    return f"""
create table {MAPPED} as
{computed_sql(contract, given, SOURCE, carried, "$timezone")}
select row_no, stratum_file, stratum_row, {", ".join((*contract.types, *key))}{derived}, local_day,
    coalesce(isfinite({at}) and {at} >= $day_end, false) as is_later,
    case {cases} end as reason
from computed
order by row_no
"""  # noqa: S608 - every expression of the user has passed check_mapping


def computed_sql(
    contract: Contract,
    given: RowSource,
    origin: str,
    carried: str,
    timezone: str,
    window: str = "true",
    instant: str | None = None,
    day: str | None = None,
) -> str:
    """Return the WITH clause of `computed`: the rows of `origin` as the contract has them.

    Its columns are `carried` (SQL over the origin), the contract's, local_day (in `timezone`, SQL of the company's),
    and what the conditions of `reasons` read. `window` is a condition on the contract's instant: rows outside it are
    left out before the other columns are made. `instant` and `day` are SQL, of the same values as without them, of the
    contract's instant (over t_<its name>) and of its day (over itself).
    """
    mapped = given.columns.expressions()
    # try() is null where the expression fails on the row; a struct around it keeps that apart from a null value.
    tried = {name: text if _is_plain(text) else f"try({{'v': ({text}\n)}})" for name, text in mapped.items()}
    tried |= {f"rule_{name}": f"try({{'v': ({text}\n)}})" for name, text in _rules(contract, given).items()}
    typed = {name: f"{_typed(contract, name, mapped)} as {name}" for name in contract.types}
    dated = typed.pop(contract.at)
    if instant is not None:
        dated = f"{instant} as {contract.at}"
    day = day or f"timezone({timezone}, {contract.at})::date"
    flags = [f"coalesce(t_{name}.v, false) as {name}" for name in tried if name.startswith("rule_")]
    flags += [f"false as rule_{name}" for name in contract.rules if f"rule_{name}" not in tried]
    computed = [
        f"try_cast({text} as {contract.types[name]}) as {name}"
        for name, text in contract.computed.items()
        if name not in mapped
    ]
    return f"""
with tried as (
    select {carried}, {", ".join(f"{text} as t_{name}" for name, text in tried.items())}
    from {origin}
), dated as (
    select *, {dated} from tried
), typed as (
    select {", ".join(("*", *typed.values(), *flags))} from dated where {window}
), computed as (
    select * {f"replace ({', '.join(computed)})" if computed else ""},
        case when {contract.at} {YEARS} then {day} end as local_day
    from typed
)"""  # noqa: S608


def _is_plain(text: str) -> bool:
    """Tell whether an expression is a column as it stands: that cannot fail, and needs no try()."""
    return PLAIN.fullmatch(text) is not None


def _value(name: str, mapped: dict[str, str]) -> str:
    return f"t_{name}" if _is_plain(mapped[name]) else f"t_{name}.v"


def _typed(contract: Contract, name: str, mapped: dict[str, str]) -> str:
    kind = contract.types[name]
    if name not in mapped:
        return f"null::{kind}"
    if kind == "text":
        text = f"{_value(name, mapped)}::varchar"
        # To trim every value takes longer than to read it: only one that begins or ends with a blank, or is empty.
        return f"case when {text} < '!' or ({text})[-1] <= ' ' then nullif(trim({text}, {BLANKS}), '') else {text} end"
    return f"try_cast({_value(name, mapped)} as {kind})"


def reasons(contract: Contract, given: RowSource) -> list[tuple[str, str]]:
    """Return (reason, SQL condition) in the order that decides a row's primary reason.

    The conditions read the columns of the contract, t_<column> (as `computed_sql` makes it) and the
    rules. `unreadable_row` stands before all of these and `repeated` after them, in steps of their own.
    """
    mapped = given.columns.expressions()
    unreadable = [(f"unreadable_{name}", _unreadable(contract, name, mapped)) for name in mapped]
    unreadable += [(f"unreadable_{name}", f"t_rule_{name} is null") for name in _rules(contract, given)]
    # What is computed of readable values may be too large for its type.
    unreadable += [
        (f"unreadable_{name}", f"{text} is not null and {name} is null")
        for name, text in contract.computed.items()
        if name not in mapped
    ]
    missing = [(f"missing_{name}", f"{name} is null") for name in contract.required if name in mapped]
    own = [(rule.reason, f"rule_{rule.reason}") for rule in given.quarantine]
    left_out = [(name, f"rule_{name}") for name in _rules(contract, given) if name == contract.left_out]
    return [*left_out, *unreadable, *missing, *contract.refused, *own, *contract.refused_last]


def _unreadable(contract: Contract, name: str, mapped: dict[str, str]) -> str:
    failed = "false" if _is_plain(mapped[name]) else f"t_{name} is null"
    kind, value = contract.types[name], _value(name, mapped)
    if name in contract.forms:
        return f"{failed} or not regexp_full_match({name}, '{contract.forms[name]}')"
    if kind == "text":
        return f"{failed} or contains({name}, chr(0))"  # PostgreSQL's text holds no NUL
    if kind == "json":
        return (
            f"{failed} or ({value} is not null and ({name} is null or json_type({name}) <> 'OBJECT' "
            f"or {BEYOND_JSONB.format(name)}))"
        )
    if kind == "timestamptz":
        return f"{failed} or ({value} is not null and coalesce({name} not {YEARS}, true))"
    return f"{failed} or ({value} is not null and {name} is null)"


def _identify(engine: duckdb.DuckDBPyConnection, contract: Contract, given: OrderRows) -> None:
    """Give each kept row its row_hash (what it says) and its row_key (natural key and place within it).

    Of rows that are equal in every column the first is kept and
    the others are refused as `repeated`, unless the mapping keeps them all. Places count by time, then by
    file order (where there is none, by what the rows say), so rows of later days never renumber those of
    earlier ones.
    """
    content = ", ".join(_text(contract, name) for name in (*contract.types, *contract.derived))
    parts = (_key_part(contract, number, name) for number, name in enumerate(given.natural_key))
    key = " || '|' || ".join(parts)
    order = "row_no" if given.is_ordered else "row_hash, row_no"
    engine.execute(f"alter table {MAPPED} rename to unidentified")
    # Few rows share a hash or a key: only those are sorted to find their places.
    engine.execute(f"""
create table {MAPPED} as
with hashed as (
    select *, case when reason is null then md5(concat_ws(chr(31), {content})) end as row_hash from unidentified
), keyed as (
    select *, case when reason is null then {key} end as natural_key from hashed
), repeats as (
    {"select null::bigint as row_no where false" if given.keeps_repeated else REPEATS}
), judged as (
    select * replace (case when repeats.row_no is null then reason else 'repeated' end as reason)
    from keyed left join repeats using (row_no)
), places as (
    select row_no, row_number() over (partition by natural_key order by {contract.at}, {order}) as place
    from judged
    where reason is null and natural_key in (
        select natural_key from judged where reason is null group by natural_key having count(*) > 1
    )
)
select judged.* exclude (natural_key) replace (case when reason is null then row_hash end as row_hash),
    case when reason is null then natural_key || '|' || coalesce(place, 1) end as row_key
from judged left join places using (row_no)
""")  # noqa: S608
    engine.execute("drop table unidentified")


def _text(contract: Contract, name: str) -> str:
    # Instants as microseconds: their text would change with the time zone of the session.
    value = f"epoch_us({name})" if name == contract.at else name
    return f"coalesce({value}::varchar, chr(30))"


def _key_part(contract: Contract, number: int, name: str) -> str:
    value = _text(contract, name if name in contract.types else f"key_{number}")
    return f"replace(replace({value}, '\\', '\\\\'), '|', '\\|')"
