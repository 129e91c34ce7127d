"""HubSpot's CRM API through its official client: limited, patient, and honest about calls without an answer."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeAlias

import urllib3
from hubspot import HubSpot
from hubspot.crm.associations.v4 import BatchInputPublicFetchAssociationsBatchRequest as LinksBatch
from hubspot.crm.associations.v4 import PublicFetchAssociationsBatchRequest as LinksOf
from hubspot.crm.associations.v4.exceptions import ApiException as AssociationsError
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInput as UpdateBatch
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInputUpsert as UpsertBatch
from hubspot.crm.companies import BatchReadInputSimplePublicObjectId as ReadBatch
from hubspot.crm.companies import SimplePublicObjectBatchInput as UpdateInput
from hubspot.crm.companies import SimplePublicObjectBatchInputUpsert as UpsertInput
from hubspot.crm.companies import SimplePublicObjectId as RecordId
from hubspot.crm.companies.exceptions import ApiException as CompaniesError
from hubspot.crm.objects import BatchReadInputSimplePublicObjectId as ReadObjects
from hubspot.crm.objects import Filter, FilterGroup
from hubspot.crm.objects import PublicObjectSearchRequest as SearchRequest
from hubspot.crm.objects import SimplePublicObjectId as ObjectId
from hubspot.crm.objects.exceptions import ApiException as ObjectsError
from hubspot.crm.properties import PropertyCreate, PropertyGroupCreate
from hubspot.crm.properties.exceptions import ApiException as PropertiesError

from include.connections import ApiConnection
from include.errors import StratumError, TransientError
from include.sync.limits import Alone, Limiter, Limits, limiter, org_of
from include.sync.patience import Patience
from include.sync.target import TURNED_AWAY, NoAnswer, Refused, Row, found_among
from include.sync.trickle import read_whole

VENDOR_HOST = "https://api.hubapi.com"
BATCH_SIZE = 100
HISTORY_PAGE_SIZE = 50  # a page with histories, and a batch of them, holds no more
# https://developers.hubspot.com/docs/api-reference/crm-search-v3/guide: a page of 200, five requests a second for each
# account, no more than 10,000 records to a query, one sorting rule, archived records never, and "it may take a few
# moments for newly created or updated CRM objects to appear in search results".
SEARCH_PAGE_SIZE = 200
SEARCHES = Limits(burst=5, window_s=1.1)
# https://developers.hubspot.com/changelog/bug-fix-batch-read-limit-for-hubspot-associations-api
LINKS_BATCH_SIZE = 1000
MODIFIED = {"contacts": "lastmodifieddate"}
"""The property of an object type that says when a record was last modified; of the others hs_lastmodifieddate."""
PRIMARY_COMPANY = {"contacts": 1, "deals": 5, "tickets": 26}
"""HubSpot's own type of the link from a record to its primary company; feedback submissions have no such type.

https://developers.hubspot.com/docs/api-reference/crm-associations-v4/guide
"""
# https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines: a private app of a Professional or
# Enterprise account. An account with a smaller limit answers 429, which is waited out.
BURST_WINDOW_S = 10.5  # HubSpot's is 10, counted when a call arrives: a little after we count it
# The day is that of the smallest plan; X-HubSpot-RateLimit-Daily tells what the account has.
LIMITS = Limits(burst=190, window_s=BURST_WINDOW_S, daily=250_000)
TIMEOUT_S = (5.0, 60.0)  # to connect, and to answer
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)
LOCKED_S = 2.0  # HubSpot's documented duration of a 423
SECOND_S = 1.1  # a 429 of the limit by the second is over by then
BY_THE_SECOND = " SECONDLY"  # policyName of a 429; the burst's is TEN_SECONDLY_ROLLING
API_ERRORS = (AssociationsError, CompaniesError, ObjectsError, PropertiesError)
ApiError: TypeAlias = AssociationsError | CompaniesError | ObjectsError | PropertiesError


def unreachable(error: Refused | NoAnswer, wish: str) -> StratumError:
    """Return the error for the user where HubSpot did not do `wish` ("let Stratum ...")."""
    if isinstance(error, NoAnswer) or error.status in TURNED_AWAY:
        return TransientError(f"HubSpot did not {wish} ({error}). Is it up? Try again later.")
    return StratumError(
        f"HubSpot did not {wish} ({error}). Check the token and its scopes in the connection."
    )


class HubSpotApi:
    """The records of one HubSpot account, and the property definitions of companies. `calls` counts requests made."""

    def __init__(
        self,
        connection: ApiConnection,
        limiter: Limiter | Alone,
        sleep: Callable[[float], None] = time.sleep,
        search_limiter: Limiter | Alone | None = None,
    ) -> None:
        self.host = connection.host or VENDOR_HOST
        self.limiter = limiter
        self.search_limiter = search_limiter or limiter
        self.sleep = sleep
        self.calls = 0
        # retry=False: the client would repeat GETs by itself, past our limiter.
        client = HubSpot(access_token=connection.token, host=self.host, retry=False)
        self._objects = client.crm.objects.basic_api
        self._search_api = client.crm.objects.search_api
        self._objects_batch = client.crm.objects.batch_api
        self._links = client.crm.associations.v4.batch_api
        self._batch = client.crm.companies.batch_api
        # Without it the client makes a configuration of its own for each row, a seventh of the time of a batch.
        self._shared = {"local_vars_configuration": self._batch.api_client.configuration}
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
        body = self._search(kind, last)
        return body["total"], next((each["createdAt"] for each in body["results"]), None)

    def modified_since(self, kind: str, since: datetime) -> set[str]:
        """Return the ids of the records, archived ones aside, that were modified at a moment or later.

        Each query begins where the page before ended, in order of modification: a record that is modified meanwhile
        moves to the end and is found there, where pages by number would lose the one that takes its place, and no
        query comes near its 10,000 records. More than a page of one millisecond is read in order of id.
        """
        name = MODIFIED.get(kind, "hs_lastmodifieddate")
        start, found = int(since.timestamp() * 1000), set[str]()
        while True:
            page = self._found(kind, [_filter(name, "GTE", start)], name)
            found.update(each["id"] for each in page)
            if len(page) < SEARCH_PAGE_SIZE:
                return found
            last = int(datetime.fromisoformat(page[-1]["properties"][name]).timestamp() * 1000)
            if last > start:
                start = last
            else:
                found |= self._modified_at(kind, name, start)
                start += 1

    def _modified_at(self, kind: str, name: str, moment: int) -> set[str]:
        """Return the ids of the records that were modified in one millisecond, however many."""
        found, last = set[str](), "0"
        while True:
            filters = [_filter(name, "EQ", moment), _filter("hs_object_id", "GT", last)]
            page = self._found(kind, filters, "hs_object_id")
            found.update(each["id"] for each in page)
            if len(page) < SEARCH_PAGE_SIZE:
                return found
            last = page[-1]["id"]

    def _found(self, kind: str, filters: list[Filter], sorted_by: str) -> list[dict[str, Any]]:
        """Return the first page of what all filters let through."""
        wanted = SearchRequest(
            filter_groups=[FilterGroup(filters=filters)],
            sorts=[{"propertyName": sorted_by, "direction": "ASCENDING"}],
            properties=[sorted_by],
            limit=SEARCH_PAGE_SIZE,
        )
        return self._search(kind, wanted)["results"]

    def _search(self, kind: str, wanted: SearchRequest) -> dict[str, Any]:
        return self._call(self._search_api.do_search, kind, wanted, limiter=self.search_limiter)

    def records(self, kind: str, record_ids: list[str], historic: list[str]) -> Iterator[dict[str, Any]]:
        """Yield records by id as HubSpot's JSON, with the past values of `historic`; no links to others.

        Left out are unknown and archived ones. One that was merged into another may come as that other one.
        """
        for start in range(0, len(record_ids), HISTORY_PAGE_SIZE):
            wanted = ReadObjects(
                inputs=[ObjectId(id=each) for each in record_ids[start : start + HISTORY_PAGE_SIZE]],
                properties=[],
                properties_with_history=historic,
            )
            yield from self._call(self._objects_batch.read, kind, wanted)["results"]

    def companies_of(self, kind: str, record_ids: list[str]) -> dict[str, list[dict[str, str]]]:
        """Return record id → its links to companies, as a list of records shows them; no entry without any."""
        links: dict[str, list[dict[str, str]]] = {}
        wanted = [LinksOf(id=each) for each in record_ids]
        while wanted:
            inputs, wanted = wanted[:LINKS_BATCH_SIZE], wanted[LINKS_BATCH_SIZE:]
            for each in self._call(self._links.get_page, kind, "companies", LinksBatch(inputs=inputs))[
                "results"
            ]:
                record_id = str(each["from"]["id"])
                links.setdefault(record_id, []).extend(_as_listed(kind, each["to"]))
                if after := ((each.get("paging") or {}).get("next") or {}).get("after"):
                    wanted.append(LinksOf(id=record_id, after=after))
        return links

    def read(self, record_ids: list[str], wanted: list[str]) -> dict[str, dict[str, str | None]]:
        """Return record id → wanted properties of up to 100 companies; unknown and archived ones are left out."""
        body = self._call(
            self._batch.read,
            ReadBatch(
                inputs=[RecordId(id=each, **self._shared) for each in record_ids],
                properties=wanted,
                properties_with_history=[],
            ),
        )
        return {each["id"]: each["properties"] for each in body["results"]}

    def update(self, rows: list[Row]) -> dict[str, Any]:
        """Update up to 100 companies by record id and return HubSpot's JSON, rows and refusals.

        Raises NoAnswer at once where the answer is lost: only reading can tell whether it was done.
        """
        inputs = [
            UpdateInput(
                id=row.record_id,
                properties=_texts(row),
                object_write_trace_id=row.key,
                **self._shared,
            )
            for row in rows
        ]
        return self._call(self._batch.update, UpdateBatch(inputs=inputs), repeatable=False)

    def upsert(self, rows: list[Row], key: str) -> dict[str, Any]:
        """Update up to 100 companies by a unique property, or make them; HubSpot's JSON. Raises as `update`."""
        inputs = [
            UpsertInput(
                id=row.account_id,
                id_property=key,
                properties=_texts(row),
                object_write_trace_id=row.key,
                **self._shared,
            )
            for row in rows
        ]
        return self._call(self._batch.upsert, UpsertBatch(inputs=inputs), repeatable=False)

    def find(self, values: list[str], key: str) -> dict[str, str]:
        """Return value → record id of the companies that hold up to 100 values of a unique property."""
        body = self._call(
            self._batch.read,
            ReadBatch(
                inputs=[RecordId(id=each, **self._shared) for each in values],
                id_property=key,
                properties=[key],
                properties_with_history=[],
            ),
        )
        return found_among(values, {str(each["properties"][key]): each["id"] for each in body["results"]})

    def properties(self) -> dict[str, dict[str, Any]]:
        """Return the name → definition of every property companies have."""
        return {each["name"]: each for each in self.definitions("companies")}

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
            self._call(create, "companies", wanted, has_results=False)
        except Refused as refused:
            if refused.status != 409:  # it exists: somebody was faster, or an answer was lost
                raise

    def _call(
        self,
        request: Callable[..., Any],
        *arguments: Any,
        repeatable: bool = True,
        has_results: bool = True,
        limiter: Limiter | Alone | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Make one request, waiting out rate limits; a repeatable one also outlives server faults.

        `limiter` is that of a kind of call which has one of its own beside the limit of all calls, `has_results` whether
        the answer is a list of `results`. Raises Refused for a no of the CRM, NoAnswer where it is not known what the
        CRM did.
        """
        patience, backoff = Patience(), iter(BACKOFF_S)
        while True:
            if limiter is not None:
                limiter.take()
            self.limiter.take()
            self.calls += 1
            try:
                # The raw answer: the client's models refuse HubSpot's own 207, which lacks `links`.
                response = request(*arguments, **options, _preload_content=False, _request_timeout=TIMEOUT_S)
                # A NUL is text to JSON and none to PostgreSQL.
                if daily := response.headers.get("X-HubSpot-RateLimit-Daily", ""):
                    self.limiter.learn(int(daily))
                text = read_whole(response, self.host).replace(b"\\u0000", b"\\ufffd")
                body = json.loads(text) if text else {}
                if _is_answer(body, has_results):
                    return body
                reason = "an answer that is not HubSpot's"
            except API_ERRORS as error:
                status = int(error.status or 0)
                reason = _reason(error)
                if status in TURNED_AWAY:
                    # The end of a day is not waited for.
                    if "DAILY" not in reason and patience.block(
                        limiter or self.limiter, error.headers or {}, _window(status, reason)
                    ):
                        continue
                    raise Refused(status, reason) from None
                if 400 <= status < 500:
                    raise Refused(status, reason) from None
            except (urllib3.exceptions.HTTPError, ValueError, AttributeError) as error:
                # AttributeError: the client trips over its own TLS errors, which have no body.
                reason = type(error).__name__
            pause = next(backoff, None)
            if not repeatable or pause is None:
                raise NoAnswer(reason)
            self.sleep(pause)


def _filter(name: str, operator: str, value: Any) -> Filter:
    return Filter(property_name=name, operator=operator, value=str(value))


def _texts(row: Row) -> dict[str, str]:
    """Return the values as HubSpot takes them: an empty text clears a property."""
    return {name: value or "" for name, value in row.values.items()}


def _as_listed(kind: str, links: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield links to companies (v4) as a list of records (v3) has them: a primary one is named a second time, as such."""
    name = f"{kind.removesuffix('s')}_to_company"
    for link in links:
        yield {"id": str(link["toObjectId"]), "type": f"{name}_unlabeled"}
        types = link["associationTypes"]
        if any(
            each["category"] == "HUBSPOT_DEFINED" and each["typeId"] == PRIMARY_COMPANY.get(kind)
            for each in types
        ):
            yield {"id": str(link["toObjectId"]), "type": name}


def _reason(error: ApiError) -> str:
    """Return the CRM's own words: message, and the policy of a rate limit."""
    try:
        body = json.loads(error.body or "{}")
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    said = " ".join(str(body[key]) for key in ("message", "policyName") if body.get(key))
    return said or str(error.reason or "no reason given")


def _window(status: int, reason: str) -> float:
    """Return the seconds after which a call that was turned away may pass, where HubSpot names no time."""
    if status == 423:
        return LOCKED_S
    return SECOND_S if reason.endswith(BY_THE_SECOND) else BURST_WINDOW_S


def _is_answer(body: Any, has_results: bool) -> bool:
    """Tell whether the JSON of an answer with 200 is an object, whose results are records."""
    if not isinstance(body, dict):
        return False
    results = body.get("results", None if has_results else [])
    return isinstance(results, list) and all(isinstance(each, dict) for each in results)


@contextmanager
def hubspot(
    connection: ApiConnection,
    role: str | None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[HubSpotApi]:
    """Open HubSpot for a warehouse role; all tasks share the limits of the account.

    Known is that by `account` in the connection's extra, else by the token. Without a role the calls are not counted.
    """
    org = org_of("hubspot", connection.host or VENDOR_HOST, connection)
    with limiter(role, org, LIMITS.stated(connection), clock, sleep) as shared:
        yield HubSpotApi(connection, shared, sleep, shared.beside("search", SEARCHES))
