"""Local processes and secrets: what is started is found again, and all of it is stopped."""

import json
import os
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from include.local.processes import Process, stop, wait_until
from include.local.secrets import load_secrets

# Starts a child that ignores SIGTERM, tells its pid, and ends at SIGTERM itself: the child is left an orphan.
PARENT = """
import pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
time.sleep(0.5)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
signal.signal(15, lambda *_: sys.exit(0))
time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path: Path):
    process = Process("parent", tmp_path, (sys.executable, "-c", PARENT, str(tmp_path / "child")))
    process.start(dict(os.environ))
    assert wait_until((tmp_path / "child").exists, 10)
    time.sleep(0.1)
    yield process
    stop([process])


def test_stopping_leaves_no_child_even_one_that_ignores_the_signal_and_lost_its_parent(
    parent: Process, tmp_path: Path
) -> None:
    child = int((tmp_path / "child").read_text())
    assert psutil.pid_exists(child)
    stop([parent])
    assert parent.find() is None
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_what_a_killed_process_left_running_is_ended_before_it_is_started_again(
    parent: Process, tmp_path: Path
) -> None:
    child = int((tmp_path / "child").read_text())
    found = parent.find()
    assert found
    found.kill()
    found.wait(5)
    assert psutil.pid_exists(child)
    parent.start(dict(os.environ))
    assert parent.find()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_the_process_of_another_program_never_passes_for_ours(parent: Process) -> None:
    noted = json.loads(parent.pid_file.read_text())
    assert parent.find()
    parent.pid_file.write_text(json.dumps(noted | {"started": noted["started"] - 100}))
    assert parent.find() is None
    parent.pid_file.write_text(json.dumps(noted))


def test_stopping_what_is_not_running_does_nothing(tmp_path: Path) -> None:
    stop([Process("none", tmp_path, ("true",))])


def test_secrets_are_private_made_once_and_told_apart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = load_secrets(home)
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600
    assert load_secrets(home) == first
    assert len(set(first.values())) == len(first)
    assert load_secrets(tmp_path / "other") != first
