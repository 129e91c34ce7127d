"""A warehouse that holds events of the time before the registry keeps them, once, through the migration."""

from datetime import date
from pathlib import Path

import psycopg
import pytest

from include.sources.behavior import ingest_behavior
from include.warehouse.connect import OWNER, variable
from include.warehouse.migrate import migrate
from tests.conftest import PASSWORDS, Warehouse, embedded
from tests.fixtures.books import counts
from tests.integration.event_stage import CURRENT, sources, write
from tests.integration.migration_stage import database_at

AS_OF = date(2024, 3, 2)
EVENTS_BEFORE = """
insert into raw_files.events (load_id, load_seq, loaded_at, known_on, source_file, source_row, row_key, row_hash,
    event_id, customer_id, event_name, event_at)
select load.load_id, load.load_seq, now(), '2024-03-01', file, row, id || '|1', id || who, id, who, 'login', at
from audit.loads as load
inner join (values
    (1, '1.csv', 1, '1', 'A', timestamptz '2024-03-01 09:00+08'),
    (1, '1.csv', 2, '2', 'B', timestamptz '2024-03-02 09:00+08'),
    (2, '1.csv', 2, '2', 'C', timestamptz '2024-03-02 09:00+08')
) as event (of_load, file, row, id, who, at) on event.of_load = load.load_seq"""


def test_events_landed_before_the_registry_are_kept_and_their_files_compared(
    warehouse: Warehouse, cluster: embedded.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database_at("0008", warehouse, cluster) as before:
        path = tmp_path / "1.csv"
        with psycopg.connect(before) as connection:
            connection.execute(
                "insert into audit.company (company_name, timezone, currency) "
                "values ('Test company', 'Asia/Shanghai', 'CNY')"
            )
            for _ in range(2):
                connection.execute(
                    "insert into audit.loads (source, entity, as_of_date, status, started_at, files) "
                    "values ('behavior', 'events', %s, 'loaded', now(), %s)",
                    [AS_OF, [str(path)]],
                )
            connection.execute(EVENTS_BEFORE)
        urls = migrate(before, PASSWORDS)
        held = Warehouse(before, urls)
        current = [("1", "A", "login", "01 09:00"), ("2", "C", "login", "02 09:00")]
        assert held.rows(CURRENT) == current
        assert held.rows("select distinct path, stamp from raw_files.event_files") == [(str(path), "")]

        for role, url in {**urls, OWNER: before}.items():
            monkeypatch.setenv(variable(role), url)
        write(path, "1,A,login,01 09:00", "2,C,login,02 09:00", "3,C,login,02 10:00")
        load = ingest_behavior(sources(path), AS_OF)
        assert counts(load) == (3, 1, 0, 2, 0, 0, 0)
        assert held.rows(CURRENT) == [*current, ("3", "C", "login", "02 10:00")]
