"""The whole chain through docker-compose.yml's own commands: Celery workers, Redis and a plain PostgreSQL."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from include.local.environment import AIRFLOW_PARTS
from include.local.processes import wait_until
from include.simulate.company import LAST_DAY
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
    parts = Parts(build(root), root / "servers")
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
    assert summary["sync"]["sent"] > 0
    # Airflow keeps Celery's own answer for each task that a worker ran.
    ((tasks,),) = parts.rows("select count(*) from task_instance where state = 'success'", "airflow")
    assert (
        parts.rows("select count(*) from celery_taskmeta where status = 'SUCCESS'", "airflow")[0][0] >= tasks
    )
    assert tasks >= 15


def test_a_part_that_ends_is_seen_by_its_health_check(parts: Parts) -> None:
    parts.running["worker"].terminate()
    parts.running["worker"].wait(60)
    assert not parts.healthy("worker")
    assert parts.healthy("scheduler")
