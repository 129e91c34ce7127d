"""The HTTP server: HubSpot's v3 CRM API, as far as hubspot-api-client uses it here."""

import hmac
import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from include.sandbox.answers import (
    Failure,
    batch,
    invalid_property,
    missing_scope,
    rate_limited,
    record,
    row_error,
)
from include.sandbox.faults import Calls, Faults
from include.sandbox.store import FIRST_IDS, READ_ONLY, Store

BATCH_LIMIT = 100
PAGE_LIMIT = 100
SEARCH_LIMIT = 200
HISTORY_PAGE_LIMIT = 50
# https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines: private apps of
# Professional and Enterprise accounts.
BURST_CALLS = 190
BURST_WINDOW_S = 10.0
GONE = "Could not get some COMPANY objects, they may be deleted or not exist. Check that ids are valid."

Endpoint = Callable[["Sandbox", Request, Any], Response]


class Sandbox:
    """A CRM stand-in: its state, its token, its burst limit, the faults it is told to have.

    `burst_calls` requests per `burst_window_s` seconds are answered, more get 429.
    """

    def __init__(
        self,
        store: Store,
        token: str,
        burst_calls: int = BURST_CALLS,
        burst_window_s: float = BURST_WINDOW_S,
    ) -> None:
        self.store = store
        self.token = token
        self.burst_calls = burst_calls
        self.burst_window_s = burst_window_s
        self.faults = Faults()
        self.calls = Calls()
        self._recent: deque[float] = deque()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        objects = "/crm/v3/objects/companies"
        properties = "/crm/v3/properties/companies"
        return Starlette(
            routes=[
                Route("/health", _health),
                Route("/sandbox/faults", self._guarded(set_faults, counted=False), methods=["POST"]),
                Route("/sandbox/calls", self._guarded(show_calls, counted=False)),
                Route(f"{objects}/batch/read", self._guarded(read_batch), methods=["POST"]),
                Route(f"{objects}/batch/update", self._guarded(update_batch), methods=["POST"]),
                Route("/crm/v3/objects/{kind}", self._guarded(list_records)),
                Route("/crm/v3/objects/{kind}/search", self._guarded(search), methods=["POST"]),
                Route("/crm/v3/objects/{kind}/{record_id}", self._guarded(archive), methods=["DELETE"]),
                Route(f"{properties}/groups", self._guarded(list_groups), methods=["GET"]),
                Route(f"{properties}/groups", self._guarded(create_group), methods=["POST"]),
                Route(properties, self._guarded(list_properties), methods=["GET"]),
                Route(properties, self._guarded(create_property), methods=["POST"]),
            ]
        )

    def _guarded(self, endpoint: Endpoint, counted: bool = True) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            try:
                self._check_token(request)
                if counted:
                    self.calls.by_endpoint[endpoint.__name__] += 1
                    self._check_rate()
                raw = await request.body()
                return endpoint(self, request, _parse(raw))
            except Failure as failure:
                return failure.response()

        return handle

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            raise Failure(
                401,
                "INVALID_AUTHENTICATION",
                "Authentication credentials not found. This API supports OAuth 2.0 authentication.",
            )

    def _check_rate(self) -> None:
        if self.faults.take("rate_limited"):
            raise rate_limited(self.faults.retry_after)
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - self.burst_window_s:
            self._recent.popleft()
        if len(self._recent) >= self.burst_calls:
            raise rate_limited(None)
        self._recent.append(now)


def _parse(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Failure(400, "VALIDATION_ERROR", "Invalid input JSON") from error


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def set_faults(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Set faults from a JSON object of their names; answers all of them."""
    try:
        sandbox.faults.set(body or {})
    except ValueError as error:
        raise Failure(400, "VALIDATION_ERROR", str(error)) from error
    return JSONResponse(asdict(sandbox.faults))


def show_calls(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Answer how often each endpoint was called since the server started."""
    return JSONResponse({"by_endpoint": sandbox.calls.by_endpoint, "writes": sandbox.calls.writes})


def _listed(request: Request, name: str) -> list[str]:
    """Return a list parameter: repeated, or with commas, or both."""
    return [part for value in request.query_params.getlist(name) for part in value.split(",") if part.strip()]


def _kind(sandbox: Sandbox, request: Request) -> str:
    """Return the object type of the path; refuse one that is not there, and one the token may not read."""
    kind = request.path_params["kind"]
    if kind not in FIRST_IDS or kind in sandbox.faults.missing_objects:
        raise Failure(404, "OBJECT_NOT_FOUND", f"Unable to infer object type from: {kind}")
    if kind in sandbox.faults.missing_scopes:
        raise missing_scope(kind)
    return kind


def list_records(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """List the records of an object type page by page, in order of id."""
    kind = _kind(sandbox, request)
    wanted = _listed(request, "properties")
    historic = _listed(request, "propertiesWithHistory")
    with_company = bool({"company", "companies"} & set(_listed(request, "associations")))
    most = HISTORY_PAGE_LIMIT if historic else PAGE_LIMIT
    try:
        limit = int(request.query_params.get("limit", "10"))
        after = str(int(request.query_params.get("after", "0")))
    except ValueError as error:
        raise Failure(400, "VALIDATION_ERROR", "limit and after must be numbers") from error
    if not 1 <= limit <= most:
        raise Failure(400, "VALIDATION_ERROR", f"limit must be between 1 and {most}")
    archived = request.query_params.get("archived", "false").lower() == "true"
    rows = sandbox.store.page(kind, after, limit + 1, archived)
    shown = rows[:limit]
    histories = sandbox.store.histories([row["id"] for row in shown], historic) if historic else {}
    results = [record(row, [*wanted, *historic], histories.get(row["id"]), with_company) for row in shown]
    answer: dict[str, Any] = {"results": results}
    if len(rows) > limit:
        last = results[-1]["id"]
        answer["paging"] = {
            "next": {"after": last, "link": str(request.url.include_query_params(after=last))}
        }
    return JSONResponse(answer)


def search(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Search the records of an object type, archived ones aside: without filters, by id, the newest first."""
    kind = _kind(sandbox, request)
    wanted = body if isinstance(body, dict) else {}
    newest_first = [{"propertyName": "hs_object_id", "direction": "DESCENDING"}]
    if wanted.get("filterGroups") or wanted.get("sorts") != newest_first:
        raise Failure(
            400, "VALIDATION_ERROR", "The sandbox searches without filters, by hs_object_id, descending"
        )
    limit = wanted.get("limit", 10)
    if not isinstance(limit, int) or not 1 <= limit <= SEARCH_LIMIT:
        raise Failure(400, "VALIDATION_ERROR", f"limit must be between 1 and {SEARCH_LIMIT}")
    total, rows = sandbox.store.newest(kind, limit)
    return JSONResponse({"total": total, "results": [record(row, []) for row in rows]})


def _inputs(body: Any) -> list[dict[str, Any]]:
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(each, dict) and "id" in each for each in inputs):
        raise Failure(400, "VALIDATION_ERROR", "Invalid input JSON: inputs must be a list of objects with id")
    if len(inputs) > BATCH_LIMIT:
        raise Failure(400, "VALIDATION_ERROR", f"Batch size must be at most {BATCH_LIMIT}")
    inputs = [{**each, "id": str(each["id"])} for each in inputs]
    ids = [each["id"] for each in inputs]
    if doubled := sorted({each for each in ids if ids.count(each) > 1}):
        raise Failure(
            400,
            "VALIDATION_ERROR",
            f"Duplicate IDs found in batch input: [{', '.join(doubled)}]. IDs must be unique",
        )
    return inputs


def read_batch(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Answer companies by id; the unknown and the archived ones share one error entry."""
    started = datetime.now(UTC)
    wanted = list(body.get("properties") or []) if isinstance(body, dict) else []
    found: list[dict[str, Any]] = []
    missing: list[str] = []
    for each in _inputs(body):
        row = sandbox.store.find(each["id"])
        if row is None:
            missing.append(each["id"])
        else:
            found.append(record(row, wanted))
    errors = [row_error("OBJECT_NOT_FOUND", GONE, {"ids": missing})] if missing else []
    return batch(found, errors, started)


def update_batch(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Update companies by record id: 200, 207 with the refused rows, or 400 for the whole batch."""
    started = datetime.now(UTC)
    sandbox.calls.writes += 1
    faults = sandbox.faults
    inputs = _inputs(body)
    if faults.take("server_error"):
        raise Failure(502, "UNKNOWN", "Bad gateway")
    if any(each["id"] in faults.reject_batch_ids for each in inputs):
        raise Failure(400, "VALIDATION_ERROR", "One or more rows of the batch are not valid")
    _check_names(sandbox.store, inputs)
    if faults.take("empty_complete"):
        return batch([], [], started)
    changes: list[tuple[str, dict[str, str]]] = []
    errors: list[dict[str, Any]] = []
    for each in inputs:
        if error := _row_error(sandbox, each):
            errors.append(error)
        else:
            changes.append((each["id"], {k: str(v) for k, v in (each.get("properties") or {}).items()}))
    sandbox.store.update(changes, started)
    answer = batch(_results(sandbox.store, inputs, changes), errors, started)
    return _cut_off() if faults.take("drop_answer") else answer


def _results(
    store: Store, inputs: list[dict[str, Any]], changes: list[tuple[str, dict[str, str]]]
) -> list[dict[str, Any]]:
    traces = {each["id"]: each.get("objectWriteTraceId") for each in inputs}
    results = []
    for record_id, values in changes:
        row = store.find(record_id)
        if row is None:
            raise KeyError(record_id)
        result = record(row, list(values))
        if traces[record_id]:
            result["objectWriteTraceId"] = traces[record_id]
        results.append(result)
    return results


def _check_names(store: Store, inputs: list[dict[str, Any]]) -> None:
    """Refuse the whole batch for a property that is unknown or read-only."""
    known = store.properties()
    for name in dict.fromkeys(name for each in inputs for name in (each.get("properties") or {})):
        if name not in known:
            message = invalid_property(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
            raise Failure(400, "VALIDATION_ERROR", message)
        if name in READ_ONLY:
            message = invalid_property(name, "READ_ONLY_VALUE", f'"{name}" is a read only property')
            raise Failure(400, "VALIDATION_ERROR", message)


def _row_error(sandbox: Sandbox, each: dict[str, Any]) -> dict[str, Any] | None:
    """Return the error of a row that is refused alone, else None."""
    trace = each.get("objectWriteTraceId")
    context = {"objectWriteTraceId": [trace]} if trace else {"ids": [each["id"]]}
    if sandbox.store.find(each["id"]) is None:
        return row_error("OBJECT_NOT_FOUND", GONE, {**context, "ids": [each["id"]]})
    if each["id"] in sandbox.faults.refuse_ids:
        return row_error("VALIDATION_ERROR", "The record is locked by a workflow", context)
    known = sandbox.store.properties()
    for name, value in (each.get("properties") or {}).items():
        if known[name]["type"] == "number" and not _is_number(str(value)):
            message = invalid_property(name, "INVALID_INTEGER", f"{value} was not a valid number.")
            return row_error("VALIDATION_ERROR", message, context)
    return None


def _is_number(value: str) -> bool:
    try:
        float(value or 0)
    except ValueError:
        return False
    return True


def _cut_off() -> Response:
    """Return an answer that promises a body and ends without one: the connection is closed in the middle."""

    async def nothing() -> Any:
        return
        yield b""

    return StreamingResponse(nothing(), headers={"content-length": "1000"}, media_type="application/json")


def archive(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Archive a record; answers 204 whether or not it was there, as HubSpot does."""
    sandbox.calls.writes += 1
    record_id = request.path_params["record_id"]
    if record_id.isdecimal():
        sandbox.store.archive(record_id, datetime.now(UTC), request.path_params["kind"])
    return Response(status_code=204)


def list_groups(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """List the property groups of companies."""
    return JSONResponse({"results": [_group(**dict(row)) for row in sandbox.store.groups()]})


def _group(name: str, label: str) -> dict[str, Any]:
    return {"name": name, "label": label, "displayOrder": -1, "archived": False}


def _text(body: Any, *names: str) -> list[str]:
    values = [body.get(name) if isinstance(body, dict) else None for name in names]
    if missing := [name for name, value in zip(names, values, strict=True) if not isinstance(value, str)]:
        raise Failure(400, "VALIDATION_ERROR", f"Invalid input JSON: missing {', '.join(missing)}")
    return [str(value) for value in values]


def create_group(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Create a property group; 409 where it exists."""
    name, label = _text(body, "name", "label")
    try:
        sandbox.store.add_group(name, label)
    except sqlite3.IntegrityError as error:
        raise Failure(409, "CONFLICT", f"A property group named '{name}' already exists") from error
    return JSONResponse(_group(name, label), status_code=201)


def list_properties(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """List the property definitions of companies."""
    return JSONResponse({"results": [_shown(each) for each in sandbox.store.properties().values()]})


def _shown(definition: dict[str, Any]) -> dict[str, Any]:
    defaults = {"description": "", "options": [], "hidden": False, "displayOrder": -1, "archived": False}
    return defaults | definition


def create_property(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Create a property; 409 where it exists, 400 where its group does not."""
    name, _, _, _, group = _text(body, "name", "label", "type", "fieldType", "groupName")
    if group not in {row["name"] for row in sandbox.store.groups()}:
        raise Failure(400, "VALIDATION_ERROR", f"The property group '{group}' does not exist")
    try:
        sandbox.store.add_property(body)
    except sqlite3.IntegrityError as error:
        raise Failure(409, "OBJECT_ALREADY_EXISTS", f"A property named '{name}' already exists.") from error
    return JSONResponse(_shown(body), status_code=201)
