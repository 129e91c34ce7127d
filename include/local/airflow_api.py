"""A thin client of Airflow's REST API: only the calls the command line makes."""

import re
from datetime import date, datetime
from pathlib import PurePath
from typing import Any

import httpx

from include.dates import KEY_FORMAT
from include.errors import StratumError

TIMEOUT_S = 30


class AirflowApi:
    """Airflow's API server at `base_url`, as one of its users."""

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self.http = httpx.Client(base_url=base_url, timeout=TIMEOUT_S)
        self._login = {"username": user, "password": password}

    def healthy(self) -> bool:
        """Tell whether the server answers and sees its database, a scheduler and a DAG processor."""
        parts = self.health()
        return bool(parts) and all(part["status"] == "healthy" for part in parts.values())

    def health(self) -> dict[str, dict[str, str | None]]:
        """Return what Airflow says of its parts: for each its status and, but for the database, its last heartbeat.

        Empty where the server does not answer.
        """
        try:
            answer = self.http.get("/api/v2/monitor/health")
        except httpx.TransportError:
            return {}
        if answer.status_code != httpx.codes.OK:
            return {}
        parts = answer.json()
        return {
            part: {
                "status": parts[part]["status"],
                "heartbeat": parts[part].get(f"latest_{part}_heartbeat"),
            }
            for part in ("metadatabase", "scheduler", "dag_processor")
        }

    def login(self) -> None:
        """Get a token; every later call carries it."""
        answer = self.http.post("/auth/token", json=self._login)
        if answer.status_code != httpx.codes.CREATED:
            raise StratumError(f"Airflow refused the login: {answer.status_code} {answer.text[:200]}")
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Make one call under /api/v2 and return its JSON. Raises StratumError on any refusal."""
        try:
            answer = self.http.request(method, f"/api/v2{path}", **arguments)
        except httpx.TransportError as error:
            raise StratumError(
                f"Airflow's API server does not answer ({error!r}). Is it up? See `make up`."
            ) from error
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self.login()
            answer = self.http.request(method, f"/api/v2{path}", **arguments)
        if answer.is_server_error:
            raise StratumError(
                f"Airflow failed ({answer.status_code} to {method} {path}), as it does while its database is away. Is "
                "PostgreSQL up? See `stratum doctor`; `make up` starts what died, and then run the date again."
            )
        if answer.is_error:
            raise StratumError(
                f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:300]}"
            )
        return answer.json() if answer.content else None

    def dag_ids(self) -> set[str]:
        """Return the ids of the DAGs that Airflow has parsed and that can run."""
        return {dag["dag_id"] for dag in self.call("GET", "/dags", params={"limit": 100})["dags"]}

    def import_errors(self) -> list[str]:
        """Return one line per DAG file that does not import: the file, the line in it, and the error."""
        errors = self.call("GET", "/importErrors")["import_errors"]
        return [_import_error(error["filename"], error["stack_trace"]) for error in errors]

    def trigger(self, dag_id: str, as_of: date) -> str:
        """Start a DAG for an as-of date and return the run id."""
        body = {"logical_date": None, "partition_key": as_of.strftime(KEY_FORMAT)}
        return self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"]

    def fail_run(self, dag_id: str, run_id: str) -> None:
        """Mark a run failed; its running tasks are ended."""
        self.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"})

    def runs(self, dag_id: str, as_of: date | None = None) -> list[dict[str, Any]]:
        """Return the newest 100 runs of a DAG, or of a DAG for an as-of date, the newest first."""
        params: dict[str, Any] = {"limit": 100, "order_by": "-id"}
        if as_of is not None:
            params["partition_key_prefix_pattern"] = as_of.strftime(KEY_FORMAT)
        return self.call("GET", f"/dags/{dag_id}/dagRuns", params=params)["dag_runs"]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run."""
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]

    def questions(self, dag_id: str) -> list[dict[str, Any]]:
        """Return what tasks of a DAG wait for a person to answer: each with its subject and task instance."""
        params = {"state": "awaiting_input", "response_received": False, "limit": 100}
        return self.call("GET", f"/dags/{dag_id}/dagRuns/~/hitlDetails", params=params)["hitl_details"]

    def asked_at(self, dag_id: str, run_id: str, map_index: int) -> datetime:
        """Return when a mapped task of a run, which waits or waited for a person, asked."""
        details = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/hitlDetails")["hitl_details"]
        asked = next(each for each in details if each["task_instance"]["map_index"] == map_index)
        return datetime.fromisoformat(asked["created_at"])

    def answer(self, dag_id: str, run_id: str, task_id: str, map_index: int, option: str) -> None:
        """Answer what a task waits for with one of its options."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/{map_index}/hitlDetails"
        self.call("PATCH", path, json={"chosen_options": [option]})

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run of a DAG."""
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")

    def failure(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """Return the line a failed task ended with, from its log."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        answer = self.call(
            "GET", path, headers={"Accept": "application/json"}, params={"map_index": map_index}
        )
        last = "it was ended from outside (marked by hand, or its worker died): its log holds no error"
        for entry in answer["content"]:
            if isinstance(entry, dict) and entry.get("error_detail"):
                last = entry["error_detail"][0]["exc_value"]
        return last

    def set_variable(self, key: str, value: str) -> None:
        """Create or replace a variable of Airflow's."""
        actions = [
            {
                "action": "create",
                "entities": [{"key": key, "value": value}],
                "action_on_existence": "overwrite",
            }
        ]
        self.call("PATCH", "/variables", json={"actions": actions})

    def pools(self) -> dict[str, int]:
        """Return the slots of each pool."""
        return {pool["name"]: pool["slots"] for pool in self.call("GET", "/pools")["pools"]}

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create or replace a pool."""
        pool = {"name": name, "slots": slots, "description": description}
        actions = [{"action": "create", "entities": [pool], "action_on_existence": "overwrite"}]
        self.call("PATCH", "/pools", json={"actions": actions})


def _import_error(filename: str, trace: str) -> str:
    """Return `file, line N: error`; the line is the innermost of the file itself in the trace, where it names one."""
    lines = re.findall(rf'File "[^"]*{re.escape(PurePath(filename).name)}", line (\d+)', trace)
    where = f"{filename}, line {lines[-1]}" if lines else filename
    return f"{where}: {trace.strip().splitlines()[-1]}"
