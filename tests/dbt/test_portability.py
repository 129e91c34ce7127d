"""The project compiles for a second engine, and what that engine would not take is written down by name."""

import subprocess
import sys

import pytest

from docs.generators.portability import PAGE, hook_findings, query_findings
from include.settings import PROJECT_DIR


@pytest.mark.extended
def test_every_model_compiles_for_spark_and_what_is_not_portable_is_listed() -> None:
    """In a process of its own: dbt-spark stays out of the one that builds on PostgreSQL."""
    checked = subprocess.run(
        [sys.executable, "-m", "docs.generators.portability", "--check"],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "`indexes`" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("select distinct on (a) a, b from t order by a", "distinct on"),
        ("select a ->> 'b' from t", "operator"),
        ("select cast(a as text) from t", "type"),
        ("select cast(a as timestamp with time zone) from t", "type"),
        ("select to_regclass(a) from t", "function"),
        ("select string_agg(a, ',') from t", "function"),
        ("select s.n from t cross join lateral (select sum(t.a + u.b) as n from u) as s", "mixed aggregate"),
        ("select from where", "not read"),
    ],
)
def test_what_postgresql_alone_takes_in_a_query_is_found(sql: str, rule: str) -> None:
    assert [found for found, _ in query_findings(sql)] == [rule]


def test_what_both_engines_take_is_not_listed() -> None:
    both = (
        "with days as (select account_id, count(*) filter (where amount > 0) as orders from t group by account_id) "
        "select account_id as text, sum(orders) over (partition by account_id order by orders nulls last) as total, "
        "cast(orders as numeric(18, 2)) as amount from days cross join lateral (select max(u.b) as b from u) as s"
    )
    assert list(query_findings(both)) == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("delete from t as kept using u where kept.a = u.a", "delete using"),
        ("delete from t where a = 1", "delete"),
        ("update t set a = 1", "update"),
        ("insert into t (a) select a from u on conflict do nothing", "insert on conflict"),
        ("analyze t", "analyze"),
    ],
)
def test_statements_that_plain_tables_of_spark_do_not_take_are_found(sql: str, rule: str) -> None:
    assert [found for found, _ in hook_findings(sql)] == [rule]
