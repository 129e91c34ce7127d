"""Writes docs/portability.md: what of the project another engine, Spark, would not take as it is.

Every model and test is compiled for Spark (spark.py) and what comes out is read by sqlglot, as Spark's SQL. It is a
generous reader, so what it would let pass is looked for by name: types, operators, functions and statements.
"""

import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.dialects.spark import Spark
from sqlglot.tokens import Token, TokenType

from docs.generators.spark import Compiled, compile_for_spark
from include.dbt import DBT_PROJECT
from include.settings import PROJECT_DIR

PAGE = PROJECT_DIR / "docs" / "portability.md"
STRATEGIES = ("append", "merge", "insert_overwrite", "microbatch")
"""Incremental strategies of dbt-spark."""
FUNCTION_NAMES = """
    abs add_months any_value array array_join array_sort avg bit_count bit_or bool_and bool_or cast ceil
    coalesce collect_list collect_set concat concat_ws conv corr count count_if cume_dist date_add date_sub
    date_trunc datediff dense_rank element_at exists exp explode extract filter first_value floor
    from_utc_timestamp get_json_object greatest hash if lag last_day last_value lead least left length ln log
    lower lpad max md5 median min mod mode ntile nullif percent_rank percentile_cont percentile_disc position
    power quarter rank regexp_replace replace right round row_number rpad sequence sha2 shiftleft sign split
    sqrt stddev_pop stddev_samp struct substr substring sum timestamp_millis to_date to_timestamp
    to_utc_timestamp transform translate trim trunc unix_micros upper var_pop var_samp within year month day
"""
"""Those of Spark SQL's built-in functions (its reference of 3.5) that a model may call; more are added when used."""
FUNCTIONS = frozenset(re.findall(r"\w+", FUNCTION_NAMES))
NO_CALL = (TokenType.DOT, TokenType.ALIAS, TokenType.INTO)
"""Before a name that is followed by a bracket, and is no function: `schema.table (`, `as alias (`, `into table (`."""
REASONS = {
    "type": "The type has no such name there: text is string, an instant is timestamp, an id is a string.",
    "operator": "Written otherwise: JSON by get_json_object, patterns by rlike.",
    "function": "No function of Spark that we know of; name it in a macro of portable.sql, or add it to FUNCTIONS.",
    "distinct on": "Not in Spark: row_number instead.",
    "mixed aggregate": "In a lateral subquery Spark adds up no expression of columns from inside and outside of it: "
    "join and group instead.",
    "not read": "sqlglot cannot read it as Spark's SQL.",
    "delete": "Rows are taken out before they are written anew. Parquet tables cannot; Delta and Iceberg can. "
    "insert_overwrite of the dates does the same where tables are partitioned by as_of_date.",
    "delete using": "The same, of what a queue names. Spark's delete joins nothing: merge, or overwrite what is due.",
    "update": "Queues are claimed and marks set in place: Delta and Iceberg can, parquet tables cannot.",
    "insert on conflict": "No unique keys in Spark: merge, or an anti join.",
    "analyze": "There it is `analyze table … compute statistics`.",
    "set": "A setting of PostgreSQL's planner: leave it out.",
    "indexes": "dbt-spark makes none. Keys stay tested; a look-up by index becomes one by partition or clustering.",
    "strategy": f"dbt-spark knows {', '.join(STRATEGIES)}.",
}
OUTSIDE = """## Around the models

What no compiler sees, since it is not in a model:

- A model's hooks and its rows are one transaction (claim, remove, append, settle); Spark commits each statement. A build
  that fails half way would have to be repeated from the queue, which claims by run already.
- What a table was made from is kept as its comment (`comment on table`, which Spark has); `include/dbt.py` reads it from
  PostgreSQL's catalogue.
- The loaders, the books, the publish pointer and the sync stay on PostgreSQL: Spark would be the engine of staging,
  intermediate and marts alone.
- `nulls last`, division and concatenation with null are written out in the models, since engines differ silently there.
"""

Findings = dict[str, dict[str, set[str]]]


def generated() -> str:
    """Return the page PAGE as the project stands."""
    queries: Findings = defaultdict(lambda: defaultdict(set))
    hooks: Findings = defaultdict(lambda: defaultdict(set))
    settings: Findings = defaultdict(lambda: defaultdict(set))
    compiled = compile_for_spark()
    for nodes in compiled.values():
        for node in nodes:
            for rule, what in query_findings(node.query):
                queries[rule][what].add(node.name)
            for hook in node.hooks:
                for rule, what in hook_findings(hook):
                    hooks[rule][what].add(node.name)
            for rule, what in _setting_findings(node):
                settings[rule][what].add(node.name)
    return "\n".join(
        [
            "# What another engine would need",
            "",
            _wrapped(
                "Written by `make generate`; a test holds it to the project. dbt-spark compiles every model "
                "and test, as for the first build and as for a daily one, and sqlglot reads what comes out "
                "as Spark's SQL. That is no run: nothing here was executed on a Spark."
            ),
            "",
            "## Spelt by macro",
            "",
            _wrapped(
                "Engines differ in `macros/portable.sql` and nowhere else; `macros/portable_spark.sql` has Spark's "
                f"form of: {_listed(_macros('spark__') & _macros('default__'))}."
            ),
            "",
            *_without_spark_form(),
            "## In queries",
            "",
            *_table(queries),
            "## In statements before and after a query",
            "",
            *_table(hooks),
            "## In settings",
            "",
            *_table(settings),
            OUTSIDE,
        ]
    )


def _without_spark_form() -> list[str]:
    missing = _macros("default__") - _macros("spark__")
    return (
        [_wrapped(f"Without one, so PostgreSQL's is used there, too: {_listed(missing)}."), ""]
        if missing
        else []
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118)


def _macros(prefix: str) -> set[str]:
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((DBT_PROJECT / "macros").glob("*.sql"))
    )
    return set(re.findall(rf"macro {prefix}(\w+)", text))


def query_findings(sql: str) -> Iterator[tuple[str, str]]:
    """Give (rule, what) for everything in a query that Spark would not take."""
    try:
        trees = [tree for tree in sqlglot.parse(sql, dialect="spark") if tree is not None]
    except sqlglot.ParseError as error:
        yield "not read", str(error).splitlines()[0]
        return
    yield from _token_findings(Spark().tokenize(sql))
    for tree in trees:
        if any(distinct.args.get("on") for distinct in tree.find_all(exp.Distinct)):
            yield "distinct on", "distinct on"
        if any(_mixes(lateral) for lateral in tree.find_all(exp.Lateral)):
            yield "mixed aggregate", "aggregate in a lateral subquery"


def _token_findings(tokens: list[Token]) -> Iterator[tuple[str, str]]:
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        name = token.text.lower()
        if token.token_type in (TokenType.DARROW, TokenType.TILDE):
            yield "operator", f"`{token.text}`"
        if before is not None and before.token_type is TokenType.ALIAS:
            if name in ("text", "uuid", "jsonb") and after is not None and after.text == ")":
                yield "type", f"`{name}`"
            if name == "timestamptz" or (
                name == "timestamp" and after is not None and after.text.lower() == "with"
            ):
                yield "type", "`timestamp with time zone`"
        is_called = after is not None and after.token_type is TokenType.L_PAREN
        is_name = token.token_type is TokenType.VAR and (before is None or before.token_type not in NO_CALL)
        if is_called and is_name and name not in FUNCTIONS:
            yield "function", f"`{name}`"


def _mixes(lateral: exp.Lateral) -> bool:
    """Return whether an aggregate of a lateral subquery reads columns of it and of what stands outside."""
    for select in lateral.find_all(exp.Select):
        here = {table.alias_or_name for table in select.find_all(exp.Table)}
        here |= {subquery.alias_or_name for subquery in select.find_all(exp.Subquery)}
        for aggregate in select.find_all(exp.AggFunc):
            read = {column.table for column in aggregate.find_all(exp.Column) if column.table}
            if read & here and read - here:
                return True
    return False


def hook_findings(sql: str) -> Iterator[tuple[str, str]]:
    """Give (rule, what) for a statement that Spark would not take on plain tables."""
    start = sql.split(None, 1)[0].lower()
    if start in ("analyze", "set"):
        yield start, f"`{start}`"
        return
    yield from ((rule, what) for rule, what in query_findings(sql) if rule != "function" or what != "`using`")
    if start == "update":
        yield "update", "`update`"
    elif start == "delete":
        is_joined = re.search(r"\busing\b", sql)
        yield ("delete using", "`delete … using`") if is_joined else ("delete", "`delete`")
    elif "on conflict" in sql:
        yield "insert on conflict", "`insert … on conflict`"


def _setting_findings(node: Compiled) -> Iterator[tuple[str, str]]:
    if node.kind != "model":
        return
    if node.config.get("indexes"):
        yield "indexes", "`indexes`"
    strategy = node.config.incremental_strategy
    if node.config.materialized == "incremental" and strategy not in STRATEGIES:
        yield "strategy", f"`incremental_strategy: {strategy}`"


def _table(findings: Findings) -> list[str]:
    if not findings:
        return ["Nothing.", ""]
    rows = [
        f"| {what} | {REASONS[rule]} | {_listed(nodes)} |"
        for rule, whats in sorted(findings.items())
        for what, nodes in sorted(whats.items())
    ]
    return ["| what | why | where |", "|---|---|---|", *rows, ""]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def main(arguments: list[str]) -> int:
    """Write PAGE; with --check only say whether it is as it would be written (exit code 1 where it is not)."""
    page = generated()
    if arguments != ["--check"]:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.relative_to(PROJECT_DIR)} is not what the project compiles to: run `make generate`.")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
