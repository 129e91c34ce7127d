"""A local installation in a temporary folder: the `stratum` command as a user types it, on free ports."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg

from include.local.airflow_api import AirflowApi
from tests.conftest import free_port

STRATUM = Path(sys.executable).with_name("stratum")


class Installation:
    """Runs `stratum` against one STRATUM_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **{
                key: value for key, value in os.environ.items() if not key.startswith(("STRATUM_", "AIRFLOW"))
            },
            "STRATUM_HOME": str(home),
            "STRATUM_POSTGRES_PORT": str(free_port()),
            "STRATUM_AIRFLOW_PORT": str(free_port()),
            "STRATUM_SANDBOX_PORT": str(free_port()),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `stratum ARGUMENTS` and return at once."""
        return subprocess.Popen(
            [STRATUM, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `stratum ARGUMENTS` to its end."""
        return subprocess.run(
            [STRATUM, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    def summary(self, *arguments: str) -> dict:
        """Run `stratum run ... --json` and return what it says; the command must succeed."""
        done = self.run("run", "--json", *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))

    def rows(self, query: str) -> list[tuple]:
        """Run statements in the warehouse as its owner; return the rows of the only one, none where it has no result."""
        password = json.loads((self.home / "secrets.json").read_text())["postgres"]
        port = self.environment["STRATUM_POSTGRES_PORT"]
        with psycopg.connect(f"postgresql://postgres:{password}@127.0.0.1:{port}/stratum") as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def api(self) -> AirflowApi:
        """Return a client of this installation's Airflow."""
        passwords = json.loads((self.home / "airflow" / "passwords.json").read_text())
        return AirflowApi(
            f"http://127.0.0.1:{self.environment['STRATUM_AIRFLOW_PORT']}", "admin", passwords["admin"]
        )

    def processes(self) -> list[psutil.Process]:
        """Return every living process that works in this home: by its environment or its command line."""
        found = []
        for process in psutil.process_iter(["pid"]):
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                mine = process.environ().get("STRATUM_HOME") == str(self.home)
                if mine or any(str(self.home) in part for part in process.cmdline()):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def interrupt_after(self, running: subprocess.Popen[str], text: str) -> tuple[int, str]:
        """Send Ctrl-C once `text` was printed; return the exit code and what was printed."""
        assert running.stdout
        printed = ""
        for line in running.stdout:
            printed += line
            if text in line:
                break
        time.sleep(1)
        os.killpg(running.pid, signal.SIGINT)
        rest, errors = running.communicate(timeout=90)
        return running.returncode, printed + rest + errors
