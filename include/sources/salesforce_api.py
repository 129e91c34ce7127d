"""A Salesforce org through simple-salesforce: its session waits, repeats and logs in anew, so that its calls need not."""

import csv
import io
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from simple_salesforce import Salesforce, SalesforceLogin
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceError,
    SalesforceOperationError,
    SalesforceResourceNotFound,
)

from include.connections import LoginConnection
from include.errors import StratumError, TransientError
from include.sync.limits import Alone, Limiter, Limits, limiter
from include.sync.patience import Patience
from include.sync.target import Refused
from include.sync.trickle import read_whole

log = logging.getLogger(__name__)

PAGE_ROWS = 50_000  # of a page of results; Salesforce recommends no more
TIMEOUT_S = (5.0, 120.0)  # to connect, and to answer
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)
NO_CALLS_LEFT = "REQUEST_LIMIT_EXCEEDED"
# https://developer.salesforce.com/docs/atlas.en-us.salesforce_app_limits_cheatsheet.meta/salesforce_app_limits_cheatsheet/
# salesforce_app_limits_platform_api.htm: the calls of any 24 hours are limited, 100,000 and 1,000 for each licence with
# Enterprise Edition, 15,000 with Developer Edition; the header Sforce-Limit-Info tells. None is counted by the second.
LIMITS = Limits(daily=15_000)
USAGE = re.compile(r"api-usage=\d+/(\d+)")
OUT_OF_REACH = ("INVALID_TYPE", "INSUFFICIENT_ACCESS", "FUNCTIONALITY_NOT_ENABLED")
"""What Salesforce's codes begin with where the user may not read an object type, or the edition has none of it."""
LOGIN_EXTRAS = {
    "security_token": "security_token",
    "domain": "domain",
    "consumer_key": "consumer_key",
    "consumer_secret": "consumer_secret",
    "organization_id": "organizationId",
    "private_key": "privatekey",
    "private_key_file_path": "privatekey_file",
    "instance_url": "instance_url",
}
"""The extras of Airflow's Salesforce connection, and what simple-salesforce calls them."""


class OutOfReach(Exception):
    """The user may not read an object type, or there is none of that name."""


class TurnedAway(TransientError):
    """Salesforce, or our share of its day, let no call through: nothing was done."""


class Silent(TransientError):
    """Salesforce did not answer, or not sensibly."""


class Elsewhere(HTTPAdapter):
    """Sends what is meant for Salesforce's addresses, which the client builds itself, to one base URL."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url = base_url

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request to the same path of the base URL."""
        parts = urlsplit(str(request.url))
        request.url = self.base_url + parts.path + (f"?{parts.query}" if parts.query else "")
        options["proxies"] = get_environ_proxies(request.url)
        return super().send(request, *arguments, **options)


class Session(requests.Session):
    """The session the client makes its calls on.

    It waits out 429, repeats what a server fault or a lost connection interrupted (reading twice harms nothing, and
    a job that is made twice is left to expire), and answers an expired session with one new login. Within `once` a
    call whose answer is lost is not repeated. `calls` counts requests made, `usage` is what Salesforce said last of the
    day's calls, `page_rows` of the last page.
    """

    def __init__(self, base_url: str | None, sleep: Callable[[float], None]) -> None:
        super().__init__()
        self.sleep = sleep
        self.limiter: Limiter | Alone = Alone(sleep)
        self.calls = 0
        self.usage = ""
        self.page_rows = 0
        self.log_in: Callable[[], str] | None = None
        self._token: str | None = None
        self._repeats = True
        if base_url:
            self.mount("https://", Elsewhere(base_url))

    @contextmanager
    def once(self) -> Iterator[None]:
        """Let calls that write raise Silent as soon as their answer is lost."""
        self._repeats = False
        try:
            yield
        finally:
            self._repeats = True

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """Make one request. Raises TurnedAway or Silent where Salesforce keeps turning us away or failing."""
        options.setdefault("timeout", TIMEOUT_S)
        patience, is_renewed, backoff = Patience(), False, iter(BACKOFF_S)
        while True:
            self._authorize(options)
            self._take()
            try:
                response = self._answer(method, url, *arguments, **options)
            except requests.RequestException as error:
                reason = type(error).__name__
            else:
                if response.status_code == 429:
                    if patience.block(self.limiter, response.headers):
                        continue
                    raise TurnedAway("Salesforce keeps answering 429. Try again later.")
                if response.status_code == 401 and self.log_in and not is_renewed:
                    self._token, is_renewed = self._new_token(), True
                    continue
                # SOAP answers a refused login with 500.
                if (response.status_code < 500 and _is_whole(response)) or b"faultcode" in response.content:
                    return response
                reason = f"HTTP {response.status_code}" if response.status_code >= 500 else "no JSON"
            pause = next(backoff, None) if self._repeats else None
            if pause is None:
                raise Silent(f"Salesforce does not answer ({reason}). Is it up? Try again later.")
            self.sleep(pause)

    def _take(self) -> None:
        try:
            self.limiter.take()
        except Refused as refused:
            raise TurnedAway(f"No call to Salesforce is left: {refused}. Try again later.") from None
        self.calls += 1

    def _answer(self, method: str, url: str, *arguments: Any, **options: Any) -> requests.Response:
        options["stream"] = True
        response = super().request(method, url, *arguments, **options)
        try:
            response._content = read_whole(response.raw, url)
        except urllib3.exceptions.ProtocolError as error:
            raise requests.exceptions.ChunkedEncodingError(error) from None
        except urllib3.exceptions.HTTPError as error:
            raise requests.exceptions.ConnectionError(error) from None
        if response.headers.get("Content-Type", "").startswith("text/csv"):
            response.encoding = (
                "utf-8"  # which the client would take for Latin-1 where the header does not say
            )
        self.usage = response.headers.get("Sforce-Limit-Info", self.usage)
        if day := USAGE.search(self.usage):
            self.limiter.learn(int(day[1]))
        self.page_rows = int(response.headers.get("Sforce-NumberOfRecords", "0"))
        return response

    def _authorize(self, options: dict[str, Any]) -> None:
        headers = options.get("headers") or {}
        if self._token and str(headers.get("Authorization", "")).startswith("Bearer "):
            options["headers"] = {**headers, "Authorization": f"Bearer {self._token}"}

    def _new_token(self) -> str:
        log.info("The session has expired: logging in to Salesforce again.")
        log_in, self.log_in = self.log_in, None  # a login that is refused is not answered with a login
        try:
            return log_in()  # type: ignore[misc]
        finally:
            self.log_in = log_in


def _is_whole(response: requests.Response) -> bool:
    """Tell whether an answer is Salesforce's: rows, the XML of a login, nothing, or JSON, whatever it says that it is.

    A no may be of any kind that does not say it is JSON: a proxy's is a web page.
    """
    kind, is_yes = response.headers.get("Content-Type", ""), response.status_code < 300
    if kind.startswith(("text/csv", "text/xml")) or not (is_yes or "json" in kind):
        return True
    if not response.content:
        return response.status_code != 200
    try:
        return isinstance(response.json(), dict | list)
    except ValueError:
        return False


class SalesforceApi:
    """What one user sees of one Salesforce org. Raises StratumError or TransientError, in one line, where it cannot."""

    def __init__(self, connection: LoginConnection, sleep: Callable[[float], None] = time.sleep) -> None:
        self.conn_id = connection.conn_id
        self.session = Session(connection.host, sleep)
        arguments: dict[str, Any] = {"username": connection.login, "password": connection.password}
        arguments |= {
            theirs: connection.extra[ours]
            for ours, theirs in LOGIN_EXTRAS.items()
            if ours in connection.extra
        }
        try:
            self.client = Salesforce(session=self.session, **arguments)
        except (SalesforceAuthenticationFailed, TypeError, ValueError, AttributeError, OSError) as error:
            # AttributeError: the client trips over an answer that is no login's.
            raise self._login_refused(error) from None
        self.session.log_in = lambda: self._log_in(arguments)

    @property
    def calls(self) -> int:
        """How many requests were made, logins and repeated ones included."""
        return self.session.calls

    @property
    def usage(self) -> str:
        """What Salesforce said last of the calls of the day, such as `api-usage=18/15000`; blank if nothing."""
        return self.session.usage

    @property
    def instance(self) -> str:
        """The host that holds the org's data."""
        return str(self.client.sf_instance)

    def describe(self, name: str) -> dict[str, str]:
        """Return field → type of the fields of an object type the user sees. Raises OutOfReach."""
        try:
            fields = getattr(self.client, name).describe()["fields"]
            return {field["name"]: field["type"] for field in fields}
        except SalesforceResourceNotFound as error:
            raise OutOfReach(reason_of(error)) from None
        except SalesforceError as error:
            raise self._refused(error, name) from None

    def newest(self, name: str, only: str | None = None) -> tuple[int, str | None]:
        """Return how many records of an object type there are, deleted ones aside, and when the newest was created.

        `only` is a condition they meet. Raises OutOfReach.
        """
        those = f"from {name}" + (f" where {only}" if only else "")
        try:
            total = self.client.query(f"select count() {those}")["totalSize"]
            last = self.client.query(f"select CreatedDate {those} order by CreatedDate desc limit 1")[
                "records"
            ]
        except SalesforceError as error:
            raise self._refused(error, name) from None
        return total, next((row["CreatedDate"] for row in last), None)

    def tracked(self, name: str) -> set[str]:
        """Return the fields of an object type whose history the org keeps."""
        query = (
            "select QualifiedApiName, IsFieldHistoryTracked from FieldDefinition "  # noqa: S608 - SOQL, of our names
            f"where EntityDefinition.QualifiedApiName = '{name}'"
        )
        try:
            rows = self.client.query_all(query)["records"]
            return {row["QualifiedApiName"] for row in rows if row["IsFieldHistoryTracked"]}
        except SalesforceError as error:
            raise self._refused(error, "FieldDefinition") from None

    def rows(
        self, name: str, fields: Iterable[str], cursor: str, since: datetime | None, only: str | None = None
    ) -> Iterator[dict[str, str]]:
        """Yield the rows of an object type whose `cursor` is not before `since`, deleted ones included, by Bulk 2.0.

        `only` is a condition they meet, too. A row is field → text, null an empty one. Raises OutOfReach;
        TransientError where the job fails or a page is not whole.
        """
        query = f"select {', '.join(fields)} from {name}"  # noqa: S608 - SOQL, of names of ours
        asked = [f"{cursor} >= {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"] if since else []
        if conditions := asked + ([only] if only else []):
            query += f" where {' and '.join(conditions)}"
        try:
            # wait=0: the client's own pauses between two looks at the job grow from a millisecond to 3 s.
            pages = getattr(self.client.bulk2, name).query_all(query, max_records=PAGE_ROWS, wait=0)
            for text in pages:
                found = list(csv.DictReader(io.StringIO(text, newline="")))
                is_whole = not any(None in row or None in row.values() for row in found)
                if len(found) != self.session.page_rows or not is_whole:
                    raise TransientError(
                        f"Salesforce announced {self.session.page_rows} rows of {name} and gave {len(found)}, "
                        "or not all of them whole. Nothing was landed; try again later."
                    )
                yield from found
        except SalesforceOperationError as error:
            raise TransientError(
                f"Salesforce gave up the query of {name} ({_one_line(str(error))}). Try again later."
            ) from None
        except SalesforceError as error:
            raise self._refused(error, name) from None

    def _log_in(self, arguments: dict[str, Any]) -> str:
        try:
            session_id, _ = SalesforceLogin(session=self.session, **arguments)
        except (SalesforceAuthenticationFailed, ValueError) as error:
            raise self._login_refused(error) from None
        return session_id

    def _login_refused(self, error: Exception) -> StratumError:
        if isinstance(error, SalesforceAuthenticationFailed):
            why = _one_line(str(error))
        elif isinstance(error, TypeError):
            why = "it does not say who logs in"
        else:
            why = type(error).__name__  # its text could hold a part of a key
        return StratumError(
            f"Salesforce refused the login of the connection '{self.conn_id}' ({why}). Give it consumer_key, "
            "consumer_secret and domain in its extra, or login, password and security_token."
        )

    def _refused(self, error: SalesforceError, name: str) -> Exception:
        code, told = code_of(error), reason_of(error)
        if code.startswith(OUT_OF_REACH):
            return OutOfReach(told)
        if code == NO_CALLS_LEFT:
            return TransientError(
                f"Salesforce has no calls left for today ({self.usage or told}). Try again later."
            )
        return StratumError(
            f"Salesforce did not let Stratum read {name} ({told}). Check the permissions of the user of the "
            f"connection '{self.conn_id}'."
        )


@contextmanager
def salesforce(
    connection: LoginConnection,
    role: str | None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[SalesforceApi]:
    """Open Salesforce for a warehouse role; all tasks that reach the same org share its limits.

    Without a role the calls are not counted. Raises as SalesforceApi does.
    """
    api = SalesforceApi(connection, sleep)
    with limiter(role, f"salesforce:{api.instance}", LIMITS.stated(connection), clock, sleep) as shared:
        api.session.limiter = shared
        yield api


def _first(error: SalesforceError) -> dict[str, Any]:
    first: Any = error.content[0] if isinstance(error.content, list) and error.content else {}
    return first if isinstance(first, dict) else {}


def code_of(error: SalesforceError) -> str:
    """Return Salesforce's own code of an error; blank where its answer holds none."""
    return str(_first(error).get("errorCode", ""))


def reason_of(error: SalesforceError) -> str:
    """Return what Salesforce says of an error, in one line: HTTP status, code and message."""
    return _one_line(f"HTTP {error.status}: {code_of(error)} {_first(error).get('message', '')}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
