"""Bulk API 2.0 jobs that update or make records: made, noted, filled, closed, watched, asked what became of each row.

The client's own `bulk2.Account.update` does all of it in one call, keeps the job's id to itself until the job has
succeeded, and raises an error without it where the job failed. So its steps are called one by one.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from simple_salesforce import Salesforce

from include.sync.target import Answer, NoAnswer, Refused, Row

Told = TypeVar("Told")
EMPTY = "#N/A"
"""What empties a field; a cell that is left empty keeps its value."""
MOST_BYTES = 100 * 1000 * 1000
"""Of a job's CSV. Salesforce takes 150 MB of what it makes of it, base64, which is a half longer at most.

https://developer.salesforce.com/docs/platform/salesforce-app-limits-cheatsheet/guide/salesforce-app-limits-platform-bulkapi.html
"""
LOOKS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses between two looks at a job; the last one is repeated."""
PATIENCE_S = 1_800.0
ENDED = ("JobComplete", "Failed", "Aborted")
OF_THE_FILE = ("InvalidBatch", "ClientInputError")
"""What the error of a failed job begins with where it could not be read, or names a field that is not there."""


def value_of(told: Any, name: str) -> Any:
    """Return a value of a JSON object. Raises NoAnswer where what was told is no object that has it."""
    if not isinstance(told, dict) or name not in told:
        raise NoAnswer(f"an answer that does not say {name}")
    return told[name]


class Asks(Protocol):
    """Makes a call to the client; see SalesforceTarget.asked."""

    def __call__(self, call: Callable[[], Told], once: bool = False) -> Told:
        """Return what the call gives. Raises Refused or NoAnswer."""


class BulkJobs:
    """The jobs of one object type."""

    def __init__(
        self,
        client: Salesforce,
        object_name: str,
        asked: Asks,
        sleep: Callable[[float], None],
        key: str | None = None,
    ) -> None:
        """`key` is the external id of the rows that are told by key."""
        self._key = key
        self._steps = getattr(client.bulk2, object_name)._client
        self._asked = asked
        self._sleep = sleep

    def write(self, rows: list[Row], note: Callable[[str], None]) -> Answer:
        """Tell records as one job and wait for its end. Raises Refused of rows where they are too many for one file.

        Once the job is closed its rows are being done: what is refused from then on is a NoAnswer.
        """
        answer, sendable = _sorted_out(rows)
        key = self._key if rows[0].by_key else None
        text = as_csv(sendable, key)
        if (size := len(text.encode())) > MOST_BYTES:
            raise Refused(413, f"{size} bytes are more than the {MOST_BYTES} of one job")
        if not sendable:
            return answer
        # Made twice where the answer is lost: a job that gets no rows does nothing, and is left to expire.
        operation = "upsert" if key else "update"
        made = self._step(lambda: self._steps.create_job(operation, external_id_field=key))
        job_id = str(value_of(made, "id"))
        note(job_id)
        self._step(lambda: self._steps.upload_job_data(job_id, text), once=True)
        self._step(lambda: self._steps.close_job(job_id), once=True)
        try:
            job = self._ended(job_id)
            is_done = job["state"] == "JobComplete"
            answer, unknown = self._results(job_id, sendable, answer) if is_done else (answer, [])
        except Refused as refused:  # whoever may not ask: the job is at work by now, or has ended
            raise NoAnswer(f"job {job_id}: {refused}") from None
        error = str(job.get("errorMessage") or "no reason given")
        if job["state"] == "Failed" and error.startswith(OF_THE_FILE):
            raise Refused(400, f"job {job_id}: {error}", is_of_rows=False)
        if not is_done:  # some of its rows may have been
            raise NoAnswer(f"job {job_id} is {job['state']}: {error}")
        answer.missing += unknown
        return answer

    def settle(self, rows: list[Row], job_id: str) -> tuple[Answer, list[Row]]:
        """Return what became of the rows of a job, and those it does not tell of.

        A job that was not closed yet is aborted: none of its rows was done. Raises NoAnswer while it is at work.
        """
        answer, sendable = _sorted_out(rows)
        try:
            job = self._asked(lambda: self._steps.get_job(job_id, False))
            if value_of(job, "state") == "Open":
                try:
                    self._asked(lambda: self._steps.abort_job(job_id, False))
                except Refused as refused:
                    if refused.status != 400:
                        raise  # else its state is another one by now
            self._ended(job_id)
            return self._results(job_id, sendable, answer)
        except Refused as refused:
            if refused.status != 404:
                raise
        # Salesforce deletes what became of a job after seven days.
        return answer, sendable

    def _step(self, step: Callable[[], Told], once: bool = False) -> Told:
        """Take one step of a job. No row is to blame for a no; of a state, the job itself tells more."""
        try:
            return self._asked(step, once)
        except Refused as refused:
            if "INVALIDJOBSTATE" in str(refused) or refused.status == 404:
                raise NoAnswer(str(refused)) from None
            raise Refused(refused.status, str(refused), is_of_rows=False) from None

    def _ended(self, job_id: str) -> dict[str, Any]:
        """Return a job that has ended. Raises NoAnswer where it does not end within our patience."""
        waited, looks = 0.0, iter(LOOKS_S)
        while True:
            job = self._asked(lambda: self._steps.get_job(job_id, False))
            if value_of(job, "state") in ENDED:
                return job
            if waited >= PATIENCE_S:
                raise NoAnswer(f"job {job_id} is still {job['state']} after {waited:.0f} s")
            pause = next(looks, LOOKS_S[-1])
            waited += pause
            self._sleep(pause)

    def _results(self, job_id: str, rows: list[Row], answer: Answer) -> tuple[Answer, list[Row]]:
        """Add what a job that has ended says of each row, found by Id or key, as the order is not kept; return the rest."""
        column = str(self._key) if any(row.by_key for row in rows) else "Id"

        def name(cell: str) -> str:
            return cell[:15] if column == "Id" else cell

        done = {name(each[column]): each["sf__Id"] for each in self._told(job_id, "successfulResults")}
        failed = {name(each[column]): each["sf__Error"] for each in self._told(job_id, "failedResults")}
        untouched = {name(each[column]) for each in self._told(job_id, "unprocessedRecords")}
        unknown = []
        for row in rows:
            key = row.account_id if row.by_key else name(row.record_id)
            if key in failed:
                answer.refused.append((row, failed[key].removesuffix(" --").rstrip(":")))
            elif key in done:
                answer.confirmed.append(row)
                if row.by_key:
                    answer.records[row.key] = done[key]
            elif key in untouched:
                answer.missing.append(row)
            else:
                unknown.append(row)
        return answer, unknown

    def _told(self, job_id: str, results: str) -> Iterator[dict[str, str]]:
        """Yield the rows of one of a job's three lists; one that breaks off in a row ends before it."""
        text = self._asked(lambda: self._steps.get_ingest_results(job_id, results))
        for row in csv.DictReader(io.StringIO(text, newline="")):
            if None not in row and None not in row.values():
                yield row


def _sorted_out(rows: Iterable[Row]) -> tuple[Answer, list[Row]]:
    """Return the rows a CSV can carry, and an answer that refuses the others."""
    answer, sendable = Answer(), []
    for row in rows:
        if odd := [name for name, text in row.values.items() if text is not None and text.strip() == EMPTY]:
            answer.refused.append((row, f"{EMPTY} as the value of {', '.join(odd)} would empty it"))
        else:
            sendable.append(row)
    return answer, sendable


def as_csv(rows: list[Row], key: str | None = None) -> str:
    """Return rows as the CSV of a job: Id and every field that any of them has; a cell is empty where a row has it not.

    Rows that are told by the field `key` have it in the place of Id.
    """
    names = sorted({name for row in rows for name in row.values} - {key})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([key or "Id", *names])
    for row in rows:
        writer.writerow([row.account_id if key else row.record_id, *(_cell(row, name) for name in names)])
    return text.getvalue()


def _cell(row: Row, name: str) -> str:
    if name not in row.values:
        return ""
    text = row.values[name]
    # The job says that its lines end with LF.
    return EMPTY if text is None else text.replace("\r\n", "\n")
