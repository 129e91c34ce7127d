"""A receiver of the webhook for tests, as docs/contracts/sync.md asks for: it checks, keeps each row once, and tells."""

import hashlib
import hmac
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from include.sandbox.faults import Switches
from include.sandbox.salesforce.answers import cut_off
from include.sandbox.spoiled import hang, malformed, trickled
from tests.conftest import free_port

SECRET = "webhook-test-secret"
WINDOW_S = 300


@dataclass
class ReceiverFaults(Switches):
    """What goes wrong next; numbers count down, the others stay."""

    rate_limited: int = 0
    retry_after: int | None = None
    server_error: int = 0
    server_error_status: int = 500
    forgets_secret: int = 0
    drop_before: int = 0
    drop_after: int = 0
    hang_before: int = 0
    hang_after: int = 0
    hang_s: float = 3.0
    """How long a call that hangs waits at most; it ends as soon as the client leaves."""
    malformed: int = 0
    trickle: int = 0
    trickle_s: float = 0.02
    empty_complete: int = 0
    page: int = 0
    """The next n calls get a web page with 200, and do nothing."""
    undecodable: int = 0
    """The next n calls are carried out, and answered with what is no gzip and says that it is."""
    refuse: list[str] = field(default_factory=list)
    """Accounts whose row is refused (207)."""
    reject: list[str] = field(default_factory=list)
    """Accounts that make a batch fail as a whole (409), unless the row's key is known."""


class Receiver:
    """What was received: `deliveries` are the calls (batch key and body), `applied` the rows, each key once.

    `clock` gives seconds since 1970, and a call may be signed so many seconds before or after.
    """

    def __init__(self, clock: Callable[[], float], window_s: float = WINDOW_S) -> None:
        self.clock = clock
        self.window_s = window_s
        self.answers_with_results = True
        self.url = ""
        self.forget()

    def forget(self) -> None:
        """Be as one that never received anything, and does not fail."""
        self.faults = ReceiverFaults()
        self.deliveries: list[tuple[str, dict[str, Any]]] = []
        self.arrived: defaultdict[str, list[tuple[datetime, dict[str, Any]]]] = defaultdict(list)
        """Key → when each row of that key came, and the row."""
        self.applied: dict[str, dict[str, Any]] = {}
        self.answered: dict[str, dict[str, str]] = {}
        """Key → what was said of its row the first time, and is said ever after."""

    def fault(self, **faults: Any) -> None:
        self.faults.set(faults)

    def written(self, account_id: str) -> list[dict[str, Any]]:
        """Return the values an account was given, oldest first."""
        return [row["values"] for row in self.applied.values() if row["account_id"] == account_id]

    def is_signed(self, request: Request, body: bytes) -> bool:
        stamp = request.headers.get("x-stratum-timestamp", "")
        if not stamp.isdecimal() or abs(self.clock() - int(stamp)) > self.window_s:
            return False
        wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(request.headers.get("x-stratum-signature", ""), f"sha256={wanted}")

    async def take(self, request: Request) -> Response:
        raw, faults = await request.body(), self.faults
        if faults.take("rate_limited"):
            return Response(
                status_code=429,
                headers={} if faults.retry_after is None else {"Retry-After": str(faults.retry_after)},
            )
        if faults.take("server_error"):
            return Response("down", faults.server_error_status)
        if faults.take("drop_before"):
            return cut_off(JSONResponse({"results": []}))
        if faults.take("hang_before"):
            await hang(request, faults.hang_s)
            return Response("too late", 503)
        if faults.take("page"):
            return Response("<html>Please log in</html>", media_type="text/html")
        if faults.take("forgets_secret") or not self.is_signed(request, raw):
            return Response("the signature does not fit", 401)
        batch = json.loads(raw)
        new = [row for row in batch["rows"] if row["key"] not in self.answered]
        if any(row["account_id"] in faults.reject for row in new):
            return Response("an account of the batch is not known", 409)
        self.deliveries.append((request.headers["idempotency-key"], batch))
        for row in batch["rows"]:
            self.arrived[row["key"]].append((datetime.now(UTC), row))
        if faults.take("empty_complete"):
            return self._answer(batch["rows"])
        self._keep(new)
        answer = self._answer(batch["rows"])
        if faults.take("hang_after"):
            await hang(request, faults.hang_s)
        if faults.take("undecodable"):
            return Response(b"plain", headers={"Content-Encoding": "gzip"})
        if faults.take("malformed"):
            return malformed(answer)
        if faults.take("trickle"):
            return trickled(answer, faults.trickle_s)
        return cut_off(answer) if faults.take("drop_after") else answer

    def _keep(self, new: list[dict[str, Any]]) -> None:
        for row in new:
            if row["account_id"] in self.faults.refuse:
                said = {"status": "refused", "reason": "the account is locked"}
            else:
                self.applied[row["key"]] = row
                said = {"status": "taken"}
            self.answered[row["key"]] = {"key": row["key"]} | said

    def _answer(self, rows: list[dict[str, Any]]) -> Response:
        """Say of each row whose key is known what became of it."""
        if not self.answers_with_results:
            return Response(status_code=204)
        results = [self.answered[row["key"]] for row in rows if row["key"] in self.answered]
        is_all = all(each["status"] == "taken" for each in results)
        return JSONResponse({"results": results}, 200 if is_all else 207)


@contextmanager
def running_receiver(clock: Callable[[], float], window_s: float = WINDOW_S) -> Iterator[Receiver]:
    """Serve a receiver on a free port."""
    receiver, port = Receiver(clock, window_s), free_port()
    app = Starlette(routes=[Route("/rows", receiver.take, methods=["POST"])])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="critical", lifespan="off", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the receiver did not start"
        time.sleep(0.01)
    receiver.url = f"http://127.0.0.1:{port}/rows"
    yield receiver
    server.should_exit = True
    thread.join(20)


def reach(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, secret: str = SECRET) -> None:
    """Point the Airflow connection at the receiver."""
    connection = {"conn_type": "http", "host": receiver.url, "password": secret}
    monkeypatch.setenv("AIRFLOW_CONN_WEBHOOK_DEFAULT", json.dumps(connection))
