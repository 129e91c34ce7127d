"""The HTTP server: HubSpot's v3 CRM API, as far as hubspot-api-client uses it here."""

import asyncio
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
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from include.sandbox.answers import Failure, batch, expired, invalid_property, rate_limited, record, row_error
from include.sandbox.faults import Calls, Faults
from include.sandbox.objects import (
    BATCH_LIMIT,
    GONE,
    archive,
    check_unique,
    cut_off,
    inputs_of,
    kind_of,
    list_records,
    merge,
    read_batch,
    read_links,
    read_record,
    search,
)
from include.sandbox.spoiled import hang, malformed, trickled
from include.sandbox.store import COMPANIES, READ_ONLY, Store
from include.sandbox.values import CODES, kept

# https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines: private apps of
# Professional and Enterprise accounts.
BURST_CALLS = 190
BURST_WINDOW_S = 10.0
LONGEST_TEXT = 65_536  # of a property's value
DAILY_CALLS = 625_000  # of a Professional account; told, not kept

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
        self.searches: deque[float] = deque()
        self._recent: deque[float] = deque()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        objects = "/crm/v3/objects/companies"
        records = "/crm/v3/objects/{kind}"
        properties = "/crm/v3/properties/companies"
        return Starlette(
            routes=[
                Route("/health", _health),
                Route("/sandbox/faults", self._guarded(set_faults, counted=False), methods=["POST"]),
                Route("/sandbox/calls", self._guarded(show_calls, counted=False)),
                Route("/sandbox/writes", self._guarded(show_writes, counted=False)),
                Route(f"{objects}/batch/update", self._guarded(update_batch), methods=["POST"]),
                Route(f"{objects}/batch/upsert", self._guarded(upsert_batch), methods=["POST"]),
                Route(records, self._guarded(list_records)),
                Route(f"{records}/search", self._guarded(search, reads=True), methods=["POST"]),
                Route(f"{records}/batch/read", self._guarded(read_batch, reads=True), methods=["POST"]),
                Route(f"{records}/merge", self._guarded(merge), methods=["POST"]),
                Route(f"{records}/{{record_id}}", self._guarded(read_record), methods=["GET"]),
                Route(f"{records}/{{record_id}}", self._guarded(archive), methods=["DELETE"]),
                Route(
                    "/crm/v4/associations/{kind}/{to}/batch/read",
                    self._guarded(read_links, reads=True),
                    methods=["POST"],
                ),
                Route(f"{properties}/groups", self._guarded(list_groups), methods=["GET"]),
                Route(f"{properties}/groups", self._guarded(create_group), methods=["POST"]),
                Route("/crm/v3/properties/{kind}", self._guarded(list_properties), methods=["GET"]),
                Route(properties, self._guarded(create_property), methods=["POST"]),
            ]
        )

    def _guarded(
        self, endpoint: Endpoint, counted: bool = True, reads: bool = False
    ) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            try:
                self._check_token(request)
                if counted:
                    self.calls.by_endpoint[endpoint.__name__] += 1
                    await self._misbehave(endpoint.__name__)
                only_reads = reads or request.method == "GET"
                body = _parse(await request.body())
                if counted and not only_reads and self.faults.take("hang_before"):
                    await hang(request, self.faults.hang_s)
                    return cut_off()
                answer = endpoint(self, request, body)
                answer.headers["x-hubspot-ratelimit-daily"] = str(DAILY_CALLS)
                if counted and only_reads and self.faults.take("cut_answer"):
                    return cut_off()
                if counted and not only_reads and self.faults.take("hang_after"):
                    await hang(request, self.faults.hang_s)
                return answer
            except Failure as failure:
                return failure.response()

        return handle

    async def _misbehave(self, endpoint: str) -> None:
        """Be slow, expire the token, be down or turn the call away, as far as told to; keep the burst limit."""
        faults = self.faults
        if faults.slow_s:
            await asyncio.sleep(faults.slow_s)
        if faults.expires_after is not None:
            if faults.expires_after <= 0:
                raise expired()
            faults.expires_after -= 1
        if faults.take("unavailable"):
            raise Failure(503, "UNKNOWN", "Service unavailable")
        self._check_rate(endpoint)

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            raise Failure(
                401,
                "INVALID_AUTHENTICATION",
                "Authentication credentials not found. This API supports OAuth 2.0 authentication.",
            )

    def _check_rate(self, endpoint: str) -> None:
        if self.faults.rate_limited_at in (None, endpoint) and self.faults.take("rate_limited"):
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


def show_writes(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Answer the log of rows written by batch updates, of all records or of `record_id`; see Store.written."""
    return JSONResponse(sandbox.store.written(request.query_params.get("record_id")))


def update_batch(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Update companies by record id: 200, 207 with the refused rows, or 400 for the whole batch."""
    started = datetime.now(UTC)
    inputs = inputs_of(body, BATCH_LIMIT)
    if (spoiled := _struck_before(sandbox, inputs, started)) is not None:
        return spoiled
    changes: list[tuple[str, dict[str, str]]] = []
    errors: list[dict[str, Any]] = []
    for each in inputs:
        if error := _row_error(sandbox, each):
            errors.append(error)
        else:
            changes.append((each["id"], _kept(sandbox.store, each.get("properties") or {})))
    sandbox.store.update(changes, started)
    traces = {each["id"]: each.get("objectWriteTraceId") for each in inputs}
    sandbox.store.log_writes([(each, traces[each], values) for each, values in changes], started)
    return _struck(sandbox.faults, batch(_results(sandbox.store, traces, changes), errors, started))


def upsert_batch(sandbox: Sandbox, request: Request, body: Any) -> Response:
    """Update companies by a property of unique values, or make them: 200, 207 with the refused rows, or 400 for all.

    https://developers.hubspot.com/docs/api-reference/crm-companies-v3/batch/upsert. A new company needs a name or a domain.
    """
    started = datetime.now(UTC)
    store = sandbox.store
    inputs = inputs_of(body, BATCH_LIMIT)
    for each in inputs:
        check_unique(store.properties(), each.get("idProperty"))
    if (spoiled := _struck_before(sandbox, inputs, started)) is not None:
        return spoiled
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for each in inputs:
        key, trace = each["idProperty"], each.get("objectWriteTraceId")
        values = {key: each["id"]} | {k: str(v) for k, v in (each.get("properties") or {}).items()}
        found = store.holders(key, each["id"])
        context = {"objectWriteTraceId": [trace]} if trace else {"ids": [each["id"]]}
        error = _refusal(sandbox, each["id"], found[0] if found else None, values, context)
        if error is None and not (found or values.get("name") or values.get("domain")):
            error = row_error("VALIDATION_ERROR", "A company needs a name or a domain", context)
        if error:
            errors.append(error)
            continue
        values = _kept(store, values)
        if found:
            store.update([(found[0], values)], started)
        record_id = found[0] if found else store.create(values, started)
        store.log_writes([(record_id, trace, values)], started)
        shown = record(store.find(record_id), list(values)) | {"new": not found}  # type: ignore[arg-type]
        results.append(shown | ({"objectWriteTraceId": trace} if trace else {}))
    return _struck(sandbox.faults, batch(results, errors, started))


def _kept(store: Store, values: dict[str, Any]) -> dict[str, str]:
    """Return values as they are kept, each by its property's type."""
    types = {name: definition["type"] for name, definition in store.properties().items()}
    return {name: kept(types[name], str(value)) for name, value in values.items()}


def _struck_before(sandbox: Sandbox, inputs: list[dict[str, Any]], started: datetime) -> Response | None:
    """Return what the client gets of a batch that is not carried out, None where it is; refuse one that may not be."""
    faults = sandbox.faults
    sandbox.calls.writes += 1
    if faults.take("server_error"):
        raise Failure(faults.server_error_status, "UNKNOWN", "Bad gateway")
    if any(each["id"] in faults.reject_batch_ids for each in inputs):
        reason = "One or more rows of the batch are not valid"
        raise Failure(faults.reject_batch_status, "VALIDATION_ERROR", reason)
    if faults.take("drop_before"):
        return cut_off()
    _check_names(sandbox.store, inputs)
    return batch([], [], started) if faults.take("empty_complete") else None


def _struck(faults: Faults, answer: Response) -> Response:
    """Return what the client gets of a batch that was carried out."""
    if faults.take("drop_answer"):
        return cut_off()
    if faults.take("malformed"):
        return malformed(answer)
    return trickled(answer, faults.trickle_s) if faults.take("trickle") else answer


def _results(
    store: Store, traces: dict[str, str | None], changes: list[tuple[str, dict[str, str]]]
) -> list[dict[str, Any]]:
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
    return _refusal(sandbox, each["id"], each["id"], each.get("properties") or {}, context)


def _refusal(
    sandbox: Sandbox, named: str, record_id: str | None, values: dict[str, Any], context: dict[str, list[str]]
) -> dict[str, Any] | None:
    """Return why values are refused, else None; `record_id` is that of a record which is there."""
    if named in sandbox.faults.refuse_ids:
        return row_error("VALIDATION_ERROR", "The record is locked by a workflow", context)
    known = sandbox.store.properties()
    for name, value in values.items():
        is_unique = known[name].get("hasUniqueValue") and value
        others = sandbox.store.holders(name, str(value)) if is_unique else []
        if set(others) - {record_id}:
            message = f"Cannot set PropertyValueCoordinates: {others[0]} already has that value of {name}."
            return row_error("CONFLICTING_UNIQUE_VALUE", message, context)
        try:
            kept(known[name]["type"], str(value))
        except (ValueError, OverflowError):
            kind = known[name]["type"]
            message = invalid_property(name, CODES[kind], f"{value} was not a valid {kind}.")
            return row_error("VALIDATION_ERROR", message, context)
        if len(str(value)) > LONGEST_TEXT:
            message = invalid_property(
                name, "PROPERTY_VALUE_TOO_LONG", f"longer than {LONGEST_TEXT} characters"
            )
            return row_error("VALIDATION_ERROR", message, context)
    return None


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
    """List the property definitions of an object type: those that were made, and what its records have besides."""
    kind = kind_of(sandbox, request)
    definitions = sandbox.store.properties() if kind == COMPANIES else {}
    for name in sandbox.store.used_properties(kind):
        given = {"name": name, "label": name, "type": "string", "fieldType": "text", "hubspotDefined": True}
        definitions.setdefault(name, given)
    return JSONResponse({"results": [_shown(each) for each in definitions.values()]})


def _shown(definition: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "description": "",
        "options": [],
        "hidden": False,
        "displayOrder": -1,
        "archived": False,
        "modificationMetadata": {
            "archivable": True,
            "readOnlyDefinition": False,
            "readOnlyValue": definition["name"] in READ_ONLY,
        },
    }
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
