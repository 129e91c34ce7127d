"""BottleCRM's REST API: whole lists, page by page, each answer with the moment the CRM gave it.

BottleCRM (PyPI `django-crm`) has no client of its own. Its lists cannot be asked for what was modified since.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from include.connections import ApiConnection
from include.errors import StratumError, TransientError
from include.sync import target
from include.sync.limits import Alone, Limiter, Limits, limiter
from include.sync.patience import Patience
from include.sync.trickle import whole

PAGE_SIZE = 500
"""An account costs the CRM 5 to 15 ms in a list, and its web server gives a request 30 s by default."""
TIMEOUT = httpx.Timeout(5.0, read=120.0)
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)
# None: its settings of the REST framework (backend/crm/settings.py, REST_FRAMEWORK) name no throttle. What a server of one's
# own can bear, or a proxy before it lets through, the connection may state.
LIMITS = Limits()

Record = dict[str, Any]


class Refused(Exception):
    """The CRM answered no at the moment `at`: `status` is the HTTP status, the text is its reason."""

    def __init__(self, status: int, reason: str, at: datetime) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status
        self.at = at


class TurnedAway(TransientError):
    """Our budget of a day let no call through: nothing was done."""


@dataclass(frozen=True)
class Answer:
    """What the CRM said, and when by its own clock, to the second."""

    body: dict[str, Any]
    at: datetime


@dataclass(frozen=True)
class Listing:
    """How a list is asked for, and where its answer keeps the records and their number.

    Accounts come as two lists, those in use and the others, which are paged together.
    """

    path: str
    records: tuple[tuple[str, ...], ...]
    counts: tuple[tuple[str, ...], ...]
    query: tuple[tuple[str, str], ...] = ()


class BottleCrmApi:
    """The records of one organization. `calls` counts requests made."""

    def __init__(
        self,
        connection: ApiConnection,
        sleep: Callable[[float], None] = time.sleep,
        limiter: Limiter | Alone | None = None,
    ) -> None:
        """Raises StratumError where the connection names no host."""
        if connection.host is None:
            raise StratumError(
                f"The connection '{connection.conn_id}' has no host: put the address of BottleCRM's API there."
            )
        self.host = connection.host
        self.conn_id = connection.conn_id
        self.sleep = sleep
        self.limiter = limiter or Alone(sleep)
        self.calls = 0
        self._http = httpx.Client(
            base_url=f"{connection.host}/api/",
            headers={"Authorization": f"Bearer {connection.token}"},
            timeout=TIMEOUT,
        )

    def close(self) -> None:
        """Let go of the connections to the CRM."""
        self._http.close()

    def get(self, path: str, **query: str) -> Answer:
        """Ask for a path below /api/, outliving server faults.

        Raises Refused for a no, TransientError where there is no sensible answer after 31 s of trying (TurnedAway where
        no call is left), StratumError where what answers is no BottleCRM.
        """
        return self._ask("GET", path, query=query)

    def patch(self, path: str, values: dict[str, Any]) -> Answer:
        """Change a record once. Raises as `get`, and TransientError as soon as the answer is lost."""
        return self._ask("PATCH", path, values)

    def post(self, path: str, values: dict[str, Any]) -> Answer:
        """Make a record once. Raises as `patch`."""
        return self._ask("POST", path, values)

    def _ask(
        self,
        method: str,
        path: str,
        values: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        """Make a request; what writes (has `values`) is repeated only where it was turned away."""
        patience, backoff = Patience(), iter(BACKOFF_S)
        while True:
            self._take()
            may_repeat = values is None
            try:
                with self._http.stream(method, path, params=query, json=values) as response:
                    content = whole(response.iter_bytes(), httpx.ReadTimeout("the answer trickles"))
            except httpx.RequestError as error:
                reason = type(error).__name__
            else:
                if response.status_code == 429:
                    if patience.block(self.limiter, response.headers):
                        continue
                    may_repeat = False
                elif response.status_code < 500:
                    return self._read(response, content)
                reason = f"HTTP {response.status_code}"
            pause = next(backoff, None) if may_repeat else None
            if pause is None:
                raise TransientError(
                    f"BottleCRM at {self.host} does not answer ({reason}). Is it up? Try again later."
                )
            self.sleep(pause)

    def _take(self) -> None:
        try:
            self.limiter.take()
        except target.Refused as refused:
            raise TurnedAway(f"No call to BottleCRM is left: {refused}. Try again later.") from None
        self.calls += 1

    def all(self, listing: Listing) -> list[tuple[Record, datetime]]:
        """Return every record of a list, once, each with the moment it was shown.

        Pages are offsets into a list that moves while it is read, so it is read in one answer where the pages do not
        make up the number the CRM counts. Raises as `get` does, and TransientError where that does not either.
        """
        found = self._listed(listing, PAGE_SIZE)
        if found is None:
            found = self._listed(listing, self.count(listing) + PAGE_SIZE)
        if found is None:
            raise TransientError(
                f"The {listing.path.rstrip('/')} of BottleCRM at {self.host} kept changing while they were read. "
                "Try again later."
            )
        return found

    def count(self, listing: Listing) -> int:
        """Return how many records the CRM says a list has. Raises as `get` does."""
        return _count(listing, self.get(listing.path, **dict(listing.query), limit="1").body)

    def _listed(self, listing: Listing, page_size: int) -> list[tuple[Record, datetime]] | None:
        """Return the records of a list; None where they are not as many as every page says there are."""
        found: dict[str, tuple[Record, datetime]] = {}
        unnamed: list[tuple[Record, datetime]] = []
        counts: set[int] = set()
        offset = 0
        while True:
            answer = self.get(listing.path, **dict(listing.query), limit=str(page_size), offset=str(offset))
            counts.add(_count(listing, answer.body))
            pages = [_at(answer.body, place) for place in listing.records]
            for record in (record for page in pages for record in page):
                if record.get("id"):
                    found[record["id"]] = (record, answer.at)
                else:
                    unnamed.append((record, answer.at))
            if all(len(page) < page_size for page in pages):
                break
            offset += page_size
        if counts != {len(found) + len(unnamed)}:
            return None
        return [*found.values(), *unnamed]

    def is_gone(self, path: str, record_id: str) -> datetime | None:
        """Return when the CRM said that it knows a record no more; None where it still has it. Raises as `get`."""
        try:
            self.get(f"{path}{record_id}/")
        except Refused as refused:
            if refused.status != httpx.codes.NOT_FOUND:
                raise
            return refused.at
        return None

    def _read(self, response: httpx.Response, content: bytes) -> Answer:
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if not isinstance(body, dict) or "date" not in response.headers:
            raise StratumError(
                f"What answers at {self.host} is no BottleCRM API (HTTP {response.status_code}). Correct the host of "
                f"the connection '{self.conn_id}': the address that has /api/ below it."
            )
        at = parsedate_to_datetime(response.headers["date"])
        if response.status_code >= 400:
            reason = body.get("detail") or body.get("errors") or "no reason given"
            raise Refused(response.status_code, str(reason), at)
        return Answer(body, at)


@contextmanager
def bottlecrm(
    connection: ApiConnection,
    role: str | None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[BottleCrmApi]:
    """Open BottleCRM for a warehouse role; all tasks that reach the same server share its limits.

    Without a role the calls are not counted. Raises StratumError where the connection names no host.
    """
    org = f"bottlecrm:{urlsplit(connection.host or '').netloc}"
    with (
        limiter(role, org, LIMITS.stated(connection), clock, sleep) as shared,
        closing(BottleCrmApi(connection, sleep, shared)) as api,
    ):
        yield api


def _at(body: dict[str, Any], place: tuple[str, ...]) -> Any:
    for key in place:
        body = body[key]
    return body


def _count(listing: Listing, body: dict[str, Any]) -> int:
    return sum(_at(body, place) for place in listing.counts)
