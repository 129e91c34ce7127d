"""The bodies HubSpot answers with, as its documentation and its users' reports show them."""

import json
import sqlite3
import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse

from include.sandbox.store import stamp

MODIFIED = {"contacts": "lastmodifieddate"}
"""The property that tells when a record was last modified; of all other object types it is hs_lastmodifieddate."""


class Failure(Exception):
    """A request the CRM refuses as a whole: HTTP status, category, message, optional context and headers."""

    def __init__(
        self, status: int, category: str, message: str, headers: dict[str, str] | None = None, **body: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = {
            "status": "error",
            "message": message,
            "correlationId": str(uuid.uuid4()),
            "category": category,
        } | body

    def response(self) -> JSONResponse:
        """Return it as an HTTP answer."""
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


def rate_limited(retry_after: int | None) -> Failure:
    """Return the 429 of the ten-second window; it carries Retry-After only now and then."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    failure = Failure(
        429,
        "RATE_LIMITS",
        "You have reached your ten_secondly_rolling limit.",
        headers,
        errorType="RATE_LIMIT",
        policyName="TEN_SECONDLY_ROLLING",
        groupName="publicapi:private-app-api-calls-ten-secondly",
    )
    del failure.body["category"]  # HubSpot's 429 has an errorType in its place
    return failure


def secondly_limited() -> Failure:
    """Return the 429 of the search's own limit, which is by the second and of the account."""
    failure = rate_limited(None)
    failure.body |= {"message": "You have reached your secondly limit.", "policyName": "SECONDLY"}
    return failure


def expired() -> Failure:
    """Return the 401 of a token that was valid once."""
    return Failure(
        401,
        "EXPIRED_AUTHENTICATION",
        "The OAuth token used to make this call expired. Get a new one and try again.",
    )


def invalid_property(name: str, error: str, message: str) -> str:
    """Return the message of a refused property value: prose around a JSON list, as HubSpot writes it."""
    detail = {"isValid": False, "message": message, "error": error, "name": name}
    return f"Property values were not valid: [{json.dumps(detail)}]"


def row_error(category: str, message: str, context: dict[str, list[str]]) -> dict[str, Any]:
    """Return one entry of `errors` in a 207. HubSpot sends neither `links` nor `errors` in it."""
    return {"status": "error", "category": category, "message": message, "context": context}


def missing_scope(kind: str) -> Failure:
    """Return the 403 of a token that may not read an object type."""
    return Failure(
        403,
        "MISSING_SCOPES",
        "This app hasn't been granted all required scopes to make this call. "
        "Read more about required scopes here: https://developers.hubspot.com/scopes.",
        errors=[
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": [f"crm.objects.{kind}.read"]},
            }
        ],
        links={"scopes": "https://developers.hubspot.com/scopes"},
    )


def record(
    row: sqlite3.Row,
    wanted: list[str],
    history: dict[str, list[sqlite3.Row]] | None = None,
    with_company: bool = False,
) -> dict[str, Any]:
    """Return a record as HubSpot shows it: the wanted properties, unset ones null; `associations` only if it has any."""
    modified = MODIFIED.get(row["kind"], "hs_lastmodifieddate")
    held = json.loads(row["properties"]) | {modified: row["updated_at"]}
    names = [*wanted, "createdate", modified, "hs_object_id"]
    body: dict[str, Any] = {
        "id": str(row["id"]),
        "properties": {name: held.get(name) for name in dict.fromkeys(names)},
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "archived": row["archived_at"] is not None,
    }
    if row["archived_at"] is not None:
        body["archivedAt"] = row["archived_at"]
    elif with_company and row["company_id"] is not None:
        body["associations"] = {"companies": {"results": _company_links(row["kind"], row["company_id"])}}
    if history is not None:
        body["propertiesWithHistory"] = {
            name: [
                {"value": entry["value"], "timestamp": entry["changed_at"], "sourceType": "API"}
                for entry in entries
            ]
            for name, entries in history.items()
        }
    return body


def _company_links(kind: str, company_id: int) -> list[dict[str, str]]:
    """Return the links to a primary company: HubSpot names it twice, once for the label and once without one."""
    link = f"{kind.removesuffix('s')}_to_company"
    return [{"id": str(company_id), "type": link}, {"id": str(company_id), "type": f"{link}_unlabeled"}]


def batch(results: list[dict[str, Any]], errors: list[dict[str, Any]], started: datetime) -> JSONResponse:
    """Return a batch answer: 200, or 207 where rows were refused."""
    body: dict[str, Any] = {
        "status": "COMPLETE",
        "results": results,
        "startedAt": stamp(started),
        "completedAt": stamp(datetime.now(UTC)),
    }
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    return JSONResponse(body, status_code=207 if errors else 200)
