"""The whole chain through docker-compose.yml's own commands: Celery workers, Redis and a plain PostgreSQL."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from include.local.environment import AIRFLOW_PARTS
from include.local.processes import wait_until
from include.simulate.market.scales import LAST_DAY
from tests.deploy.image import build
from tests.deploy.parts import Parts

pytestmark = pytest.mark.slow
if shutil.which("redis-server") is None:
    pytest.skip("redis-server is not installed", allow_module_level=True)

START_TIMEOUT_S = 180


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    root = Path(tempfile.mkdtemp(prefix="stratum-compose-"))
    root.chmod(0o755)
    (root / "servers").mkdir()
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    parts = Parts(build(root, UV_NO_CACHE="0", UV_CACHE_DIR=cache), root / "servers")
    try:
        parts.start_postgres()
        parts.start("redis")
        assert wait_until(lambda: parts.healthy("redis"), START_TIMEOUT_S, 1)
        prepared = parts.run("init")
        assert prepared.returncode == 0, prepared.stderr
        for service in ("sandbox", *AIRFLOW_PARTS):
            parts.start(service)
        for service in ("sandbox", *AIRFLOW_PARTS):
            assert wait_until(partial(parts.healthy, service), START_TIMEOUT_S, 1), service
        yield parts
    finally:
        parts.stop()
        shutil.rmtree(root)


def test_a_date_goes_through_celery_to_the_crm(parts: Parts) -> None:
    done = parts.run("worker", "stratum", "run", "--as-of", LAST_DAY.isoformat(), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["is_newest"]
    assert summary["syncs"][0]["sent"] > 0
    # Celery's own answers; the last one may come after the chain is seen to have ended.
    answers = "select status, count(*) from celery_taskmeta group by status"
    assert wait_until(lambda: dict(parts.rows(answers, "airflow")).keys() == {"SUCCESS"}, 60, 1)
    assert dict(parts.rows(answers, "airflow"))["SUCCESS"] >= 15


def test_a_part_that_ends_is_seen_by_its_health_check(parts: Parts) -> None:
    parts.running["worker"].terminate()
    parts.running["worker"].wait(60)
    assert not parts.healthy("worker")
    assert parts.healthy("scheduler")
