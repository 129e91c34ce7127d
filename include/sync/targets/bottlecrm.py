"""BottleCRM as a target: custom fields of accounts, one record a call, each read back: what it does not know it drops."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from include.errors import StratumError, TransientError
from include.sources import bottlecrm_api
from include.sources.bottlecrm_api import BottleCrmApi
from include.sync.target import (
    Answer,
    NoAnswer,
    Refused,
    Row,
    Setup,
    as_text,
    differing,
    same_double,
    settled_by_reading,
)

OUR_PREFIX = "stratum_"
ACCOUNT = "Account"
DEFINITIONS = {"string": "textarea", "number": "number", "date": "date", "moment": "text", "bool": "checkbox"}
"""Kind of value → BottleCRM's type of a custom field; it has none of a date with a time."""
STRICT = ("number", "date", "checkbox")
"""Types that refuse a text which is none of theirs."""
Told = TypeVar("Told")


class BottleCrmTarget:
    """The accounts of one organization, as include/sync/target.py asks of a target."""

    can_read = True

    def __init__(self, api: BottleCrmApi) -> None:
        self.api = api
        self.name = f"BottleCRM at {api.host}"

    @property
    def calls(self) -> int:
        """HTTP requests made so far."""
        return self.api.calls

    def batch_size(self, rows: int) -> int:
        """Return 1: there is no call for several records."""
        return 1

    def setup(self, kinds: dict[str, str], make: bool) -> Setup:
        """Make the stratum_ custom fields that accounts lack; other names are the company's own. Needs an administrator.

        One that is there and of a type that takes no such value is unfit.
        """
        told = self._asked(
            lambda: self.api.get("custom-fields/", target_model=ACCOUNT, include_counts="false")
        )
        known = {each["key"]: each for each in told.body["definitions"]}
        done = Setup()
        for name, kind in kinds.items():
            if name in known and known[name]["is_active"]:
                type_ = known[name].get("field_type")
                if type_ in STRICT and type_ != DEFINITIONS[kind]:
                    done.unfit[name] = (
                        f"the custom field of accounts is there and of type {type_}, which does not take a {kind}: "
                        "name another one"
                    )
                continue
            done.by_hand[name] = (
                "the custom field of accounts is switched off: switch it on"
                if name in known
                else f"a custom field of accounts, type {DEFINITIONS[kind]}"
            )
            if make and name not in known and name.startswith(OUR_PREFIX):
                self._make(name, kind, done)
        return done

    def _make(self, name: str, kind: str, done: Setup) -> None:
        label = name.removeprefix(OUR_PREFIX).replace("_", " ").capitalize()
        field = {"target_model": ACCOUNT, "key": name, "label": label, "field_type": DEFINITIONS[kind]}
        try:
            self._asked(lambda: self.api.post("custom-fields/", field))
        except Refused as refused:
            done.by_hand[name] += f" (BottleCRM said: {refused})"
        else:
            del done.by_hand[name]
            done.made.append(name)

    def write(self, rows: list[Row], note: Callable[[str], None]) -> Answer:
        """Update accounts one by one and read each back: its 200 says nothing of fields that were dropped.

        Raises NoAnswer where a change was made, or may have been, and cannot be read back.
        """
        answer = Answer(proof="read_back")
        for row in rows:
            try:
                self._asked(partial(self.api.patch, f"accounts/{row.record_id}/", _told(row)), writes=True)
            except Refused as refused:
                if not refused.is_of_rows:
                    raise
                answer.refused.append((row, str(refused)))
                continue
            try:
                shown = self._held(row.record_id, list(row.values))
            except Refused as refused:
                raise NoAnswer(f"it was changed, and may not be read back ({refused})") from None
            if shown is None:
                answer.missing.append(row)
            elif odd := differing(self, row, shown):
                answer.refused.append((row, f"BottleCRM answered 200 and dropped {', '.join(odd)}"))
            else:
                answer.confirmed.append(row)
        return answer

    def settle(self, rows: list[Row], job_id: str | None) -> Answer:
        """Read the accounts: what they hold tells what became of the write."""
        return settled_by_reading(self, rows)

    def read(self, record_ids: list[str], fields: list[str]) -> dict[str, dict[str, str | None]]:
        """Return record id → custom fields as text, one call a record; accounts that are gone are left out."""
        held = {each: self._held(each, fields) for each in record_ids}
        return {each: shown for each, shown in held.items() if shown is not None}

    def find(self, keys: list[str]) -> dict[str, str]:
        """Return nothing: accounts are not told by a key."""
        return {}

    def _held(self, record_id: str, fields: list[str]) -> dict[str, str | None] | None:
        try:
            told = self._asked(lambda: self.api.get(f"accounts/{record_id}/"))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        values: dict[str, Any] = told.body["account_obj"].get("custom_fields") or {}
        return {name: as_text(values.get(name)) for name in fields}

    def is_same(self, told: str | None, held: str | None) -> bool:
        """Tell whether BottleCRM holds what it was told; it keeps numbers as doubles."""
        return same_double(told, held)

    def _asked(self, call: Callable[[], Told], writes: bool = False) -> Told:
        try:
            return call()
        except bottlecrm_api.Refused as refused:
            raise Refused(refused.status, str(refused).partition(": ")[2]) from None
        except bottlecrm_api.TurnedAway as error:
            raise Refused(429, str(error)) from None
        except TransientError as error:
            raise NoAnswer(str(error)) from None
        except StratumError as error:  # what answers is no BottleCRM, or breaks off
            if writes:
                raise NoAnswer(str(error)) from None
            raise Refused(502, str(error), is_of_rows=False) from None


def _told(row: Row) -> dict[str, Any]:
    """Return the change of a record; a null clears a custom field, and those that are not named stay."""
    return {"custom_fields": dict(row.values)}
