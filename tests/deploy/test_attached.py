"""The command line beside an Airflow that others run: it starts nothing and says what is wrong in one line."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.commands.deploy import PARTS
from include.errors import StratumError
from include.local.preparation import write_role_urls
from include.local.stack import Stack
from include.settings import Settings, get_settings
from include.sources.config import load_sources
from include.warehouse.connect import ROLES, role_url, variable
from tests.conftest import free_port

HEALTH = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "dag_processor")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = dict(os.environ)
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path))
    get_settings.cache_clear()
    yield tmp_path
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    get_settings.cache_clear()


@pytest.fixture
def airflow() -> Iterator[dict]:
    """A server that answers like Airflow's health report; the test sets what it reports."""
    report = json.loads(json.dumps(HEALTH))

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/v2/monitor/health" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(report).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"report": report, "url": f"http://127.0.0.1:{server.server_port}"}
    server.shutdown()
    server.server_close()


def _stack(home: Path, url: str) -> Stack:
    settings = Settings(
        home=home,
        airflow_url=url,
        postgres_url="postgresql://postgres:pw@127.0.0.1:1/postgres",
        postgres_port=free_port(),
    )
    return Stack(settings, print)


def _simulated(home: Path) -> object:
    return load_sources(Settings().sources)


def test_it_takes_the_roles_urls_that_the_preparation_kept_and_starts_nothing(
    home: Path, airflow: dict
) -> None:
    urls = {role: f"postgresql://stratum_{role}:pw@postgres:5432/stratum" for role in ROLES}
    write_role_urls(home, urls)
    stack = _stack(home, airflow["url"])
    stack.up(_simulated(home))  # type: ignore[arg-type]
    assert role_url("loader") == urls["loader"]
    assert os.environ[variable("auditor")] == urls["auditor"]
    assert stack.started == []
    assert not stack.started_postgres
    assert not (home / "postgres").exists()


def test_before_the_preparation_it_says_what_to_run(home: Path, airflow: dict) -> None:
    with pytest.raises(StratumError, match="Prepare it first: stratum deploy init"):
        _stack(home, airflow["url"]).start_warehouse()


@pytest.mark.parametrize("part", ["scheduler", "dag_processor"])
def test_a_missing_part_is_told_also_while_a_chain_runs(home: Path, airflow: dict, part: str) -> None:
    write_role_urls(home, {})
    stack = _stack(home, airflow["url"])
    stack.up(_simulated(home))  # type: ignore[arg-type]
    airflow["report"][part]["status"] = "unhealthy"
    with pytest.raises(StratumError, match="misses a scheduler or DAG processor"):
        stack.check_alive()


def test_an_airflow_that_is_down_is_told(home: Path) -> None:
    write_role_urls(home, {})
    with pytest.raises(StratumError, match="does not answer"):
        _stack(home, f"http://127.0.0.1:{free_port()}").up(_simulated(home))  # type: ignore[arg-type]


def test_it_does_not_stop_what_it_did_not_start(home: Path, airflow: dict) -> None:
    with pytest.raises(StratumError, match="Stop it there"):
        _stack(home, airflow["url"]).down()


@pytest.mark.parametrize(("part", "name"), [("scheduler", "scheduler"), ("api-server", "metadatabase")])
def test_a_health_check_follows_what_airflow_reports(
    home: Path, airflow: dict, part: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATUM_AIRFLOW_URL", airflow["url"])
    get_settings.cache_clear()
    assert CliRunner().invoke(app, ["deploy", "check", part]).exit_code == 0
    airflow["report"][name]["status"] = "unhealthy"
    assert CliRunner().invoke(app, ["deploy", "check", part]).exit_code == 1


def test_the_health_check_of_a_part_that_is_down_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(free_port())
    monkeypatch.setenv("STRATUM_AIRFLOW_PORT", port)
    monkeypatch.setenv("STRATUM_SANDBOX_PORT", port)
    monkeypatch.setenv("STRATUM_BROKER_URL", f"redis://127.0.0.1:{port}/0")
    get_settings.cache_clear()
    for part in PARTS:
        assert CliRunner().invoke(app, ["deploy", "check", part]).exit_code == 1, part


def test_an_unknown_part_is_one_clear_line(home: Path) -> None:
    done = CliRunner().invoke(app, ["deploy", "run", "webserver"])
    assert isinstance(done.exception, StratumError)
    assert "the parts are api-server" in str(done.exception)
