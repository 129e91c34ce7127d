"""Runs syncs in processes that can be killed at a named step: `python -m tests.integration.sync_child`.

Reads one JSON order per line and forks a process for it: {"sources", "as_of", "calls", "settings", "point", "nth",
"kill_after_s", "marks"}. That process kills itself with SIGKILL when it comes to `point` for the nth time, or is killed
after so many seconds, and writes each step it comes by into the file `marks`. The answer is its exit status (negative:
the signal). `settings` are dotted names of the product's modules and what they are set to.

A step is a method of the sync, and its name ends in .before or .after; or a call to the CRM, by the names and patterns
of `calls`, which ends in .sent or .answered. The steps are put around them here: the product knows nothing of them.
"""

import functools
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from typing import Any

import httpx
import urllib3.connection

from include.errors import StratumError
from include.sources.config import Sources
from include.sync import run
from include.sync.engine import Engine
from include.sync.ledger import Ledger

# Step → what it is a call of. `settle` is the CRM's word on calls without an answer, `close` the closing of attempts
# that changed nothing, `adopt_found` asks which accounts without a record have one by their key.
METHODS: dict[str, tuple[Any, str]] = {
    "open_run": (Ledger, "open_run"),
    "resolve": (Engine, "resolve"),
    "make_plan": (run, "make_plan"),
    "adopt_found": (run, "adopt_found"),
    "note_found": (Ledger, "note_found"),
    "note_plan": (Ledger, "note_plan"),
    "attempt": (Ledger, "attempt"),
    "note_job": (Ledger, "note_job"),
    "confirm": (Ledger, "confirm"),
    "refuse": (Ledger, "refuse"),
    "forgotten": (Ledger, "forgotten"),
    "close": (Ledger, "settle"),
    "close_run": (Ledger, "close_run"),
}


def points(calls: dict[str, str]) -> list[str]:
    """Return every step of a sync whose write makes these calls: without a job none is noted, without keys none found."""
    absent = {
        *(["note_job"] if "create_job" not in calls else []),
        *(["adopt_found", "note_found"] if "find" not in calls else []),
    }
    methods = [name for name in (*METHODS, "settle") if name not in absent]
    return [
        *(f"{name}.{side}" for name in methods for side in ("before", "after")),
        *(f"{name}.{side}" for name in calls for side in ("sent", "answered")),
        "confirm.begun",
    ]


class Steps:
    """Marks each step, and kills this process at the one that is wanted."""

    def __init__(self, marks: str, point: str | None, nth: int) -> None:
        self.file = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.point = point
        self.left = nth

    def at(self, point: str) -> None:
        os.write(self.file, f"{point}\n".encode())
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def stepping(*arguments: Any, **options: Any) -> Any:
            if arguments[1:] and arguments[1] == []:
                return call(*arguments, **options)  # no rows, so it does nothing: not a step
            self.at(f"{name}.before")
            result = call(*arguments, **options)
            self.at(f"{name}.after")
            return result

        return stepping


def put_in(steps: Steps, calls: dict[str, str]) -> None:
    """Put the steps around the methods and the calls."""
    for name, (owner, method) in METHODS.items():
        setattr(owner, method, steps.around(name, getattr(owner, method)))

    write_deliveries = Ledger._write_deliveries

    def inside(*arguments: Any) -> None:
        steps.at("confirm.begun")  # the ledger is written, and nothing is committed
        write_deliveries(*arguments)

    Ledger._write_deliveries = inside  # type: ignore[method-assign]
    opened = run.open_target

    @contextmanager
    def open_target(*arguments: Any, **options: Any) -> Iterator[Any]:
        with opened(*arguments, **options) as target:
            target.settle = steps.around("settle", target.settle)
            yield target

    run.open_target = open_target
    connection = urllib3.connection.HTTPConnection
    request, getresponse = connection.request, connection.getresponse

    def requesting(
        self: Any, method: str, url: str, body: Any = None, *arguments: Any, **options: Any
    ) -> None:
        asked = f"{method} {url} {body!r}"
        self.named = next((name for name, pattern in calls.items() if re.match(pattern, asked)), None)
        request(self, method, url, body, *arguments, **options)
        if self.named:
            steps.at(f"{self.named}.sent")

    def answered(self: Any) -> Any:
        response = getresponse(self)
        if self.named:
            steps.at(f"{self.named}.answered")
        return response

    connection.request, connection.getresponse = requesting, answered  # type: ignore[method-assign]
    put_into_httpx(steps, calls)


def put_into_httpx(steps: Steps, calls: dict[str, str]) -> None:
    """Put the steps around the calls of httpx, with which webhooks are told; the other clients stand on urllib3."""
    sides = {
        "http11.send_request_body.complete": "sent",
        "http11.receive_response_headers.complete": "answered",
    }
    send = httpx.Client.send

    def sending(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        asked = f"{request.method} {request.url.raw_path.decode()} {request.content!r}"
        name = next((name for name, pattern in calls.items() if re.match(pattern, asked)), None)

        def trace(event: str, _: Any) -> None:
            if name and event in sides:
                steps.at(f"{name}.{sides[event]}")

        request.extensions = {**request.extensions, "trace": trace}
        return send(self, request, **options)

    httpx.Client.send = sending  # type: ignore[method-assign]


def sync(order: dict[str, Any]) -> int:
    """Do one sync; return 0, or 3 where it ended with an error for the user."""
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    for name, value in order["settings"].items():
        module, _, attribute = name.rpartition(".")
        setattr(sys.modules[module], attribute, tuple(value) if isinstance(value, list) else value)
    put_in(Steps(order["marks"], order["point"], order["nth"]), order["calls"])
    try:
        run.sync_crm(
            Sources.model_validate(order["sources"]),
            date.fromisoformat(order["as_of"]),
            "crm",
            clock=lambda: time.time() + slept,
            sleep=sleep,
        )
    except StratumError as error:
        print(error, file=sys.stderr, flush=True)
        return 3
    return 0


def ended(pid: int, kill_after_s: float | None) -> int:
    """Return the exit status of a process that is killed if it runs for so long."""
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)  # where it has ended, its number is kept for it until the next line
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        for name in order["settings"]:
            import_module(name.rpartition(".")[0])  # the clients are heavy: once, and not in each process
        pid = os.fork()
        if pid == 0:
            try:
                code = sync(order)
            except BaseException:  # noqa: BLE001 - said, and told by the exit status
                traceback.print_exc()
                code = 4
            sys.stderr.flush()
            os._exit(code)
        print(ended(pid, order["kill_after_s"]), flush=True)


if __name__ == "__main__":
    main()
