"""Reading and merging records of any object type: list, search, by id, in batches, their links to companies."""

import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from include.sandbox import search as searches
from include.sandbox.answers import Failure, batch, missing_scope, record, row_error, secondly_limited
from include.sandbox.store import COMPANIES, FIRST_IDS

if TYPE_CHECKING:
    from include.sandbox.app import Sandbox

BATCH_LIMIT = 100
PAGE_LIMIT = 100
HISTORY_PAGE_LIMIT = 50
LINKS_LIMIT = 1000
# Of the account, whatever the token: https://developers.hubspot.com/docs/api-reference/crm-search-v3/guide
SEARCH_CALLS = 5
SEARCH_WINDOW_S = 1.0
GONE = "Could not get some COMPANY objects, they may be deleted or not exist. Check that ids are valid."
LINK_TYPES = {
    "contacts": (1, 279),
    "deals": (5, 341),
    "tickets": (26, 339),
    "feedback_submissions": (None, 0),
}
"""HubSpot's types of a link to a company: primary, and without a label. Those of feedback submissions it does not tell.

https://developers.hubspot.com/docs/api-reference/crm-associations-v4/guide
"""


def _listed(request: Request, name: str) -> list[str]:
    """Return a list parameter: repeated, or with commas, or both."""
    return [part for value in request.query_params.getlist(name) for part in value.split(",") if part.strip()]


def kind_of(sandbox: "Sandbox", request: Request) -> str:
    """Return the object type of the path; refuse one that is not there, and one the token may not read."""
    kind: str = request.path_params.get("kind", COMPANIES)
    if kind not in FIRST_IDS or kind in sandbox.faults.missing_objects:
        raise Failure(404, "OBJECT_NOT_FOUND", f"Unable to infer object type from: {kind}")
    if kind in sandbox.faults.missing_scopes:
        raise missing_scope(kind)
    return kind


def _is_archived(request: Request) -> bool:
    return request.query_params.get("archived", "false").lower() == "true"


def list_records(sandbox: "Sandbox", request: Request, body: Any) -> Response:
    """List the records of an object type page by page, in order of id."""
    kind = kind_of(sandbox, request)
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
    rows = sandbox.store.page(kind, after, limit + 1, _is_archived(request))
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


def read_record(sandbox: "Sandbox", request: Request, body: Any) -> Response:
    """Answer one record; the id of one that was merged into another is answered with that other one.

    https://developers.hubspot.com/changelog/announcement-deals-now-support-merging
    """
    kind, historic = kind_of(sandbox, request), _listed(request, "propertiesWithHistory")
    row = sandbox.store.find(request.path_params["record_id"], kind, _is_archived(request))
    if row is None:
        raise Failure(404, "OBJECT_NOT_FOUND", "Object not found.")
    histories = sandbox.store.histories([row["id"]], historic) if historic else {}
    with_company = bool({"company", "companies"} & set(_listed(request, "associations")))
    wanted = [*_listed(request, "properties"), *historic]
    return JSONResponse(record(row, wanted, histories.get(row["id"]), with_company))


def search(sandbox: "Sandbox", request: Request, body: Any) -> Response:
    """Search the records of an object type, archived ones aside, in an index that may lag behind what was written."""
    kind, faults = kind_of(sandbox, request), sandbox.faults
    if faults.take("secondly_limited"):
        raise secondly_limited()
    _check_searches(sandbox.searches)
    hidden = [int(each) for each in faults.unindexed_ids] + sandbox.store.written_within(
        faults.search_delay_s
    )
    found = searches.find(sandbox.store, kind, body, hidden)
    wanted = list((body or {}).get("properties") or [])
    answer: dict[str, Any] = {"total": found.total, "results": [record(row, wanted) for row in found.rows]}
    if found.after is not None:
        answer["paging"] = {"next": {"after": found.after}}
    return JSONResponse(answer)


def _check_searches(recent: deque[float]) -> None:
    now = time.monotonic()
    while recent and recent[0] <= now - SEARCH_WINDOW_S:
        recent.popleft()
    if len(recent) >= SEARCH_CALLS:
        raise secondly_limited()
    recent.append(now)


def inputs_of(body: Any, most: int) -> list[dict[str, Any]]:
    """Return the rows of a batch, their ids as text. Raises Failure (400) where they are no batch, or too many."""
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(each, dict) and "id" in each for each in inputs):
        raise Failure(400, "VALIDATION_ERROR", "Invalid input JSON: inputs must be a list of objects with id")
    if len(inputs) > most:
        raise Failure(400, "VALIDATION_ERROR", f"Batch size must be at most {most}")
    inputs = [{**each, "id": str(each["id"])} for each in inputs]
    ids = [each["id"] for each in inputs]
    if doubled := sorted({each for each in ids if ids.count(each) > 1}):
        raise Failure(
            400,
            "VALIDATION_ERROR",
            f"Duplicate IDs found in batch input: [{', '.join(doubled)}]. IDs must be unique",
        )
    return inputs


def read_batch(sandbox: "Sandbox", request: Request, body: Any) -> Response:
    """Answer records by id or by a unique property, with their history on request; those not there share an error.

    https://developers.hubspot.com/docs/api-reference/crm-objects-v3/guide: a batch holds 100 ids, with histories 50.
    """
    started = datetime.now(UTC)
    kind = kind_of(sandbox, request)
    given = body if isinstance(body, dict) else {}
    key = given.get("idProperty")
    if key is not None:
        check_unique(sandbox.store.properties() if kind == COMPANIES else {}, key)
    historic = list(given.get("propertiesWithHistory") or [])
    wanted = [*(given.get("properties") or []), *historic]
    rows: dict[int, Any] = {}
    missing: list[str] = []
    for each in inputs_of(body, HISTORY_PAGE_LIMIT if historic else BATCH_LIMIT):
        named = sandbox.store.holders(key, each["id"], kind) if key is not None else [each["id"]]
        row = sandbox.store.find(named[0], kind, _is_archived(request)) if named else None
        if row is None:
            missing.append(each["id"])
        else:
            rows[row["id"]] = row
    histories = sandbox.store.histories(list(rows), historic) if historic else {}
    found = [record(row, wanted, histories.get(number)) for number, row in rows.items()]
    errors = [row_error("OBJECT_NOT_FOUND", GONE, {"ids": missing})] if missing else []
    return batch(found, errors, started)


def check_unique(properties: dict[str, dict[str, Any]], name: Any) -> None:
    """Refuse a batch that names records by a property that is not of unique values."""
    if not (properties.get(str(name)) or {}).get("hasUniqueValue"):
        raise Failure(400, "VALIDATION_ERROR", f"idProperty {name} is not a property of unique values")


def read_links(sandbox: "Sandbox", request: Request, body: Any) -> Response:
    """Answer the companies of up to 1,000 records (v4); a record of none is an entry of `errors` in a 207.

    Archived and merged records have none.
    """
    started = datetime.now(UTC)
    kind = kind_of(sandbox, request)
    if kind not in LINK_TYPES or request.path_params["to"] not in ("company", COMPANIES):
        raise Failure(
            400, "VALIDATION_ERROR", "The sandbox tells the links of other records to companies alone"
        )
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    noun = kind.removesuffix("s")
    rows = {str(row["id"]): row["company_id"] for row in sandbox.store.linked(kind)}
    for each in inputs_of(body, LINKS_LIMIT):
        company = rows.get(each["id"])
        if company is None:
            said = f"No company is associated with {noun} {each['id']}."
            where = {"fromObjectId": [each["id"]], "fromObjectType": [noun], "toObjectType": ["company"]}
            errors.append(
                row_error("OBJECT_NOT_FOUND", said, where)
                | {"subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND"}
            )
        else:
            to = {"toObjectId": company, "associationTypes": _link_types(kind)}
            results.append({"from": {"id": each["id"]}, "to": [to]})
    return batch(results, errors, started)


def _link_types(kind: str) -> list[dict[str, Any]]:
    primary, unlabeled = LINK_TYPES[kind]
    types = [(primary, "Primary")] if primary is not None else []
    return [
        {"category": "HUBSPOT_DEFINED", "typeId": number, "label": label}
        for number, label in [*types, (unlabeled, None)]
    ]


def merge(sandbox: "Sandbox", request: Request, body: Any) -> Response:
    """Merge one record into another; answers the one that remains.

    https://developers.hubspot.com/docs/api-reference/crm-objects-v3/basic/merge: `primaryObjectId` remains. Where merges are
    made in HubSpot's app a new record takes the place of both: the fault `merge_anew`.
    """
    kind = kind_of(sandbox, request)
    sandbox.calls.writes += 1
    given = body if isinstance(body, dict) else {}
    primary, other = str(given.get("primaryObjectId")), str(given.get("objectIdToMerge"))
    if sandbox.faults.take("server_error"):
        raise Failure(502, "UNKNOWN", "Bad gateway")
    try:
        remains = sandbox.store.merge(primary, other, datetime.now(UTC), kind, sandbox.faults.merge_anew)
    except KeyError as error:
        message = f"Cannot merge {other} into {primary}: {error.args[0]} does not exist or is the same record"
        raise Failure(400, "VALIDATION_ERROR", message) from error
    if sandbox.faults.take("drop_answer"):
        return cut_off()
    row = sandbox.store.find(remains, kind)
    if row is None:
        raise KeyError(remains)
    return JSONResponse(record(row, []))


def archive(sandbox: "Sandbox", request: Request, body: Any) -> Response:
    """Archive a record; answers 204 whether or not it was there, as HubSpot does."""
    sandbox.calls.writes += 1
    record_id = request.path_params["record_id"]
    if record_id.isdecimal():
        sandbox.store.archive(record_id, datetime.now(UTC), request.path_params["kind"])
    return Response(status_code=204)


def cut_off() -> Response:
    """Return an answer that promises a body and ends without one: the connection is closed in the middle."""

    async def nothing() -> Any:
        return
        yield b""

    return StreamingResponse(nothing(), headers={"content-length": "1000"}, media_type="application/json")
