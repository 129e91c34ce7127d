"""The parts of an installation, and the environment each of them runs in: on this machine or in containers."""

import os
import sys
from pathlib import Path
from urllib.parse import quote

from include.settings import PROJECT_DIR, Settings
from include.warehouse.connect import OWNER, variable

ADMIN = "admin"
AIRFLOW_DATABASE = "airflow"
SANDBOX_CONNECTION = "hubspot_sandbox"
"""Sources that name this connection talk to the sandbox, which the stack then starts."""
SANDBOX_VARIABLE = f"AIRFLOW_CONN_{SANDBOX_CONNECTION.upper()}"

# Airflow's parts, each with the arguments it is started by. Logs are read from the shared folder, so that no
# part serves them to another.
AIRFLOW_PARTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "worker": ("celery", "worker", "--skip-serve-logs"),
}

# No process of ours reports home.
NO_TELEMETRY = {
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "true",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
}


def sandbox_connection(settings: Settings, secrets: dict[str, str]) -> str:
    """Return the Airflow connection of the CRM sandbox, with its token."""
    token = quote(secrets["sandbox_token"], safe="")
    return f"http://:{token}@{settings.sandbox_host}:{settings.sandbox_port}"


def airflow_home(settings: Settings) -> Path:
    """Return the folder of Airflow's own files: logs, passwords."""
    return settings.home / "airflow"


def sandbox_command(settings: Settings) -> tuple[str, ...]:
    """Return the command that serves the CRM sandbox; its token comes in STRATUM_SANDBOX_TOKEN."""
    return (
        *(sys.executable, "-m", "include.sandbox", "--host", settings.listen),
        *("--port", str(settings.sandbox_port), "--state", str(settings.home / "sandbox.db")),
    )


def airflow_command(part: str) -> tuple[str, ...]:
    """Return the command of one of AIRFLOW_PARTS."""
    return (sys.executable, "-m", "airflow", *AIRFLOW_PARTS[part])


def _executor(settings: Settings) -> dict[str, str]:
    if settings.broker_url is None:
        return {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": settings.broker_url,
        # The three ingests at once, and one to spare. Results go to Airflow's own database by default.
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
    }


def airflow_environment(
    settings: Settings, secrets: dict[str, str], metadata_url: str, role_urls: dict[str, str], owner_url: str
) -> dict[str, str]:
    """Return the whole environment of the Airflow processes: this one's, plus Airflow's and the connections.

    `metadata_url` is the postgresql:// URL of Airflow's own database; `role_urls` maps each warehouse role
    to its URL. The result holds passwords: hand it to processes, never print it.
    """
    home = airflow_home(settings)
    port = settings.airflow_port
    page = f"http://127.0.0.1:{port}"  # what a browser on this machine opens
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
        **NO_TELEMETRY,
        "STRATUM_HOME": str(settings.home),
        "AIRFLOW_HOME": str(home),
        # Airflow imports airflow_local_settings from here; it preloads what the tasks need.
        "PYTHONPATH": str(PROJECT_DIR / "include" / "local" / "airflow_config"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_DIR / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        **_executor(settings),
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        # A DAG file of ours need not contain the word that Airflow otherwise looks for.
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
        "AIRFLOW__CORE__FERNET_KEY": secrets["airflow_fernet"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url or page}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata_url.replace(
            "postgresql://", "postgresql+psycopg2://", 1
        ),
        "AIRFLOW__API__HOST": settings.listen,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": page,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets["airflow_api"],
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets["airflow_jwt"],
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        # A hop of the chain waits for this loop; 1 s, the default, is most of the hop.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        **{variable(role): url for role, url in role_urls.items()},
        variable(OWNER): owner_url,
        SANDBOX_VARIABLE: sandbox_connection(settings, secrets),
    }
