"""The chain's steps, one after the other without Airflow, over whole files: what is published, and why it is right."""

from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from include.dbt import build
from include.quality.gate import run_gate
from include.settings import PROJECT_DIR
from include.simulate.market.scales import LAST_DAY, Scale
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources, load_sources
from include.sources.hubspot import ingest_crm
from include.sources.orders import ingest_orders
from include.warehouse.lock import begin_run, finish_run, mark_built
from include.warehouse.publish import ALL_TABLES, publish
from tests.conftest import Warehouse, fresh_warehouse
from tests.fixtures.market import write_slice

COMPANY = Scale("few", 300, 9_000, 60_000)
RETAIL_DAY = date(2011, 9, 10)
OF_THE_LOADS = {("freshness", "rows_landed"), ("freshness", "last_loaded_at")}
# What only training and scoring write; these runs have none.
UNSCORED = {"account_scores", "model_status", "cluster_profiles", "recommendations"}


def ingest(sources: Sources, as_of: date) -> None:
    """What the three ingests do."""
    ingest_orders(sources, as_of)
    ingest_crm(sources, as_of)
    ingest_behavior(sources, as_of)


def build_and_publish(as_of: date) -> None:
    """What build_marts and publish do."""
    run_id = begin_run(as_of)
    run_gate("raw", as_of, run_id)
    build("staging", as_of, run_id)
    build("marts", as_of, run_id)
    run_gate("marts", as_of, run_id)
    mark_built(run_id)
    build("published", as_of, run_id)
    run_gate("published", as_of, run_id)
    publish(run_id, as_of)
    finish_run(run_id)


def last_built(warehouse: Warehouse, empty: set[str] = UNSCORED) -> dict[str, list[tuple]]:
    """All rows of the last candidate, which is what was published or put into the history: none but in `empty`.

    Without the run id, and without what `freshness` tells of the loads themselves: they are not of the date.
    """
    rows = {}
    for table in ALL_TABLES:
        columns = ", ".join(
            name
            for (name,) in warehouse.rows(
                "select column_name from information_schema.columns where table_schema = 'candidate' "
                "and table_name = %s order by ordinal_position",
                table,
            )
            if name != "run_id" and (table, name) not in OF_THE_LOADS
        )
        rows[table] = sorted(warehouse.rows(f"select {columns} from candidate.{table}"), key=repr)
    assert {table for table in rows if not rows[table]} == empty
    return rows


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """A simulated company's orders and events."""
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path))
    write_slice(
        tmp_path,
        COMPANY,
        seed=1,
        customers=COMPANY.accounts,
        events_since=str(LAST_DAY - timedelta(days=400)),
    )
    whole = load_sources(PROJECT_DIR / "include" / "simulate" / "sources.yml")
    assert whole.orders is not None
    assert whole.behavior is not None
    return whole.model_copy(
        update={
            "orders": whole.orders.model_copy(update={"file": str(tmp_path / "orders.csv")}),
            "behavior": whole.behavior.model_copy(update={"file": str(tmp_path / "events.csv")}),
            "crm": None,
            "sync": {},
        }
    )


@pytest.mark.slow
def test_two_dates_run_twice_and_in_the_other_order_publish_the_same_rows(
    cluster, template: str, tmp_path: Path, simulated: Sources
) -> None:
    earlier, later = LAST_DAY - timedelta(days=45), LAST_DAY
    results: dict[date, list] = {earlier: [], later: []}
    for order in ([earlier, later, later, earlier], [later, earlier]):
        with fresh_warehouse(cluster, template, tmp_path / f"home{len(order)}") as warehouse:
            ingest(simulated, later)  # the same loaded data for every run
            for as_of in order:
                ingest(simulated, as_of)  # finds every line there already
                build_and_publish(as_of)
                results[as_of].append(last_built(warehouse))
            assert warehouse.rows("select as_of_date from published.current_run") == [(later,)]
    for as_of, runs in results.items():
        assert len(runs) == 3
        assert runs[0] == runs[1] == runs[2], as_of
    assert results[earlier][0] != results[later][0]


def published_of(
    cluster, template: str, home: Path, sources: Sources, as_of: date, empty: set[str] = UNSCORED
) -> dict[str, list[tuple]]:
    with fresh_warehouse(cluster, template, home) as warehouse:
        ingest(sources, as_of)
        build_and_publish(as_of)
        return last_built(warehouse, empty)


def over(sources: Sources, file: Path) -> Sources:
    """The same sources over another order file."""
    assert sources.orders is not None
    return sources.model_copy(update={"orders": sources.orders.model_copy(update={"file": str(file)})})


@pytest.mark.extended
def test_a_file_cut_at_the_end_of_the_day_publishes_the_same_rows(
    cluster, template: str, tmp_path: Path, simulated: Sources
) -> None:
    as_of = LAST_DAY - timedelta(days=200)
    whole = published_of(cluster, template, tmp_path / "whole", simulated, as_of)
    header, *lines = (tmp_path / "orders.csv").read_text().splitlines(keepends=True)
    end, column = f"{as_of + timedelta(days=1)}", header.split(",").index("ordered_at")
    kept = [line for line in lines if line.split(",")[column] < end]
    assert 0 < len(kept) < len(lines)
    (tmp_path / "short.csv").write_text(header + "".join(kept))
    short = over(simulated, tmp_path / "short.csv")
    assert published_of(cluster, template, tmp_path / "short", short, as_of) == whole


@pytest.mark.slow
def test_online_retail_cut_at_the_end_of_the_day_publishes_the_same_rows(
    cluster, template: str, tmp_path: Path, online_retail: Sources
) -> None:
    empty = UNSCORED | {"purchase_flow", "purchase_paths", "trials"}  # orders alone tell of no use
    whole = published_of(cluster, template, tmp_path / "whole", online_retail, RETAIL_DAY, empty)
    short = tmp_path / "retail.parquet"
    duckdb.connect().execute(
        f"copy (select * from read_parquet(?) where InvoiceDate < '2011-09-11') to '{short}' (format parquet)",
        [online_retail.orders.file if online_retail.orders else ""],
    )
    retail = over(online_retail, short)
    assert published_of(cluster, template, tmp_path / "short", retail, RETAIL_DAY, empty) == whole
