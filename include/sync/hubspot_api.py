"""HubSpot's CRM API through its official client: limited, patient, and honest about calls without an answer."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from hubspot import HubSpot
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInput as UpdateBatch
from hubspot.crm.companies import BatchReadInputSimplePublicObjectId as ReadBatch
from hubspot.crm.companies import SimplePublicObjectBatchInput as UpdateInput
from hubspot.crm.companies import SimplePublicObjectId as RecordId
from hubspot.crm.companies.exceptions import ApiException as CompaniesError
from hubspot.crm.objects import PublicObjectSearchRequest as SearchRequest
from hubspot.crm.objects.exceptions import ApiException as ObjectsError
from hubspot.crm.properties import PropertyCreate, PropertyGroupCreate
from hubspot.crm.properties.exceptions import ApiException as PropertiesError

from include.connections import ApiConnection
from include.errors import StratumError, TransientError
from include.sync.limits import Alone, Limiter, limiter

VENDOR_HOST = "https://api.hubapi.com"
BATCH_SIZE = 100
HISTORY_PAGE_SIZE = 50  # a page with histories holds no more
# HubSpot's usage guidelines: a private app of a Professional or Enterprise account. An account with a
# smaller limit answers 429, which is waited out.
BURST_CALLS = 190
BURST_WINDOW_S = 10.5  # HubSpot's is 10, counted when a call arrives: a little after we count it
TIMEOUT_S = (5.0, 60.0)  # to connect, and to answer
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)
LOCKED_S = 2.0  # HubSpot's documented duration of a 423
RATE_PATIENCE_S = 120.0  # twelve windows; a limit that lasts longer is the daily one
TURNED_AWAY = (423, 429, 477)  # answered before anything was done: locked, rate limited, migrating


class Refused(Exception):
    """The CRM answered no: `status` is the HTTP status, the text is its reason without any secret."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status


class NoAnswer(Exception):
    """The CRM did not answer, or not sensibly: whether it did what was asked is not known."""


def unreachable(error: Refused | NoAnswer, wish: str) -> StratumError:
    """Return the error for the user where HubSpot did not do `wish` ("let Stratum ...")."""
    if isinstance(error, NoAnswer) or error.status in TURNED_AWAY:
        return TransientError(f"HubSpot did not {wish} ({error}). Is it up? Try again later.")
    return StratumError(
        f"HubSpot did not {wish} ({error}). Check the token and its scopes in the connection."
    )


@dataclass(frozen=True)
class RowUpdate:
    """One record of a batch update: its id, the properties to set, and the id the CRM gives back with it."""

    record_id: str
    values: dict[str, str]
    trace_id: str


class HubSpotApi:
    """The records of one HubSpot account, and the property definitions of companies. `calls` counts requests made."""

    def __init__(
        self,
        connection: ApiConnection,
        limiter: Limiter | Alone,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = connection.host or VENDOR_HOST
        self.limiter = limiter
        self.sleep = sleep
        self.calls = 0
        # retry=False: the client would repeat GETs by itself, past our limiter.
        client = HubSpot(access_token=connection.token, host=self.host, retry=False)
        self._objects = client.crm.objects.basic_api
        self._search = client.crm.objects.search_api
        self._batch = client.crm.companies.batch_api
        self._definitions = client.crm.properties.core_api
        self._groups = client.crm.properties.groups_api

    def pages(
        self, kind: str, historic: list[str], associations: list[str], archived: bool
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the records of an object type page by page as HubSpot's JSON.

        `historic` properties come with their past values, `associations` are the object types whose linked
        record ids come along.
        """
        after: str | None = None
        while True:
            body = self._call(
                self._objects.get_page,
                kind,
                limit=HISTORY_PAGE_SIZE,
                after=after,
                properties_with_history=historic,
                associations=associations,
                archived=archived,
            )
            yield body["results"]
            after = ((body.get("paging") or {}).get("next") or {}).get("after")
            if not after:
                return

    def newest(self, kind: str) -> tuple[int, str | None]:
        """Return how many records of an object type there are, archived ones aside, and when the newest was created."""
        last = SearchRequest(
            filter_groups=[],
            sorts=[{"propertyName": "hs_object_id", "direction": "DESCENDING"}],
            properties=[],
            limit=1,
        )
        body = self._call(self._search.do_search, kind, last)
        return body["total"], next((each["createdAt"] for each in body["results"]), None)

    def read(self, record_ids: list[str], wanted: list[str]) -> dict[str, dict[str, str | None]]:
        """Return record id → wanted properties of up to 100 companies; unknown and archived ones are left out."""
        body = self._call(
            self._batch.read,
            ReadBatch(
                inputs=[RecordId(id=each) for each in record_ids],
                properties=wanted,
                properties_with_history=[],
            ),
        )
        return {each["id"]: each["properties"] for each in body["results"]}

    def update(self, rows: list[RowUpdate]) -> dict[str, Any]:
        """Update up to 100 companies by record id and return HubSpot's JSON, rows and refusals.

        Raises NoAnswer at once where the answer is lost: only reading can tell whether it was done.
        """
        inputs = [
            UpdateInput(id=row.record_id, properties=row.values, object_write_trace_id=row.trace_id)
            for row in rows
        ]
        return self._call(self._batch.update, UpdateBatch(inputs=inputs), repeatable=False)

    def properties(self) -> dict[str, str]:
        """Return the name → type of every property companies have."""
        return {each["name"]: each["type"] for each in self.definitions("companies")}

    def definitions(self, kind: str) -> list[dict[str, Any]]:
        """Return the property definitions of an object type as HubSpot's JSON."""
        return self._call(self._definitions.get_all, kind)["results"]

    def create_group(self, name: str, label: str) -> None:
        """Create a property group, unless it is there."""
        wanted = PropertyGroupCreate(name=name, label=label)
        self._create(self._groups.create, wanted)

    def create_property(self, definition: PropertyCreate) -> None:
        """Create a property of companies, unless it is there."""
        self._create(self._definitions.create, definition)

    def _create(self, create: Callable[..., Any], wanted: Any) -> None:
        try:
            self._call(create, "companies", wanted)
        except Refused as refused:
            if refused.status != 409:  # it exists: somebody was faster, or an answer was lost
                raise

    def _call(
        self, request: Callable[..., Any], *arguments: Any, repeatable: bool = True, **options: Any
    ) -> dict[str, Any]:
        """Make one request, waiting out rate limits; a repeatable one also outlives server faults.

        Raises Refused for a no of the CRM, NoAnswer where it is not known what the CRM did.
        """
        waited = 0.0
        backoff = iter(BACKOFF_S)
        while True:
            self.limiter.take()
            self.calls += 1
            try:
                # The raw answer: the client's models refuse HubSpot's own 207, which lacks `links`.
                response = request(*arguments, **options, _preload_content=False, _request_timeout=TIMEOUT_S)
                # A NUL is text to JSON and none to PostgreSQL.
                text = response.data.replace(b"\\u0000", b"\\ufffd")
                return json.loads(text) if text else {}
            except (CompaniesError, ObjectsError, PropertiesError) as error:
                status = int(error.status or 0)
                reason = _reason(error)
                if status in TURNED_AWAY:
                    wait = _wait(error, status)
                    waited += wait
                    if waited > RATE_PATIENCE_S or "DAILY" in reason:
                        raise Refused(status, reason) from None
                    self.limiter.block(wait)
                    continue
                if 400 <= status < 500:
                    raise Refused(status, reason) from None
            except (urllib3.exceptions.HTTPError, ValueError, AttributeError) as error:
                # AttributeError: the client trips over its own TLS errors, which have no body.
                reason = type(error).__name__
            pause = next(backoff, None)
            if not repeatable or pause is None:
                raise NoAnswer(reason)
            self.sleep(pause)


def _reason(error: CompaniesError | ObjectsError | PropertiesError) -> str:
    """Return the CRM's own words: message, and the policy of a rate limit."""
    try:
        body = json.loads(error.body or "{}")
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    said = " ".join(str(body[key]) for key in ("message", "policyName") if body.get(key))
    return said or str(error.reason or "no reason given")


def _wait(error: CompaniesError | ObjectsError | PropertiesError, status: int) -> float:
    """Return the seconds to wait before a call that was turned away is made again."""
    given = (error.headers or {}).get("Retry-After", "")
    try:
        return max(0.0, float(given))
    except ValueError:
        return LOCKED_S if status == 423 else BURST_WINDOW_S


@contextmanager
def hubspot(
    connection: ApiConnection,
    role: str,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[HubSpotApi]:
    """Open HubSpot for a warehouse role; all tasks with the same token share its burst limit, as HubSpot counts."""
    app = hashlib.sha256(connection.token.encode()).hexdigest()[:12]
    org = f"hubspot:{urlsplit(connection.host or VENDOR_HOST).netloc}:{app}"
    with limiter(role, org, BURST_CALLS, BURST_WINDOW_S, clock, sleep) as shared:
        yield HubSpotApi(connection, shared, sleep)
