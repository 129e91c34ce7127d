"""Commands that start at the same moment: each prepares the warehouse, one after the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from include.warehouse import embedded
from tests.conftest import free_port

PREPARE = """
from include.local.stack import Stack
from include.settings import get_settings
Stack(get_settings(), print).start_warehouse()
"""


@pytest.mark.extended
def test_commands_that_start_at_once_do_not_collide(tmp_path: Path) -> None:
    cluster = embedded.Cluster(
        tmp_path / "postgres", free_port(), "owner-password", embedded.server_programs(None)
    )
    embedded.start(cluster)
    try:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("STRATUM_")
        } | {"STRATUM_HOME": str(tmp_path / "home"), "STRATUM_POSTGRES_URL": cluster.url}
        run = [sys.executable, "-c", PREPARE]
        subprocess.run(run, env=environment, check=True)  # the first one makes the passwords
        started = [
            subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(6)
        ]
        ended = [(process.communicate()[1], process.returncode) for process in started]
        assert [code for _, code in ended] == [0] * 6, ended[0][0]
    finally:
        embedded.stop(cluster)
