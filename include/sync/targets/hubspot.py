"""HubSpot as a target: companies, updated by record id or made by a unique property, 100 a call."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from hubspot.crm import properties

from include.sync.hubspot_api import BATCH_SIZE, HubSpotApi
from include.sync.target import Answer, Row, Setup, same_text, settled_by_reading

OUR_PREFIX = "stratum_"
GROUP = "stratum"
# Kind of value → HubSpot's type and fieldType of a property we create.
DEFINITIONS = {
    "string": ("string", "text"),
    "number": ("number", "number"),
    "date": ("date", "date"),
    "moment": ("datetime", "date"),
    "bool": ("bool", "booleancheckbox"),
}
STRICT = ("number", "date", "datetime", "bool")
"""Types that refuse a text which is none of theirs; the others keep texts, or choose among a company's own."""
ALSO_TAKES = {"date": "datetime"}


class HubSpotTarget:
    """The companies of one HubSpot account, as include/sync/target.py asks of a target."""

    can_read = True

    def __init__(self, api: HubSpotApi, key: str | None = None) -> None:
        """`key` is the unique property by which companies are made."""
        self.api = api
        self.key = key
        self.name = f"HubSpot at {api.host}"

    @property
    def calls(self) -> int:
        """HTTP requests made so far."""
        return self.api.calls

    def batch_size(self, rows: int) -> int:
        """Return HubSpot's limit of a batch, however many rows there are."""
        return BATCH_SIZE

    def setup(self, kinds: dict[str, str], make: bool) -> Setup:
        """Create the stratum_ properties HubSpot lacks, in the group `stratum`; other names are the company's own.

        The key is made unique. One that is there and is not unique is left to a person: HubSpot changes none to be so.
        One that is there and read-only, or of a type that takes no such value, is unfit.
        """
        known = self.api.properties()
        missing = [name for name in kinds if name not in known]
        ours = [name for name in missing if make and name.startswith(OUR_PREFIX)]
        if ours:
            self.api.create_group(GROUP, "Stratum")
        for name in ours:
            self.api.create_property(_definition(name, kinds[name], is_key=name == self.key))
        by_hand = {
            name: f"a company property of type {DEFINITIONS[kinds[name]][0]}"
            + (", made to require unique values" if name == self.key else "")
            for name in missing
            if name not in ours
        }
        if self.key in known and not known[self.key].get("hasUniqueValue"):
            by_hand[self.key] = (
                "the company property is there and is not unique, and HubSpot makes no property unique after it was "
                f"made: name another one as external_key ({OUR_PREFIX}… is made by setup)"
            )
        unfit = {
            name: why
            for name, kind in kinds.items()
            if name in known and (why := _unfit(known[name], kind)) is not None
        }
        return Setup(ours, by_hand, unfit)

    def write(self, rows: list[Row], note: Callable[[str], None]) -> Answer:
        """Update, or make, up to 100 companies in one call; its answer comes at once, so nothing is noted."""
        if self.key and rows[0].by_key:
            return read_answer(self.api.upsert(rows, self.key), rows, self.key)
        return read_answer(self.api.update(rows), rows)

    def settle(self, rows: list[Row], job_id: str | None) -> Answer:
        """Read the records: what they hold tells what became of the write."""
        return settled_by_reading(self, rows)

    def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
        """Return record id → properties; archived companies are left out."""
        found: dict[str, dict[str, str | None]] = {}
        for some in _hundreds(record_ids):
            found |= self.api.read(some, fields)
        return found

    def find(self, keys: list[str]) -> dict[str, str]:
        """Return key → record id; archived companies are left out."""
        found: dict[str, str] = {}
        for some in _hundreds(keys if self.key else []):
            found |= self.api.find(some, str(self.key))
        return found

    def is_same(self, told: str | None, held: str | None) -> bool:
        """Tell whether HubSpot holds what it was told; it writes numbers in its own way."""
        return same_text(told, held)


def _hundreds(ids: list[str]) -> Iterator[list[str]]:
    left = iter(ids)
    while some := list(islice(left, BATCH_SIZE)):
        yield some


def _unfit(definition: dict[str, Any], kind: str) -> str | None:
    """Return why a property cannot be told values of a kind; None where it can, or where its type takes any text."""
    if (definition.get("modificationMetadata") or {}).get("readOnlyValue"):
        return "the company property is there and read-only: name another one"
    type_ = definition.get("type")
    if type_ not in STRICT or type_ in (DEFINITIONS[kind][0], ALSO_TAKES.get(kind)):
        return None
    return (
        f"the company property is there and of type {type_}, which does not take a {kind}: name another one"
    )


def _definition(name: str, kind: str, is_key: bool = False) -> properties.PropertyCreate:
    type_, field_type = DEFINITIONS[kind]
    options = [
        properties.OptionInput(label=label, value=value, hidden=False, display_order=order)
        for order, (label, value) in enumerate([("Yes", "true"), ("No", "false")])
    ]
    return properties.PropertyCreate(
        name=name,
        label=name.removeprefix(OUR_PREFIX).replace("_", " ").capitalize(),
        description="Written by Stratum; a change made here is overwritten or reported, as sync.yml says.",
        group_name=GROUP,
        type=type_,
        field_type=field_type,
        options=options if kind == "bool" else None,
        has_unique_value=is_key or None,
    )


def read_answer(body: dict[str, Any], rows: list[Row], key: str | None = None) -> Answer:
    """Sort the rows of a batch update by HubSpot's answer to them; each row is in one list.

    A row is found by its objectWriteTraceId (the id of a merged record changes), else by its id, which of an upsert is
    the value of the unique property `key`. A result that shows another value than was told is no confirmation.
    One under another id was written on the record that ours was merged into: it is refused, and that one overwritten.
    """
    results = _index(body.get("results") or [], key)
    errors = _errors(body.get("errors") or [])
    answer = Answer()
    for row in rows:
        name = row.account_id if row.by_key else row.record_id
        error = errors.get(row.key) or errors.get(name)
        result = results.get(row.key) or results.get(name)
        if error is not None:
            answer.refused.append((row, error))
        elif result is None:
            answer.missing.append(row)
        elif not row.by_key and (remains := str(result.get("id") or row.record_id)) != row.record_id:
            answer.overwritten.setdefault(remains, set()).update(row.values)
            reason = f"record_is_gone: it was merged into {remains}, which was told in its place"
            answer.refused.append((row, reason))
        elif odd := _not_taken(row, result):
            answer.refused.append((row, f"the CRM kept another value of {', '.join(odd)}"))
        else:
            answer.confirmed.append(row)
            if row.by_key:
                answer.records[row.key] = str(result["id"])
    return answer


def _index(results: list[dict[str, Any]], key: str | None) -> dict[str, dict[str, Any]]:
    if key:
        by_id = {str((each.get("properties") or {}).get(key)): each for each in results if each.get("id")}
    else:
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


def _not_taken(row: Row, result: dict[str, Any]) -> list[str]:
    shown = result.get("properties") or {}
    told = {name: value for name, value in row.values.items() if name in shown}
    return [name for name, value in told.items() if not same_text(value, shown[name])]
