"""Bring the rows of a file to the contract of order lines, in DuckDB, by the expressions of sources.yml.

Each row becomes one row of MAPPED, with a reason where it is refused. A row has one primary reason: the
first that applies, in the order of `reasons()`; docs/contracts/sources.md lists them.
"""

import csv
from datetime import date
from pathlib import Path

import duckdb

from include.dates import day_end
from include.errors import StratumError
from include.settings import PROJECT_DIR
from include.sources.config import OrderColumns, Orders
from include.sources.expressions import Guard
from include.sources.files import SOURCE

MAPPED = "mapped"
"""One row per source row: row_no, stratum_file, stratum_row, the contract's columns, line_type, row_key,
row_hash, is_later, reason (null where the row is kept)."""
RATES = PROJECT_DIR / "dbt_project" / "seeds" / "policy" / "exchange_rates.csv"
TYPES = {
    "order_id": "text",
    "customer_id": "text",
    "product_id": "text",
    "product_name": "text",
    "product_category": "text",
    "country": "text",
    "quantity": "decimal(18, 4)",
    "unit_price": "decimal(18, 4)",
    "amount": "decimal(18, 2)",
    "currency": "text",
    "ordered_at": "timestamptz",
}
"""The contract's columns in their order, each with the type a value is cast to."""
REQUIRED = ("order_id", "product_id", "quantity", "unit_price", "amount", "currency", "ordered_at")
PRODUCT = (
    "quantity::decimal(38, 4) * unit_price"  # 38: the product of two decimals of 18 digits overflows at 18
)
BLANKS = "' ' || chr(9) || chr(10) || chr(13)"


def check_mapping(engine: duckdb.DuckDBPyConnection, orders: Orders, columns: list[str]) -> None:
    """Check every expression of the mapping against the columns of the file.

    Raises StratumError, one line naming the key, the expression, the file and its columns, for the first
    expression that names a missing column, does not fit the columns' types, or is not scalar.
    """
    guard = Guard(engine, SOURCE, columns, orders.file)
    for name, expression in orders.columns.expressions().items():
        guard.check(f"orders.columns.{name}", expression)
    for name, rule in _rules(orders).items():
        guard.check(f"orders.{name}", rule, boolean=True)


def map_rows(
    engine: duckdb.DuckDBPyConnection, orders: Orders, as_of: date, timezone: str, currency: str
) -> None:
    """Fill MAPPED from SOURCE; `timezone` and `currency` are the company's. Call `check_mapping` before."""
    _load_rates(engine, RATES, currency)
    parameters = {"day_end": day_end(as_of, timezone), "timezone": timezone, "currency": currency}
    engine.execute(_mapped_sql(orders), parameters)
    if orders.repeated_rows == "first":
        _refuse_repeated(engine)
    _number(engine, orders)


def _rules(orders: Orders) -> dict[str, str]:
    given = {"return_when": orders.return_when, "non_product_when": orders.non_product_when}
    rules = {name: rule for name, rule in given.items() if rule is not None}
    return rules | {rule.reason: rule.when for rule in orders.quarantine}


def _mapped_sql(orders: Orders) -> str:
    mapped = orders.columns.expressions()
    # try() is null where the expression fails on the row; a struct around it keeps that apart from a null value.
    tried = {name: f"try({{'v': ({text}\n)}})" for name, text in mapped.items()}
    tried |= {f"rule_{name}": f"try({{'v': ({text}\n)}})" for name, text in _rules(orders).items()}
    typed = [f"{_typed(name, mapped)} as {name}" for name in TYPES]
    flags = [f"coalesce(t_{name}.v, false) as {name}" for name in tried if name.startswith("rule_")]
    for name in ("rule_return_when", "rule_non_product_when"):
        if name not in tried:
            flags.append(f"false as {name}")
    cases = "\n".join(f"when {condition} then '{reason}'" for reason, condition in reasons(orders))
    return f"""
create table {MAPPED} as
with tried as (
    select rowid as row_no, stratum_file, stratum_row,
        {", ".join(f"{text} as t_{name}" for name, text in tried.items())}
    from {SOURCE}
), typed as (
    select *, {", ".join(typed)}, {", ".join(flags)} from tried
), amounts as (
    select * {"" if "amount" in mapped else f"replace (try_cast({PRODUCT} as decimal(18, 2)) as amount)"}
    from typed
)
select row_no, stratum_file, stratum_row, {", ".join(TYPES)},
    case when rule_non_product_when then 'non_product' when rule_return_when then 'return' else 'sale' end
        as line_type,
    coalesce(isfinite(ordered_at) and ordered_at >= $day_end, false) as is_later,
    case {cases} end as reason
from amounts
order by row_no
"""  # noqa: S608 - every expression of the user has passed check_mapping


def _typed(name: str, mapped: dict[str, str]) -> str:
    if name not in mapped:
        return f"null::{TYPES[name]}"
    if TYPES[name] == "text":
        return f"nullif(trim(t_{name}.v::varchar, {BLANKS}), '')"
    return f"try_cast(t_{name}.v as {TYPES[name]})"


def reasons(orders: Orders) -> list[tuple[str, str]]:
    """Return (reason, SQL condition) in the order that decides a row's primary reason.

    The conditions read the columns of the contract, t_<column> (null where its expression failed) and
    the rules. `unreadable_row` stands before all of these and `repeated` after them, in steps of their own.
    """
    mapped = orders.columns.expressions()
    rules = _rules(orders)
    unreadable = [(f"unreadable_{name}", _unreadable(name)) for name in mapped]
    unreadable += [(f"unreadable_{name}", f"t_rule_{name} is null") for name in rules]
    missing = [(f"missing_{name}", f"{name} is null") for name in REQUIRED if name in mapped]
    own = [(rule.reason, f"rule_{rule.reason}") for rule in orders.quarantine]
    return [
        *unreadable,
        # A product of two readable numbers that is too large for money.
        *([] if "amount" in mapped else [("unreadable_amount", f"{PRODUCT} is not null and amount is null")]),
        *missing,
        ("price_not_positive", "unit_price <= 0"),
        (
            "sign_contradicts_type",
            "quantity = 0 or (quantity < 0) <> rule_return_when or (amount <> 0 and (amount < 0) <> rule_return_when)",
        ),
        *own,
        (
            "no_exchange_rate",
            "currency <> $currency and not coalesce((select min(effective_from) from rates "
            "where rates.currency = amounts.currency) <= timezone($timezone, ordered_at)::date, false)",
        ),
    ]  # fmt: skip


def _unreadable(name: str) -> str:
    failed = f"t_{name} is null"
    if name == "currency":
        return f"{failed} or not regexp_full_match(currency, '[A-Z]{{3}}')"
    if TYPES[name] == "text":
        return f"{failed} or contains({name}, chr(0))"  # PostgreSQL's text holds no NUL
    if name == "ordered_at":
        return f"{failed} or (t_{name}.v is not null and coalesce(year({name}) not between 1 and 9999, true))"
    return f"{failed} or (t_{name}.v is not null and {name} is null)"


def _load_rates(engine: duckdb.DuckDBPyConnection, path: Path, currency: str) -> None:
    """Fill the table rates with the dated rates into the reporting currency; no file is no rates."""
    engine.execute("create table rates (currency varchar, effective_from date)")
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reporting_currency"] == currency]
    try:
        for row in rows:
            engine.execute(
                "insert into rates values (?, ?)",
                [row["currency"], date.fromisoformat(row["effective_from"])],
            )
    except ValueError as error:
        raise StratumError(f"{path}: {error}.") from error


def _refuse_repeated(engine: duckdb.DuckDBPyConnection) -> None:
    """Refuse, as `repeated`, each kept row that equals an earlier one in every column of the contract."""
    columns = ", ".join((*TYPES, "line_type"))
    engine.execute(
        f"update {MAPPED} set reason = 'repeated' from (select row_no from (select row_no, "  # noqa: S608
        f"row_number() over (partition by {columns} order by row_no) as place from {MAPPED} "
        f"where reason is null) where place > 1) as repeats where {MAPPED}.row_no = repeats.row_no"
    )


def _number(engine: duckdb.DuckDBPyConnection, orders: Orders) -> None:
    """Give each kept row its row_key (natural key and place within it) and row_hash (what it says).

    Places count by time, then by file order, so rows of later days never renumber those of earlier ones.
    """
    key = " || '|' || ".join(_key_part(name) for name in orders.key)
    content = ", ".join(_text(name) for name in (*TYPES, "line_type"))
    engine.execute(f"alter table {MAPPED} rename to unnumbered")
    engine.execute(f"""
create table {MAPPED} as
with keyed as (select *, case when reason is null then {key} end as natural_key from unnumbered)
select * exclude (natural_key),
    natural_key || '|' || row_number() over (partition by natural_key order by ordered_at, row_no) as row_key,
    case when reason is null then md5(concat_ws(chr(31), {content})) end as row_hash
from keyed
""")  # noqa: S608
    engine.execute("drop table unnumbered")


def _text(name: str) -> str:
    # Instants as microseconds: their text would change with the time zone of the session.
    value = f"epoch_us({name})" if name == "ordered_at" else name
    return f"coalesce({value}::varchar, chr(30))"


def _key_part(name: str) -> str:
    return f"replace(replace({_text(name)}, '\\', '\\\\'), '|', '\\|')"


assert set(TYPES) == set(OrderColumns.model_fields)  # noqa: S101 - one contract, written in two places
