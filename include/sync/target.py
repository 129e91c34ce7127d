"""What a system that is told must offer: write rows, say of each what became of it, and let them be read back."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

ROW_FAULTS = (400, 404, 409, 413, 422)  # a no to what was sent: one row can be the cause
TOLD_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)([.][0-9]*[1-9])?")
HELD_NUMBER = re.compile(r"-?(0|[1-9][0-9]*|(?=[.][0-9]))([.][0-9]*)?([eE][+-]?[0-9]{1,3})?")
TOLD_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
TOLD_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
MILLISECONDS = re.compile(r"-?[0-9]{1,15}")
MIDNIGHT = "T00:00:00"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TURNED_AWAY = (423, 429, 477)  # answered before anything was done: locked, rate limited, migrating


class Refused(Exception):
    """The system answered no: `status` is the HTTP status, the text is its reason without any secret.

    `is_of_rows` tells a no to what was sent, which one row can have caused, from a no to the caller (token,
    permission, quota), with which the next batch fares no better.
    """

    def __init__(self, status: int, reason: str, is_of_rows: bool | None = None) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status
        self.is_of_rows = status in ROW_FAULTS if is_of_rows is None else is_of_rows
        self.is_temporary = status in TURNED_AWAY


class NoAnswer(Exception):
    """The system did not answer, or not sensibly: whether it did what was asked is not known."""


@dataclass(frozen=True)
class Row:
    """One record to update, or to make: field → new value as text, None to clear it.

    `key` is the id of the attempt: it names the row in answers, and is the idempotency key where the system takes one.
    """

    key: str
    account_id: str
    record_id: str
    values: dict[str, str | None]
    by_key: bool = False
    """The record is named by the account's key and not by `record_id`: where none has it, it is to be made."""


@dataclass
class Answer:
    """What the system says became of rows; each row is in one list.

    After a write, `missing` are rows that the answer does not speak of. After `settle` they did not land.
    """

    confirmed: list[Row] = field(default_factory=list)
    refused: list[tuple[Row, str]] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)
    proof: str = "answer"
    """How the confirmed rows are known: 'answer', or 'read_back' where they were read."""
    records: dict[str, str] = field(default_factory=dict)
    """A row's key → the id of its record, of the rows that were told by the account's key."""
    overwritten: dict[str, set[str]] = field(default_factory=dict)
    """Record id → the fields on which the values of another record's row were written: what it held is not known now."""


@dataclass
class Setup:
    """What a target lacked: the fields that were made, and those a person must make, each with how.

    `unfit` are fields that are there and cannot be told, each with why.
    """

    made: list[str] = field(default_factory=list)
    by_hand: dict[str, str] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    """What is to be said in place of all that, of a target that has no fields."""


class Target(Protocol):
    """One object type of one system. Waits out rate limits by itself; every call may raise Refused or NoAnswer."""

    name: str
    """What errors call it, such as 'HubSpot at https://api.hubapi.com'."""
    can_read: bool
    """Whether `read` can be asked; a webhook cannot."""

    @property
    def calls(self) -> int:
        """HTTP requests of every kind made so far."""

    def batch_size(self, rows: int) -> int:
        """Return how many rows a write takes where so many are to be sent in all."""

    def setup(self, kinds: dict[str, str], make: bool) -> Setup:
        """Compare the fields (name → string, number, date, moment or bool) with what the system has.

        With `make`, make those it lacks where its API allows; without, list all of them as to be made by hand.
        """

    def write(self, rows: list[Row], note: Callable[[str], None]) -> Answer:
        """Update records. An asynchronous write calls `note` with its job's id before it hands over any row.

        Raises NoAnswer at once where the answer is lost: only `settle` can tell whether it was done.
        """

    def settle(self, rows: list[Row], job_id: str | None) -> Answer:
        """Say what became of a write that has no answer, without ever doing it a second time.

        `job_id` is what the write noted. Rows that cannot be known yet raise NoAnswer.
        """

    def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
        """Return record id → the fields' present values, of any number of records; those that are gone are left out."""

    def find(self, keys: list[str]) -> dict[str, str]:
        """Return key → record id of the records that bear one of the accounts' keys, of any number of keys."""

    def is_same(self, told: str | None, held: str | None) -> bool:
        """Tell whether the system holds what it was told; it may write a value in another way."""


def as_text(value: Any) -> str | None:
    """Return a JSON value of a CRM's answer as the text it would be told as, None where it holds nothing.

    Numbers are plain decimals without trailing zeros, booleans true and false, as `plan_sql` writes them.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        number = Decimal(str(value))
        return (f"{number.normalize():f}" if number else "0") if number.is_finite() else None
    return str(value)


def same_text(told: str | None, held: str | None) -> bool:
    """Tell whether two texts say the same: equal, both empty, one number, one day or one moment.

    A number is told without a zero too many, and no system adds one before it: the texts 007 and 7 are two.
    """
    if not told or not held:
        return not told and not held
    if told == held:
        return True
    if TOLD_DATE.fullmatch(told):
        # A day is held as a midnight: that of UTC, or the one before an offset of the CRM's own.
        return held.startswith(told + MIDNIGHT) or _is_moment(held, told + MIDNIGHT + "Z")
    if TOLD_MOMENT.fullmatch(told):
        return _is_moment(held, told)
    are_numbers = TOLD_NUMBER.fullmatch(told) and HELD_NUMBER.fullmatch(held)
    return bool(are_numbers) and Decimal(told) == Decimal(held)


def same_double(told: str | None, held: str | None) -> bool:
    """Tell whether a system that keeps numbers as doubles holds what it was told: the same, or the nearest double."""
    if same_text(told, held):
        return True
    is_number = told and held and TOLD_NUMBER.fullmatch(told)
    return bool(is_number) and same_text(as_text(float(told or "")), held)


def _is_moment(held: str, wanted: str) -> bool:
    """Tell whether a text is a moment: at any offset, or in milliseconds since 1970. Without an offset it is none."""
    try:
        is_counted = MILLISECONDS.fullmatch(held)
        shown = EPOCH + timedelta(milliseconds=int(held)) if is_counted else datetime.fromisoformat(held)
        return shown.tzinfo is not None and shown == datetime.fromisoformat(wanted)
    except (ValueError, OverflowError):  # neither is a day that there is
        return False


def found_among(asked: list[str], held: dict[str, str]) -> dict[str, str]:
    """Return asked key → record id, by the keys that records bear (key → record id).

    Whether a CRM minds the case of a unique value it does not say: one in another case alone is no other one.
    """
    folded = {key.casefold(): record_id for key, record_id in held.items()}
    found = {key: held.get(key) or folded.get(key.casefold()) for key in asked}
    return {key: record_id for key, record_id in found.items() if record_id}


def settled_by_reading(target: Target, rows: list[Row]) -> Answer:
    """Return what reading tells of rows whose write got no answer: they hold all values, or did not land."""
    names = sorted({name for row in rows for name in row.values})
    keys = [row.account_id for row in rows if row.by_key]
    found = target.find(keys) if keys else {}
    ids = {row.key: found.get(row.account_id) if row.by_key else row.record_id for row in rows}
    held = target.read([each for each in ids.values() if each], names)
    answer = Answer(proof="read_back")
    for row in rows:
        record_id = ids[row.key]
        shown = held.get(record_id) if record_id else None
        if record_id is None or shown is None or differing(target, row, shown):
            answer.missing.append(row)
            continue
        answer.confirmed.append(row)
        if row.by_key:
            answer.records[row.key] = record_id
    return answer


def differing(target: Target, row: Row, shown: dict[str, str | None]) -> list[str]:
    """Return the fields of a row of which the system shows another value than it was told."""
    return [name for name, told in row.values.items() if not target.is_same(told, shown.get(name))]
