"""A stand-in that answers as BottleCRM does, with a clock of its own, and a company that is pulled from it.

The shapes are those of BottleCRM 1.35, which tests/integration/test_bottlecrm.py pulls from for real.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from include.sources.bottlecrm import ingest_bottlecrm
from include.sources.loads import Load
from tests.integration.crm_stage import CrmStage

TOKEN = "bcrm_pat_test"
ORGANIZATION = "0e9b9f7e-fcac-45b9-b922-7a0952ea993a"
PATHS = {"accounts": "accounts", "contacts": "contacts", "opportunities": "opportunities", "cases": "tickets"}
ENTITIES = tuple(PATHS.values())
PERSON = {"id": "p1", "user_details": {"email": "somebody@example.com", "name": "Somebody"}}


class Bottle:
    """An organization: its records by path, its clock, and `answers`, which may answer a path in its place."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.role = "ADMIN"
        self.fields = ["account_number"]
        self.kinds: dict[str, str] = {}
        """Types of the custom fields that were made over the API; others are text."""
        self.patched: list[tuple[str, dict[str, Any]]] = []
        """Every change of an account that came, with what of it was kept."""
        self.organization = ORGANIZATION
        self.records: dict[str, dict[str, dict[str, Any]]] = {path: {} for path in PATHS}
        self.answers: Callable[[str, dict[str, str]], tuple[int, Any] | None] = lambda path, query: None
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        """Headers that every answer has besides."""
        self.trickle_s = 0.0
        """The pause before each byte of an answer."""
        self.url = ""

    def add(self, path: str, created: datetime, **values: Any) -> str:
        """Make a record and return its id."""
        record_id = str(uuid.uuid4())
        stamp = created.isoformat().replace("+00:00", "Z")
        record = {
            "id": record_id,
            "is_active": True,
            "created_at": stamp,
            "org": {"id": ORGANIZATION, "name": "Co"},
        }
        self.records[path][record_id] = record | _SHAPES[path](stamp) | values
        return record_id

    def change(self, path: str, record_id: str, **values: Any) -> None:
        """Set fields of a record, as the CRM would show them."""
        self.records[path][record_id].update(values)

    def answer(self, path: str, query: dict[str, str], token: str) -> tuple[int, Any]:
        """Return the status and the JSON for a path below /api/."""
        self.asked.append(path)
        if (given := self.answers(path, query)) is not None:
            return given
        if token != f"Bearer {TOKEN}":
            return 403, {"detail": "Organization context is required. Please login again."}
        if path == "profile/":
            return 200, {"user_obj": {"id": "p1", "role": self.role}}
        if path == "custom-fields/":
            fields = [
                {
                    "target_model": "Account",
                    "key": key,
                    "is_active": True,
                    "field_type": self.kinds.get(key, "text"),
                }
                for key in (*self.fields, *self.kinds)
            ]
            return 200, {"definitions": fields}
        kind, _, rest = path.partition("/")
        if rest:
            found = self.records[kind].get(rest.rstrip("/"))
            return (404, {"detail": "No match."}) if found is None else (200, {_SHOWN[kind]: found})
        return 200, self._list(kind, int(query["limit"]), int(query.get("offset", 0)))

    def write(self, path: str, body: dict[str, Any], token: str) -> tuple[int, Any]:
        """Return the status and the JSON for a change: an account's custom fields, or a new custom field."""
        if (given := self.answers(path, {})) is not None:
            return given
        if token != f"Bearer {TOKEN}":
            return 403, {"detail": "Organization context is required. Please login again."}
        if path == "custom-fields/":
            if self.role != "ADMIN":
                return 403, {"error": True, "errors": "Only admins can manage custom fields"}
            self.kinds[body["key"]] = body["field_type"]
            return 201, body
        kind, _, rest = path.partition("/")
        found = self.records[kind].get(rest.rstrip("/"))
        if found is None:
            return 404, {"detail": "No match."}
        kept, errors = self._kept(body.get("custom_fields") or {})
        if errors:
            return 400, {"error": True, "errors": {"custom_fields": errors}}
        self.patched.append((found["id"], kept))
        held = found["custom_fields"] | kept
        found["custom_fields"] = {key: value for key, value in held.items() if value is not None}
        return 200, {"error": False, "message": "Account Updated Successfully"}

    def _kept(self, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the values that are kept, and what is wrong with others; fields that are not known are dropped."""
        kept: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for key, value in given.items():
            if key not in (*self.fields, *self.kinds):
                continue
            try:
                kept[key] = None if value in (None, "") else _READ[self.kinds.get(key, "text")](value)
            except (ValueError, KeyError):
                errors[key] = f"must be a {self.kinds[key]}"
        return kept, errors

    def _list(self, kind: str, limit: int, offset: int) -> dict[str, Any]:
        everything = sorted(self.records[kind].values(), key=lambda record: str(record["id"]), reverse=True)
        page = everything[offset : offset + limit]
        if kind == "contacts":
            return {"count": len(everything), "results": page, "contact_obj_list": page}
        if kind != "accounts":
            return {f"{kind}_count": len(everything), kind: page}
        everything = [each | {"org": {"id": self.organization}} for each in everything]
        halves = [[each for each in everything if each["is_active"] is wanted] for wanted in (True, False)]
        active, closed = halves
        return {
            "active_accounts": {
                "open_accounts": active[offset : offset + limit],
                "open_accounts_count": len(active),
            },
            "closed_accounts": {
                "close_accounts": closed[offset : offset + limit],
                "close_accounts_count": len(closed),
            },
            "contacts": [{"id": "c", "first_name": "Secret"}],
        }


_SHOWN = {
    "accounts": "account_obj",
    "contacts": "contact_obj",
    "opportunities": "opportunity_obj",
    "cases": "cases_obj",
}
_READ: dict[str, Callable[[str], Any]] = {
    "text": str,
    "textarea": str,
    "number": float,
    "checkbox": lambda text: {"true": True, "false": False}[text],
    "date": lambda text: date.fromisoformat(text).isoformat(),
}
_SHAPES: dict[str, Callable[[str], dict[str, Any]]] = {
    "accounts": lambda stamp: {
        "name": "Account",
        "email": "secret@example.com",
        "industry": "SOFTWARE",
        "country": "NO",
        "country_display": "Norway",
        "assigned_to": [PERSON],
        "custom_fields": {},
    },
    "contacts": lambda stamp: {
        "first_name": "Secret",
        "last_name": "Secret",
        "email": "secret@example.com",
        "title": "Buyer",
        "do_not_call": False,
        "account": None,
        "linked_accounts": [],
        "updated_at": stamp,
    },
    "opportunities": lambda stamp: {
        "name": "Deal",
        "account": None,
        "pipeline": "main",
        "stage": "PROSPECTING",
        "stage_kind": "open",
        "opportunity_type": "NEW_BUSINESS",
        "currency": "CNY",
        "amount": "100.00",
        "closed_on": "2026-06-30",
        "lead_source": "partner",
        "assigned_to": [],
        "stage_changed_at": stamp,
    },
    "cases": lambda stamp: {
        "name": "Ticket",
        "account": None,
        "status": "New",
        "priority": "High",
        "case_type": "Question",
        "closed_on": None,
        "resolved_at": None,
    },
}


@contextmanager
def running_bottle(now: datetime) -> Iterator[Bottle]:
    """Serve an empty organization on a free port."""
    bottle = Bottle(now)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            path, token = url.path.removeprefix("/api/"), self.headers.get("Authorization", "")
            if self.command == "GET":
                self.reply(*bottle.answer(path, query, token))
            else:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.reply(*bottle.write(path, body, token))

        do_PATCH = do_POST = do_GET

        def reply(self, status: int, body: Any) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response_only(status)
            self.send_header("Date", format_datetime(bottle.now, usegmt=True))
            self.send_header("Content-Length", str(len(content)))
            for name, value in bottle.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # a client that has enough of it leaves
                for part in [bytes([each]) for each in content] if bottle.trickle_s else [content]:
                    time.sleep(bottle.trickle_s)
                    self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    bottle.url = f"http://127.0.0.1:{server.server_port}"
    yield bottle
    server.shutdown()
    server.server_close()
    thread.join(20)


def reach(monkeypatch: pytest.MonkeyPatch, url: str, token: str = TOKEN) -> None:
    """Point the Airflow connection at an address."""
    connection = {"conn_type": "http", "host": url, "password": token}
    monkeypatch.setenv("AIRFLOW_CONN_BOTTLECRM_DEFAULT", json.dumps(connection))


class Stage(CrmStage):
    """A company whose CRM is a BottleCRM."""

    system = "bottlecrm"
    entities = ENTITIES

    def pull(self, as_of: date) -> dict[str, Load]:
        # Of its limiter: the clock goes on by what is slept.
        return ingest_bottlecrm(
            self.sources, as_of, clock=lambda: 1_800_000_000.0 + sum(self.slept), sleep=self.slept.append
        )


def utc(day: date, hour: int = 4) -> datetime:
    """Return a moment of that day in Shanghai as well as in UTC, while the hour is below 16."""
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
