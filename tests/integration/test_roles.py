"""Each role can do its own step and no more."""

import psycopg
import pytest

from include.warehouse.connect import ROLES, connect
from include.warehouse.migrate import migrate
from tests.conftest import PASSWORDS, Warehouse

FORBIDDEN = [
    ("loader", "select * from sync.runs"),
    ("loader", "update raw_files.order_lines set amount = 0"),
    ("loader", "create table staging.x (i int)"),
    ("transformer", "insert into raw_files.order_lines select * from raw_files.order_lines"),
    ("transformer", "create table published.x (i int)"),
    ("transformer", "update published.current_run set run_id = 'x'"),
    ("publisher", "create table candidate.x (i int)"),
    ("publisher", "delete from audit.checks"),
    ("syncer", "select * from raw_hubspot.companies"),
    ("syncer", "update published.current_run set run_id = 'x'"),
    ("bi_reader", "select * from audit.loads"),
    ("bi_reader", "select * from quarantine.rows"),
    ("auditor", "delete from audit.checks"),
    ("auditor", "select * from raw_files.order_lines"),
    ("scorer", "select * from raw_files.order_lines"),
]

ALLOWED = [
    ("loader", "select count(*) from raw_files.order_lines"),
    ("transformer", "create table candidate.x as select 1 as i"),
    ("publisher", "create table published.x (i int)"),
    ("syncer", "select * from published.current_run"),
    ("bi_reader", "select * from published.current_run"),
    ("auditor", "select * from audit.checks"),
]


@pytest.mark.parametrize(("role", "statement"), FORBIDDEN)
def test_a_role_may_not(warehouse: Warehouse, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), connect(role) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(("role", "statement"), ALLOWED)
def test_a_role_may(warehouse: Warehouse, role: str, statement: str) -> None:
    with connect(role) as connection:
        connection.execute(statement)


def test_publisher_reads_what_transformer_makes_in_candidate(warehouse: Warehouse) -> None:
    with connect("transformer") as connection:
        connection.execute("create table candidate.x as select 1 as i")
    with connect("publisher") as connection:
        assert connection.execute("select i from candidate.x").fetchall() == [(1,)]


def test_migrating_twice_changes_nothing_and_heals_a_grant(warehouse: Warehouse) -> None:
    before = warehouse.rows("select table_schema, table_name from information_schema.tables order by 1, 2")
    warehouse.rows("grant delete on audit.checks to stratum_auditor")
    assert set(migrate(warehouse.owner_url, PASSWORDS)) == set(ROLES)
    after = warehouse.rows("select table_schema, table_name from information_schema.tables order by 1, 2")
    assert after == before
    assert not warehouse.value("select has_table_privilege('stratum_auditor', 'audit.checks', 'delete')")
