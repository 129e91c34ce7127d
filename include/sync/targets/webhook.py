"""A webhook as a target: batches of rows as signed JSON, each batch and each row with an idempotency key.

What the receiver must do stands in docs/contracts/sync.md, "Webhook".
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from include.connections import ApiConnection
from include.errors import StratumError
from include.sync.limits import Alone, Limiter, Limits, limiter, org_of
from include.sync.patience import Patience
from include.sync.target import TURNED_AWAY, Answer, NoAnswer, Refused, Row, Setup, same_text
from include.sync.trickle import whole

BATCH_SIZE = 100
TIMEOUT = httpx.Timeout(5.0, read=60.0)
LIMITS = Limits(burst=50, window_s=10.0)
"""Of one receiver, which has said nothing of its limits, and of no day."""
TIMESTAMP, SIGNATURE, KEY = "X-Stratum-Timestamp", "X-Stratum-Signature", "Idempotency-Key"
TAKEN, NOT_TAKEN = "taken", "refused"


class WebhookTarget:
    """One address that takes rows, as include/sync/target.py asks of a target. A record's id is its account's."""

    can_read = False

    def __init__(
        self,
        connection: ApiConnection,
        object_name: str,
        limiter: Limiter | Alone,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises StratumError where the connection names no address."""
        if connection.host is None:
            raise StratumError(
                f"The connection '{connection.conn_id}' has no host: put the address there that takes the rows."
            )
        self.url = connection.host
        # No more of the address: its path and query are often what opens it.
        self.name = f"the webhook at {urlsplit(self.url).hostname}"
        self.object_name = object_name
        self.calls = 0
        self._secret = connection.token.encode()
        self._limiter = limiter
        self._clock = clock
        self._http = httpx.Client(timeout=TIMEOUT)

    def close(self) -> None:
        """Let go of the connections to the receiver."""
        self._http.close()

    def batch_size(self, rows: int) -> int:
        """Return how many rows one call takes."""
        return BATCH_SIZE

    def setup(self, kinds: dict[str, str], make: bool) -> Setup:
        """Do nothing: a receiver has no fields that could be missing."""
        return Setup(note="a webhook has no fields: its receiver takes what it is sent")

    def write(self, rows: list[Row], note: Callable[[str], None]) -> Answer:
        """Post a batch once. Raises NoAnswer where its answer is lost."""
        return read_answer(self._post(rows), rows)

    def settle(self, rows: list[Row], job_id: str | None) -> Answer:
        """Post the rows once more under the same keys: a receiver that has them says so and does nothing.

        A row that it refuses without taking its key, or does not speak of, did not land. Rows that it refuses as a
        whole are halved: after a crash they may come together with others that were taken before.
        """
        try:
            return read_answer(self._post(rows), rows)
        except Refused as refused:
            if not refused.is_of_rows:
                raise
        if len(rows) == 1:
            return Answer(missing=list(rows))
        middle = len(rows) // 2
        halves = [self.settle(half, job_id) for half in (rows[:middle], rows[middle:])]
        return Answer(
            confirmed=[row for half in halves for row in half.confirmed],
            refused=[row for half in halves for row in half.refused],
            missing=[row for half in halves for row in half.missing],
        )

    def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
        """Raise Refused: a webhook cannot be read."""
        raise Refused(405, "a webhook cannot be read", is_of_rows=False)

    def find(self, keys: list[str]) -> dict[str, str]:
        """Raise Refused: a webhook cannot be read."""
        raise Refused(405, "a webhook cannot be read", is_of_rows=False)

    def is_same(self, told: str | None, held: str | None) -> bool:
        """Tell whether two texts say the same."""
        return same_text(told, held)

    def _post(self, rows: list[Row]) -> Any:
        """Return the JSON of the answer to a batch, None where it has no body; wait out 429."""
        key = batch_key(rows)
        body = as_body(self.object_name, key, rows)
        patience = Patience()
        while True:
            self._limiter.take()
            self.calls += 1
            # Signed anew each time: the receiver refuses what is older than its window.
            stamp = str(int(self._clock()))
            headers = {
                "Content-Type": "application/json",
                TIMESTAMP: stamp,
                SIGNATURE: signature(self._secret, stamp, body),
                KEY: key,
            }
            try:
                status, content, answered = self._exchange(body, headers)
            except httpx.RequestError as error:
                raise NoAnswer(type(error).__name__) from None
            if status in TURNED_AWAY:
                if patience.block(self._limiter, answered):
                    continue
                raise Refused(status, "the receiver keeps turning us away")
            if status >= 500:
                raise NoAnswer(f"HTTP {status}")
            if not 200 <= status < 300:
                raise Refused(status, " ".join(content.decode(errors="replace").split())[:300] or "no reason")
            return _parsed(status, content)

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, httpx.Headers]:
        with self._http.stream("POST", self.url, content=body, headers=headers) as response:
            content = whole(response.iter_bytes(), httpx.ReadTimeout("the answer trickles"))
        return response.status_code, content, response.headers


@contextmanager
def webhook(
    connection: ApiConnection,
    object_name: str,
    role: str | None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[WebhookTarget]:
    """Open a webhook for a warehouse role; all tasks that tell the same receiver share its limits.

    Known is that by `account` in the connection's extra, else by the secret. Without a role the calls are not counted.
    Raises StratumError where the connection names no address.
    """
    org = org_of("webhook", connection.host or "", connection)
    with (
        limiter(role, org, LIMITS.stated(connection), clock, sleep) as shared,
        closing(WebhookTarget(connection, object_name, shared, clock)) as target,
    ):
        yield target


def batch_key(rows: list[Row]) -> str:
    """Return the idempotency key of a batch: the same for the same rows, whenever they are sent."""
    return hashlib.sha256("\n".join(sorted(row.key for row in rows)).encode()).hexdigest()


def as_body(object_name: str, key: str, rows: list[Row]) -> bytes:
    """Return the JSON of a batch, in UTF-8; the same bytes for the same rows."""
    told = [
        {"key": row.key, "account_id": row.account_id, "values": row.values}
        | ({"create": True} if row.by_key else {})
        for row in rows
    ]
    batch = {"version": 1, "object": object_name, "batch": key, "rows": told}
    return json.dumps(batch, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """Return `sha256=` and the HMAC-SHA256, in hex, of the time stamp, a full stop and the body."""
    return "sha256=" + hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def read_answer(body: Any, rows: list[Row]) -> Answer:
    """Sort rows by the receiver's answer: without a body all are taken, with one those that it names."""
    if body is None:
        return Answer(confirmed=list(rows))
    told = {str(each["key"]): each for each in body["results"]}
    answer = Answer()
    for row in rows:
        result = told.get(row.key, {})
        if result.get("status") == TAKEN:
            answer.confirmed.append(row)
        elif result.get("status") == NOT_TAKEN:
            answer.refused.append((row, str(result.get("reason") or "refused without a reason")))
        else:
            answer.missing.append(row)
    return answer


def _parsed(status: int, content: bytes) -> Any:
    """Return the results of an answer, None where it has none. Raises NoAnswer where it is not what a receiver says."""
    if not content.strip() and status != httpx.codes.MULTI_STATUS:
        return None
    try:
        body = json.loads(content)
        is_answer = all(isinstance(each, dict) and "key" in each for each in body["results"])
    except (ValueError, TypeError, KeyError):
        is_answer = False
    if not is_answer:
        raise NoAnswer(f"HTTP {status} with a body that is no list of results")
    return body
