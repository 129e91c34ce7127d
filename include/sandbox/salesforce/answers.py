"""The bodies Salesforce answers with, and its way of writing headers."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from include.sandbox.salesforce.objects import SObject

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
    body["records"] = [_record(row, what, version) for row in rows]
    return JSONResponse(body)


def _record(row: dict[str, Any], what: SObject, version: str) -> dict[str, Any]:
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
        "custom": what.name.endswith("__c"),
        "fields": [
            {
                "name": name,
                "label": name,
                "type": kind,
                "custom": name.endswith("__c"),
                "nillable": name not in ("Id", "IsDeleted", "CreatedDate", "SystemModstamp"),
                "relationshipName": name.removesuffix("Id") if kind == "reference" else None,
            }
            for name, kind in what.fields.items()
        ],
    }


def cut_off(body: bytes, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that promises more than it gives: the connection is closed in the middle."""

    async def half() -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]

    promised = {"content-length": str(len(body) + 1)} | (headers or {})
    return StreamingResponse(half(), headers=promised, media_type="text/csv")
