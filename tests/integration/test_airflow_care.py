"""A date that all sources announced and nobody builds is found and started; old logs go, young ones stay."""

import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.local import airflow_care
from include.local.airflow_care import announced_without_build, building, drop_task_logs, start_lost_builds
from tests.conftest import Warehouse

DAY = date(2026, 6, 30)
AGO = "clock_timestamp() - interval '10 minutes'"


class Api:
    """Airflow as `runs` and `trigger` see it."""

    def __init__(self, runs: dict[str, list[dict[str, Any]]]) -> None:
        self.by_dag = runs
        self.triggered: list[tuple[str, date]] = []

    def runs(self, dag_id: str, as_of: date | None = None) -> list[dict[str, Any]]:
        return self.by_dag.get(dag_id, [])

    def trigger(self, dag_id: str, as_of: date) -> str:
        self.triggered.append((dag_id, as_of))
        return "run"


def run(state: str = "success", minutes_ago: int = 9) -> dict[str, Any]:
    at = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat()
    return {"state": state, "end_date": at, "queued_at": at, "run_after": at}


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch):
    """Airflow with these runs beside three ingests that ended well nine minutes ago."""

    def with_runs(**runs: list[dict[str, Any]]) -> Api:
        api = Api({f"ingest_{source}": [run()] for source in airflow_care.SOURCES} | runs)
        stack = type("Stack", (), {"api": lambda self: api})
        monkeypatch.setattr(airflow_care, "_stack", lambda: stack())
        return api

    return with_runs


def load(warehouse: Warehouse, source: str, at: str = AGO, as_of: date = DAY, status: str = "loaded") -> None:
    warehouse.rows(
        "insert into audit.loads (source, entity, as_of_date, status, started_at, loaded_at) "
        f"values (%s, 'x', %s, %s, now(), {at})",
        source,
        as_of,
        status,
    )


def begin(warehouse: Warehouse, at: str) -> None:
    warehouse.rows(
        "insert into audit.runs (run_id, as_of_date, status, code_version, started_at) "
        f"values (gen_random_uuid(), %s, 'failed', 'c', {at})",
        DAY,
    )


def announce(warehouse: Warehouse, at: str = AGO) -> None:
    for source in ("orders", "crm"):
        load(warehouse, source, at)
    load(warehouse, "behavior", at, status="absent")


def test_three_announcements_without_a_build_start_it_by_its_key_once(warehouse: Warehouse, airflow) -> None:
    announce(warehouse)
    api = airflow()
    assert start_lost_builds() == [DAY]
    assert api.triggered == [("build_marts", DAY)]
    api.by_dag["build_marts"] = [run("queued", 0)]
    assert start_lost_builds() == []


def test_a_date_that_lacks_a_source_or_is_still_on_its_way_is_not_lost(warehouse: Warehouse) -> None:
    load(warehouse, "orders")
    load(warehouse, "crm")
    assert announced_without_build() == []
    load(warehouse, "behavior", "clock_timestamp()")
    assert announced_without_build() == []


def test_a_build_that_began_after_the_loads_is_not_lost_and_one_from_before_is(warehouse: Warehouse) -> None:
    announce(warehouse)
    begin(warehouse, "clock_timestamp() - interval '1 hour'")
    assert announced_without_build() == [DAY]
    begin(warehouse, "clock_timestamp() - interval '8 minutes'")
    assert announced_without_build() == []


def test_one_source_loaded_again_after_the_build_announces_nothing(warehouse: Warehouse) -> None:
    announce(warehouse, "clock_timestamp() - interval '2 hours'")
    begin(warehouse, "clock_timestamp() - interval '1 hour'")
    load(warehouse, "orders")
    assert announced_without_build() == []


def test_a_build_that_waits_for_the_lock_and_an_ingest_that_failed_are_not_lost(
    warehouse: Warehouse, airflow
) -> None:
    announce(warehouse)
    airflow(build_marts=[run("running", 8)])
    assert start_lost_builds() == []
    airflow(ingest_crm=[run("failed")])
    assert start_lost_builds() == []
    airflow(ingest_crm=[])
    assert start_lost_builds() == []


def test_old_dates_are_left_alone(warehouse: Warehouse) -> None:
    announce(warehouse, "clock_timestamp() - interval '8 days'")
    assert announced_without_build() == []


def test_the_lock_is_at_work_while_any_dag_from_build_to_publish_is() -> None:
    assert building(Api({"score_accounts": [run("running")]}), DAY) == "score_accounts"  # type: ignore[arg-type]
    assert building(Api({"publish": [run("failed")], "sync_crm": [run("running")]}), DAY) is None  # type: ignore[arg-type]


def test_logs_go_by_when_they_were_last_written_and_nothing_else_does(tmp_path: Path) -> None:
    files = {
        name: tmp_path / name / "task_id=t" / "attempt=1.log"
        for name in (
            "dag_id=a/run_id=old",
            "dag_id=a/run_id=new",
            "dag_processor/2026-01-01",
            "other/run_id=old",
        )
    }
    for path in files.values():
        path.parent.mkdir(parents=True)
        path.write_text("line")
    old = time.time() - 8 * 86400
    for name in ("dag_id=a/run_id=old", "dag_processor/2026-01-01", "other/run_id=old"):
        for path in (files[name], files[name].parent, tmp_path / name):
            os.utime(path, (old, old))
    assert drop_task_logs(7, tmp_path).removed == 2
    assert [name for name, path in files.items() if path.exists()] == [
        "dag_id=a/run_id=new",
        "other/run_id=old",
    ]
    assert drop_task_logs(7, tmp_path).removed == 0
