"""The records of the sandbox's Salesforce org, with the history of their tracked fields, in one sqlite file."""

import json
import operator
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.sandbox.salesforce.objects import OBJECTS, SNAPSHOT_FIELDS, Field, SObject
from include.sandbox.salesforce.soql import Condition, Query

SCHEMA = """
create table if not exists rows (
    seq integer primary key autoincrement,
    id text not null unique,
    object text not null,
    field_values text not null
);
create index if not exists rows_of on rows (object, seq);
create table if not exists custom_fields (
    object text not null,
    name text not null,
    definition text not null,
    primary key (object, name)
);
create table if not exists writes (
    seq integer primary key autoincrement,
    at text not null,
    request text not null,
    operation text not null,
    object text not null,
    record_id text,
    field_values text not null,
    error text
);
create index if not exists writes_of on writes (record_id, seq);
"""
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class UnknownObject(Exception):
    """An object type the org does not have, or does not show."""


class UnknownField(Exception):
    """A field its object type does not have, or does not show."""


def stamp(moment: datetime) -> str:
    """Return an instant as REST writes it: UTC to the second, which is all Salesforce keeps."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


class Store:
    """Rows of all object types. `tracked` names the fields whose history is kept, by object type.

    `hidden` are object types, or `Object.Field`, that the user may not see.
    """

    def __init__(self, path: Path, tracked: dict[str, set[str]] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.tracked = tracked or {}
        self.hidden: set[str] = set()
        self.db = sqlite3.connect(path, check_same_thread=False)
        self.db.row_factory = sqlite3.Row
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("pragma synchronous = normal")
        self.db.executescript(SCHEMA)
        (before,) = self.db.execute("pragma user_version").fetchone()
        # How often the file was opened: numbers that begin anew with the server are told apart by it in the log.
        self.opened: int = before + 1
        self.db.execute(f"pragma user_version = {self.opened}")
        self.types = dict(OBJECTS)
        for row in self.db.execute("select object, name, definition from custom_fields order by rowid"):
            self._know(row["object"], row["name"], Field(**json.loads(row["definition"])))
        for what in OBJECTS.values():
            for name, field in what.own_fields.items():
                self._index(what.name, name, field)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    # What users of the org do ------------------------------------------------------------------------------------

    def insert(self, name: str, at: datetime, **values: Any) -> str:
        """Add a record made at that moment and return its id."""
        with self.db:
            return self.add(name, at, values)

    def update(self, record_id: str, at: datetime, **values: Any) -> None:
        """Change a record at that moment; tracked fields leave their old value in the history."""
        with self.db:
            self.change(record_id, at, values)

    def delete(self, record_id: str, at: datetime) -> None:
        """Move a record to the recycle bin, with the history of its fields."""
        with self.db:
            self.set_deleted(record_id, at, True)

    def undelete(self, record_id: str, at: datetime) -> None:
        """Take a record out of the recycle bin."""
        with self.db:
            self.set_deleted(record_id, at, False)

    def add_field(self, object_name: str, name: str, field: Field) -> None:
        """Give an object type a custom field. Raises sqlite3.IntegrityError where it has one of that name.

        As in Salesforce, nobody sees the field before a record of FieldPermissions grants it.
        """
        with self.db:
            self.db.execute(
                "insert into custom_fields (object, name, definition) values (?, ?, ?)",
                [object_name, name, json.dumps(asdict(field))],
            )
            self._index(object_name, name, field)
        self._know(object_name, name, field)

    def _know(self, object_name: str, name: str, field: Field) -> None:
        what = self.types[object_name]
        # What JSON holds of the values is a list.
        held = replace(field, values=tuple(field.values))
        self.types[object_name] = replace(what, own_fields=what.own_fields | {name: held})

    def _index(self, object_name: str, name: str, field: Field) -> None:
        if field.unique or field.external_id:
            self.db.execute(
                f'create index if not exists "by_{object_name}_{name}" '
                f"on rows (object, json_extract(field_values, '$.{name}'))"
            )

    # The same inside a transaction of the caller's ----------------------------------------------------------------

    def add(self, name: str, at: datetime, values: dict[str, Any]) -> str:
        """Add a record and return its id; the caller commits."""
        record_id = self._add(self.types[name], at, values)
        if self.tracked.get(name):
            self._remember(self.types[name], record_id, "created", None, None, at)
        if name == "Opportunity":
            self._snapshot(record_id, values, at)
        return record_id

    def change(self, record_id: str, at: datetime, values: dict[str, Any]) -> None:
        """Change a record; the caller commits."""
        before = self.row(record_id)
        what = self.types[before["object"]]
        after = before["values"] | values
        for name, value in values.items():
            if name in self.tracked.get(what.name, ()) and before["values"].get(name) != value:
                self._remember_change(what, record_id, name, before["values"].get(name), value, at)
        if what.name == "Opportunity" and any(
            name in values and values[name] != before["values"].get(name) for name in SNAPSHOT_FIELDS
        ):
            self._snapshot(record_id, after, at)
        self._save(record_id, after, at)

    def set_deleted(self, record_id: str, at: datetime, is_deleted: bool) -> None:
        """Move a record to the recycle bin or out of it; the caller commits."""
        row = self.row(record_id)
        self._save(record_id, row["values"] | {"IsDeleted": is_deleted}, at)

    def _add(self, what: SObject, at: datetime, values: dict[str, Any]) -> str:
        if unknown := set(values) - set(what.fields):
            raise UnknownField(f"{what.name} has no {min(unknown)}")
        (last,) = self.db.execute("select coalesce(max(seq), 0) from rows").fetchone()
        # Fifteen characters without a capital have the checksum AAA.
        record_id = f"{what.prefix}5g{last + 1:010d}AAA"
        fixed: dict[str, Any] = {
            name: False for name, field in what.fields.items() if field.kind == "boolean"
        }
        fixed |= {"Id": record_id, "CreatedDate": stamp(at)}
        changed = {"LastModifiedDate": stamp(at), "SystemModstamp": stamp(at)}
        self.db.execute(
            "insert into rows (id, object, field_values) values (?, ?, ?)",
            [record_id, what.name, json.dumps(fixed | changed | values)],
        )
        return record_id

    def _save(self, record_id: str, values: dict[str, Any], at: datetime) -> None:
        changed = {"LastModifiedDate": stamp(at), "SystemModstamp": stamp(at)}
        self.db.execute(
            "update rows set field_values = ? where id = ?", [json.dumps(values | changed), record_id]
        )

    def _remember_change(
        self, what: SObject, record_id: str, name: str, old: Any, new: Any, at: datetime
    ) -> None:
        """Write a change down; that of a lookup twice, with the names and with the ids, as Salesforce does."""
        if what.fields[name].kind != "reference":
            self._remember(what, record_id, name, old, new, at)
            return
        label = name.removesuffix("Id")
        names = [self.row(each)["values"].get("Name") if each else None for each in (old, new)]
        self._remember(what, record_id, label, names[0], names[1], at)
        self._remember(what, record_id, label, old, new, at)

    def _remember(self, what: SObject, parent: str, field: str, old: Any, new: Any, at: datetime) -> None:
        history = self.types[str(what.history)]
        values = {f"{what.name}Id": parent, "Field": field, "OldValue": old, "NewValue": new}
        self._add(history, at, values)

    def _snapshot(self, record_id: str, values: dict[str, Any], at: datetime) -> None:
        held = {name: values.get(name) for name in SNAPSHOT_FIELDS}
        self._add(self.types["OpportunityHistory"], at, {"OpportunityId": record_id} | held)

    # What queries see --------------------------------------------------------------------------------------------

    def row(self, record_id: str) -> dict[str, Any]:
        """Return a record's object type and values. Raises KeyError where there is none."""
        found = self.db.execute("select object, field_values from rows where id = ?", [record_id]).fetchone()
        if found is None:
            raise KeyError(record_id)
        return {"object": found["object"], "values": json.loads(found["field_values"])}

    def holders(self, name: str, field: str, value: Any) -> list[str]:
        """Return the ids of the records, not deleted, whose field, one the object type has, is of that value."""
        found = self.db.execute(
            f"select id from rows where object = ? and json_extract(field_values, '$.{field}') = ? "  # noqa: S608
            "and not json_extract(field_values, '$.IsDeleted') order by seq",
            [name, value],
        )
        return [row["id"] for row in found]

    def written(self, record_id: str | None = None) -> list[dict[str, Any]]:
        """Return the log of writes that came over the API, oldest first: of one record, or all.

        Each holds at, request (X-Request-Id of its answer, or the id of the Bulk job), operation, object, record_id,
        values, and error: null where it was applied, else the code it was refused with.
        """
        rows = self.db.execute(
            "select * from writes where ? is null or record_id = ? order by seq", [record_id, record_id]
        )
        return [
            {name: row[name] for name in ("at", "request", "operation", "object", "record_id", "error")}
            | {"values": json.loads(row["field_values"])}
            for row in rows
        ]

    def describe(self, name: str) -> SObject:
        """Return an object type with the fields the user sees. Raises UnknownObject."""
        what = self.types.get(name)
        keeps_none = {each.history for each in OBJECTS.values() if not self.tracked.get(each.name)}
        if what is None or name in self.hidden or name in keeps_none:
            raise UnknownObject(name)
        granted = self._granted(name)
        seen = {}
        for field, rules in what.own_fields.items():
            is_custom = field not in OBJECTS[name].own_fields
            if f"{name}.{field}" in self.hidden or (is_custom and field not in granted):
                continue
            seen[field] = replace(rules, writable=granted[field]) if is_custom else rules
        return replace(what, own_fields=seen)

    def _granted(self, name: str) -> dict[str, bool]:
        """Return the custom fields of an object type the user may read → whether he may also write them."""
        granted: dict[str, bool] = {}
        for held in self._rows(self.types["FieldPermissions"]):
            if held["SobjectType"] == name and held["PermissionsRead"] and not held["IsDeleted"]:
                field = str(held["Field"]).partition(".")[2]
                granted[field] = granted.get(field, False) or bool(held["PermissionsEdit"])
        return granted

    def find(self, query: Query, with_deleted: bool) -> list[dict[str, Any]]:
        """Return the asked fields of the rows that meet a query, in order of creation or as asked.

        Raises UnknownObject and UnknownField.
        """
        what = self.describe(query.object_name)
        asked = [*query.fields, *(each.field for each in query.conditions)]
        for path in [*asked, *([query.order_by] if query.order_by else [])]:
            self._check(what, path)
        found = [
            row
            for row in self._rows(what)
            if (with_deleted or not row["IsDeleted"])
            and all(self._holds(what, row, each) for each in query.conditions)
        ]
        if query.order_by:
            order_by = query.order_by
            found.sort(key=lambda row: str(self._value(what, row, order_by)), reverse=query.descending)
        return [{path: self._value(what, row, path) for path in query.fields} for row in found[: query.limit]]

    def _rows(self, what: SObject) -> Iterator[dict[str, Any]]:
        if what.name == "FieldDefinition":
            yield from self._field_definitions()
            return
        rows = self.db.execute("select field_values from rows where object = ? order by seq", [what.name])
        for row in rows.fetchall():
            yield dict.fromkeys(what.fields) | json.loads(row["field_values"])

    def _field_definitions(self) -> Iterator[dict[str, Any]]:
        for name, what in self.types.items():
            for field in what.fields:
                is_tracked = field in self.tracked.get(name, ())
                yield {
                    "Id": f"{name}.{field}",
                    "IsDeleted": False,
                    "QualifiedApiName": field,
                    "IsFieldHistoryTracked": is_tracked,
                    "EntityDefinitionId": name,
                }

    def _check(self, what: SObject, path: str) -> None:
        relationship, dot, field = path.rpartition(".")
        if dot:
            if what.parents.get(relationship, "") in {"", *self.hidden}:
                raise UnknownField(f"Didn't understand relationship '{relationship}' in field path.")
            what = self.describe(what.parents[relationship])
        if field not in what.fields:
            raise UnknownField(f"No such column '{field}' on entity '{what.name}'.")

    def _value(self, what: SObject, row: dict[str, Any], path: str) -> Any:
        relationship, dot, field = path.rpartition(".")
        if not dot:
            return row[field]
        parent_id = row[f"{relationship}Id"]
        if relationship == "EntityDefinition":
            return parent_id
        return self.row(parent_id)["values"].get(field) if parent_id else None

    def _holds(self, what: SObject, row: dict[str, Any], condition: Condition) -> bool:
        value = self._value(what, row, condition.field)
        wanted = condition.value
        if condition.sign == "in":
            return value in wanted
        if isinstance(wanted, datetime) and value is not None:
            value = datetime.fromisoformat(value)
        if condition.sign in ("=", "!="):
            return (value == wanted) == (condition.sign == "=")
        return value is not None and COMPARE[condition.sign](value, wanted)
