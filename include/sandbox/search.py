"""The search of the CRM: what HubSpot's filters let through, in SQL over the sandbox's records.

https://developers.hubspot.com/docs/api-reference/crm-search-v3/guide has the operators and limits: 200 records to a page,
10,000 to a query, five groups of filters (any of which), six filters to a group (all of which), one sorting rule.
Archived records are never shown.
"""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from include.sandbox.answers import MODIFIED, Failure
from include.sandbox.store import Store, stamp

PAGE_LIMIT = 200
QUERY_LIMIT = 10_000
GROUPS, FILTERS = 5, 6
COMPARISONS = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}


@dataclass(frozen=True)
class Found:
    """One page of a search, how many records there are in all, and where the next page begins (None: this is the last)."""

    rows: list[sqlite3.Row]
    total: int
    after: str | None


def find(store: Store, kind: str, body: Any, hidden: list[int]) -> Found:
    """Return a page of the records that a search body asks for, without the hidden ones.

    Raises Failure (400) for what HubSpot refuses: a larger page, a page beyond the 10,000th record, more groups, filters
    or sorting rules than it takes, an operator it does not know.
    """
    wanted = body if isinstance(body, dict) else {}
    try:
        limit, after = int(wanted.get("limit", 10)), int(wanted.get("after") or 0)
    except (TypeError, ValueError) as error:
        raise _refused("limit and after must be numbers") from error
    if not 1 <= limit <= PAGE_LIMIT:
        raise _refused(f"limit must be between 1 and {PAGE_LIMIT}")
    if after < 0 or after + limit > QUERY_LIMIT:
        raise _refused(
            f"Paging through results ends at the {QUERY_LIMIT}th: after + limit is {after + limit}"
        )
    where, values = _where(kind, wanted.get("filterGroups") or [])
    known = [kind, str(hidden), *values]
    query = (
        "from records where kind = ? and archived_at is null "  # noqa: S608 - column names are ours, values are bound
        f"and id not in (select value from json_each(?)) and ({where})"
    )
    (total,) = store.db.execute(f"select count(*) {query}", known).fetchone()
    rows = store.db.execute(
        f"select * {query} order by {_order(kind, wanted.get('sorts') or [])} limit ? offset ?",
        [*known, limit, after],
    ).fetchall()
    following = after + limit
    return Found(rows, total, str(following) if following < total else None)


def _refused(message: str) -> Failure:
    return Failure(400, "VALIDATION_ERROR", f"There was a problem with the request: {message}")


def _where(kind: str, groups: list[Any]) -> tuple[str, list[Any]]:
    if len(groups) > GROUPS or any(len(group.get("filters") or []) > FILTERS for group in groups):
        raise _refused(f"there may be {GROUPS} filterGroups of {FILTERS} filters each")
    texts, values = [], []
    for group in groups:
        parts = []
        for each in group.get("filters") or []:
            text, bound = _filter(kind, each)
            parts.append(text)
            values += bound
        texts.append(f"({' and '.join(parts) or 'true'})")
    return " or ".join(texts) or "true", values


def _filter(kind: str, each: dict[str, Any]) -> tuple[str, list[Any]]:
    name, operator = str(each.get("propertyName")), str(each.get("operator"))
    column, path = _column(kind, name)
    if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return f"{column} is {'not ' if operator == 'HAS_PROPERTY' else ''}null", path
    if operator in ("IN", "NOT_IN"):
        given = [_value(name, each_value) for each_value in each.get("values") or []]
        places = ", ".join("?" for _ in given)
        return f"{column} {'not ' if operator == 'NOT_IN' else ''}in ({places})", [*path, *given]
    if operator == "BETWEEN":
        return f"{column} between ? and ?", [
            *path,
            _value(name, each.get("value")),
            _value(name, each.get("highValue")),
        ]
    if operator not in COMPARISONS:
        raise _refused(f"the sandbox does not know the operator {operator}")
    value = _value(name, each.get("value"))
    if path and operator not in ("EQ", "NEQ") and _is_number(value):
        return f"cast({column} as real) {COMPARISONS[operator]} ?", [*path, float(value)]
    return f"{column} {COMPARISONS[operator]} ?", [*path, value]


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()


def _order(kind: str, sorts: list[Any]) -> str:
    if len(sorts) > 1:
        raise _refused("only one sorting rule can be applied")
    if not sorts:
        return "id"
    given = sorts[0] if isinstance(sorts[0], dict) else {"propertyName": str(sorts[0]).lstrip("-")}
    is_down = given.get("direction") == "DESCENDING" or str(sorts[0]).startswith("-")
    name = str(given.get("propertyName"))
    column, path = _column(kind, name)
    if path:
        raise _refused(f"the sandbox does not sort by {name}")
    return f"{column} {'desc' if is_down else 'asc'}, id"


def _column(kind: str, name: str) -> tuple[str, list[str]]:
    """Return the SQL of a property, and what it binds: text without regard to case, else as the store keeps it."""
    if name == "hs_object_id":
        return "id", []
    if name == "createdate":
        return "created_at", []
    if name == MODIFIED.get(kind, "hs_lastmodifieddate"):
        return "updated_at", []
    if name in ("hs_lastmodifieddate", *MODIFIED.values()):
        return "nullif(?, ?)", [name, name]  # no record of this object type has it
    return "lower(json_extract(properties, ?))", [f'$."{name}"']


def _value(name: str, value: Any) -> Any:
    """Return a value as the store keeps it: a moment may come as milliseconds since 1970 or as ISO 8601."""
    if name == "hs_object_id":
        return int(value)
    if name not in ("createdate", "hs_lastmodifieddate", *MODIFIED.values()):
        return str(value).lower()
    text = str(value)
    if text.isdecimal():
        return stamp(datetime.fromtimestamp(int(text) / 1000, UTC))
    try:
        return stamp(datetime.fromisoformat(text))
    except ValueError as error:
        raise _refused(f"{text} is no time") from error
