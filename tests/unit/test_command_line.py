"""What the commands share."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import time_machine
from typer.testing import CliRunner

from include.cli import app
from include.commands.common import assert_over, reach_sandbox, read_sources
from include.errors import StratumError
from include.settings import PROJECT_DIR, Settings, get_settings
from include.sources.config import load_sources
from tests.conftest import free_port


def test_a_day_is_over_when_it_is_over_in_the_companys_time_zone() -> None:
    day = date(2026, 11, 22)
    with time_machine.travel(datetime(2026, 11, 22, 18, tzinfo=UTC)):
        assert_over(day, "Asia/Shanghai")
        with pytest.raises(StratumError, match="2026-11-22 is not over yet in UTC"):
            assert_over(day, "UTC")


def test_a_home_with_an_older_versions_company_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path))
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated" / "orders.csv").write_text("order_no\n")
    with pytest.raises(StratumError, match=r"another version of Stratum\. Begin anew with `make clean`"):
        read_sources(Settings(), None)
    assert (tmp_path / "simulated" / "orders.csv").exists()


@pytest.mark.parametrize(
    ("command", "typo", "meant"),
    [
        (["run"], "--asof", ["--as-of"]),
        (["run"], "--as_of", ["--as-of"]),
        (["backfill"], "--form", ["--from"]),
        (["sync", "plan"], "--raed", ["--read"]),
        (["sync", "reconcile"], "--heel", ["--heal", "--help"]),
        (["loads", "retract"], "--reason", []),
    ],
)
def test_of_a_mistyped_option_only_what_is_close_to_it_is_suggested(
    command: list[str], typo: str, meant: list[str]
) -> None:
    told = CliRunner().invoke(app, [*command, typo, "x"], terminal_width=200)
    assert told.exit_code == 2
    line = next(line for line in told.output.splitlines() if "No such option" in line)
    assert re.findall(r"--[\w-]+", line) == [typo, *meant]


TOLD = "{system: hubspot, connection: CONNECTION, fields: {stratum_tier: tier}}"


@pytest.fixture
def sources_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a sources.yml that tells the CRM at a connection, in a home of which nothing is up."""
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STRATUM_SANDBOX_PORT", str(free_port()))
    get_settings.cache_clear()

    def write(connection: str) -> str:
        (tmp_path / "sync.yml").write_text(f"crm: {TOLD.replace('CONNECTION', connection)}")
        (tmp_path / "sources.yml").write_text("company: {name: x}\nsync: sync.yml")
        return str(tmp_path / "sources.yml")

    yield write
    get_settings.cache_clear()


@pytest.mark.parametrize("command", ["reconcile", "rebuild", "setup", "plan --read"])
def test_what_asks_the_sandbox_while_it_is_down_says_what_starts_it(
    command: str, sources_of: Callable[[str], str]
) -> None:
    told = CliRunner().invoke(app, ["sync", *command.split(), "--sources", sources_of("hubspot_sandbox")])
    assert isinstance(told.exception, StratumError)
    assert re.fullmatch(
        r"The CRM sandbox, http://127\.0\.0\.1:\d+, is not up\. Start it: make up", str(told.exception)
    )


def test_another_crm_than_the_sandbox_is_not_started_by_us(
    sources_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reach_sandbox(load_sources(Path(sources_of("hubspot_default"))), "crm")
    down = load_sources(Path(sources_of("hubspot_sandbox")))
    reach_sandbox(down)  # nothing is to be asked
    monkeypatch.setenv("STRATUM_AIRFLOW_URL", "http://127.0.0.1:1")  # others run it
    get_settings.cache_clear()
    reach_sandbox(down, "crm")


def test_a_list_of_loads_says_what_its_columns_are(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(("rows_new", "rows_corrected", "rows_unchanged", "rows_quarantined"), 1)
    load = counts | {
        "load_id": "26c357bd-2228-47a1-afe9-aad085f45ad7",
        "as_of_date": date(2026, 1, 4),
        "source": "records",
        "entity": "experiment_assignments",
        "status": "loaded",
        "loaded_at": datetime(2026, 1, 5, 8, 30),
        "rows_in": 4,
        "rows_replayed": 0,
    }
    monkeypatch.setattr("include.commands.loads.warehouse", lambda tell: nullcontext())
    monkeypatch.setattr("include.sources.retract.list_loads", lambda as_of: [load])
    heading, line = CliRunner().invoke(app, ["loads", "list"]).output.splitlines()
    columns = {
        "load": "26c357bd-",
        "as of": "2026-01-04 ",
        "rows of": "records.experiment_assignments ",
        "status": "loaded ",
        "loaded at": "2026-01-05 08:30 ",
        "rows and": "4 in = 1 new + ",
    }
    for name, value in columns.items():
        assert line[heading.index(name) :].startswith(value)
    monkeypatch.setattr("include.sources.retract.list_loads", lambda as_of: [])
    assert CliRunner().invoke(app, ["loads", "list"]).output.startswith("Nothing was loaded. Run a date:")


@pytest.mark.parametrize(("runs", "is_said"), [([], True), (["run"], False)])
def test_a_prompt_says_what_is_not_there_before_anything_is_published(
    runs: list[str], is_said: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path))
    get_settings.cache_clear()
    monkeypatch.setattr("include.local.stack.Stack.start_warehouse", lambda stack: None)
    monkeypatch.setattr("include.local.stack.Stack.down_started", lambda stack: None)
    monkeypatch.setattr("include.warehouse.publish.list_runs", lambda: runs)
    monkeypatch.setattr("include.commands.psql.role_url", lambda role: "postgresql://reader@127.0.0.1:1/w")
    monkeypatch.setattr(
        "include.commands.psql.subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0)
    )
    told = CliRunner().invoke(app, ["psql"])
    get_settings.cache_clear()
    assert told.exit_code == 0
    assert ("Nothing is published yet" in told.stderr) == is_said
    assert ("stratum run --as-of DATE" in told.stderr) == is_said


def test_what_is_generated_is_said_part_by_part() -> None:
    told = subprocess.run(
        ["make", "--dry-run", "generate"], cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    ).stdout
    assert "for part in metrics exposures lineage portability" in told
    assert "printf '%s ... ' \"$part\"" in told
