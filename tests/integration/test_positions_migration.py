"""How far Salesforce had been pulled stays known through the migration that unites the two tables of positions."""

from datetime import date

import psycopg

from include.sources.cursors import Position, held_position
from include.warehouse.migrate import migrate
from tests.conftest import PASSWORDS, Warehouse, embedded
from tests.integration.migration_stage import database_at

# Of each load: its as-of date, when it started (hour), when it was retracted (hour), how far it had pulled.
LOADS: tuple[tuple[str, int, int | None, str], ...] = (
    ("2026-03-01", 1, None, "2026-03-01T10:00"),
    ("2026-03-02", 2, 5, "2026-03-02T10:00"),
    ("2026-03-03", 3, None, "2026-03-03T10:00"),
    ("2026-02-01", 6, None, "2026-02-01T10:00"),
)
"""The third began before the second was taken out: it may have found unchanged what is gone with that one."""


def test_a_pull_goes_on_after_the_migration_from_where_it_had_been(
    warehouse: Warehouse, cluster: embedded.Cluster
) -> None:
    with database_at("0013", warehouse, cluster) as before:
        with psycopg.connect(before) as connection:
            for as_of, began, retracted, reached in LOADS:
                connection.execute(
                    "with made as (insert into audit.loads (source, entity, as_of_date, status, started_at, "
                    "retracted_at, retracted_why, rows_retracted) values ('salesforce', 'cases', %(day)s, %(status)s, "
                    "timestamptz '2026-03-04' + %(began)s * interval '1 h', "
                    "timestamptz '2026-03-04' + %(gone)s * interval '1 h', %(why)s, %(rows)s) returning load_id) "
                    "insert into audit.pulls select load_id, 'salesforce', 'cases', 'all', %(reached)s from made",
                    {
                        "day": as_of,
                        "status": "retracted" if retracted else "loaded",
                        "began": began,
                        "gone": retracted,
                        "why": "a test" if retracted else None,
                        "rows": 0 if retracted else None,
                        "reached": reached,
                    },
                )
        migrate(before, PASSWORDS)
        with psycopg.connect(before) as connection:
            stands = held_position(connection, "salesforce", "cases", "all")
            rows = connection.execute("select position from audit.cursors order by load_seq").fetchall()
    assert stands == Position("all", LOADS[0][3], date(2026, 3, 1), {}, None, stands.load_seq)
    assert rows == [(LOADS[0][3],)] * 4
