"""`stratum deploy`: an installation part by part, as docker-compose.yml runs it."""

import json
import os
import socket
import urllib.request
from typing import Annotated

import typer

from include.commands.common import phase, read_sources, say
from include.errors import StratumError
from include.local.environment import AIRFLOW_PARTS, airflow_command, sandbox_command
from include.local.processes import listens
from include.settings import Settings, get_settings

deploy_app = typer.Typer(no_args_is_help=True, help="An installation part by part, as containers run it.")

SANDBOX = "sandbox"
PARTS = (*AIRFLOW_PARTS, SANDBOX)
HEALTH_NAMES = {"api-server": "metadatabase", "scheduler": "scheduler", "dag-processor": "dag_processor"}
"""What Airflow calls each part in its health report."""
CHECK_TIMEOUT_S = 5

Part = Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")]


@deploy_app.command("init")
def deploy_init() -> None:
    """Make and migrate the databases, set roles, pools and sources, and leave; run it again after an upgrade."""
    from include.local.stack import Stack

    settings = get_settings()
    chosen, sources = read_sources(settings, None)
    stack = Stack(settings, say)
    try:
        with phase("prepare", say):
            stack.prepare(chosen, sources)
    finally:
        stack.down_started()
    say(f"Prepared for {sources.company.name} ({chosen}).")


@deploy_app.command("run")
def deploy_run(part: Part) -> None:
    """Become one part: this process goes on as Airflow's, so that signals reach it."""
    from include.local.stack import Stack
    from include.sources.config import load_sources

    settings = _known(part)
    stack = Stack(settings, say)
    if part == SANDBOX:
        command, environment = sandbox_command(settings), stack.sandbox_environment()
    else:
        environment = stack.part_environment(load_sources(settings.sources))
        command = airflow_command(part)
    os.execve(command[0], command, environment)  # noqa: S606


@deploy_app.command("check")
def deploy_check(part: Part) -> None:
    """Tell by the exit code whether a part works: for a container's health check."""
    settings = _known(part)
    if part == "worker":
        healthy = _worker_answers(settings)
    elif part == SANDBOX:
        healthy = listens("127.0.0.1", settings.sandbox_port, CHECK_TIMEOUT_S)
    else:
        healthy = _airflow_says(settings, HEALTH_NAMES[part])
    if not healthy:
        raise StratumError(f"{part} does not work; see its log.")


def _known(part: str) -> Settings:
    if part not in PARTS:
        raise StratumError(f"'{part}' is not a part; the parts are {', '.join(PARTS)}.")
    return get_settings()


def _airflow_says(settings: Settings, name: str) -> bool:
    """Return what Airflow's API server reports of a part, by the part's heartbeats in its database."""
    base = settings.airflow_url or f"http://127.0.0.1:{settings.airflow_port}"
    try:
        with urllib.request.urlopen(f"{base}/api/v2/monitor/health", timeout=CHECK_TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)[name]["status"] == "healthy"
    except OSError:
        return False


def _worker_answers(settings: Settings) -> bool:
    """Ask this host's Celery worker over the broker."""
    from celery import Celery
    from kombu.exceptions import OperationalError

    if settings.broker_url is None:
        raise StratumError("There is no worker without a broker: set STRATUM_BROKER_URL.")
    celery = Celery(broker=settings.broker_url)
    try:
        celery.connection().ensure_connection(max_retries=1, timeout=CHECK_TIMEOUT_S)
    except OperationalError:
        return False
    name = f"celery@{socket.gethostname()}"
    return bool(celery.control.inspect(destination=[name], timeout=CHECK_TIMEOUT_S).ping())
