"""Any date, any order: the marts depend on what was loaded, not on when or how often it came, or what ran first."""

import csv
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.dbt import build
from include.settings import PROJECT_DIR
from include.simulate.market.scales import LAST_DAY, Scale
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources, load_sources
from include.sources.orders import ingest_orders
from include.warehouse.lock import begin_run, fail_run
from tests.conftest import Warehouse, fresh_warehouse
from tests.fixtures.market import write_slice

COMPANY = Scale("few", 60, 1_800, 12_000)
CUSTOMERS = 40
HISTORY_DAYS = 400
"""Days of history before the first date that is run: more than a window of a year."""
Rows = dict[str, list[tuple]]


@dataclass(frozen=True)
class Company:
    """A slice of the simulated company: its sources over files in `folder`, and the whole content of each."""

    folder: Path
    sources: Sources
    orders: list[list[str]]
    events: list[list[str]]

    def write(self, orders: Iterable[list[str]], events: Iterable[list[str]]) -> None:
        """Put these lines (header first) where the sources are read from."""
        with (self.folder / "orders.csv").open("w", newline="") as file:
            csv.writer(file).writerows(orders)
        with (self.folder / "events.csv").open("w", newline="") as file:
            csv.writer(file).writerows(events)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    folder = tmp_path_factory.mktemp("company")
    since = str(LAST_DAY - timedelta(days=HISTORY_DAYS + 30))
    write_slice(folder, COMPANY, seed=1, customers=CUSTOMERS, events_since=since)
    whole = load_sources(PROJECT_DIR / "include" / "simulate" / "sources.yml")
    assert whole.orders is not None
    assert whole.behavior is not None
    orders = _since(folder / "orders.csv", since)
    events = _since(folder / "events.csv", since)
    sources = whole.model_copy(
        update={
            "orders": whole.orders.model_copy(update={"file": str(folder / "orders.csv")}),
            "behavior": whole.behavior.model_copy(update={"file": str(folder / "events.csv")}),
            "crm": None,
            "sync": {},
        }
    )
    return Company(folder, sources, orders, events)


def _since(path: Path, day: str) -> list[list[str]]:
    """The header and the lines dated from a day on."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    moment = next(place for place, name in enumerate(header) if name.endswith("_at"))
    lines = [header, *(row for row in rows if row[moment][:10] >= day)]
    assert len(lines) > 100
    return lines


def run_date(company: Company, as_of: date) -> None:
    """Load up to the date and build its marts."""
    ingest_orders(company.sources, as_of)
    ingest_behavior(company.sources, as_of)
    run_id = begin_run(as_of)
    build("staging", as_of, run_id)
    build("marts", as_of, run_id)
    fail_run(as_of, "the test ends here")


def marts(warehouse: Warehouse) -> Rows:
    """All rows of all dated marts and of the rollups below them."""
    tables = warehouse.rows(
        "select table_schema || '.' || table_name from information_schema.columns where table_schema = 'marts' "
        "and column_name = 'as_of_date' union select 'intermediate.' || tablename from pg_tables "
        "where schemaname = 'intermediate' "
        "and (tablename like 'int_%%days' or tablename = 'int_account_categories') order by 1"
    )
    found = {table: sorted(warehouse.rows(f"select * from {table}"), key=repr) for (table,) in tables}
    assert {"marts.account_features", "marts.account_tiers", "intermediate.int_usage_days"} <= set(found)
    assert all(found.values()), {table: len(rows) for table, rows in found.items()}
    return found


def assert_same(found: Rows, wanted: Rows, tables: Iterable[str] | None = None) -> None:
    for table in tables or wanted:
        missing = set(wanted[table]) - set(found[table])
        extra = set(found[table]) - set(wanted[table])
        assert not missing, f"{table}: {len(missing)} rows missing, such as {sorted(missing, key=repr)[0]}"
        assert not extra, f"{table}: {len(extra)} rows too many, such as {sorted(extra, key=repr)[0]}"
        assert len(found[table]) == len(wanted[table]), table


def troubled(company: Company, seed: int, runs: int) -> Callable[[int], None]:
    """Return what writes the files as they stand at the n-th of `runs`: lines late, wrong until corrected, doubled.

    At the last run every line is there and right; some stand twice.
    """
    chance = random.Random(seed)
    orders, events = company.orders[1:], company.events[1:]
    quantity = company.orders[0].index("quantity")
    there_from = {
        id(row): chance.randrange(runs) if chance.random() < 0.1 else 0 for row in (*orders, *events)
    }
    right_from = {id(row): chance.randrange(runs) if chance.random() < 0.1 else 0 for row in orders}
    doubled = {id(row) for row in (*orders, *events) if chance.random() < 0.05}

    def as_it_stands(row: list[str], run: int) -> list[str]:
        if run >= right_from.get(id(row), 0):
            return row
        wrong = row.copy()
        wrong[quantity] = str(int(row[quantity]) * 3)
        return wrong

    def write(run: int) -> None:
        files = [
            [
                as_it_stands(row, run)
                for row in rows
                if run >= there_from[id(row)]
                for _ in range(2 if id(row) in doubled else 1)
            ]
            for rows in (orders, events)
        ]
        company.write([company.orders[0], *files[0]], [company.events[0], *files[1]])

    return write


def in_any_order(cluster, template: str, tmp_path: Path, company: Company, days: list[date]) -> None:
    """Run the days in order, in another order, and among troubled files; compare all with each other."""
    company.write(company.orders, company.events)
    with fresh_warehouse(cluster, template, tmp_path / "ordered") as warehouse:
        for day in days:
            run_date(company, day)
        ordered = marts(warehouse)
        run_id = begin_run(days[-1])
        build("staging", days[-1], run_id, full_refresh=True)
        build("marts", days[-1], run_id)
        assert_same(marts(warehouse), ordered)

    shuffled = random.Random(len(days)).sample(days, len(days))
    with fresh_warehouse(cluster, template, tmp_path / "shuffled") as warehouse:
        for day in shuffled:
            run_date(company, day)
        assert_same(marts(warehouse), ordered)

    write = troubled(company, seed=7, runs=len(days))
    with fresh_warehouse(cluster, template, tmp_path / "troubled") as warehouse:
        for run, day in enumerate(shuffled):
            write(run)
            run_date(company, day)
        run_date(company, days[-1])
        # The rollups and the features of every kept date follow what was loaded, with no date run again ...
        found = marts(warehouse)
        followed = [table for table in ordered if "int_" in table or table == "marts.account_features"]
        assert_same(found, ordered, followed)
        # ... while tiers stay what was known when they were made, until their date is run again.
        assert found["marts.account_tiers"] != ordered["marts.account_tiers"]
        for day in days:
            run_date(company, day)
        assert_same(marts(warehouse), ordered)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thirty_days_in_any_order(cluster, template, tmp_path, company) -> None:
    days = [LAST_DAY - timedelta(days=back) for back in range(29, -1, -1)]
    in_any_order(cluster, template, tmp_path, company, days)
