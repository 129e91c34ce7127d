"""Send a plan: note the attempt, call, read the answer row by row, write the books, settle what got no answer."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import attrgetter
from typing import TypeVar

from include.errors import TransientError
from include.sync.ledger import Attempt, Ledger
from include.sync.plan import Change, Rows
from include.sync.target import Answer, NoAnswer, Refused, Row, Target

# Waits before a batch that demonstrably did not land is sent again. Together with the waits of the reading
# in between they outlive a restart of the CRM's front door.
RESEND_S = (2.0, 8.0, 30.0)
Item = TypeVar("Item")
MOST_SILENT_BATCHES = 3  # in a row; then the CRM is down, and the rest need not be tried


class Engine:
    """Sends changes to one target and keeps its books; see the module's first line for the order."""

    def __init__(
        self, target: Target, ledger: Ledger, max_tries: int, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.target = target
        self.ledger = ledger
        self.max_tries = max_tries
        self.sleep = sleep
        self.stopped: str | None = None
        """Why no further batch is sent; None while all is well."""
        self._silent = 0
        self._confirmed = 0
        self._whole_refusal: str | None = None

    def resolve(self) -> int:
        """Settle every attempt an earlier sync left without an answer; return how many there were.

        What the CRM holds goes to the ledger, the rest is closed as not landed. Raises TransientError where
        the CRM does not tell, or the target is switched off meanwhile: then nothing newer may be sent.
        """
        attempts = self.ledger.open_attempts()
        for job_id, of_job in groupby(attempts, lambda attempt: attempt.job_id):
            together = list(of_job)
            # Rows of one job are told together, others as many as one call takes.
            size = len(together) if job_id else self.target.batch_size(len(together))
            for some in _batches(together, size):
                if switched_off := self.ledger.switched_off():
                    raise TransientError(
                        f"{self.target.name} was {switched_off}, while it was asked what became of {len(attempts)} rows "
                        "of an earlier sync. Nothing was sent; let stratum sync start switch it on."
                    )
                try:
                    self._settle(some, job_id, is_own=False)
                except (Refused, NoAnswer) as error:
                    raise TransientError(
                        f"{len(attempts)} rows of an earlier sync have no answer, and {self.target.name} does not "
                        f"tell what became of them ({error}). Nothing was sent; sync again when it answers."
                    ) from error
        return len(attempts)

    def send(self, changes: Rows[Change] | list[Change]) -> None:
        """Send all changes in batches, holding one in memory; afterwards each is confirmed, failed or held in the books."""
        size = self.target.batch_size(len(changes))
        for some in _batches_of_a_kind(changes, size):
            if self.stopped:
                self.ledger.fail(some, "not_sent", self.stopped)
            else:
                before, self._whole_refusal = self._confirmed, None
                self._deliver(some, resends=0)
                if self._whole_refusal and self._confirmed == before and len(some) == size > 1:
                    # No single row is to blame where all are: asking on, two calls a row, would only spend tries.
                    self.stopped = f"every row of a batch was refused ({self._whole_refusal})"

    def _deliver(self, changes: list[Change], resends: int) -> None:
        # Of halves and of what is sent again, too: minutes may have passed since the batch was begun.
        if switched_off := self.ledger.switched_off():
            self.ledger.hold(changes, "switched_off", switched_off)
            self._whole_refusal = None  # not every row of the batch was
            return
        attempts = self.ledger.attempt(changes)
        jobs: list[str] = []

        def note(job_id: str) -> None:
            self.ledger.note_job(attempts, job_id)
            jobs.append(job_id)

        try:
            answer = self.target.write(_rows(attempts), note)
        except Refused as refused:
            self._refused(attempts, refused)
            return
        except NoAnswer as silence:
            self._unanswered(attempts, jobs[-1] if jobs else None, str(silence), resends)
            return
        self._silent = 0
        by_key = _by_key(attempts)
        self._book(answer, by_key, is_own=True)
        self.ledger.forgotten([by_key[row.key] for row in answer.missing], self.max_tries)

    def _book(self, answer: Answer, by_key: dict[str, Attempt], is_own: bool) -> None:
        """Write what the CRM confirmed and what it refused."""
        if answer.records:
            _refuse_doubled_records(answer, self.ledger.accounts_of(list(answer.records.values())))
        self.ledger.confirm(
            [by_key[row.key] for row in answer.confirmed], answer.proof, is_own, answer.records
        )
        self._confirmed += len(answer.confirmed)
        self.ledger.refuse(
            [(by_key[row.key], "refused", reason) for row, reason in answer.refused], self.max_tries, is_own
        )
        if answer.overwritten:
            self.ledger.forget(answer.overwritten)

    def _refused(self, attempts: list[Attempt], refused: Refused) -> None:
        """Halve a batch the CRM refused as a whole; a single row is the guilty one."""
        self._silent = 0
        changes = [attempt.change for attempt in attempts]
        if refused.is_of_rows and len(attempts) > 1:
            self.ledger.settle(attempts, "not_done", str(refused))
            self._whole_refusal = str(refused)
            middle = len(changes) // 2
            for half in (changes[:middle], changes[middle:]):
                if self.stopped:
                    self.ledger.fail(half, "not_sent", self.stopped)
                else:
                    self._deliver(half, resends=0)
        elif refused.is_of_rows:
            self.ledger.refuse([(each, "refused", str(refused)) for each in attempts], self.max_tries)
        else:  # token, permission or quota: no row is to blame, and the next batch fares no better
            self.ledger.settle(attempts, "not_done", str(refused))
            self.ledger.fail(changes, "not_sent", str(refused))
            self.stopped = str(refused)

    def _unanswered(self, attempts: list[Attempt], job_id: str | None, why: str, resends: int) -> None:
        """Learn what a call without an answer did; send again what did not land."""
        try:
            left = self._settle(attempts, job_id, is_own=True)
        except (Refused, NoAnswer) as error:
            # The attempts stay open: the next sync settles them before it sends.
            self.ledger.fail([each.change for each in attempts], "no_answer", f"{why}; asking: {error}")
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

    def _settle(self, attempts: list[Attempt], job_id: str | None, is_own: bool) -> list[Change]:
        """Book what became of attempts without an answer; return the changes that did not land."""
        answer = self.target.settle(_rows(attempts), job_id)
        by_key = _by_key(attempts)
        self._book(answer, by_key, is_own)
        lost = [by_key[row.key] for row in answer.missing]
        self.ledger.settle(lost, "not_landed", None)
        return [attempt.change for attempt in lost]


def _refuse_doubled_records(answer: Answer, known: dict[str, str]) -> None:
    """Refuse rows that the CRM says are of another account's record: keys that it takes for one.

    `known` names the account of each record that the ledger has, so that a row of an earlier batch counts too. What was
    written over is told to the other account's record anew.
    """
    owners = dict(known)
    for row in answer.confirmed:
        if record_id := answer.records.get(row.key):
            owner = owners.setdefault(record_id, row.account_id)
            if owner != row.account_id:
                answer.refused.append((row, f"the CRM takes its key for that of {owner}"))
                answer.overwritten.setdefault(record_id, set()).update(row.values)
    refused = {row.key for row, _ in answer.refused}
    answer.confirmed = [row for row in answer.confirmed if row.key not in refused]
    answer.records = {key: record for key, record in answer.records.items() if key not in refused}


def _rows(attempts: list[Attempt]) -> list[Row]:
    return [
        Row(
            str(each.attempt_id),
            each.change.account_id,
            each.change.record_id,
            each.change.values,
            each.change.by_key,
        )
        for each in attempts
    ]


def _by_key(attempts: list[Attempt]) -> dict[str, Attempt]:
    return {str(attempt.attempt_id): attempt for attempt in attempts}


def _batches_of_a_kind(changes: Iterable[Change], size: int) -> Iterator[list[Change]]:
    """Yield batches that update records, then those that make them: they are other calls."""
    for _, of_a_kind in groupby(changes, attrgetter("by_key")):
        yield from _batches(of_a_kind, size)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
