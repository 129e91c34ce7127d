"""Where Salesforce fails, is slow or does not let us read, nothing is lost and one line says why."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.errors import StratumError, TransientError
from include.sources import salesforce_api
from tests.conftest import Warehouse
from tests.integration.salesforce_fixture import (
    DAY_1,
    FIRST_LOAD,
    World,
    reach,
    salesforce_world,
)

pytestmark = pytest.mark.extended


@pytest.fixture
def world(module_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with salesforce_world(module_warehouse, tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize(
    "fault",
    [
        {"rate_limited": 2, "retry_after": 3},
        {"rate_limited": 2},
        {"server_error": 2},
        {"server_error": 2, "server_error_at": "job_results"},
        {"drop_job_answer": 1},
        {"cut_results": 1},
        {"expire_session": 1, "expire_session_at": "show_job"},
        {"expire_session": 1, "expire_session_at": "job_results"},
        {"expire_session": 1, "expire_session_at": "create_job"},
    ],
)
def test_a_fault_in_the_middle_of_a_pull_loses_nothing(world: World, fault: dict) -> None:
    stage = world.stage
    stage.crm.fault(**fault)
    assert stage.ingest(DAY_1) == FIRST_LOAD
    assert "server_error" not in fault or stage.slept == [1.0, 2.0]
    assert "rate_limited" not in fault or stage.slept == [fault.get("retry_after", 10.0)] * 2
    logins = stage.crm.sandbox.calls.by_endpoint["token_login"]
    assert "expire_session" not in fault or logins == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"server_error": 99}, "does not answer .HTTP 503."),
        ({"server_error": 99, "server_error_at": "job_results"}, "does not answer .HTTP 503."),
        ({"cut_results": 99}, "does not answer .ChunkedEncodingError."),
        ({"short_results": 1}, "announced 7 rows of Account and gave 6"),
        ({"fail_jobs": 1}, "gave up the query of Account"),
        ({"rate_limited": 99, "retry_after": 60}, "keeps answering 429"),
        ({"request_limit": True}, "no calls left for today"),
        ({"expire_session": 2, "expire_session_at": "create_job"}, "HTTP 401: INVALID_SESSION_ID"),
    ],
)
def test_where_salesforce_fails_for_good_one_line_says_so_and_nothing_lands(
    world: World, fault: dict, told: str
) -> None:
    stage = world.stage
    # Beyond the login, which a fault of every endpoint would strike first.
    stage.crm.fault(**fault)
    with pytest.raises(StratumError, match=told) as failed:
        stage.ingest(DAY_1)
    assert "\n" not in str(failed.value)
    assert stage.is_empty()
    stage.crm.sandbox.faults = type(stage.crm.sandbox.faults)()
    assert stage.ingest(DAY_1) == FIRST_LOAD


def test_an_answer_that_is_too_slow_is_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salesforce_api, "TIMEOUT_S", (5.0, 0.05))
    world.stage.crm.fault(slow_s=0.3)
    with pytest.raises(TransientError, match="ReadTimeout"):
        world.stage.ingest(DAY_1)
    assert len(world.stage.slept) == len(salesforce_api.BACKOFF_S)


def test_a_refused_login_is_said_in_one_line_without_the_secret(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, world.stage.crm, "wrong-secret")
    with pytest.raises(
        StratumError, match="refused the login of the connection 'salesforce_default'"
    ) as refused:
        world.stage.ingest(DAY_1)
    assert "wrong-secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
    monkeypatch.setenv("AIRFLOW_CONN_SALESFORCE_DEFAULT", '{"conn_type": "salesforce"}')
    with pytest.raises(StratumError, match="does not say who logs in"):
        world.stage.ingest(DAY_1)
    assert world.stage.is_empty()


def test_what_the_user_may_not_read_is_absent_and_the_rest_lands(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    stage = world.stage
    stage.org.hidden = {"Contact", "Case"}
    with caplog.at_level(logging.WARNING):
        assert set(stage.ingest(DAY_1)) == {"accounts", "opportunities"}
    absent = stage.warehouse.rows(
        "select entity from audit.loads where status = 'absent' and source = 'salesforce' order by load_seq"
    )
    assert absent == [("contacts",), ("contact_roles",), ("cases",)]
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "does not let Stratum read Case (HTTP 404: NOT_FOUND" in told
    stage.org.hidden = set()
    assert stage.ingest(DAY_1)["cases"] == FIRST_LOAD["cases"]


def test_accounts_are_never_absent(world: World) -> None:
    world.stage.org.hidden = {"Account"}
    with pytest.raises(StratumError, match="did not let Stratum read Account"):
        world.stage.ingest(DAY_1)
    assert world.stage.is_empty()
