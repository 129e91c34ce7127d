"""Only scalar expressions over the row pass the guard, and what passes cannot reach files."""

from pathlib import Path

import duckdb
import pytest

from include.errors import StratumError
from include.sources.expressions import Guard
from include.sources.files import lock, open_engine

GOOD = [
    "qty",
    "QTY::int",
    '"Unit Price"::decimal(18,4) * 1.2',
    "'GBP'",
    "case when kind = 'return' then -qty::int else qty::int end",
    "coalesce(nullif(trim(kind), ''), 'none')",
    "strptime(day, '%d/%m/%Y')",
    "regexp_full_match(kind, '[A-Z]+') and qty in ('1', '2') or kind is null",
    "split_part(kind, '-', 1)",
    "if(kind = 'a', qty, '0')",
    "upper(kind) -- a comment",
    "price between 1 and 2",
    "json_extract_string(kind, '$.a')",
    "kind ->> '$.\"$a b\"'",
    "list_filter(string_split(kind, ','), lambda part: part = qty)[1]",
    "list_transform(string_split(kind, ','), lambda part, place: part || place || qty)",
    "[upper(part) for part in string_split(kind, ',') if part <> qty]",
    "to_json({'a': qty, 'b': [kind, day]})",
]

BAD = {
    "a sub-select": ("(select max(qty) from source_rows)", "a sub-select"),
    "exists": ("exists (select 1)", "a sub-select"),
    "a statement behind": ("qty); drop table source_rows; select (1", "scalar expression"),
    "two columns": ("qty), (kind", "must be one scalar expression"),
    "a from clause": ("qty) from read_csv('/etc/passwd') where (true", "must be one scalar expression"),
    "a union": ("1) union all select (2", "must be one scalar expression"),
    "no SQL": ("qty +", "is not a SQL scalar expression"),
    "an open comment": ("qty /* ", "is not a SQL scalar expression"),
    "an aggregate": ("sum(qty::int)", r"sum\(\)"),
    "a macro that aggregates": ("weighted_avg(price, 2)", r"weighted_avg\(\)"),
    "a window": ("row_number() over ()", "a window function"),
    "a star": ("*", r"holds \*"),
    "an unnest": ("unnest([1, 2])", r"unnest\(\)"),
    "a reader of files": ("read_text('/etc/passwd')", r"read_text\(\)"),
    "the clock": ("now()", r"now\(\)"),
    "the clock in a macro": ("ago(interval 1 day)", r"ago\(\)"),
    "the clock under another name": ("current_localtimestamp()", r"current_localtimestamp\(\)"),
    "the clock without brackets": ("current_date", "names the column 'current_date'|current_date"),
    "the local clock without brackets": ("localtimestamp", "localtimestamp"),
    "an age until now": ("age(day::timestamp)", r"age\(\)"),
    "chance": ("random()", r"random\(\)"),
    "the settings": ("current_setting('threads')", r"current_setting\(\)"),
    "a function that is not there": ("launder(qty)", r"launder\(\)"),
    "a parameter": ("$1", "a parameter"),
    "a sub-select in a lambda": (
        "list_transform([qty], lambda x: (from read_text('/etc/passwd')))",
        "a sub-select",
    ),
    "the clock in a lambda": ("list_transform([1], lambda x: now())", r"now\(\)"),
    "the settings in a comprehension": ("[getvariable(x) for x in [kind]]", r"getvariable\(\)"),
    "a missing column in a lambda": (
        "list_filter([1], lambda x: x = quantity)",
        "names the column 'quantity'",
    ),
    "the parameter of a lambda outside it": (
        "list_filter([1], lambda other: true)[1] + other::int",
        "names the column 'other'",
    ),
    "an arrow, which is taken for a lambda": (
        "kind -> '$.a'",
        "Write lambda x: ..., and for a value of JSON ->>",
    ),
    "types that do not fit": ("qty * 2", "does not fit orders.csv"),
    "a column that is not there": (
        "Qantity + 1",
        "names the column 'Qantity', which orders.csv does not have. "
        "Its columns are: qty, kind, day, price, Unit Price",
    ),
}


@pytest.fixture
def engine():
    with open_engine("UTC") as engine:
        engine.execute(
            'create table source_rows (qty varchar, kind varchar, day varchar, price double, "Unit Price" varchar)'
        )
        lock(engine)
        yield engine


@pytest.fixture
def guard(engine: duckdb.DuckDBPyConnection) -> Guard:
    return Guard(engine, "source_rows", ["qty", "kind", "day", "price", "Unit Price"], "orders.csv")


@pytest.mark.parametrize("text", GOOD)
def test_a_scalar_expression_passes(guard: Guard, text: str) -> None:
    guard.check("orders.columns.x", text)


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD.keys())
def test_anything_else_is_refused_in_one_line_that_names_the_key(guard: Guard, text: str, said: str) -> None:
    with pytest.raises(StratumError, match=said) as fault:
        guard.check("orders.columns.quantity", text)
    assert str(fault.value).startswith("orders.columns.quantity: ")
    assert repr(text) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_rule_must_be_true_or_false(guard: Guard) -> None:
    guard.check("orders.return_when", "starts_with(kind, 'C')", boolean=True)
    with pytest.raises(StratumError, match="must be true or false, but its value is of type VARCHAR"):
        guard.check("orders.return_when", "kind", boolean=True)


def test_a_locked_engine_reaches_neither_files_nor_variables(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for statement in (
        f"select * from read_csv('{secret}')",
        f"copy source_rows to '{tmp_path}/out.csv'",
        f"attach '{tmp_path}/db'",
        "set enable_external_access = true",
        "select * from secret",
    ):
        with pytest.raises(duckdb.Error):
            engine.execute(statement)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
