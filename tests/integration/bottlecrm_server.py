"""A real BottleCRM for tests: installed from PyPI into an environment of its own, on a PostgreSQL and a port of its own."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import psycopg
import pytest

from include.local.processes import wait_until
from include.warehouse import embedded
from tests.conftest import free_port

PACKAGE = "django-crm==1.35.0"
MIGRATE_TIMEOUT_S = 1800
"""BottleCRM's migrations take two minutes of one core, and we may not have a core to ourselves."""
SCOPES = ("accounts", "contacts", "opportunities", "cases", "profile", "custom-fields")
UNREACHABLE = re.compile(r"lookup|dns|connect|timed out|sending request|unreachable", re.IGNORECASE)

# An organization with an administrator and a member, and a token for each of them and for readers of all and of less.
SETUP = """
import json, sys
import django
django.setup()
from django.contrib.auth import get_user_model
from common.models import Org, PersonalAccessToken, Profile
from common.tasks import set_rls_context

org = Org.objects.create(name="Test organization")
set_rls_context(str(org.id))
scopes = json.loads(sys.argv[1])
tokens = {}
for role in ("ADMIN", "USER"):
    user = get_user_model().objects.create(email=f"{role.lower()}@example.com")
    profile = Profile.objects.create(user=user, org=org, role=role, is_active=True)
    tokens[role] = PersonalAccessToken.generate(profile, "test")[0]
    if role == "ADMIN":
        tokens["reader"] = PersonalAccessToken.generate(profile, "reader", scopes=scopes)[0]
        less = [scope for scope in scopes if scope != "cases:read"]
        tokens["less"] = PersonalAccessToken.generate(profile, "less", scopes=less)[0]
print(json.dumps(tokens))
"""


class BottleServer:
    """A running BottleCRM: its address, its tokens by name, and a client with the administrator's."""

    def __init__(self, url: str, tokens: dict[str, str]) -> None:
        self.url = url
        self.tokens = tokens
        self.http = httpx.Client(
            base_url=f"{url}/api/", headers={"Authorization": f"Bearer {tokens['ADMIN']}"}, timeout=120
        )

    def add(self, path: str, **values: Any) -> str:
        """Make a record and return its id."""
        return str(self._done(self.http.post(f"{path}/", json=values))["id"])

    def change(self, path: str, record_id: str, **values: Any) -> None:
        """Set fields of a record."""
        self._done(self.http.patch(f"{path}/{record_id}/", json=values))

    def delete(self, path: str, record_id: str) -> None:
        """Delete a record."""
        self._done(self.http.delete(f"{path}/{record_id}/"))

    def now(self) -> datetime:
        """Return what time it is for the CRM."""
        return parsedate_to_datetime(self.http.get("profile/").headers["date"])

    def clear(self) -> None:
        """Delete all accounts and contacts, and with the accounts what belongs to them."""
        for path, lists in (
            ("accounts", (("active_accounts", "open_accounts"), ("closed_accounts", "close_accounts"))),
            ("contacts", (("results",),)),
        ):
            body = self.http.get(f"{path}/", params={"limit": "1000"}).json()
            for place in lists:
                found = body
                for key in place:
                    found = found[key]
                for record in found:
                    self.delete(path, record["id"])

    @staticmethod
    def _done(response: httpx.Response) -> dict[str, Any]:
        assert response.status_code in (200, 201), response.text[:500]
        return response.json()


def newer_python() -> Path | None:
    """Return a Python of 3.12 or later, on the PATH or installed beside ours; None where there is none."""
    named = [found for minor in (12, 13, 14) if (found := which(f"python3.{minor}"))]
    beside = sorted(Path(sys.base_prefix).parent.glob("*3.1[2-9]*/bin/python3"))
    for candidate in (*map(Path, named), *beside):
        check = "import sys, ensurepip; sys.exit(sys.version_info < (3, 12))"
        if subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def install(folder: Path) -> Path:
    """Return the programs' folder of a new environment with BottleCRM; skip where it cannot be had."""
    python = newer_python()
    if python is None:
        pytest.skip("BottleCRM needs Python 3.12 or later, and none is installed")
    subprocess.run([python, "-m", "venv", folder], check=True)
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and UNREACHABLE.search(done.stderr):
        pytest.skip(f"{PACKAGE} cannot be fetched: the package index does not answer")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "bin"


def make_database(cluster: embedded.Cluster) -> dict[str, str]:
    """Make a database and its owner, who is no superuser: BottleCRM's tenants are kept apart by row security."""
    name, password = f"bottlecrm_{secrets.token_hex(4)}", secrets.token_hex(12)
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"create role {name} login password '{password}'")
        connection.execute(f"create database {name} owner {name}")
    return {
        "DBNAME": name,
        "DBUSER": name,
        "DBPASSWORD": password,
        "DBHOST": "127.0.0.1",
        "DBPORT": str(cluster.port),
    }


@contextmanager
def running_bottlecrm(cluster: embedded.Cluster, folder: Path) -> Iterator[BottleServer]:
    """Install BottleCRM, make an organization in it and serve it, until the block ends."""
    programs = install(folder / "environment")
    work = folder / "work"  # it writes its logs where it stands, and a socket into the home folder
    work.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        **make_database(cluster),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "DJANGO_SETTINGS_MODULE": "crm.settings",
        "ENV_TYPE": "dev",
        "DEBUG": "False",
        "CELERY_BROKER_URL": "memory://",
        "CELERY_RESULT_BACKEND": "cache+memory://",
    }
    migrated = subprocess.run(
        [programs / "django-admin", "migrate"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=MIGRATE_TIMEOUT_S,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr[-2000:]
    scopes = json.dumps([f"{resource}:read" for resource in SCOPES])
    made = subprocess.run(
        [programs / "python", "-c", SETUP, scopes],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    url = f"127.0.0.1:{free_port()}"
    with (work / "server.out").open("wb") as output:
        server = subprocess.Popen(
            [programs / "gunicorn", "--workers=1", "--threads=4", f"--bind={url}", "crm.wsgi"],
            cwd=work,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        bottle = BottleServer(f"http://{url}", json.loads(made.stdout.splitlines()[-1]))
        assert wait_until(lambda: answers(bottle), 120, 0.5), (work / "server.out").read_text()[-2000:]
        yield bottle
        bottle.http.close()
    finally:
        server.terminate()
        server.wait(30)


def answers(bottle: BottleServer) -> bool:
    """Tell whether the CRM knows its administrator."""
    try:
        return bottle.http.get("profile/").status_code == 200
    except httpx.TransportError:
        return False
