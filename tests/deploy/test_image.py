"""The Dockerfile's steps give an installation that works: all of it from the lock, in a clean environment."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.local.preparation import POOLS
from include.settings import PROJECT_DIR
from tests.deploy.image import Image, build
from tests.deploy.parts import Parts

pytestmark = pytest.mark.extended

IMPORTS = (
    "airflow.providers.celery.executors.celery_executor",
    "airflow.providers.redis.hooks.redis",
    "dbt.adapters.postgres.impl",
    "include.cli",
    "include.dbt",
    "include.quality.gate",
    "include.sources.orders",
    "include.sync.run",
    "ml",
    "sklearn",
)


@pytest.fixture(scope="module")
def built() -> Iterator[Image]:
    # Not below pytest's own folder: only its owner may enter that, and the image's account is another.
    root = Path(tempfile.mkdtemp(prefix="stratum-image-"))
    root.chmod(0o755)
    # With what was downloaded before, and without what only makes the image's first start faster.
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    yield build(root, UV_COMPILE_BYTECODE="0", UV_NO_CACHE="0", UV_CACHE_DIR=cache)
    shutil.rmtree(root)


def test_only_the_making_of_the_account_is_left_out(built: Image) -> None:
    assert [step.split()[0] for step in built.skipped] == ["useradd"]
    assert len(built.seconds) == 1


def test_what_the_parts_import_is_there(built: Image) -> None:
    show = "; ".join(f"import {module}; print(sys.modules['{module}'].__file__)" for module in IMPORTS)
    done = subprocess.run(
        ["python", "-c", f"import sys; {show}"],
        env=built.environment | {"AIRFLOW_HOME": str(built.root / "airflow")},
        cwd=built.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = [line for line in done.stdout.splitlines() if line.endswith(".py")]
    assert len(files) == len(IMPORTS)
    assert all(file.startswith(str(built.project)) for file in files)


def test_it_holds_every_file_that_belongs_to_the_product(built: Image) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "include", "ml", "dags", "dbt_project", "expectations"],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    there = [path for path in tracked if (PROJECT_DIR / path).exists()]
    assert len(there) > 100
    assert [path for path in there if not (built.project / path).exists()] == []


def test_init_prepares_an_empty_server_and_may_run_again(built: Image) -> None:
    data = built.root / "servers"
    data.mkdir()
    parts = Parts(built, data)
    try:
        parts.start_postgres()
        for _ in range(2):
            done = parts.run("init")
            assert done.returncode == 0, done.stderr + done.stdout
        assert set(parts.rows("select pool, slots from slot_pool", "airflow")) >= {(n, 1) for n in POOLS}
        assert parts.rows("select key from variable", "airflow") == [("stratum_sources",)]
        assert parts.rows("select count(*) from pg_roles where rolname like 'stratum\\_%'")[0][0] >= 7
        assert parts.rows("select count(*) from audit.runs") == [(0,)]
        secrets = built.home / "secrets.json"
        assert secrets.stat().st_mode & 0o777 == 0o600
        assert secrets.stat().st_uid == built.home.stat().st_uid
        psql = parts.run("worker", "stratum", "psql", "--role", "auditor", "-c", "select 40 + 2 as answer")
        assert "42" in psql.stdout, psql.stderr
        path = parts.run("worker", "stratum", "psql", "-c", "show search_path")
        assert "published,public" in path.stdout.replace(" ", ""), path.stdout + path.stderr
    finally:
        parts.stop()
