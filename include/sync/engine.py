"""Send a plan: note the attempt, call, read the answer row by row, write the books, resolve what got no answer."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from include.errors import TransientError
from include.sync.hubspot_api import BATCH_SIZE, HubSpotApi, NoAnswer, Refused, RowUpdate
from include.sync.ledger import Attempt, Ledger
from include.sync.plan import Change
from include.sync.targets.hubspot import read_answer, same_value

# Waits before a batch that demonstrably did not land is sent again. Together with the waits of the reading
# in between they outlive a restart of the CRM's front door.
RESEND_S = (2.0, 8.0, 30.0)
ROW_FAULTS = (400, 404, 409, 413, 422)  # the CRM's no to what was sent: one row can be the cause
Item = TypeVar("Item")
MOST_SILENT_BATCHES = 3  # in a row; then the CRM is down, and the rest need not be tried


class Engine:
    """Sends changes to one target and keeps its books; see the module's first line for the order."""

    def __init__(
        self, api: HubSpotApi, ledger: Ledger, max_tries: int, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.api = api
        self.ledger = ledger
        self.max_tries = max_tries
        self.sleep = sleep
        self.stopped: str | None = None
        """Why no further batch is sent; None while all is well."""
        self._silent = 0
        self._confirmed = 0
        self._whole_refusal: str | None = None

    def resolve(self) -> int:
        """Read back every attempt an earlier sync left without an answer; return how many there were.

        What the CRM holds goes to the ledger, the rest is closed as not landed. Raises TransientError where
        the CRM cannot be read: then nothing newer may be sent.
        """
        attempts = self.ledger.open_attempts()
        for some in _batches(attempts):
            try:
                self._sort_by_reading(some, is_own=False)
            except (Refused, NoAnswer) as error:
                raise TransientError(
                    f"{len(attempts)} rows of an earlier sync have no answer, and {self.api.host} cannot be read "
                    f"to learn what became of them ({error}). Nothing was sent; sync again when it answers."
                ) from error
        return len(attempts)

    def send(self, changes: list[Change]) -> None:
        """Send all changes in batches; afterwards each is confirmed or failed in the books."""
        for some in _batches(changes):
            if self.stopped:
                self.ledger.fail(some, "not_sent", self.stopped)
                continue
            before, self._whole_refusal = self._confirmed, None
            self._deliver(some, resends=0)
            if self._whole_refusal and self._confirmed == before and len(some) == BATCH_SIZE:
                # No single row is to blame where all are: asking on, two calls a row, would only spend tries.
                self.stopped = f"every row of a batch was refused ({self._whole_refusal})"

    def _deliver(self, changes: list[Change], resends: int) -> None:
        attempts = self.ledger.attempt(changes)
        rows = {
            str(attempt.attempt_id): (
                attempt,
                RowUpdate(attempt.change.record_id, attempt.change.values, str(attempt.attempt_id)),
            )
            for attempt in attempts
        }
        try:
            body = self.api.update([row for _, row in rows.values()])
        except Refused as refused:
            self._refused(attempts, refused)
            return
        except NoAnswer as silence:
            self._unanswered(attempts, str(silence), resends)
            return
        self._silent = 0
        answer = read_answer(body, [row for _, row in rows.values()])
        self.ledger.confirm([rows[row.trace_id][0] for row in answer.confirmed], "answer")
        self._confirmed += len(answer.confirmed)
        self.ledger.refuse(
            [(rows[row.trace_id][0], "refused", reason) for row, reason in answer.refused], self.max_tries
        )
        self.ledger.forgotten([rows[row.trace_id][0] for row in answer.missing], self.max_tries)

    def _refused(self, attempts: list[Attempt], refused: Refused) -> None:
        """Halve a batch the CRM refused as a whole; a single row is the guilty one."""
        self._silent = 0
        changes = [attempt.change for attempt in attempts]
        if refused.status in ROW_FAULTS and len(attempts) > 1:
            self.ledger.settle(attempts, "not_done", str(refused))
            self._whole_refusal = str(refused)
            middle = len(changes) // 2
            for half in (changes[:middle], changes[middle:]):
                if self.stopped:
                    self.ledger.fail(half, "not_sent", self.stopped)
                else:
                    self._deliver(half, resends=0)
        elif refused.status in ROW_FAULTS:
            self.ledger.refuse([(each, "refused", str(refused)) for each in attempts], self.max_tries)
        else:  # token, permission or quota: no row is to blame, and the next batch fares no better
            self.ledger.settle(attempts, "not_done", str(refused))
            self.ledger.fail(changes, "not_sent", str(refused))
            self.stopped = str(refused)

    def _unanswered(self, attempts: list[Attempt], why: str, resends: int) -> None:
        """Learn by reading what a call without an answer did; send again what did not land."""
        try:
            left = self._sort_by_reading(attempts, is_own=True)
        except (Refused, NoAnswer) as error:
            # The attempts stay open: the next sync reads before it sends.
            self.ledger.fail([each.change for each in attempts], "no_answer", f"{why}; reading: {error}")
            self.stopped = f"the CRM does not answer ({why})"
            return
        if not left:
            self._silent = 0
        elif resends < len(RESEND_S):
            self.sleep(RESEND_S[resends])
            self._deliver(left, resends + 1)
        else:
            self.ledger.fail(left, "no_answer", why)
            self._silent += 1
            if self._silent >= MOST_SILENT_BATCHES:
                self.stopped = f"the CRM does not answer ({why})"

    def _sort_by_reading(self, attempts: list[Attempt], is_own: bool) -> list[Change]:
        """Confirm the attempts whose values the CRM holds, close the others; return the others' changes."""
        names = sorted({name for attempt in attempts for name in attempt.change.values})
        held = self.api.read([each.change.record_id for each in attempts], names)
        landed: list[Attempt] = []
        lost: list[Attempt] = []
        for attempt in attempts:
            shown = held.get(attempt.change.record_id, {})
            values = attempt.change.values.items()
            done = all(same_value(told, shown.get(name)) for name, told in values)
            (landed if done else lost).append(attempt)
        self.ledger.confirm(landed, "read_back", is_own)
        self._confirmed += len(landed)
        self.ledger.settle(lost, "not_landed", None)
        return [attempt.change for attempt in lost]


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), BATCH_SIZE):
        yield items[start : start + BATCH_SIZE]
