"""The doctor finds what is wrong, says what to do, shows no secret, and heals nothing."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.errors import StratumError
from include.local import condition, doctor
from include.local.doctor import FAIL, OK, SKIP, examine
from include.local.stack import Stack
from include.settings import Settings
from include.sources.config import Sources
from include.sources.row_sources import Company
from include.sync.switches import switch_off
from include.warehouse.lock import begin_run
from tests.conftest import PASSWORDS, Warehouse, embedded, free_port

DAY = date(2026, 6, 30)


@pytest.fixture
def stack(warehouse: Warehouse, cluster: embedded.Cluster, tmp_path: Path) -> Stack:
    """An installation over the test's warehouse, whose Airflow is down."""
    secrets = {f"role_{role}": password for role, password in PASSWORDS.items()}
    (tmp_path / "secrets.json").write_text(json.dumps(secrets))
    settings = Settings(
        home=tmp_path,
        postgres_url=cluster.url,
        warehouse_url=warehouse.owner_url,
        airflow_port=free_port(),
        sandbox_port=free_port(),
    )
    return Stack(settings, lambda line: None)


def findings(stack: Stack, sources: Callable[[], Sources] | None = None) -> dict[str, tuple[str, str]]:
    company = Company(name="Test company", timezone="UTC", currency="CNY")
    found = examine(stack, sources or (lambda: Sources(company=company)))
    return {finding.check: (finding.state, finding.says) for finding in found}


def test_a_sound_warehouse_passes_and_airflow_that_is_down_is_no_fault(stack: Stack) -> None:
    found = findings(stack)
    for check in (
        "python",
        "home",
        "ports",
        "sources",
        "warehouse",
        "migrations",
        "roles",
        "grants",
        "build lock",
    ):
        assert found[check][0] == OK, found[check]
    assert found["airflow"] == (SKIP, "not running (start it: make up)")
    assert found["lost builds"][0] == SKIP


def test_a_changed_grant_a_changed_password_and_an_old_schema_are_told_and_left(
    stack: Stack, warehouse: Warehouse
) -> None:
    warehouse.rows("grant delete on audit.checks to stratum_auditor")
    warehouse.rows("revoke select on audit.loads from stratum_auditor")
    warehouse.rows("update audit.schema_version set version_num = '0007'")
    stack.secrets["role_syncer"] = "another-secret"
    found = findings(stack)
    assert found["grants"][0] == found["roles"][0] == found["migrations"][0] == FAIL
    assert "auditor may not select audit.loads; auditor may delete audit.checks" in found["grants"][1]
    assert "stratum_syncer cannot log in" in found["roles"][1]
    assert "at migration 0007" in found["migrations"][1]
    assert findings(stack)["grants"][0] == FAIL
    told = json.dumps(found)
    assert not any(secret in told for secret in (*PASSWORDS.values(), "another-secret", "owner-password"))


def test_a_warehouse_that_does_not_answer_fails_once_and_shows_no_password(stack: Stack) -> None:
    stack.settings.warehouse_url = "postgresql://owner:hidden-word@127.0.0.1:1/nowhere"
    found = findings(stack)
    assert found["warehouse"][0] == FAIL
    assert "hidden-word" not in json.dumps(found)
    assert found["roles"] == (SKIP, "the warehouse cannot be read")


def test_a_lock_nobody_works_under_is_told_with_its_way_out(stack: Stack, warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    state, says = findings(stack)["build lock"]
    assert state == FAIL
    assert run_id in says
    assert "no scheduler runs to go on with it: stratum run --as-of 2026-06-30, or stratum unlock" in says
    warehouse.rows("update audit.build_lock set lease_until = clock_timestamp() - interval '1 second'")
    assert "died: its lease ended" in findings(stack)["build lock"][1]


def test_a_lock_whose_run_was_marked_failed_by_hand_is_told(
    stack: Stack, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_run(DAY)
    runs: list[dict[str, Any]] = [{"state": "failed"}]
    healthy = {key: {"status": "healthy"} for key in ("api-server", "scheduler", "dag-processor")}
    monkeypatch.setattr(condition, "airflow", lambda stack: healthy)
    monkeypatch.setattr(stack, "api", lambda: SimpleNamespace(runs=lambda dag_id, as_of: runs))
    with pytest.raises(StratumError, match=r"no run at work for it .*stratum unlock"):
        doctor.build_lock(stack)
    runs[0]["state"] = "running"
    assert doctor.build_lock(stack).endswith("at work")


def test_attempts_without_an_answer_are_told_unless_a_sync_is_at_work(
    stack: Stack, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = "run_id, target, as_of_date, status, started_at"
    sync = warehouse.value(
        f"insert into sync.runs ({columns}) values ('r', 't', '2026-06-30', 'interrupted', now()) returning sync_id"
    )
    warehouse.rows(
        "insert into sync.attempts (attempt_id, sync_id, target, account_id, record_id, payload, status) "
        "values (gen_random_uuid(), %s, 't', 'A', '1', '{}', 'open')",
        sync,
    )
    with pytest.raises(StratumError, match="1 attempts to tell the CRM have no answer"):
        doctor.sync_attempts()
    warehouse.rows(f"insert into sync.runs ({columns}) values ('r', 't', '2026-06-30', 'running', now())")
    assert doctor.sync_attempts().startswith("1 open")


def test_a_target_that_was_told_and_is_in_no_sync_yml_any_more_is_said(
    stack: Stack, warehouse: Warehouse
) -> None:
    warehouse.rows(
        "insert into sync.ledger (target, record_id, account_id, confirmed) values "
        "('hubspot:old', '1', 'A', '{\"tier\": \"S\"}'), ('hubspot:old', '2', 'B', '{}'), "
        "('hubspot:hubspot_default', '1', 'A', '{\"tier\": \"S\"}')"
    )
    company = {"name": "Test company", "timezone": "UTC", "currency": "CNY"}
    told = {"crm": {"system": "hubspot", "fields": {"stratum_tier": "tier"}}}
    sources = Sources.model_validate({"company": company, "sync": told})
    state, says = findings(stack, lambda: sources)["sync targets"]
    assert state == OK
    assert says.startswith("1 in sync.yml; told before and named there no more: hubspot:old (1 records). ")
    warehouse.rows("delete from sync.ledger where target = 'hubspot:old'")
    assert doctor.sync_targets(lambda: sources) == "1 in sync.yml"


def test_a_hold_that_waits_and_a_switch_are_told(warehouse: Warehouse) -> None:
    assert doctor.sync_holds() == "none"
    warehouse.rows(
        "with synced as (insert into sync.runs (target, as_of_date, run_id, status) "
        "values ('crm:one', '2026-06-30', 'r', 'held') returning sync_id) "
        "insert into sync.holds (target, sync_id, run_id, as_of_date, fingerprint, to_send, reasons, expires_at) "
        "select 'crm:one', sync_id, 'r', '2026-06-30', 'f', 3, "
        '\'[{"brake": "first_sync", "figure": 3, "says": "the first sync"}]\', clock_timestamp() + interval \'1 hour\' '
        "from synced"
    )
    with pytest.raises(StratumError, match="until somebody answers hold 1 of crm:one"):
        doctor.sync_holds()
    told = "\n".join(condition._sync_lines(condition.books()["sync"]))
    assert "Sync           crm:one: as of 2026-06-30 held: 0 queried" in told
    assert "first_sync: the first sync" in told
    warehouse.rows("update sync.holds set expires_at = clock_timestamp()")
    assert doctor.sync_holds() == "none"
    switch_off("crm:one", "anna", "wrong tiers")
    assert doctor.sync_holds() == "none; switched off: crm:one by anna (stratum sync start)"


def test_a_disk_without_room_and_missing_sources_are_told(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 10**18)

    def missing() -> Sources:
        raise StratumError("There is no file orders.csv.")

    found = findings(stack, missing)
    assert found["home"][0] == FAIL
    assert f"The disk of {stack.settings.home} has" in found["home"][1]
    assert found["sources"] == (FAIL, "There is no file orders.csv.")


def test_the_condition_of_a_fresh_warehouse_can_be_said(stack: Stack) -> None:
    facts = condition.processes(stack) | condition.books() | {"runs": []}
    told = "\n".join(condition.lines(facts))
    assert "scheduler      down" in told
    assert "Published      nothing yet" in told
    assert "Build lock     free" in told
    begin_run(DAY)
    assert "held by run 20260630_" in "\n".join(condition.lines(facts | condition.books()))
