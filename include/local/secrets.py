"""Passwords and keys of a local installation, made on first start and kept in one private file."""

import json
import os
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path

from include.warehouse.connect import ROLES

FILE = "secrets.json"
NAMES = (
    "postgres",
    "airflow_database",
    "airflow_admin",
    "airflow_jwt",
    "airflow_api",
    "sandbox_token",
    *(f"role_{role}" for role in ROLES),
)


def load_secrets(home: Path) -> dict[str, str]:
    """Return the secrets of this home by name, making on first call those that are missing.

    The file is `home/secrets.json`, readable by its owner alone.
    """
    path = home / FILE
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    missing = {name: secrets.token_urlsafe(32) for name in NAMES if name not in known}
    if "airflow_fernet" not in known:
        missing["airflow_fernet"] = urlsafe_b64encode(os.urandom(32)).decode()  # the form Fernet demands
    if missing:
        home.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".new")
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(known | missing, file, indent=1)
        written.replace(path)
    return known | missing
