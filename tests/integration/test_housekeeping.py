"""What policy no longer keeps goes, all else stays, every removal is written down, and no rolled-up day is lost."""

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from include.dbt import build
from include.errors import StratumError, TransientError
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources
from include.sources.row_sources import Behavior, Company
from include.warehouse import housekeeping
from include.warehouse.connect import connect
from include.warehouse.housekeeping import Removed, is_month_end, keep, tidy_warehouse, vacuum_and_analyze
from include.warehouse.lock import begin_run, fail_run, finish_run
from include.warehouse.publish import list_runs, publish
from tests.conftest import Warehouse
from tests.fixtures.candidates import make_candidate

DAY = date(2026, 6, 30)


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Set how much is kept: the shipped policy, with changes."""

    def write(**changes: int) -> None:
        kept = keep(DAY) | changes
        path = tmp_path / "retention.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["thing", "keep_days", "keep_count", "effective_from", "why"])
            for thing, number in kept.items():
                count = thing == "published_runs"
                rows.writerow([thing, "" if count else number, number if count else "", "2000-01-01", ""])
        monkeypatch.setattr(housekeeping, "POLICY", path)

    return write


def publish_date(as_of: date) -> str:
    run_id = begin_run(as_of, wait_s=0)
    make_candidate(run_id, as_of, 5)
    publish(run_id, as_of)
    finish_run(run_id)
    return run_id


def written_down(warehouse: Warehouse) -> dict[str, tuple]:
    rows = warehouse.rows(
        "select thing, older_than, removed from audit.housekeeping order by housekeeping_id"
    )
    assert len({row[0] for row in rows}) == len(rows)
    return {thing: (older_than, removed) for thing, older_than, removed in rows}


def test_the_shipped_policy_names_everything_once_in_force() -> None:
    kept = keep(DAY)
    assert set(kept) == set(housekeeping.THINGS)
    assert kept["published_runs"] >= 2


def test_a_newer_row_of_the_policy_is_in_force_from_its_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "retention.csv"
    path.write_text(housekeeping.POLICY.read_text() + "checks,7,,2026-07-01,less\n")
    monkeypatch.setattr(housekeeping, "POLICY", path)
    assert (keep(DAY)["checks"], keep(date(2026, 7, 1))["checks"]) == (400, 7)
    path.write_text(path.read_text() + "cheks,7,,2026-07-01,a typo\n")
    with pytest.raises(StratumError, match="'cheks'"):
        keep(DAY)


def test_before_anything_is_published_nothing_is_removed(warehouse: Warehouse, policy) -> None:
    policy(checks=1)
    add_check(warehouse, "old", DAY - timedelta(days=900))
    assert tidy_warehouse() == []
    assert warehouse.value("select count(*) from audit.checks") == 1


def test_old_runs_go_and_the_newest_stay(warehouse: Warehouse, policy) -> None:
    policy(published_runs=2)
    runs = [publish_date(DAY - timedelta(days=day)) for day in (3, 2, 1, 0)]
    assert tidy_warehouse() == [Removed("published_runs", None, 2)]
    assert [run.run_id for run in list_runs()] == [runs[3], runs[2]]
    assert written_down(warehouse) == {"published_runs": (None, 2)}
    assert tidy_warehouse() == []


def add_check(warehouse: Warehouse, run_id: str, as_of: date, expectation: str = "not_null") -> None:
    with connect("transformer") as connection:
        connection.execute(
            "insert into audit.checks (run_id, as_of_date, gate, table_name, expectation, arguments, success, observed) "
            "values (%s, %s, 'raw', 't', %s, %s, true, %s)",
            [run_id, as_of, expectation, Jsonb({}), Jsonb({})],
        )
        connection.execute(
            "insert into audit.dbt_nodes (run_id, as_of_date, node_id, resource_type, status, seconds) "
            "values (%s, %s, 'n', 'model', 'success', 1)",
            [run_id, as_of],
        )


def test_old_results_go_but_what_the_raw_gate_remembers(warehouse: Warehouse, policy) -> None:
    policy(checks=10, dbt_nodes=10)
    publish_date(DAY)
    old, edge = DAY - timedelta(days=11), DAY - timedelta(days=10)
    for as_of in (old, edge):
        add_check(warehouse, "run", as_of)
    add_check(warehouse, "run", old, "loads_checked")
    assert tidy_warehouse() == [Removed("checks", edge, 1), Removed("dbt_nodes", edge, 2)]
    assert warehouse.rows("select as_of_date, expectation from audit.checks order by 1") == [
        (old, "loads_checked"),
        (edge, "not_null"),
    ]
    assert written_down(warehouse) == {"checks": (edge, 1), "dbt_nodes": (edge, 2)}
    assert tidy_warehouse() == []


def test_refused_rows_go_by_the_load_that_saw_them_last(warehouse: Warehouse, policy) -> None:
    policy(quarantined_rows=10)
    publish_date(DAY)
    for name, as_of in (("old", DAY - timedelta(days=11)), ("kept", DAY - timedelta(days=10))):
        warehouse.rows(
            "with load as (insert into audit.loads (source, entity, as_of_date, status, started_at) "
            "values ('orders', 'order_lines', %s, 'loaded', now()) returning load_id) "
            "insert into quarantine.rows (source, entity, row_hash, reason, original, first_load_id, last_load_id) "
            "select 'orders', 'order_lines', %s, 'r', '{}', load_id, load_id from load",
            as_of,
            name,
        )
    assert tidy_warehouse() == [Removed("quarantined_rows", DAY - timedelta(days=10), 1)]
    assert warehouse.rows("select row_hash from quarantine.rows") == [("kept",)]


def test_scores_of_kept_runs_and_their_drift_stay_however_old(warehouse: Warehouse, policy) -> None:
    policy(scores=10)
    old = DAY - timedelta(days=30)
    kept, newest = publish_date(old), publish_date(DAY)
    warehouse.rows(
        "insert into ml.models (model_id, model, trained_as_of, horizon_days, window_from, window_to, training_rows, "
        "training_positives, estimator, parameters, features, data_fingerprint, code_version, artefact, artefact_sha256) "
        "values ('m', 'churn', '2026-01-01', 90, '2025-01-01', '2025-09-30', 1, 1, 'e', '{}', '{}', 'f', 'c', '', 's')"
    )
    for run_id, as_of in ((kept, old), (newest, DAY), ("unpublished", old)):
        warehouse.rows(
            "insert into ml.scores values (%s, 'churn', 'A', %s, 'm', 0.5, 1, 'a', 'b', 'c')", run_id, as_of
        )
        warehouse.rows(
            "insert into ml.drift (run_id, model, as_of_date, model_id, subject, name, reference, accounts_now, psi, "
            "missing_now, state) values (%s, 'churn', %s, 'm', 'score', 'probability', 'training', 1, 0, 0, 'steady')",
            run_id,
            as_of,
        )
    assert tidy_warehouse() == [Removed("scores", DAY - timedelta(days=10), 2)]
    for table in ("scores", "drift"):
        assert {row[0] for row in warehouse.rows(f"select run_id from ml.{table}")} == {kept, newest}, table


def test_days_of_the_marts_go_and_month_ends_stay(warehouse: Warehouse, policy) -> None:
    policy(mart_days=40)
    publish_date(DAY)
    days = [date(2024, 2, 29), date(2026, 4, 30), date(2026, 5, 20), date(2026, 5, 21), DAY]
    with connect("transformer") as connection:
        connection.execute(
            "create table if not exists marts.account_features (as_of_date date, account_id text)"
        )
        connection.execute("create table marts.other (as_of_date date)")
        connection.execute("create view marts.account_view as select * from marts.account_features")
        for day in days:
            connection.execute(
                "insert into marts.account_features (as_of_date, account_id) values (%s, 'A')", [day]
            )
            connection.execute("insert into marts.other values (%s)", [day])
    begin_run(DAY)
    with pytest.raises(
        TransientError, match="While a build is at work, old days of the marts cannot be dropped"
    ):
        tidy_warehouse()
    assert warehouse.value("select count(*) from marts.account_features where account_id = 'A'") == len(days)
    fail_run(DAY, "the build is over")
    assert tidy_warehouse() == [Removed("mart_days", date(2026, 5, 21), 1)]
    left = warehouse.rows("select as_of_date from marts.account_features where account_id = 'A' order by 1")
    assert [day for (day,) in left] == [day for day in days if day != date(2026, 5, 20)]
    assert warehouse.value("select count(*) from marts.other") == len(days)
    assert written_down(warehouse) == {"mart_days": (date(2026, 5, 21), 1)}


def test_the_last_days_of_months_are_month_ends() -> None:
    assert [is_month_end(date(2024, 2, day)) for day in (28, 29)] == [False, True]
    assert is_month_end(date(2025, 2, 28))
    assert not is_month_end(date(2025, 12, 30))


def events_sources(path: Path, rows: list[str]) -> Sources:
    path.write_text("id,customer,what,seen_at\n" + "".join(f"{row}\n" for row in rows))
    columns = {"event_id": "id", "customer_id": "customer", "event_name": "what", "event_at": "seen_at"}
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
    return Sources(company=company, behavior=Behavior.model_validate({"file": str(path), "columns": columns}))


EVENTS = [
    "1,A,login,2026-05-01 23:30:00",
    "2,A,login,2026-05-01 23:40:00",
    "3,,login,2026-05-02 00:10:00",
    "4,A,login,2026-05-31 09:00:00",
    "5,A,login,2026-06-29 09:00:00",
]


def usage(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows("select usage_date, events, logins from intermediate.int_usage_days order by 1")


def build_days(full_refresh: bool = False) -> None:
    build("staging", DAY, begin_run(DAY, wait_s=0), full_refresh=full_refresh)
    fail_run(DAY, "end of the test's build")


@pytest.mark.extended
def test_events_are_dropped_once_rolled_up_and_their_days_outlive_them(
    warehouse: Warehouse, policy, tmp_path: Path
) -> None:
    policy(raw_events=59)  # from 2026-05-02 on
    file = tmp_path / "events.csv"
    publish_date(DAY)
    ingest_behavior(events_sources(file, EVENTS), DAY)
    kept_from = date(2026, 5, 2)

    # A day that waits in the queue is not rolled up: it and all after it stay.
    assert tidy_warehouse() == []
    assert warehouse.value("select count(*) from raw_files.events") == 5
    build_days()
    before = usage(warehouse)
    assert before == [(date(2026, 5, 1), 2, 2), (date(2026, 5, 31), 1, 1), (date(2026, 6, 29), 1, 1)]

    # A run that builds is not disturbed.
    begin_run(DAY)
    with pytest.raises(TransientError, match="old events cannot be dropped"):
        tidy_warehouse()
    fail_run(DAY, "end of the test's build")

    # The edge is the company's midnight: 23:40 of 1 May goes, 00:10 of 2 May stays.
    assert tidy_warehouse() == [Removed("raw_events", kept_from, 2)]
    assert warehouse.rows("select event_id from raw_files.events order by 1") == [
        ("3",),
        ("4",),
        ("5",),
    ]
    assert written_down(warehouse) == {"raw_events": (kept_from, 2)}
    assert tidy_warehouse() == []

    # The same file again, with a late event of a dropped day: neither is landed, and nothing is lost.
    load = ingest_behavior(events_sources(file, [*EVENTS, "6,A,login,2026-05-01 10:00:00"]), DAY)
    assert load is not None
    assert (load.rows_in, load.rows_new, load.rows_unchanged) == (3, 0, 3)
    build_days()
    assert usage(warehouse) == before
    build_days(full_refresh=True)
    assert usage(warehouse) == before

    # A table from before a column was there: days that cannot be made again say nothing of it.
    warehouse.rows("alter table intermediate.int_usage_days drop column core_feature_mask")
    build_days(full_refresh=True)
    assert usage(warehouse) == before
    masks = "select usage_date, core_feature_mask from intermediate.int_usage_days order by 1"
    assert warehouse.rows(masks) == [(date(2026, 5, 1), None), (date(2026, 5, 31), 0), (date(2026, 6, 29), 0)]


def test_every_owner_vacuums_its_own_tables(warehouse: Warehouse) -> None:
    before = vacuum_and_analyze()
    assert before > 8
    with connect("transformer") as connection:
        connection.execute("create table intermediate.int_days as select 1 as i")
    assert vacuum_and_analyze() == before + 1
    # Statistics are counted where a table was analyzed.
    assert (
        warehouse.value("select reltuples from pg_class where oid = 'intermediate.int_days'::regclass") == 1
    )
