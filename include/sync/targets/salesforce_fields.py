"""Custom fields of a Salesforce object type: which are missing, making them over the Tooling API, and granting them."""

from collections.abc import Callable
from typing import Any

from simple_salesforce import Salesforce

from include.sync.target import Refused, Setup
from include.sync.targets.salesforce_bulk import Asks, value_of

CUSTOM = "__c"
OUR_PREFIX = "stratum_"
PERMISSION_SET = "Stratum_Sync"
DEFINITIONS: dict[str, dict[str, Any]] = {
    "string": {"type": "Text", "length": 255},
    "number": {"type": "Number", "precision": 18, "scale": 6},
    "date": {"type": "Date"},
    "moment": {"type": "DateTime"},
    "bool": {"type": "Checkbox", "defaultValue": "false"},
}
"""Kind of value → the metadata of a custom field that takes it."""
# https://developer.salesforce.com/docs/platform/api-rest/guide/intro-valid-date-formats.md: a day is told to a date, and a
# moment to a dateTime.
TAKES = {
    "number": ("double", "currency", "percent", "int"),
    "date": ("date",),
    "moment": ("datetime",),
    "bool": ("boolean",),
}
"""Kind of value → the types, by a describe, that take it, of those that refuse a text which is none of theirs."""
STRICT = [type_ for types in TAKES.values() for type_ in types]
"""The others keep texts, or choose among a company's own."""
EXISTS = "DUPLICATE_DEVELOPER_NAME"


def set_up_fields(
    client: Salesforce,
    object_name: str,
    kinds: dict[str, str],
    make: bool,
    seen: Callable[[], dict[str, dict[str, Any]]],
    asked: Asks,
    key: str | None = None,
) -> Setup:
    """Make the fields that are missing and begin with Stratum_ and end with __c, and let the user write them.

    `seen` describes the fields the user sees, by name. A field that nobody granted is not seen: it is granted through
    the permission set Stratum_Sync. Left to a person are fields of other names, what Salesforce refuses, and the
    assignment of the permission set to the user, which only an administrator can tell. The field `key` is made a unique
    external id; one that is there and is none is left to a person. One that is there and of a type that takes no such
    value is unfit.
    """
    missing = [name for name in kinds if not seen().get(name, {}).get("updateable")]
    by_hand = {name: _how(object_name, name, kinds[name], name in seen()) for name in missing}
    if key in seen() and not (seen()[key].get("externalId") and seen()[key].get("unique")):
        by_hand[key] = (
            f"{object_name}.{key} is there and is no unique external id: edit it in Salesforce's Object Manager and tick "
            "Unique and External ID, or name another field as external_key"
        )
    elif key in by_hand:
        by_hand[key] += ", unique (case sensitive) and external id"
    ours = [
        name for name in missing if make and name.lower().startswith(OUR_PREFIX) and name.endswith(CUSTOM)
    ]
    if not ours:
        return Setup([], by_hand, _unfit(object_name, kinds, seen()))
    made = []
    for name in ours:
        try:
            _make(client, object_name, name, kinds[name], asked, is_key=name == key)
            _grant(client, object_name, name, asked)
            made.append(name)
        except Refused as refused:
            if refused.is_temporary or refused.status == 401:
                raise
            by_hand[name] += f" (Salesforce said: {refused})"
    fields = value_of(asked(getattr(client, object_name).describe), "fields")
    described = {each["name"]: each for each in fields}
    writable = {name for name, each in described.items() if each["updateable"]}
    for name in made:
        if name in writable:
            del by_hand[name]
        else:
            by_hand[name] = (
                f"it is made; assign the permission set {PERMISSION_SET} to the user of the connection"
            )
    unfit = _unfit(object_name, kinds, described)  # what nobody had granted is seen only now
    return Setup([name for name in made if name in writable and name not in unfit], by_hand, unfit)


def _unfit(object_name: str, kinds: dict[str, str], described: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the fields that are there and whose type takes no value of their kind, each with why."""
    types = {name: described[name].get("type") for name in kinds if name in described}
    return {
        name: f"{object_name}.{name} is there and of type {type_}, which does not take a {kinds[name]}: name another one"
        for name, type_ in types.items()
        if type_ in STRICT and type_ not in TAKES.get(kinds[name], ())
    }


def _how(object_name: str, name: str, kind: str, is_seen: bool) -> str:
    if is_seen:
        return f"the user of the connection may not edit {object_name}.{name}: grant it in a permission set"
    told = DEFINITIONS[kind]
    size = f"({told['length']})" if "length" in told else ""
    custom = "" if name.endswith(CUSTOM) else f", whose API name will end with {CUSTOM}: correct sync.yml"
    return f"a custom field of {object_name}, type {told['type']}{size}, granted to the user of the connection{custom}"


def _make(client: Salesforce, object_name: str, name: str, kind: str, asked: Asks, is_key: bool) -> None:
    label = name.removesuffix(CUSTOM)[len(OUR_PREFIX) :].replace("_", " ").strip().capitalize() or name
    metadata = {
        "label": f"Stratum {label}"[:40],
        "description": "Written by Stratum; a change made here is overwritten or reported, as sync.yml says.",
        **DEFINITIONS[kind],
        **({"unique": True, "caseSensitive": True, "externalId": True} if is_key else {}),
    }
    body = {"FullName": f"{object_name}.{name}", "Metadata": metadata}
    path = "tooling/sobjects/CustomField/"
    try:
        asked(lambda: client.restful(path, method="POST", json=body))
    except Refused as refused:
        if EXISTS not in str(refused):  # it is there and not granted, or an answer was lost
            raise


def _grant(client: Salesforce, object_name: str, name: str, asked: Asks) -> None:
    field = f"{object_name}.{name}"
    query = f"select Id from PermissionSet where Name = '{PERMISSION_SET}'"  # noqa: S608 - SOQL, of our names
    found = value_of(asked(lambda: client.query(query)), "records")
    if found:
        set_id = found[0]["Id"]
    else:
        rights = {"Name": PERMISSION_SET, "Label": "Stratum sync"}
        path = "sobjects/PermissionSet/"
        made: Any = asked(lambda: client.restful(path, method="POST", json=rights))
        set_id = value_of(made, "id")
    query = f"select Id from FieldPermissions where ParentId = '{set_id}' and Field = '{field}'"  # noqa: S608
    if value_of(asked(lambda: client.query(query)), "records"):
        return
    grant = {
        "ParentId": set_id,
        "SobjectType": object_name,
        "Field": field,
        "PermissionsRead": True,
        "PermissionsEdit": True,
    }
    asked(lambda: client.restful("sobjects/FieldPermissions/", method="POST", json=grant))
