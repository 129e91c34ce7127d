"""HubSpot as a target: its property definitions, and what its answer says of each row."""

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from hubspot.crm import properties

from include.errors import StratumError
from include.sync.hubspot_api import HubSpotApi, RowUpdate

OUR_PREFIX = "stratum_"
GROUP = "stratum"
# Kind of value → HubSpot's type and fieldType of a property we create.
DEFINITIONS = {
    "string": ("string", "text"),
    "number": ("number", "number"),
    "date": ("date", "date"),
    "bool": ("bool", "booleancheckbox"),
}


@dataclass
class Answer:
    """What a batch update's answer says: the rows it confirms, those it refuses and why, those it forgot."""

    confirmed: list[RowUpdate] = field(default_factory=list)
    refused: list[tuple[RowUpdate, str]] = field(default_factory=list)
    missing: list[RowUpdate] = field(default_factory=list)


def ensure_properties(api: HubSpotApi, kinds: dict[str, str]) -> list[str]:
    """Create the stratum_ properties HubSpot lacks, in the group `stratum`; return their names.

    `kinds` maps property → string, number, date or bool. Raises StratumError for a property that is
    missing and not ours to create.
    """
    known = api.properties()
    missing = [name for name in kinds if name not in known]
    if foreign := [name for name in missing if not name.startswith(OUR_PREFIX)]:
        raise StratumError(
            f"sync.fields in sources.yml names the HubSpot company property {', '.join(foreign)}, which does "
            f"not exist. Create it in HubSpot, or use a name that begins with {OUR_PREFIX}: those are made."
        )
    if missing:
        api.create_group(GROUP, "Stratum")
    for name in missing:
        api.create_property(_definition(name, kinds[name]))
    return missing


def _definition(name: str, kind: str) -> properties.PropertyCreate:
    type_, field_type = DEFINITIONS[kind]
    options = [
        properties.OptionInput(label=label, value=value, hidden=False, display_order=order)
        for order, (label, value) in enumerate([("Yes", "true"), ("No", "false")])
    ]
    return properties.PropertyCreate(
        name=name,
        label=name.removeprefix(OUR_PREFIX).replace("_", " ").capitalize(),
        description="Written by Stratum; a change made here is not read back.",
        group_name=GROUP,
        type=type_,
        field_type=field_type,
        options=options if kind == "bool" else None,
    )


def same_value(told: str, held: str | None) -> bool:
    """Tell whether the CRM holds what it was told; it may write a number in another way."""
    if held is None:
        return False
    if told == held:
        return True
    try:
        return Decimal(told) == Decimal(held)
    except InvalidOperation:
        return False


def read_answer(body: dict[str, Any], rows: list[RowUpdate]) -> Answer:
    """Sort the rows of a batch update by HubSpot's answer to them; each row is in one list.

    A row is found by its objectWriteTraceId (the id of a merged record changes), else by its id. A result
    that shows another value than was told is no confirmation.
    """
    results = _index(body.get("results") or [])
    errors = _errors(body.get("errors") or [])
    answer = Answer()
    for row in rows:
        error = errors.get(row.trace_id) or errors.get(row.record_id)
        result = results.get(row.trace_id) or results.get(row.record_id)
        if error is not None:
            answer.refused.append((row, error))
        elif result is None:
            answer.missing.append(row)
        elif odd := _not_taken(row, result):
            answer.refused.append((row, f"the CRM kept another value of {', '.join(odd)}"))
        else:
            answer.confirmed.append(row)
    return answer


def _index(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    by_id = {str(each["id"]): each for each in results if each.get("id")}
    by_trace = {each["objectWriteTraceId"]: each for each in results if each.get("objectWriteTraceId")}
    return by_id | by_trace


def _errors(errors: list[dict[str, Any]]) -> dict[str, str]:
    """Return trace id or record id → reason. One entry may speak of many records."""
    found: dict[str, str] = {}
    for error in errors:
        context = error.get("context") or {}
        reason = f"{error.get('category')}: {error.get('message')}"
        for key in ("objectWriteTraceId", "ids", "id"):
            for named in context.get(key) or []:
                found[str(named)] = reason
    return found


def _not_taken(row: RowUpdate, result: dict[str, Any]) -> list[str]:
    shown = result.get("properties") or {}
    return [name for name, told in row.values.items() if name in shown and not same_value(told, shown[name])]
