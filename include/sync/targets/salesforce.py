"""Salesforce as a target: records of one object type, updated by Id or made by an external id.

sObject Collections for few, Bulk API 2.0 for many.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

from simple_salesforce import format_soql
from simple_salesforce.exceptions import SalesforceError, SalesforceOperationError

from include.errors import StratumError
from include.sources.salesforce_api import SalesforceApi, Silent, TurnedAway, code_of, reason_of
from include.sync.target import (
    ROW_FAULTS,
    Answer,
    NoAnswer,
    Refused,
    Row,
    Setup,
    as_text,
    found_among,
    same_double,
    settled_by_reading,
)
from include.sync.targets.salesforce_bulk import BulkJobs, value_of
from include.sync.targets.salesforce_fields import set_up_fields

# https://developer.salesforce.com/docs/platform/salesforce-app-limits-cheatsheet/guide/salesforce-app-limits-platform-bulkapi.html:
# fewer than 2,000 records are for calls that answer at once.
BULK_FROM = 2_000
COLLECTION_ROWS = 200
JOB_ROWS = 50_000
"""Of one job: Salesforce does it in batches of 10,000, several at a time. A switch is looked at between jobs."""
READ_ROWS = 2_000
FIND_ROWS = 100
"""Keys of one query: it is part of the address, of which Salesforce takes 16,384 bytes."""
OF_NO_ROW = ("INVALID_FIELD", "INVALID_TYPE", "INVALID_SESSION_ID", "API_DISABLED_FOR_ORG")
"""Codes of a 400 that no row is to blame for: the next batch fares no better."""
NUMBERS = ("double", "currency", "percent", "int")
Told = TypeVar("Told")


class SalesforceTarget:
    """The records of one object type of one org, as include/sync/target.py asks of a target."""

    can_read = True

    def __init__(
        self,
        api: SalesforceApi,
        object_name: str,
        sleep: Callable[[float], None] = time.sleep,
        key: str | None = None,
    ) -> None:
        """`key` is the external id by which records are made."""
        self.api = api
        self.object_name = object_name
        self.name = f"Salesforce at {api.instance}"
        self.key = key
        self._bulk = BulkJobs(api.client, object_name, self.asked, sleep, key)
        self._described: dict[str, dict[str, Any]] = {}

    @property
    def calls(self) -> int:
        """HTTP requests made so far, logins included."""
        return self.api.calls

    def batch_size(self, rows: int) -> int:
        """Return the rows of a collection where there are few, those of a job where there are many."""
        return COLLECTION_ROWS if rows < BULK_FROM else JOB_ROWS

    def setup(self, kinds: dict[str, str], make: bool) -> Setup:
        """Make the custom fields the object type lacks, and grant them to the user; see set_up_fields."""
        done = set_up_fields(
            self.api.client, self.object_name, kinds, make, self._fields, self.asked, self.key
        )
        self._described = {}
        return done

    def write(self, rows: list[Row], note: Callable[[str], None]) -> Answer:
        """Update records by Id, or make them: what fits into a collection in one call, more as a job."""
        if len(rows) > COLLECTION_ROWS:
            return self._bulk.write(rows, note)
        is_upsert = rows[0].by_key
        path = f"composite/sobjects/{self.object_name}/{self.key}" if is_upsert else "composite/sobjects"
        records = [
            {"attributes": {"type": self.object_name}}
            | ({} if is_upsert else {"Id": row.record_id})
            | self._values(row)
            for row in rows
        ]
        body = {"allOrNone": False, "records": records}
        told = self.asked(lambda: self.api.client.restful(path, method="PATCH", json=body), once=True)
        return read_results(told or [], rows)

    def settle(self, rows: list[Row], job_id: str | None) -> Answer:
        """Ask the job what became of its rows; read the records where there was none, or none is known any more."""
        if job_id is None:
            return settled_by_reading(self, rows)
        answer, unknown = self._bulk.settle(rows, job_id)
        if unknown:
            read = settled_by_reading(self, unknown)
            answer.confirmed += read.confirmed
            answer.missing += read.missing
            answer.records |= read.records
            answer.proof = read.proof
        return answer

    def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
        """Return record id → fields as text; deleted and unknown records are left out."""
        found: dict[str, dict[str, str | None]] = {}
        path = f"composite/sobjects/{self.object_name}"
        for start in range(0, len(record_ids), READ_ROWS):
            some = record_ids[start : start + READ_ROWS]
            ask = partial(self.api.client.restful, path, method="POST", json={"ids": some, "fields": fields})
            told = self.asked(ask)
            if not isinstance(told, list) or len(told) != len(some):
                raise NoAnswer(f"{len(some)} records were asked for, and the answer is of another number")
            if not all(record is None or isinstance(record, dict) for record in told):
                raise NoAnswer("records were asked for, and the answer has others")
            # In the order asked for, null in the place of one that is not there.
            for record_id, record in zip(some, told, strict=True):
                if record is not None:
                    found[record_id] = {name: as_text(record.get(name)) for name in fields}
        return found

    def find(self, keys: list[str]) -> dict[str, str]:
        """Return key → record id; deleted records are left out."""
        found: dict[str, str] = {}
        for start in range(0, len(keys) if self.key else 0, FIND_ROWS):
            some = keys[start : start + FIND_ROWS]
            query = format_soql(
                "select Id, {key:literal} from {name:literal} where {key:literal} in {some}",
                key=self.key,
                name=self.object_name,
                some=some,
            )
            told: Any = self.asked(partial(self.api.client.query, query))
            records = value_of(told, "records")
            found |= found_among(
                some, {str(value_of(each, str(self.key))): value_of(each, "Id") for each in records}
            )
        return found

    def is_same(self, told: str | None, held: str | None) -> bool:
        """Tell whether Salesforce holds what it was told.

        It takes the blanks around a text away, keeps numbers as doubles, and a checkbox that is emptied is false.
        """
        told, held = _plain(told), _plain(held)
        return same_double(told, held) or (told is None and held == "false")

    def asked(self, call: Callable[[], Told], once: bool = False) -> Told:
        """Return what a call to the client gives; `once` for one that writes. Raises Refused or NoAnswer."""
        try:
            with self.api.session.once() if once else nullcontext():
                return call()
        except SalesforceError as error:
            status, code = int(error.status), code_of(error)
            is_of_rows = status in ROW_FAULTS and code not in OF_NO_ROW
            raise Refused(status, reason_of(error).partition(": ")[2], is_of_rows) from None
        except TurnedAway as error:
            raise Refused(429, str(error)) from None
        except (Silent, SalesforceOperationError) as error:
            raise NoAnswer(str(error)) from None
        except StratumError as error:  # the session had expired, and the new login was refused
            raise Refused(401, str(error)) from None

    def _fields(self) -> dict[str, dict[str, Any]]:
        """Return what the user sees of the object type's fields, by name."""
        if not self._described:
            described = self.asked(getattr(self.api.client, self.object_name).describe)
            self._described = {field["name"]: field for field in value_of(described, "fields")}
        return self._described

    def _values(self, row: Row) -> dict[str, Any]:
        return {
            name: json_value(self._fields().get(name, {}).get("type", ""), text)
            for name, text in row.values.items()
        }


def json_value(kind: str, text: str | None) -> Any:
    """Return a text as JSON has a field of that kind; as it is where it cannot be read so, for Salesforce to refuse."""
    if text is None:
        return None
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if kind in NUMBERS:
        try:
            return float(text)
        except ValueError:
            return text
    return text


def read_results(told: Any, rows: list[Row]) -> Answer:
    """Sort the rows of a collection by their results, which come in order, one for each.

    Where they are not as many as the rows, or a result names another record, which row is meant is not known.
    """
    answer = Answer()
    if not isinstance(told, list) or len(told) != len(rows):
        answer.missing = list(rows)
        return answer
    for row, result in zip(rows, told, strict=True):
        if not isinstance(result, dict):
            answer.missing.append(row)
            continue
        named = result.get("id")
        of_another = not row.by_key and str(named or row.record_id)[:15] != row.record_id[:15]
        if of_another or "success" not in result or (row.by_key and result["success"] is True and not named):
            answer.missing.append(row)
        elif result["success"] is True:
            answer.confirmed.append(row)
            if row.by_key:
                answer.records[row.key] = str(named)
        else:
            reasons = [
                f"{each.get('statusCode')}: {each.get('message')}" for each in result.get("errors") or []
            ]
            answer.refused.append((row, "; ".join(reasons) or "refused without a reason"))
    return answer


def _plain(text: str | None) -> str | None:
    """Return a text as Salesforce keeps it: no blanks around it, line ends of one kind, null for nothing."""
    return (text or "").replace("\r\n", "\n").strip() or None
