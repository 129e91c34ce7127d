"""Odd rows, told to each kind of target and read back as anybody there would: by its unmodified official client."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Warehouse
from tests.integration.sync_crms import text
from tests.integration.sync_stage import NO_BRAKES, TargetStage, prepare
from tests.integration.target_stage import KINDS, Place, Places

NAMES = {
    "hubspot": ("stratum_tier", "stratum_phone", "stratum_revenue"),
    "salesforce": ("Stratum_Tier__c", "Stratum_Phone__c", "Stratum_Revenue__c"),
    "webhook": ("tier", "phone", "revenue"),
}
LONG = "x" * 70_000
"""Longer than a field of HubSpot's (65,536) or of Salesforce's (255); a webhook's receiver has no such limit."""


@pytest.fixture(scope="module")
def warehouse(module_warehouse: Warehouse) -> Warehouse:
    prepare(module_warehouse)
    return module_warehouse


class OddRows(TargetStage):
    """Accounts, each with a record of one system."""

    def __init__(self, warehouse: Warehouse, place: Place, systems: Places) -> None:
        tier, phone, revenue = NAMES[place.system]
        fields = {tier: "tier", phone: {"column": "phone", "when_null": "clear"}, revenue: "revenue"}
        rules = {"make_fields": True, "consent": "may_be_told", "removal": "clear", "brakes": NO_BRAKES}
        super().__init__(warehouse, systems.time, system=place.system, fields=fields, **rules)
        place.mend()
        self.place = place
        self.forget()
        self.records = place.records()
        if place.system == "webhook":  # the record of an account is itself
            self.records = [self.account(n) for n in range(len(self.records))]

    def account(self, index: int) -> str:
        return f"V{index}"

    def row(self, index: int, **values: Any) -> dict[str, Any]:
        """Return a row to publish, of an account whose record is the one of that number."""
        keys = {"account_id": self.account(index), "crm_record_id": self.records[index]}
        return keys | {"crm_system": self.place.system, "may_be_told": True} | values

    def reads(self, index: int) -> list[str | None]:
        """Return tier, phone and revenue of a record, as the official client shows them; of a webhook as they came."""
        names, record, running = NAMES[self.place.system], self.records[index], self.place.running
        if self.place.system == "hubspot":
            shown = running.held(index, *names)
        elif self.place.system == "salesforce":
            shown = running.client().Account.get(record)
        else:
            shown = {}
            for values in self.place.written(record):
                shown |= values
        return [text(shown.get(name)) for name in names]


@pytest.fixture
def stage(
    request: pytest.FixtureRequest,
    warehouse: Warehouse,
    systems: Places,
    reached: Callable[[str], Place],
) -> OddRows:
    return OddRows(warehouse, reached(request.param), systems)


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_odd_values_arrive_as_they_are_and_an_odd_row_is_held_or_refused_alone(stage: OddRows) -> None:
    stage.publish(
        stage.row(0, tier="华为技术有限公司 🚀", phone="007", revenue="120000.10"),
        stage.row(1, tier="Zoë “O’Neil”, 👩‍👩‍👧", phone="7", revenue="-0.00"),
        stage.row(2, tier=LONG, phone="2"),
        stage.row(3, tier="A"),
        stage.row(4, tier="A") | {"account_id": stage.account(3)},  # a key that is doubled
        stage.row(5, tier="A") | {"account_id": None},
        stage.row(6, tier="A", may_be_told=False),
    )
    first = stage.sync()
    has_limits = stage.place.system != "webhook"
    assert first.reasons == {"key_is_doubled": 2, "key_is_null": 1, "no_consent": 1} | (
        {"refused": 1} if has_limits else {}
    )
    assert first.sent == (2 if has_limits else 3)
    assert stage.reads(0) == ["华为技术有限公司 🚀", "007", "120000.1"]
    assert stage.reads(1) == ["Zoë “O’Neil”, 👩‍👩‍👧", "7", "0"]
    assert stage.reads(2) == ([None] * 3 if has_limits else [LONG, "2", None])
    assert [stage.reads(n) for n in range(3, 7)] == [[None] * 3] * 4


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_nulls_keep_or_clear_by_rule_and_a_consent_that_is_revoked_clears_what_we_wrote(
    stage: OddRows,
) -> None:
    stage.publish(*(stage.row(n, tier="A", phone="00123", revenue=n) for n in range(4)))
    assert stage.sync().sent == 4
    stage.publish(
        stage.row(0, tier=None, phone=None, revenue=None),
        stage.row(1, tier="", phone="", revenue=1),
        stage.row(2, tier="B", phone="00123", revenue=2, may_be_told=False),
        stage.row(3, tier="A", phone="123", revenue=3),
    )
    second = stage.sync()
    assert (second.sent, second.unchanged, second.failed, second.held) == (4, 0, 0, 0)
    assert [stage.reads(n) for n in range(4)] == [
        ["A", None, "0"],
        ["A", None, "1"],
        [None, None, None],
        ["A", "123", "3"],
    ]
    third = stage.sync()
    assert (third.sent, third.unchanged, third.reasons, third.calls) == (0, 3, {"no_consent": 1}, 0)
