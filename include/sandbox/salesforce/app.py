"""The HTTP server: logins, describe, REST and Bulk 2.0, as simple-salesforce and Airflow's hook use them.

Queries are here; calls that write are in rest_writes and ingest.
"""

import asyncio
import base64
import hmac
import itertools
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape, unescape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from include.sandbox.salesforce import ingest, rest_writes
from include.sandbox.salesforce.answers import Failure, bulk_csv, cut_off, described, page, soap, titled
from include.sandbox.salesforce.faults import SalesforceCalls, SalesforceFaults
from include.sandbox.salesforce.objects import SObject
from include.sandbox.salesforce.soql import Malformed, Query, parse
from include.sandbox.salesforce.store import Store, UnknownField, UnknownObject, stamp
from include.sandbox.salesforce.writes import NoSuchColumn, Outcome, Row, Writer, WrongType
from include.sandbox.spoiled import hang

REST_PAGE = 2000
DAILY_CALLS = 15_000
COUNT = re.compile(r"select\s+count\(\)\s+from", re.IGNORECASE)
"""A query that only counts is answered with totalSize, and no records."""
LINE_ENDS = {"LF": "\n", "CRLF": "\r\n"}

Endpoint = Callable[["SalesforceSandbox", Request, Any], Response]


@dataclass
class _Job:
    """A Bulk 2.0 query job; its rows are those of the moment it was made."""

    job_id: str
    operation: str
    query: Query
    line_end: str
    rows: list[dict[str, Any]]
    state: str = "UploadComplete"


class SalesforceSandbox:
    """A stand-in for a Salesforce org: its records, the secret that lets in, the faults it is told to have.

    `secret` is the password, the security token's and the consumer secret at once; names and keys are any. A REST
    page holds `rest_page` records, the CSV of an ingest job up to `upload_limit` bytes.
    """

    def __init__(
        self,
        store: Store,
        secret: str,
        rest_page: int = REST_PAGE,
        upload_limit: int = ingest.UPLOAD_LIMIT,
    ) -> None:
        self.store = store
        self.secret = secret
        self.rest_page = rest_page
        self.upload_limit = upload_limit
        self.faults = SalesforceFaults()
        self.ingests: dict[str, ingest.IngestJob | None] = {}
        self.calls = SalesforceCalls()
        self.sessions: set[str] = set()
        self._jobs: dict[str, _Job] = {}
        self._cursors: dict[str, tuple[list[dict[str, Any]], SObject]] = {}
        self._requests = itertools.count(1)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        data = "/services/data/v{version}"
        job = f"{data}/jobs/query/{{job_id}}"
        return Starlette(
            routes=[
                Route("/sandbox/salesforce/faults", self._control(set_faults), methods=["POST"]),
                Route("/sandbox/salesforce/calls", self._control(show_calls)),
                Route("/sandbox/salesforce/writes", self._control(show_writes)),
                Route("/services/oauth2/token", self._open(token_login), methods=["POST"]),
                Route("/services/Soap/u/{version}", self._open(soap_login), methods=["POST"]),
                Route(f"{data}/limits/", self._guarded(limits)),
                Route(f"{data}/sobjects", self._guarded(describe_all)),
                Route(f"{data}/sobjects/{{name}}/describe", self._guarded(describe)),
                Route(f"{data}/query/{{cursor}}", self._guarded(query_more)),
                Route(f"{data}/query/", self._guarded(query)),
                Route(f"{data}/queryAll/", self._guarded(query_all)),
                Route(f"{data}/jobs/query", self._guarded(create_job), methods=["POST"]),
                Route(job, self._guarded(show_job), methods=["GET"]),
                Route(job, self._guarded(abort_job), methods=["PATCH"]),
                Route(job, self._guarded(delete_job), methods=["DELETE"]),
                Route(f"{job}/results", self._guarded(job_results)),
                *self._writing(data),
            ]
        )

    def _writing(self, data: str) -> list[Route]:
        """Return the routes of calls that write, and of those that tell what came of them."""
        one = f"{data}/sobjects/{{name}}"
        many = f"{data}/composite/sobjects"
        job = f"{data}/jobs/ingest/{{job_id}}"
        calls: tuple[tuple[str, str, Endpoint], ...] = (
            ("POST", f"{one}/", rest_writes.create),
            ("POST", one, rest_writes.create),
            ("PATCH", f"{one}/{{record_id}}", rest_writes.update),
            ("DELETE", f"{one}/{{record_id}}", rest_writes.delete),
            ("PATCH", f"{one}/{{field}}/{{value:path}}", rest_writes.upsert),
            ("POST", many, rest_writes.collection_create),
            ("PATCH", many, rest_writes.collection_update),
            ("DELETE", many, rest_writes.collection_delete),
            ("PATCH", f"{many}/{{name}}/{{field}}", rest_writes.collection_upsert),
            ("POST", f"{data}/tooling/sobjects/CustomField/", rest_writes.create_field),
            ("POST", f"{data}/tooling/sobjects/CustomField", rest_writes.create_field),
            ("POST", f"{data}/jobs/ingest", ingest.create_ingest),
            ("PUT", f"{job}/batches", ingest.upload),
            ("PATCH", job, ingest.set_state),
            ("DELETE", job, ingest.delete_ingest),
        )
        reads: tuple[tuple[str, str, Endpoint], ...] = (
            ("GET", f"{one}/{{record_id}}", rest_writes.show),
            ("POST", f"{many}/{{name}}", rest_writes.collection_read),
            ("GET", job, ingest.show_ingest),
            ("GET", f"{job}/successfulResults", ingest.successful),
            ("GET", f"{job}/failedResults", ingest.unsuccessful),
            ("GET", f"{job}/unprocessedrecords", ingest.unprocessed),
            ("GET", f"{job}/unprocessedRecords", ingest.unprocessed),
        )
        return [
            *(
                Route(path, self._guarded(endpoint, is_write=True), methods=[how])
                for how, path, endpoint in calls
            ),
            *(Route(path, self._guarded(endpoint), methods=[how]) for how, path, endpoint in reads),
        ]

    def write(self, request: Request, rows: list[Row], all_or_none: bool = False) -> list[Outcome]:
        """Write rows of one REST call; one outcome each."""
        return Writer(self.store, self.faults).write(rows, request.state.request_id, all_or_none)

    def _open(self, endpoint: Endpoint) -> Callable[[Request], Any]:
        """Serve a call that needs no session."""

        async def handle(request: Request) -> Response:
            self.calls.by_endpoint[endpoint.__name__] += 1
            raw = await request.body()
            try:
                self._trouble(endpoint.__name__)
                return titled(endpoint(self, request, raw))
            except Failure as failure:
                return titled(failure.response())

        return handle

    def _control(self, endpoint: Endpoint) -> Callable[[Request], Any]:
        """Serve a call of a test's, with the secret as its token; faults do not strike it."""

        async def handle(request: Request) -> Response:
            if not self._matches(request.headers.get("authorization", ""), f"Bearer {self.secret}"):
                return Failure(401, "INVALID_SESSION_ID", "Session expired or invalid").response()
            return endpoint(self, request, _parse(await request.body()))

        return handle

    def _guarded(self, endpoint: Endpoint, is_write: bool = False) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            request.state.request_id = f"R{self.store.opened:03d}-{next(self._requests):07d}"
            self.calls.by_endpoint[endpoint.__name__] += 1
            raw = await request.body()
            await asyncio.sleep(self.faults.slow_s)
            ingest.carry_out(self)
            if is_write and await self._is_lost(request, endpoint.__name__):
                return titled(cut_off(Response("{}", media_type="application/json")))
            response = self._answer(endpoint, request, raw)
            if is_write and response.status_code < 300:
                response = await self._strike_after(request, response, endpoint.__name__)
            used = self.calls.by_endpoint.total()
            response.headers["sforce-limit-info"] = f"api-usage={used}/{DAILY_CALLS}"
            response.headers["x-request-id"] = request.state.request_id
            return titled(response)

        return handle

    def _answer(self, endpoint: Endpoint, request: Request, raw: bytes) -> Response:
        """Return the answer of an endpoint, or the one that says why there is none."""
        try:
            self._trouble(endpoint.__name__)
            self._check_session(request, endpoint.__name__)
            is_csv = request.headers.get("content-type", "").startswith("text/csv")
            return endpoint(self, request, raw if is_csv else _parse(raw))
        except Failure as failure:
            return failure.response()
        except UnknownObject as error:
            return Failure(400, "INVALID_TYPE", f"sObject type '{error}' is not supported.").response()
        except (UnknownField, NoSuchColumn) as error:
            return Failure(400, "INVALID_FIELD", str(error)).response()
        except WrongType as error:
            return Failure(400, "JSON_PARSER_ERROR", error.message).response()
        except Malformed as error:
            return Failure(400, "MALFORMED_QUERY", str(error)).response()

    async def _is_lost(self, request: Request, endpoint: str) -> bool:
        """Tell whether a call that writes is not carried out at all; one that hangs has hung by then."""
        if self.faults.strikes("hang_before", endpoint):
            await hang(request, self.faults.hang_s)
            return True
        return self.faults.strikes("drop_before", endpoint)

    async def _strike_after(self, request: Request, response: Response, endpoint: str) -> Response:
        """Return what the client gets of a call that was carried out."""
        if self.faults.strikes("hang_after", endpoint):
            await hang(request, self.faults.hang_s)
        return self.faults.spoiled(endpoint, response)

    def _trouble(self, endpoint: str) -> None:
        faults = self.faults
        if faults.rate_limited_at in (None, endpoint) and faults.take("rate_limited"):
            headers = {} if faults.retry_after is None else {"Retry-After": str(faults.retry_after)}
            raise Failure(429, "TOO_MANY_REQUESTS", "Too many requests", headers)
        if faults.server_error_at in (None, endpoint) and faults.take("server_error"):
            raise Failure(faults.server_error_status, "SERVER_UNAVAILABLE", "Service unavailable")

    def _check_session(self, request: Request, endpoint: str) -> None:
        if self.faults.request_limit:
            raise Failure(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        if self.faults.expire_session_at in (None, endpoint) and self.faults.take("expire_session"):
            self.sessions.clear()
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given not in self.sessions:
            raise Failure(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def _matches(self, given: str, wanted: str) -> bool:
        return hmac.compare_digest(given.encode(), wanted.encode())

    def open_session(self, *given: str) -> str | None:
        """Return a new session where each of the secrets given is ours, else None."""
        if not all(self._matches(each, self.secret) for each in given):
            return None
        session = f"00D5g0000000001!{secrets.token_urlsafe(24)}"
        self.sessions.add(session)
        return session


def _parse(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Failure(400, "JSON_PARSER_ERROR", "The HTTP entity body is not valid JSON") from error


def set_faults(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Set faults from a JSON object of their names; answers all of them."""
    try:
        sandbox.faults.set(body or {})
    except ValueError as error:
        return Failure(400, "INVALID_FIELD", str(error)).response()
    return JSONResponse(asdict(sandbox.faults))


def show_calls(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer how often each endpoint was called since the server started, and with which queries."""
    return JSONResponse({"by_endpoint": sandbox.calls.by_endpoint, "queries": sandbox.calls.queries})


def show_writes(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer the log of writes, of all records or of `record_id`; see Store.written."""
    ingest.carry_out(sandbox)
    return JSONResponse(sandbox.store.written(request.query_params.get("record_id")))


def token_login(sandbox: SalesforceSandbox, request: Request, raw: bytes) -> Response:
    """Let in by OAuth: grant_type client_credentials (key and secret as Basic) or password."""
    form = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
    grant = form.get("grant_type")
    if grant == "client_credentials":
        basic = request.headers.get("authorization", "").removeprefix("Basic ")
        session = sandbox.open_session(base64.b64decode(basic).decode().partition(":")[2])
    elif grant == "password":
        session = sandbox.open_session(form.get("client_secret", ""), form.get("password", ""))
    else:
        body = {"error": "unsupported_grant_type", "error_description": "grant type not supported"}
        return JSONResponse(body, status_code=400)
    if session is None:
        body = {"error": "invalid_grant", "error_description": "authentication failure"}
        return JSONResponse(body, status_code=400)
    address = str(request.base_url).rstrip("/")
    return JSONResponse({"access_token": session, "instance_url": address, "token_type": "Bearer"})


def soap_login(sandbox: SalesforceSandbox, request: Request, raw: bytes) -> Response:
    """Let in by SOAP's login: the password is the secret, followed by the security token, the secret too."""
    found = re.search(r"<(?:\w+:)?password>(.*?)</", raw.decode(), re.DOTALL)
    given = unescape(found[1]).encode() if found else b""
    if not hmac.compare_digest(given, (sandbox.secret * 2).encode()):
        fault = (
            "<soapenv:Fault><faultcode>sf:INVALID_LOGIN</faultcode><detail><sf:LoginFault>"
            "<sf:exceptionCode>INVALID_LOGIN</sf:exceptionCode><sf:exceptionMessage>INVALID_LOGIN: Invalid "
            "username, password, security token; or user locked out.</sf:exceptionMessage></sf:LoginFault>"
            "</detail></soapenv:Fault>"
        )
        return soap(500, fault)
    session = escape(str(sandbox.open_session()))
    address = f"{str(request.base_url).rstrip('/')}{request.url.path}/00D5g0000000001"
    return soap(
        200,
        f"<loginResponse><result><serverUrl>{address}</serverUrl><sessionId>{session}</sessionId>"
        "</result></loginResponse>",
    )


def limits(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer the calls left today."""
    left = DAILY_CALLS - sandbox.calls.by_endpoint.total()
    return JSONResponse({"DailyApiRequests": {"Max": DAILY_CALLS, "Remaining": left}})


def describe_all(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """List the object types the user sees."""
    seen = []
    for name in sandbox.store.types:
        try:
            seen.append(sandbox.store.describe(name))
        except UnknownObject:
            continue
    names = [{"name": each.name, "keyPrefix": each.prefix, "queryable": True} for each in seen]
    return JSONResponse({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": names})


def describe(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer the fields of an object type."""
    try:
        return JSONResponse(described(sandbox.store.describe(request.path_params["name"])))
    except UnknownObject as error:
        raise Failure(404, "NOT_FOUND", "The requested resource does not exist") from error


def query(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer a query; records in the recycle bin are left out."""
    return _first_page(sandbox, request, with_deleted=False)


def query_all(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer a query, records in the recycle bin included."""
    return _first_page(sandbox, request, with_deleted=True)


def _first_page(sandbox: SalesforceSandbox, request: Request, with_deleted: bool) -> Response:
    text = request.query_params.get("q", "")
    sandbox.calls.queries.append(text)
    wanted = parse(COUNT.sub("select Id from", text))
    rows = sandbox.store.find(wanted, with_deleted)
    if COUNT.match(text):
        return JSONResponse({"totalSize": len(rows), "done": True, "records": []})
    cursor = f"01g{secrets.token_hex(6)}"
    sandbox._cursors[cursor] = (rows, sandbox.store.types[wanted.object_name])
    return _rest_page(sandbox, request, cursor, 0)


def query_more(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer the next page of a query."""
    cursor, _, start = request.path_params["cursor"].partition("-")
    if cursor not in sandbox._cursors or not start.isdecimal():
        raise Failure(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    return _rest_page(sandbox, request, cursor, int(start))


def _rest_page(sandbox: SalesforceSandbox, request: Request, cursor: str, start: int) -> Response:
    rows, what = sandbox._cursors[cursor]
    version, end = request.path_params["version"], start + sandbox.rest_page
    following = f"/services/data/v{version}/query/{cursor}-{end}" if end < len(rows) else None
    return page(rows[start:end], what, version, len(rows), following)


def create_job(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Make a Bulk 2.0 query job."""
    if not isinstance(body, dict) or body.get("operation") not in ("query", "queryAll"):
        raise Failure(400, "API_ERROR", "operation must be query or queryAll")
    if body.get("columnDelimiter", "COMMA") != "COMMA":
        raise Failure(400, "API_ERROR", "this sandbox writes columns with commas alone")
    sandbox.calls.queries.append(body["query"])
    wanted = parse(body["query"])
    rows = sandbox.store.find(wanted, body["operation"] == "queryAll")
    job_id = f"7505g{secrets.token_hex(5)}AAA"
    job = _Job(job_id, body["operation"], wanted, LINE_ENDS[body.get("lineEnding", "LF")], rows)
    sandbox._jobs[job_id] = job
    answer = JSONResponse(_shown(job, request))
    return cut_off(answer) if sandbox.faults.take("drop_job_answer") else answer


def _shown(job: _Job, request: Request) -> dict[str, Any]:
    now = stamp(datetime.now(UTC))
    return {
        "id": job.job_id,
        "operation": job.operation,
        "object": job.query.object_name,
        "createdDate": now,
        "systemModstamp": now,
        "state": job.state,
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": float(request.path_params["version"]),
        "lineEnding": "LF" if job.line_end == "\n" else "CRLF",
        "columnDelimiter": "COMMA",
    }


def _job(sandbox: SalesforceSandbox, request: Request) -> _Job:
    job = sandbox._jobs.get(request.path_params["job_id"])
    if job is None:
        raise Failure(404, "NOT_FOUND", "The requested resource does not exist")
    return job


def show_job(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer a job's state: in progress at the first look, then complete or failed."""
    job = _job(sandbox, request)
    if job.state == "InProgress":
        job.state = "Failed" if sandbox.faults.take("fail_jobs") else "JobComplete"
    elif job.state == "UploadComplete":
        job.state = "InProgress"
    shown = _shown(job, request)
    if job.state == "Failed":
        shown["errorMessage"] = "UNKNOWN_EXCEPTION: the query was retried more than 15 times"
    if job.state == "JobComplete":
        shown["numberRecordsProcessed"] = len(job.rows)
    return JSONResponse(shown)


def abort_job(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Abort a job that has not ended."""
    job = _job(sandbox, request)
    if not isinstance(body, dict) or body.get("state") != "Aborted":
        raise Failure(400, "INVALIDJOBSTATE", "a query job can only be Aborted")
    if job.state in ("JobComplete", "Failed"):
        raise Failure(400, "INVALIDJOBSTATE", f"Aborting already {job.state} Job not allowed")
    job.state = "Aborted"
    return JSONResponse(_shown(job, request))


def delete_job(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Forget a job."""
    del sandbox._jobs[_job(sandbox, request).job_id]
    return Response(status_code=204)


def job_results(sandbox: SalesforceSandbox, request: Request, body: Any) -> Response:
    """Answer a page of a job's rows as CSV; Sforce-Locator names the next page, or is `null`."""
    job = _job(sandbox, request)
    if job.state != "JobComplete":
        raise Failure(400, "INVALIDJOBSTATE", f"Job is {job.state}: it has no results")
    start = _place(request.query_params.get("locator"))
    end = start + int(request.query_params.get("maxRecords", "50000"))
    rows = job.rows[start:end]
    headers = {
        "sforce-locator": base64.b64encode(str(end).encode()).decode() if end < len(job.rows) else "null",
        "sforce-numberofrecords": str(len(rows)),
    }
    if sandbox.faults.take("short_results"):
        rows = rows[:-1]
    text = bulk_csv(rows, job.query.fields, job.line_end)
    answer = Response(text, headers=headers, media_type="text/csv")
    return cut_off(answer) if sandbox.faults.take("cut_results") else answer


def _place(locator: str | None) -> int:
    try:
        return int(base64.b64decode(locator)) if locator else 0
    except ValueError as error:
        raise Failure(400, "INVALID_QUERY_LOCATOR", "invalid locator") from error
