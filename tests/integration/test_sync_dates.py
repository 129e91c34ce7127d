"""A date told to a CRM is the same day, and a moment the same moment, in whatever zone who runs, asks or answers is."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from include.errors import StratumError
from include.sync.reconcile import reconcile
from include.sync.run import SyncResult
from tests.conftest import Warehouse
from tests.integration.sync_stage import NO_BRAKES, TargetStage, Time, prepare
from tests.integration.target_stage import KINDS, ROWS, Place, Places

ZONES = (
    "UTC",
    "Pacific/Kiritimati",  # its midnight is the day before in UTC
    "Etc/GMT+12",  # and its evening the day after
    "Pacific/Apia",  # had no 2011-12-30
    "America/Sao_Paulo",  # had no midnight on 2018-11-04
)
DAYS = ("2011-12-30", "2018-11-04", "2024-02-29", "2026-06-30", "1969-12-31", "2026-03-29", "2026-10-25")
MOMENTS = (
    "2011-12-30T11:00:00+00:00",
    "2018-11-04T03:00:00+00:00",
    "2026-06-30T23:30:00+00:00",
    "2026-06-30T20:00:00+08:00",
    "1969-12-31T23:59:59+00:00",
    "2026-03-29T01:59:59.999+01:00",
    "2026-10-25T02:30:00+02:00",
)
DIARIES = count(1)
NAMES = {
    "hubspot": ("stratum_met_on", "stratum_seen_at"),
    "salesforce": ("Stratum_Met_On__c", "Stratum_Seen_At__c"),
    "webhook": ("met_on", "seen_at"),
}


def as_told(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def warehouse(module_warehouse: Warehouse) -> Warehouse:
    prepare(module_warehouse)
    return module_warehouse


@pytest.fixture
def live_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let this process, and the sessions it opens, be in a zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("PGTZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


class Diary(TargetStage):
    """Seven accounts with a day and a moment each, and a sync of both to one system."""

    def __init__(self, warehouse: Warehouse, place: Place, time: Time) -> None:
        super().__init__(warehouse, time, system=place.system, make_fields=True, brakes=NO_BRAKES)
        self.place = place
        place.mend()
        warehouse.rows("set session_replication_role = replica; delete from sync.ledger")
        self.day, self.moment = NAMES[place.system]
        self.rule()
        self.records = place.records()
        # HubSpot's records are always the same.
        if place.system == "hubspot" and self.day in place.running.sandbox.store.properties():
            for index in range(ROWS):
                self.edit(index, "", "")
        self.accounts = [f"A{n}" for n in range(ROWS)]
        if place.system == "webhook":
            self.records = self.accounts = [f"D{next(DIARIES)}" for n in range(ROWS)]

    def rule(self, **rules: str) -> None:
        """Set by what rules both are told."""
        named = ((self.day, "since"), (self.moment, "seen_at"))
        self.configure(fields={name: {"column": column, **rules} for name, column in named})

    def note(self, days: tuple[str, ...] = DAYS, moments: tuple[str, ...] = MOMENTS) -> None:
        """Publish a day and a moment of each account."""
        kept = zip(self.accounts, self.records, days, moments, strict=True)
        names = ("account_id", "crm_record_id", "since", "seen_at")
        self.publish(
            *({"crm_system": self.place.system} | dict(zip(names, each, strict=True)) for each in kept)
        )

    def sync_in(self, zone: str) -> SyncResult:
        """Sync for a company of a zone."""
        self.timezone = zone
        return self.sync()

    def told(self) -> list[dict[str, Any]]:
        """Return the one write of each record, by the system's own log."""
        return [values for each in self.records for (values,) in [self.place.written(each)]]

    def edit(self, index: int, day: str, moment: str) -> None:
        """Let the CRM hold a text of its own."""
        values = {self.day: day, self.moment: moment}
        now = datetime(2026, 7, 1, tzinfo=UTC)
        if self.place.system == "hubspot":
            self.place.running.sandbox.store.update([(self.records[index], values)], now)
        else:
            self.place.running.org.update(self.records[index], now, **values)


@pytest.fixture
def diary_of(
    warehouse: Warehouse, systems: Places, reached: Callable[[str], Place]
) -> Callable[[str], Diary]:
    return lambda kind: Diary(warehouse, reached(kind), systems.time)


@pytest.mark.parametrize("kind", KINDS)
def test_days_and_moments_are_told_the_same_in_every_zone(
    diary_of: Callable[[str], Diary], live_in: Callable[[str], None], kind: str
) -> None:
    for zone in ZONES:
        diary = diary_of(kind)
        diary.note()
        live_in(zone)
        assert diary.sync_in(zone).sent == ROWS, zone
        told = [
            {diary.day: day, diary.moment: as_told(moment)} for day, moment in zip(DAYS, MOMENTS, strict=True)
        ]
        assert diary.told() == told, zone


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_told_in_one_zone_is_not_told_again_in_another(
    diary_of: Callable[[str], Diary],
    live_in: Callable[[str], None],
    warehouse: Warehouse,
    kind: str,
) -> None:
    diary = diary_of(kind)
    diary.note()
    assert diary.sync().sent == ROWS
    for zone in ZONES:
        live_in(zone)
        assert diary.sync_in(zone).unchanged == ROWS, zone
        # Compared by their texts, and not by a fingerprint.
        warehouse.rows("update sync.ledger set seen = null")
        assert diary.sync_in(zone).unchanged == ROWS, zone
    assert len(diary.told()) == ROWS


@pytest.mark.parametrize("kind", ["hubspot", "collections"])
@pytest.mark.parametrize(
    ("day", "moment"),
    [
        ("2026-06-30T00:00:00Z", "2026-06-30T12:00:00.000+0000"),
        ("2026-06-30T08:00:00.000+0800", "2026-06-30T20:00:00.000+0800"),
        ("2026-06-30T00:00:00-07:00", "2026-06-30T05:00:00-07:00"),
        ("1782777600000", "1782820800000"),
    ],
)
def test_the_same_day_and_moment_at_another_offset_are_no_drift_and_stay_ours(
    diary_of: Callable[[str], Diary], kind: str, day: str, moment: str
) -> None:
    diary = diary_of(kind)
    diary.rule(overwrite="if_ours")
    diary.note(("2026-06-30",) * ROWS, ("2026-06-30T12:00:00Z",) * ROWS)
    assert diary.sync().sent == ROWS
    diary.edit(0, day, moment)
    found = reconcile(diary.sources, "crm", heal=True, everything=True, sleep=lambda _: None)
    assert (found.equal, found.drifted) == (ROWS, 0)
    assert diary.sync().unchanged == ROWS
    diary.note(("2026-07-01",) * ROWS, ("2026-06-30T12:00:01Z",) * ROWS)
    assert diary.sync().sent == ROWS


@pytest.mark.parametrize("kind", ["hubspot", "collections"])
@pytest.mark.parametrize(
    ("day", "moment"),
    [
        ("2026-06-29", "2026-06-30T12:00:00Z"),
        ("2026-06-29T16:00:00Z", "2026-06-30T12:00:00Z"),  # midnight of some other place
        ("2026-06-30", "2026-06-30T12:00:00+08:00"),
        ("2026-06-30", "2026-06-30T12:00:01Z"),
        ("2026-06-30", "2026-06-30T12:00:00"),  # of which place?
    ],
)
def test_another_day_or_moment_is_drift(
    diary_of: Callable[[str], Diary], kind: str, day: str, moment: str
) -> None:
    diary = diary_of(kind)
    diary.note(("2026-06-30",) * ROWS, ("2026-06-30T12:00:00Z",) * ROWS)
    assert diary.sync().sent == ROWS
    diary.edit(0, day, moment)
    found = reconcile(diary.sources, "crm", everything=True, sleep=lambda _: None)
    assert (found.equal, found.drifted) == (ROWS - 1, 1)


def test_an_infinite_day_or_moment_is_nothing_to_tell(diary_of: Callable[[str], Diary]) -> None:
    diary = diary_of("hubspot")
    diary.note(("infinity", "-infinity", *DAYS[2:]), ("-infinity", "infinity", *MOMENTS[2:]))
    assert diary.sync().sent == ROWS - 2


def test_a_timestamp_without_a_zone_is_not_told(
    diary_of: Callable[[str], Diary], warehouse: Warehouse
) -> None:
    diary = diary_of("hubspot")
    warehouse.rows(
        "alter table published.customer_360 alter column seen_at type timestamp using seen_at at time zone 'UTC'"
    )
    try:
        with pytest.raises(StratumError, match=r"name seen_at, .* timestamps with a time zone"):
            diary.sync()
    finally:
        warehouse.rows(
            "alter table published.customer_360 alter column seen_at type timestamptz using seen_at at time zone 'UTC'"
        )


def test_salesforce_and_hubspot_have_fields_of_days_and_moments_made(
    diary_of: Callable[[str], Diary],
) -> None:
    hubspot, salesforce = diary_of("hubspot"), diary_of("collections")
    for diary in (hubspot, salesforce):
        diary.note()
        diary.sync()
    types = hubspot.place.running.sandbox.store.properties()
    assert [types[name]["type"] for name in (hubspot.day, hubspot.moment)] == ["date", "datetime"]
    described = salesforce.place.running.client().Account.describe()["fields"]
    kinds = {each["name"]: each["type"] for each in described}
    assert [kinds[name] for name in (salesforce.day, salesforce.moment)] == ["date", "datetime"]
