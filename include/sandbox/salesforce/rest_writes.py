"""The REST calls that write: single records, collections of up to 200, and custom fields over the Tooling API."""

import re
import sqlite3
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from include.sandbox.salesforce.answers import API, Failure, record
from include.sandbox.salesforce.objects import Field, SObject
from include.sandbox.salesforce.store import UnknownField
from include.sandbox.salesforce.writes import Outcome, Row, RowError

if TYPE_CHECKING:
    from include.sandbox.salesforce.app import SalesforceSandbox

COLLECTION_LIMIT = 200
CHUNK_LIMIT = 10
MISSING = "The requested resource does not exist"
FIELD_NAME = re.compile(r"(?P<object>\w+)\.(?P<name>[A-Za-z][A-Za-z0-9_]{0,39}__c)")
CUSTOM_KINDS = {
    "Text": "string",
    "LongTextArea": "textarea",
    "Number": "double",
    "Currency": "currency",
    "Percent": "percent",
    "Checkbox": "boolean",
    "Date": "date",
    "DateTime": "datetime",
    "Picklist": "picklist",
    "Email": "email",
}
"""Type of a custom field, as the Tooling API names it → its kind."""


def create(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Make a record: 201 with its id."""
    name = request.path_params["name"]
    (done,) = sandbox.write(request, [Row("insert", name, _single_values(body))])
    return _single(done) or JSONResponse(_result(done), status_code=201)


def update(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Change a record: 204."""
    row = Row("update", request.path_params["name"], _single_values(body), request.path_params["record_id"])
    (done,) = sandbox.write(request, [row])
    return _single(done) or Response(status_code=204)


def delete(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Move a record to the recycle bin: 204."""
    row = Row("delete", request.path_params["name"], {}, request.path_params["record_id"])
    (done,) = sandbox.write(request, [row])
    return _single(done) or Response(status_code=204)


def upsert(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Make or change the record of an external id: 201 or 200; 300 with their addresses where more than one has it."""
    name, field, value = (request.path_params[each] for each in ("name", "field", "value"))
    _check_key(sandbox, name, field)
    found = sandbox.store.holders(name, field, value)
    if len(found) > 1:
        version = request.path_params["version"]
        return JSONResponse([f"{API.format(version=version)}/sobjects/{name}/{each}" for each in found], 300)
    (done,) = sandbox.write(request, [Row("upsert", name, _single_values(body), key=field, key_value=value)])
    return _single(done) or JSONResponse(
        _result(done) | {"created": done.created}, status_code=201 if done.created else 200
    )


def show(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Answer a record by its id."""
    what = sandbox.store.describe(request.path_params["name"])
    found = _seen(sandbox, what, request.path_params["record_id"], list(what.fields))
    if found is None:
        raise Failure(404, "NOT_FOUND", MISSING)
    return JSONResponse(record(found, what, request.path_params["version"]))


def collection_read(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Answer records by id, null in the place of those that are not there."""
    what = sandbox.store.describe(request.path_params["name"])
    ids, fields = _listed(body, "ids"), _listed(body, "fields")
    if unknown := sorted(set(fields) - set(what.fields)):
        raise UnknownField(f"No such column '{unknown[0]}' on entity '{what.name}'.")
    found = [_seen(sandbox, what, str(each), ["Id", *fields]) for each in ids]
    version = request.path_params["version"]
    return JSONResponse([each and record(each, what, version) for each in found])


def collection_create(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Make up to 200 records; answers one result each, in order."""
    rows = [Row("insert", _type(each), _values(each), _id(each)) for each in _records(body)]
    return _results(sandbox, request, rows, bool(body.get("allOrNone")))


def collection_update(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Change up to 200 records by id; answers one result each, in order."""
    if (spoiled := _struck(sandbox, [_id(each) for each in _records(body)])) is not None:
        return spoiled
    rows = [Row("update", _type(each), _values(each), _id(each)) for each in _records(body)]
    return _results(sandbox, request, rows, bool(body.get("allOrNone")))


def collection_upsert(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Make or change up to 200 records of one type by their external id; answers one result each, in order."""
    name, key = request.path_params["name"], request.path_params["field"]
    _check_key(sandbox, name, key)
    rows = []
    for each in _records(body):
        values = _values(each)
        value = _id(each) if key == "Id" else values.pop(key, None)
        rows.append(Row("upsert", name, values, key=key, key_value=value))
    if (spoiled := _struck(sandbox, [row.key_value for row in rows])) is not None:
        return spoiled
    return _results(sandbox, request, rows, bool(body.get("allOrNone")))


def collection_delete(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Move up to 200 records to the recycle bin; their types are told by the first letters of their ids."""
    ids = [each for each in request.query_params.get("ids", "").split(",") if each]
    _check_size(len(ids))
    prefixes = {each.prefix: each.name for each in sandbox.store.types.values()}
    rows = [Row("delete", prefixes.get(each[:3], "Account"), {}, each) for each in ids]
    all_or_none = request.query_params.get("allOrNone", "false").lower() == "true"
    return _results(sandbox, request, rows, all_or_none)


def create_field(sandbox: "SalesforceSandbox", request: Request, body: Any) -> Response:
    """Make a custom field; nobody sees it before a record of FieldPermissions grants it."""
    given = body if isinstance(body, dict) else {}
    told = given.get("Metadata") or {}
    named = FIELD_NAME.fullmatch(str(given.get("FullName")))
    if named is None or named["object"] not in sandbox.store.types:
        raise Failure(400, "FIELD_INTEGRITY_EXCEPTION", f"bad FullName: {given.get('FullName')}")
    kind = CUSTOM_KINDS.get(str(told.get("type")))
    if kind is None or (kind == "string" and not 1 <= int(told.get("length") or 0) <= 255):
        raise Failure(400, "FIELD_INTEGRITY_EXCEPTION", "type or length of the field is missing or not known")
    value_set = told.get("valueSet") or {}
    values = [each["fullName"] for each in (value_set.get("valueSetDefinition") or {}).get("value", [])]
    field = Field(
        kind,
        int(told.get("length") or 0),
        required=bool(told.get("required")),
        unique=bool(told.get("unique")),
        external_id=bool(told.get("externalId")),
        values=tuple(values) if value_set.get("restricted") else (),
    )
    try:
        sandbox.store.add_field(named["object"], named["name"], field)
    except sqlite3.IntegrityError as error:
        name = named["name"].removesuffix("__c")
        raise Failure(
            400, "DUPLICATE_DEVELOPER_NAME", f"There is already a field named {name} on {named['object']}."
        ) from error
    answer = {"id": f"00N5g{len(sandbox.store.types[named['object']].fields):010d}AAA", "success": True}
    return JSONResponse(answer | {"errors": [], "warnings": [], "infos": []}, status_code=201)


def failed(error: RowError) -> Response:
    """Return the answer to a call for one row that was refused."""
    is_of_id = error.fields in ([], ["Id"])
    if is_of_id and error.code in ("INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID"):
        return Failure(404, "NOT_FOUND", MISSING).response()
    body = {"message": error.message, "errorCode": error.code, "fields": error.fields}
    is_gone = is_of_id and error.code == "ENTITY_IS_DELETED"
    return JSONResponse([body], status_code=404 if is_gone else 400)


def _single(done: Outcome) -> Response | None:
    return failed(done.error) if done.error else None


def _result(done: Outcome) -> dict[str, Any]:
    if done.error is None:
        return {"id": done.record_id, "success": True, "errors": []}
    error = {"statusCode": done.error.code, "message": done.error.message, "fields": done.error.fields}
    named = {"id": done.record_id} if done.record_id else {}
    return named | {"success": False, "errors": [error]}


def _struck(sandbox: "SalesforceSandbox", named: list[Any]) -> Response | None:
    """Return the answer to a collection that is not carried out, None where it is; refuse one that may not be."""
    if any(each in sandbox.faults.reject_ids for each in named):
        raise Failure(400, "JSON_PARSER_ERROR", "refused by a fault of the sandbox")
    return JSONResponse([]) if sandbox.faults.take("empty_results") else None


def _results(
    sandbox: "SalesforceSandbox", request: Request, rows: list[Row], all_or_none: bool
) -> JSONResponse:
    done = sandbox.write(request, rows, all_or_none)
    is_upsert = bool(rows) and rows[0].operation == "upsert"
    return JSONResponse([_result(each) | ({"created": each.created} if is_upsert else {}) for each in done])


def _records(body: Any) -> list[dict[str, Any]]:
    records = body.get("records") if isinstance(body, dict) else None
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise Failure(400, "MISSING_ARGUMENT", "records: a list of records is needed")
    _check_size(len(records))
    types = [_type(each) for each in records]
    if sum(here != before for here, before in zip(types, [None, *types], strict=False)) > CHUNK_LIMIT:
        raise Failure(
            400,
            "LIMIT_EXCEEDED",
            f"Cannot have more than {CHUNK_LIMIT} chunks in a single operation. Please rearrange the data to reduce "
            "chunking.",
        )
    return records


def _check_size(records: int) -> None:
    if records > COLLECTION_LIMIT:
        raise Failure(
            400,
            "EXCEEDED_ID_LIMIT",
            f"record limit reached. cannot submit more than {COLLECTION_LIMIT} records in this call",
        )


def _type(each: dict[str, Any]) -> str:
    attributes = each.get("attributes")
    if not isinstance(attributes, dict) or not isinstance(attributes.get("type"), str):
        raise Failure(400, "INVALID_TYPE", "each record needs attributes with its type")
    return attributes["type"]


def _id(each: dict[str, Any]) -> str | None:
    return each.get("id") or each.get("Id")


def _values(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Failure(400, "JSON_PARSER_ERROR", "a JSON object of fields is needed")
    return {name: value for name, value in body.items() if name not in ("attributes", "id", "Id")}


def _single_values(body: Any) -> dict[str, Any]:
    values = _values(body)
    if _id(body):
        raise Failure(400, "INVALID_FIELD", "The Id field should not be specified in the sobject data.")
    return values


def _listed(body: Any, name: str) -> list[Any]:
    values = body.get(name) if isinstance(body, dict) else None
    if not isinstance(values, list):
        raise Failure(400, "MISSING_ARGUMENT", f"{name}: a list is needed")
    return values


def _check_key(sandbox: "SalesforceSandbox", name: str, field: str) -> None:
    held = sandbox.store.describe(name).fields.get(field)
    if held is None or not (held.external_id or held.kind == "id"):
        raise Failure(
            404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}"
        )


def _seen(
    sandbox: "SalesforceSandbox", what: SObject, record_id: str, fields: list[str]
) -> dict[str, Any] | None:
    try:
        held = sandbox.store.row(record_id if len(record_id) == 18 else f"{record_id}AAA")
    except KeyError:
        return None
    if held["object"] != what.name or held["values"]["IsDeleted"]:
        return None
    return {name: held["values"].get(name) for name in fields}
