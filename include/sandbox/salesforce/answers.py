"""The bodies Salesforce answers with, and its way of writing headers."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from include.sandbox.salesforce.objects import SYSTEM_FIELDS, SObject

API = "/services/data/v{version}"


class Failure(Exception):
    """A call that is refused: HTTP status, Salesforce's error code, message, optional headers."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def response(self) -> Response:
        """Return it as an HTTP answer: a list of one error."""
        body = [{"message": self.message, "errorCode": self.code}]
        return JSONResponse(body, status_code=self.status, headers=self.headers)


def titled(response: Response) -> Response:
    """Return the answer with its headers in Title-Case, which is how Salesforce writes them."""
    response.raw_headers = [
        (b"-".join(part.capitalize() for part in name.split(b"-")), value)
        for name, value in response.raw_headers
    ]
    return response


def soap(status: int, inner: str) -> Response:
    """Return a SOAP envelope around an element."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
        'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com" '
        'xmlns:sf="urn:fault.partner.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Body>{inner}</soapenv:Body></soapenv:Envelope>"
    )
    return Response(text, status_code=status, media_type="text/xml")


def page(
    rows: list[dict[str, Any]], what: SObject, version: str, total: int, following: str | None
) -> JSONResponse:
    """Return a page of a REST query; `following` is the address of the next one."""
    body: dict[str, Any] = {"totalSize": total, "done": following is None}
    if following is not None:
        body["nextRecordsUrl"] = following
    body["records"] = [record(row, what, version) for row in rows]
    return JSONResponse(body)


def record(row: dict[str, Any], what: SObject, version: str) -> dict[str, Any]:
    """Return a record as REST writes it: its attributes, and the fields of parents within them."""
    address = f"{API.format(version=version)}/sobjects/{what.name}/{row.get('Id', '')}"
    shown: dict[str, Any] = {"attributes": {"type": what.name, "url": address}}
    for path, value in row.items():
        relationship, dot, name = path.rpartition(".")
        if dot:
            shown.setdefault(relationship, {"attributes": {"type": what.parents[relationship]}})[name] = value
        else:
            shown[path] = value
    return shown


def bulk_csv(rows: list[dict[str, Any]], fields: tuple[str, ...], line_end: str) -> str:
    """Return rows as Bulk 2.0 writes them: all quoted, numbers with a decimal point, instants with Z, null empty."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=line_end)
    writer.writerow(fields)
    writer.writerows([_bulk_value(row[name]) for name in fields] for row in rows)
    return text.getvalue()


def _bulk_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(float(value))
    return value.removesuffix("+0000") + "Z" if str(value).endswith("+0000") else str(value)


def described(what: SObject) -> dict[str, Any]:
    """Return the describe of an object type, as far as clients read it."""
    return {
        "name": what.name,
        "label": what.name,
        "keyPrefix": what.prefix,
        "queryable": True,
        "createable": what.writable,
        "updateable": what.writable,
        "deletable": what.writable,
        "custom": what.name.endswith("__c"),
        "fields": [
            {
                "name": name,
                "label": name,
                "type": field.kind,
                "length": field.longest,
                "custom": name.endswith("__c"),
                "createable": what.writable and field.writable,
                "updateable": what.writable and field.writable,
                "externalId": field.external_id,
                "unique": field.unique,
                "nillable": name not in SYSTEM_FIELDS and not field.required,
                "restrictedPicklist": bool(field.values),
                "picklistValues": [
                    {"value": each, "label": each, "active": True, "defaultValue": False}
                    for each in field.values
                ],
                "relationshipName": name.removesuffix("Id") if field.kind == "reference" else None,
            }
            for name, field in what.fields.items()
        ],
    }


def cut_off(response: Response) -> Response:
    """Return an answer that promises more than it gives: the connection is closed in the middle."""
    body = bytes(response.body)

    async def half() -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]

    promised = dict(response.headers) | {"content-length": str(len(body) + 1)}
    # An answer of status 204 cannot promise a body.
    status = 200 if response.status_code == 204 else response.status_code
    return StreamingResponse(half(), status, headers=promised)
