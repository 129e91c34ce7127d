"""The dbt test of the syncs' books warns of those that were changed since, and runs with what is to be published."""

from datetime import date

import pytest

from include.dbt import LAYERS, invoke
from include.sources.loads import bind_company
from include.warehouse.connect import connect
from tests.conftest import Warehouse

AS_OF = date(2026, 6, 30)
TEST = "assert_sync_books_add_up"
SYNCED = (
    "insert into sync.runs (target, as_of_date, run_id, status, queried, sent, failed, held) "
    "values ('t', '2026-06-30', 'r', %s, 5, 2, 1, 2) returning sync_id"
)
LISTED = (
    "insert into sync.outcomes (sync_id, account_id, outcome, reason) "
    "values (%(id)s, 'A1', 'failed', 'refused'), (%(id)s, 'A2', 'held', 'brake'), (%(id)s, 'A3', 'held', 'brake')"
)


@pytest.fixture(scope="module")
def books(module_warehouse: Warehouse) -> Warehouse:
    """The books of one sync that ended, and of one that a crash cut off: its rows are not listed."""
    with connect("loader") as connection:
        bind_company(connection, "Test", "UTC", "CNY")
    with connect("syncer") as connection:
        row = connection.execute(SYNCED, ["finished"]).fetchone()
        assert row
        connection.execute(LISTED, {"id": row[0]})
        connection.execute(SYNCED, ["interrupted"])
    return module_warehouse


def status() -> str:
    (result,) = invoke(["test", "--select", TEST], AS_OF, "run-1")
    return result.status


@pytest.mark.parametrize(
    "change", ["sent = 1, failed = 2", "failed = 0, held = 3", "held = 1, unchanged = 1"]
)
def test_it_passes_books_that_agree_and_warns_of_each_count_that_does_not(
    books: Warehouse, change: str
) -> None:
    assert status() == "pass"
    books.rows(f"update sync.runs set {change} where status = 'finished'")
    assert status() == "warn"
    books.rows("update sync.runs set sent = 2, unchanged = 0, failed = 1, held = 2 where status = 'finished'")


def test_it_runs_with_what_is_to_be_published() -> None:
    assert TEST in LAYERS["published"]
