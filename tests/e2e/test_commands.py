"""What a user meets when something is in the way: one clear line, exit code 1, nothing left running."""

import socket
from pathlib import Path

import pytest

from tests.e2e.installation import Installation


@pytest.fixture
def stratum(tmp_path: Path):
    installation = Installation(tmp_path / "home")
    yield installation
    installation.run("down")


def fails_with(done, *words: str) -> None:
    assert done.returncode == 1, done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("port", ["STRATUM_POSTGRES_PORT", "STRATUM_AIRFLOW_PORT", "STRATUM_SANDBOX_PORT"])
def test_a_taken_port_is_named_with_its_setting_and_nothing_is_started(
    stratum: Installation, port: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(stratum.environment[port])))
        taken.listen()
        fails_with(stratum.run("demo"), stratum.environment[port], port)
    assert stratum.processes() == []


def test_a_warehouse_that_cannot_be_reached_is_named_without_its_password(stratum: Installation) -> None:
    stratum.environment["STRATUM_WAREHOUSE_URL"] = "postgresql://owner:hidden-word@127.0.0.1:1/nowhere"
    done = stratum.run("demo")
    fails_with(done, "postgresql://owner@127.0.0.1:1/nowhere", "cannot be reached")
    assert "hidden-word" not in done.stdout + done.stderr
    assert stratum.processes() == []


def test_a_sources_file_that_is_not_there(stratum: Installation) -> None:
    fails_with(stratum.run("run", "--as-of", "2026-06-30", "--sources", "nowhere.yml"), "nowhere.yml")


def test_a_word_that_is_no_date(stratum: Installation) -> None:
    fails_with(stratum.run("run", "--as-of", "yesterday"), "'yesterday'", "YYYY-MM-DD")


@pytest.mark.extended
def test_ctrl_c_leaves_no_process(stratum: Installation) -> None:
    running = stratum.start("demo")
    code, printed = stratum.interrupt_after(running, "Running ")
    assert code == 130, printed
    assert stratum.processes() == []


@pytest.mark.slow
def test_after_ctrl_c_in_a_build_the_next_run_of_another_date_goes_through(stratum: Installation) -> None:
    running = stratum.start("demo")
    code, printed = stratum.interrupt_after(running, "begin_run")  # from here on it holds the build lock
    assert code == 130, printed
    assert stratum.processes() == []
    done = stratum.run("run", "--as-of", "2026-05-31")
    assert done.returncode == 0, done.stderr


def test_ctrl_c_while_starting_leaves_no_process(stratum: Installation) -> None:
    running = stratum.start("demo")
    code, printed = stratum.interrupt_after(running, "Preparing Airflow's database")
    assert code == 130, printed
    assert stratum.processes() == []
