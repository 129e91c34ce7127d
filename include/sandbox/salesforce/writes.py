"""Writes of records as Salesforce does them: row by row, each checked, with the codes it refuses a row with.

The codes are those of StatusCode in
https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm. Only what
comes over the API goes this way and into the log of writes; what the org's own users do (Store.insert, ...) does not.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from include.sandbox.salesforce.faults import SalesforceFaults
from include.sandbox.salesforce.objects import Field, SObject
from include.sandbox.salesforce.store import Store, stamp

ID = re.compile(r"[a-zA-Z0-9]{15}(?:[A-Z0-5]{3})?")
TEXTS = ("string", "textarea", "email", "picklist", "anyType")
NUMBERS = ("currency", "double", "percent")
ROLLED_BACK = (
    "Record rolled back because not all records were valid and the request was using AllOrNone header"
)


class RowError(Exception):
    """A row that is refused: Salesforce's status code, its message, and the fields at fault."""

    def __init__(self, code: str, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = list(fields)


class NoSuchColumn(Exception):
    """A field that the object type does not have, or that the user does not see."""


class WrongType(RowError):
    """A value of a kind its field does not take: over JSON the request cannot be read then."""


class _AllOrNone(Exception):
    """A row was refused in a request that is done whole or not at all."""


@dataclass(frozen=True)
class Row:
    """One row to write: insert, update, upsert or delete.

    A record is named by `record_id`; of an upsert by the value `key_value` of the field `key`.
    """

    operation: str
    object_name: str
    values: dict[str, Any]
    record_id: str | None = None
    key: str | None = None
    key_value: Any = None


@dataclass
class Outcome:
    """What came of a row: its record, whether it is new, or why it was refused."""

    record_id: str | None
    created: bool = False
    error: RowError | None = None


class Writer:
    """Writes rows into a store; `faults` may refuse some of them."""

    def __init__(self, store: Store, faults: SalesforceFaults) -> None:
        self.store = store
        self.faults = faults

    def write(
        self, rows: Sequence[Row], request: str, all_or_none: bool = False, is_json: bool = True
    ) -> list[Outcome]:
        """Write rows in their order, in one transaction with their entries in the log; one outcome each.

        Raises NoSuchColumn and UnknownObject, and over JSON WrongType; then nothing is written.
        """
        types = {row.object_name: self.store.describe(row.object_name) for row in rows}
        for row in rows:
            _check_names(types[row.object_name], row)
        doubled = _doubled_keys(rows)
        outcomes: list[Outcome] = []
        try:
            with self.store.db:
                for row in rows:
                    outcome = self._outcome(types[row.object_name], row, doubled)
                    if is_json and isinstance(outcome.error, WrongType):
                        raise outcome.error
                    outcomes.append(outcome)
                if all_or_none and any(each.error for each in outcomes):
                    raise _AllOrNone
                self._log(rows, outcomes, request)
        except _AllOrNone:
            undone = RowError("ALL_OR_NONE_OPERATION_ROLLED_BACK", ROLLED_BACK)
            outcomes = [each if each.error else Outcome(None, error=undone) for each in outcomes]
            with self.store.db:
                self._log(rows, outcomes, request)
        return outcomes

    def _log(self, rows: Sequence[Row], outcomes: list[Outcome], request: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.store.db.executemany(
            "insert into writes (at, request, operation, object, record_id, field_values, error) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    at,
                    request,
                    row.operation,
                    row.object_name,
                    done.record_id or row.record_id,
                    json.dumps(row.values | ({row.key: row.key_value} if row.key else {})),
                    done.error.code if done.error else None,
                )
                for row, done in zip(rows, outcomes, strict=True)
            ],
        )

    def _outcome(self, what: SObject, row: Row, doubled: set[tuple[str, Any]]) -> Outcome:
        record_id = None
        try:
            if not what.writable:
                raise RowError(
                    "INVALID_TYPE_FOR_OPERATION", f"entity type {what.name} does not support {row.operation}"
                )
            if row.key and (row.object_name, row.key_value) in doubled:
                raise RowError(
                    "DUPLICATE_EXTERNAL_ID",
                    f"Duplicate external id specified: {row.key_value}",
                    [row.key],
                )
            record_id = self._find(what, row)
            self._strike(row, record_id)
            return self._apply(what, row, record_id, datetime.now(UTC))
        except RowError as error:
            return Outcome(record_id, error=error)

    def _strike(self, row: Row, record_id: str | None) -> None:
        """Refuse a row the faults name: by its record, its external id, or, of a new one, its Name."""
        named = (row.values.get("Name"), row.key_value) if record_id is None else (record_id, row.key_value)
        for name in named:
            if self.faults.locked_rows.get(str(name), 0) > 0:
                self.faults.locked_rows[str(name)] -= 1
                raise RowError(
                    "UNABLE_TO_LOCK_ROW",
                    f"unable to obtain exclusive access to this record or 1 records: {record_id}",
                )
            if code := self.faults.refuse_rows.get(str(name)):
                raise RowError(code, "refused by a fault of the sandbox")

    def _find(self, what: SObject, row: Row) -> str | None:
        """Return the record a row is of; None where it will be a new one."""
        if row.operation == "insert":
            if row.record_id:
                raise RowError(
                    "INVALID_FIELD_FOR_INSERT_UPDATE", "cannot specify Id in an insert call", ["Id"]
                )
            return None
        if row.key is None or row.key == "Id":
            given = row.key_value if row.key else row.record_id
            if given:
                return self._by_id(what, given)
            if row.key:
                return None
            raise RowError("MISSING_ARGUMENT", f"Id not specified in an {row.operation} call")
        value = None if row.key_value is None else typed(what, row.key, what.fields[row.key], row.key_value)
        if value is None:
            raise RowError("MISSING_ARGUMENT", f"{row.key} not specified", [row.key])
        found = self.store.holders(what.name, row.key, value)
        if len(found) > 1:
            raise RowError(
                "DUPLICATE_EXTERNAL_ID",
                f"{row.key}: more than one record found for external id field: [{', '.join(found)}]",
                [row.key],
            )
        return found[0] if found else None

    def _by_id(self, what: SObject, given: Any) -> str:
        if not isinstance(given, str) or not ID.fullmatch(given):
            raise RowError("MALFORMED_ID", f"{what.name} ID: id value of incorrect type: {given}", ["Id"])
        record_id = given if len(given) == 18 else f"{given}AAA"
        try:
            held = self.store.row(record_id)
        except KeyError as error:
            raise RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id") from error
        if held["object"] != what.name:
            raise RowError("MALFORMED_ID", f"{what.name} ID: id value of incorrect type: {given}", ["Id"])
        if held["values"]["IsDeleted"]:
            raise RowError("ENTITY_IS_DELETED", "entity is deleted")
        return record_id

    def _apply(self, what: SObject, row: Row, record_id: str | None, at: datetime) -> Outcome:
        if row.operation == "delete":
            self.store.set_deleted(str(record_id), at, True)
            return Outcome(record_id)
        given = row.values | ({row.key: row.key_value} if row.key and row.key != "Id" else {})
        values = {name: self._value(what, name, value) for name, value in given.items()}
        self._check_rules(what, values, record_id)
        if record_id is None:
            return Outcome(self.store.add(what.name, at, values), created=True)
        self.store.change(record_id, at, values)
        return Outcome(record_id)

    def _value(self, what: SObject, name: str, given: Any) -> Any:
        field = what.fields[name]
        if not field.writable:
            raise RowError(
                "INVALID_FIELD_FOR_INSERT_UPDATE",
                f"Unable to create/update fields: {name}. Please check the security settings of this field and "
                "verify that it is read/write for your profile or permission set.",
                [name],
            )
        if given is None or given == "":
            return False if field.kind == "boolean" else None
        if field.kind == "reference":
            return self._reference(what, name, given)
        return typed(what, name, field, given)

    def _reference(self, what: SObject, name: str, given: Any) -> str:
        parent = self.store.types[what.parents[name.removesuffix("Id")]]
        if not isinstance(given, str) or not ID.fullmatch(given) or not given.startswith(parent.prefix):
            raise RowError("MALFORMED_ID", f"{name}: id value of incorrect type: {given}", [name])
        record_id = given if len(given) == 18 else f"{given}AAA"
        try:
            is_gone = self.store.row(record_id)["values"]["IsDeleted"]
        except KeyError as error:
            raise RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [name]) from error
        if is_gone:
            raise RowError("ENTITY_IS_DELETED", "entity is deleted", [name])
        return record_id

    def _check_rules(self, what: SObject, values: dict[str, Any], record_id: str | None) -> None:
        wanted = what.fields if record_id is None else values
        missing = [name for name in wanted if what.fields[name].required and values.get(name) is None]
        if missing:
            raise RowError(
                "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", missing
            )
        for name, value in values.items():
            if value is None or not what.fields[name].unique:
                continue
            if others := [each for each in self.store.holders(what.name, name, value) if each != record_id]:
                raise RowError(
                    "DUPLICATE_VALUE",
                    f"duplicate value found: {name} duplicates value on record with id: {others[0][:15]}",
                )


def typed(what: SObject, name: str, field: Field, given: Any) -> Any:
    """Return a value as the store keeps it; `given` is of JSON, or text of a CSV. Raises RowError.

    Text loses the blanks around it, and is null where nothing is left, as in Salesforce.
    """
    if field.kind in TEXTS:
        if not isinstance(given, str):
            raise _wrong(name, given)
        return _text(what, name, field, given.strip())
    try:
        if field.kind == "boolean":
            return given if isinstance(given, bool) else {"true": True, "false": False}[given.lower()]
        if isinstance(given, bool):
            raise _wrong(name, given)
        if field.kind in NUMBERS:
            number = float(given)
            if not math.isfinite(number):
                raise _wrong(name, given)
            return number
        if field.kind == "date":
            return date.fromisoformat(given[:10]).isoformat()
        moment = datetime.fromisoformat(given)
        return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _wrong(name, given) from error


def _text(what: SObject, name: str, field: Field, given: str) -> str | None:
    if len(given) > field.longest:
        raise RowError(
            "STRING_TOO_LONG",
            f"{what.name} {name}: data value too large: {given[:80]} (max length={field.longest})",
            [name],
        )
    if given and field.values and given not in field.values:
        raise RowError(
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            f"{name}: bad value for restricted picklist field: {given}",
            [name],
        )
    return given or None


def _wrong(name: str, given: Any) -> WrongType:
    return WrongType(
        "INVALID_TYPE_ON_FIELD_IN_RECORD", f"{name}: value not of required type: {given}", [name]
    )


def _check_names(what: SObject, row: Row) -> None:
    for name in [*row.values, *([row.key] if row.key else [])]:
        if name not in what.fields:
            raise NoSuchColumn(f"No such column '{name}' on sobject of type {what.name}")


def _doubled_keys(rows: Sequence[Row]) -> set[tuple[str, Any]]:
    keys = Counter((row.object_name, row.key_value) for row in rows if row.key and row.key_value)
    return {key for key, times in keys.items() if times > 1}
