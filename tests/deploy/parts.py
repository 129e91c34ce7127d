"""Run what docker-compose.yml runs without Docker: each service's own command and environment, as processes here."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import psycopg

from include.local.processes import Process, stop
from include.warehouse import embedded
from tests.conftest import free_port
from tests.deploy.compose_file import services
from tests.deploy.image import Image

PASSWORDS = {"STRATUM_POSTGRES_PASSWORD": "a1b2c3", "STRATUM_REDIS_PASSWORD": "d4e5f6"}
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


class Parts:
    """The services as processes on a built image; not root's, so that what only root could write is found out.

    Hosts become 127.0.0.1, ports free ones and folders the image's; all else is as the file says. `home` is a
    folder for the servers' data and the logs.
    """

    def __init__(self, image: Image, home: Path, ports: dict[str, int] | None = None) -> None:
        self.image = image
        self.home = home
        self.ports = ports or {name: free_port() for name in ("postgres", "redis", "airflow", "sandbox")}
        self.services = services({**PASSWORDS, "STRATUM_AIRFLOW_PORT": str(self.ports["airflow"])})
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.cluster = embedded.Cluster(
            home / "server" / "data",
            self.ports["postgres"],
            PASSWORDS["STRATUM_POSTGRES_PASSWORD"],
            embedded.server_programs(None),
        )
        self.prefix = NOBODY if _nobody_can_run(image) else ()
        (home / "redis").mkdir()
        for folder in (image.home, home / "redis"):
            if self.prefix:
                shutil.chown(folder, "nobody", "nogroup")

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service, with nothing of this process's but where programs are."""
        given = {key: self._here(str(value)) for key, value in self.services[service]["environment"].items()}
        if "STRATUM_HOME" in given:
            here = {"STRATUM_LISTEN": "127.0.0.1", "STRATUM_SANDBOX_HOST": "127.0.0.1"}
            given |= here | {"STRATUM_SANDBOX_PORT": str(self.ports["sandbox"])}
        return {**self.image.environment, "PYTHONDONTWRITEBYTECODE": "1", **given}

    def command(self, service: str, command: list[str]) -> list[str]:
        """Return a command of a service as it is run here."""
        return [*self.prefix, *(self._here(part) for part in command)]

    def start_postgres(self) -> None:
        """Stand in for the service `postgres`: a server with nothing but its superuser."""
        embedded.start(self.cluster)

    def start(self, service: str) -> None:
        """Start a service's command and leave it running; what it prints goes to a file of its name."""
        with (self.home / f"{service}.log").open("ab") as log:
            self.running[service] = subprocess.Popen(
                self.command(service, self.services[service]["command"]),
                env=self.environment(service),
                cwd=self.image.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a service, as `docker compose exec SERVICE COMMAND` does; the service's own if none."""
        return subprocess.run(
            self.command(service, list(command) or self.services[service]["command"]),
            env=self.environment(service),
            cwd=self.image.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    def healthy(self, service: str) -> bool:
        """Run the service's health check once."""
        kind, *test = self.services[service]["healthcheck"]["test"]
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        return self.run(service, *command).returncode == 0

    def rows(self, query: str, database: str = "stratum") -> list[Any]:
        """Query the warehouse, or Airflow's database, as the superuser."""
        with psycopg.connect(self.cluster.url, dbname=database) as connection:
            return connection.execute(query).fetchall()

    def stop(self) -> None:
        """Stop all that was started here."""
        found = []
        for service, process in self.running.items():
            if process.poll() is None:
                handle = Process(service, self.home / "pids", ())
                handle.folder.mkdir(exist_ok=True)
                noted = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
                handle.pid_file.write_text(json.dumps(noted))
                found.append(handle)
        stop(found)
        embedded.stop(self.cluster)

    def _here(self, part: str) -> str:
        return (
            self.image.inside(part)
            .replace("@postgres:5432", f"@127.0.0.1:{self.ports['postgres']}")
            .replace("@redis:6379", f"@127.0.0.1:{self.ports['redis']}")
            .replace("redis-cli ping", f"redis-cli -p {self.ports['redis']} ping")
            .replace("//api-server:", "//127.0.0.1:")
            .replace(
                "dir /data\\n", f"dir {self.home}/redis\\nport {self.ports['redis']}\\nbind 127.0.0.1\\n"
            )
        )


def _nobody_can_run(image: Image) -> bool:
    """Tell whether we are root, and the image's Python is where another account may start it."""
    if os.geteuid() != 0:
        return False
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    command = [*NOBODY, str(image.project / ".venv" / "bin" / "python"), "-c", start]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
