"""What Airflow answers, said in one line."""

import httpx
import pytest

from include.errors import StratumError
from include.local.airflow_api import AirflowApi

TRACE = """Traceback (most recent call last):
  File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed
  File "/srv/dags/sync_crm.py", line 12, in <module>
    from include.assets import NOTHING
ImportError: cannot import name 'NOTHING' from 'include.assets'
"""


def api(answer: httpx.Response) -> AirflowApi:
    made = AirflowApi("http://airflow", "user", "secret-word")
    made.http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(lambda request: answer))
    return made


def test_an_import_error_names_file_line_and_error() -> None:
    found = api(
        httpx.Response(200, json={"import_errors": [{"filename": "sync_crm.py", "stack_trace": TRACE}]})
    )
    assert found.import_errors() == [
        "sync_crm.py, line 12: ImportError: cannot import name 'NOTHING' from 'include.assets'"
    ]
    elsewhere = [{"filename": "publish.py", "stack_trace": TRACE}]
    assert (
        api(httpx.Response(200, json={"import_errors": elsewhere}))
        .import_errors()[0]
        .startswith("publish.py: Imp")
    )


def test_an_airflow_without_its_database_is_told_as_that_and_what_to_do() -> None:
    with pytest.raises(StratumError, match=r"500 to GET /pools.*database is away.*make up"):
        api(httpx.Response(500, json={"detail": "Database error"})).pools()


def test_a_server_that_does_not_answer_has_no_health() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    made = AirflowApi("http://airflow", "user", "secret-word")
    made.http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(refuse))
    assert made.health() == {}
    assert not made.healthy()


def test_a_part_without_a_heartbeat_is_no_healthy_airflow() -> None:
    parts = {
        "metadatabase": {"status": "healthy"},
        "scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": "2026-11-22T07:00:00Z"},
        "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": "2026-11-22T07:00:00Z"},
    }
    found = api(httpx.Response(200, json=parts))
    assert not found.healthy()
    assert found.health()["scheduler"] == {"status": "unhealthy", "heartbeat": "2026-11-22T07:00:00Z"}
