"""Bulk API 2.0 ingest: a job is made, takes one CSV, is closed, is carried out by itself, and tells what came of each row.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/bulk_api_2_0_ingest.htm
"""

import csv
import io
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from include.sandbox.salesforce.answers import Failure
from include.sandbox.salesforce.store import stamp
from include.sandbox.salesforce.writes import Outcome, Row, RowError, Writer

if TYPE_CHECKING:
    from include.sandbox.salesforce.app import SalesforceSandbox

UPLOAD_LIMIT = 100 * 1024 * 1024
"""Bytes of one job's CSV."""
CHUNK_ROWS = 200
"""Rows that are carried out together."""
DELIMITERS = {"BACKQUOTE": "`", "CARET": "^", "COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
LINE_ENDS = {"LF": "\n", "CRLF": "\r\n"}
EMPTY = "#N/A"
"""What empties a field; one that is left empty keeps its value."""
ENDED = ("JobComplete", "Failed", "Aborted")


@dataclass
class IngestJob:
    """A job, its rows in their order, and what came of those that were carried out."""

    job_id: str
    operation: str
    object_name: str
    key: str | None
    delimiter: str
    line_end: str
    state: str = "Open"
    text: str | None = None
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    error: str | None = None
    due_at: float | None = None
    """When it will be carried out, on the clock of time.monotonic; None where it never will."""
    told: str = "Open"
    """The state the client was told last, and may act on: in progress once before the end, as in an org."""

    def look(self) -> None:
        """Let the client see the next state."""
        is_over = self.state in ("JobComplete", "Failed")
        self.told = "InProgress" if is_over and self.told == "UploadComplete" else self.state


def create_ingest(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Make a job that waits for its CSV."""
    given = body if isinstance(body, dict) else {}
    operation, key = given.get("operation"), given.get("externalIdFieldName")
    if operation == "hardDelete":
        raise Failure(400, "FEATURENOTENABLED", "hardDelete is not enabled for the user")
    if operation not in ("insert", "update", "upsert", "delete"):
        raise Failure(400, "INVALIDJOB", f"operation is not known: {operation}")
    what = sandbox.store.describe(str(given.get("object")))
    if operation == "upsert":
        held = what.fields.get(str(key))
        if held is None or not (held.external_id or held.kind == "id"):
            raise Failure(400, "INVALIDJOB", f"externalIdFieldName is no external id of {what.name}: {key}")
    if given.get("contentType", "CSV") != "CSV":
        raise Failure(400, "INVALIDJOB", "contentType must be CSV")
    try:
        delimiter = DELIMITERS[given.get("columnDelimiter", "COMMA")]
        line_end = LINE_ENDS[given.get("lineEnding", "LF")]
    except KeyError as error:
        raise Failure(400, "INVALIDJOB", f"not known: {error}") from error
    job_id = f"7505g{sandbox.store.opened:03d}{len(sandbox.ingests) + 1:07d}AAA"
    job = IngestJob(job_id, operation, what.name, key if operation == "upsert" else None, delimiter, line_end)
    sandbox.ingests[job_id] = job
    return JSONResponse(_shown(job, request))


def upload(sandbox: "SalesforceSandbox", request: Request, body: bytes) -> Response:
    """Take the CSV of an open job, once."""
    job = _job(sandbox, request)
    if job.state != "Open":
        raise Failure(400, "INVALIDJOBSTATE", f"Job is {job.state}: it takes no data")
    if job.text is not None:
        raise Failure(400, "CLIENTINPUTERROR", f"Found multiple contents for job: <{job.job_id}>")
    if len(body) > sandbox.upload_limit:
        raise Failure(400, "EXCEEDED_MAX_SIZE_REQUEST", f"more than {sandbox.upload_limit} bytes")
    try:
        job.text = body.decode()
    except UnicodeDecodeError as error:
        raise Failure(400, "CLIENTINPUTERROR", "the data is not UTF-8") from error
    return Response(status_code=201)


def set_state(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Close a job, so that it is carried out, or abort it."""
    job = _job(sandbox, request)
    wanted = body.get("state") if isinstance(body, dict) else None
    if wanted not in ("UploadComplete", "Aborted"):
        raise Failure(400, "INVALIDJOBSTATE", f"a job cannot be set to {wanted}")
    if job.told in ENDED or (wanted == "UploadComplete" and job.told != "Open"):
        raise Failure(400, "INVALIDJOBSTATE", f"a job that is {job.told} cannot be set to {wanted}")
    job.state = job.told = wanted
    if wanted == "Aborted":  # what was carried out until then stays
        job.due_at = None
        _read(job)
        job.error = None
    elif not sandbox.faults.take("stall_ingest"):
        job.due_at = time.monotonic() + sandbox.faults.ingest_delay_s
    return JSONResponse(_shown(job, request))


def show_ingest(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Answer a job's state and counts."""
    job = _job(sandbox, request)
    job.look()
    return JSONResponse(_shown(job, request))


def delete_ingest(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Forget a job that has ended."""
    job = _job(sandbox, request)
    if job.state not in ENDED:
        raise Failure(400, "INVALIDJOBSTATE", f"a job that is {job.state} cannot be deleted")
    sandbox.ingests[job.job_id] = None
    return Response(status_code=204)


def successful(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Answer the rows that were done, with their ids, not in the order they came in."""
    job = _job(sandbox, request)
    rows = [
        [str(done.record_id), str(done.created).lower(), *row] for row, done in _done(job) if not done.error
    ]
    return _csv(job, ["sf__Id", "sf__Created", *job.columns], rows)


def unsuccessful(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Answer the rows that were refused, with the reason, not in the order they came in."""
    job = _job(sandbox, request)
    rows = [[done.record_id or "", _reason(done.error), *row] for row, done in _done(job) if done.error]
    return _csv(job, ["sf__Id", "sf__Error", *job.columns], rows)


def unprocessed(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Answer the rows that an aborted or failed job has not come to."""
    job = _job(sandbox, request)
    return _csv(job, job.columns, job.rows[len(job.outcomes) :] if job.state in ENDED else [])


def carry_out(sandbox: "SalesforceSandbox") -> None:
    """Carry out the jobs that are due, whether or not anybody asks for them."""
    for job in sandbox.ingests.values():
        if job is None or job.due_at is None:
            continue
        if time.monotonic() < job.due_at:
            # Once the server has begun, a client that looks sees it.
            job.state = "InProgress"
            continue
        job.due_at = None
        _carry_out(sandbox, job)


def _carry_out(sandbox: "SalesforceSandbox", job: IngestJob) -> None:
    _read(job)
    if job.error is None:
        what = sandbox.store.describe(job.object_name)
        if unknown := [name for name in job.columns if name not in what.fields]:
            job.error = f"InvalidBatch : Field name not found : {unknown[0]}"
        elif (job.operation in ("update", "delete") or job.key == "Id") and "Id" not in job.columns:
            job.error = "InvalidBatch : Field name not found : Id"
    if job.error is not None:
        job.state = "Failed"
        return
    if sandbox.faults.take("empty_ingest"):
        job.rows, job.state = [], "JobComplete"
        return
    todo, is_failing = job.rows, sandbox.faults.take("fail_ingest")
    if is_failing:
        todo = todo[: sandbox.faults.fail_ingest_rows]
        job.error = "InternalServerError : the job was retried too often"
    writer = Writer(sandbox.store, sandbox.faults)
    for start in range(0, len(todo), CHUNK_ROWS):
        rows = [_row(job, row) for row in todo[start : start + CHUNK_ROWS]]
        job.outcomes += writer.write(rows, job.job_id, is_json=False)
    job.state = "Failed" if is_failing else "JobComplete"


def _read(job: IngestJob) -> None:
    """Read the CSV into columns and rows; the job's error says why where it cannot."""
    text = job.text or ""
    if (job.line_end == "\n") == ("\r\n" in text) and text:
        name = next(name for name, end in LINE_ENDS.items() if end == job.line_end)
        job.error = (
            f"ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {name}"
        )
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=job.delimiter))
    job.columns, job.rows = (lines[0], lines[1:]) if lines else ([], [])
    if any(len(row) != len(job.columns) for row in job.rows):
        job.error = "InvalidBatch : the rows do not have as many columns as the first line"


def _row(job: IngestJob, cells: list[str]) -> Row:
    given = dict(zip(job.columns, cells, strict=True))
    record_id = given.pop("Id", None) or None
    key_value = record_id if job.key == "Id" else given.pop(job.key, None) if job.key else None
    values: dict[str, Any] = {
        name: None if cell == EMPTY else cell for name, cell in given.items() if cell != ""
    }
    return Row(job.operation, job.object_name, values, record_id, job.key, key_value)


def _done(job: IngestJob) -> Iterator[tuple[list[str], Outcome]]:
    """Return the rows carried out with their outcomes, shuffled, the same way every time."""
    if job.state not in ENDED:
        raise Failure(400, "INVALIDJOBSTATE", f"Job is {job.state}: it has no results")
    pairs = list(zip(job.rows, job.outcomes, strict=False))
    random.Random(job.job_id).shuffle(pairs)  # noqa: S311 - no secret
    return iter(pairs)


def _reason(error: RowError) -> str:
    return f"{error.code}:{error.message}:{','.join(error.fields)} --"


def _csv(job: IngestJob, columns: list[str], rows: list[list[str]]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=job.delimiter, quoting=csv.QUOTE_ALL, lineterminator=job.line_end)
    writer.writerow(columns)
    writer.writerows(rows)
    return Response(text.getvalue(), media_type="text/csv")


def _job(sandbox: "SalesforceSandbox", request: Request) -> IngestJob:
    job = sandbox.ingests.get(request.path_params["job_id"])
    if job is None:
        raise Failure(404, "NOT_FOUND", "The requested resource does not exist")
    return job


def _shown(job: IngestJob, request: Request) -> dict[str, Any]:
    version, now = request.path_params["version"], stamp(datetime.now(UTC))
    counted = Counter(done.error is None for done in job.outcomes)
    shown: dict[str, Any] = {
        "id": job.job_id,
        "operation": job.operation,
        "object": job.object_name,
        "createdDate": now,
        "systemModstamp": now,
        "state": job.told,
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": float(version),
        "contentUrl": f"services/data/v{version}/jobs/ingest/{job.job_id}/batches",
        "lineEnding": next(name for name, end in LINE_ENDS.items() if end == job.line_end),
        "columnDelimiter": next(name for name, sign in DELIMITERS.items() if sign == job.delimiter),
        "jobType": "V2Ingest",
        "numberRecordsProcessed": len(job.outcomes),
        "numberRecordsFailed": counted[False],
    }
    if job.key:
        shown["externalIdFieldName"] = job.key
    if job.error:
        shown["errorMessage"] = job.error
    return shown
