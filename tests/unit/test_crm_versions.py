"""HubSpot's histories become a version for each day on which a record changed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.sources.crm_versions import COMPANIES, ENTITIES, Timeline, Unreadable, timeline

TICKETS = next(entity for entity in ENTITIES if entity.name == "tickets")
END = datetime(2026, 3, 31, 16, tzinfo=UTC)  # the end of March in Shanghai


def ticket(histories: dict[str, list[tuple[str, str]]], **fields: Any) -> dict[str, Any]:
    """Return a ticket as HubSpot shows it; each history is (timestamp, value), newest first."""
    return {
        "id": "7",
        "createdAt": "2026-03-02T01:00:00.000Z",
        "updatedAt": "2026-03-20T01:00:00.000Z",
        "archived": False,
        "propertiesWithHistory": {
            name: [{"timestamp": at, "value": value} for at, value in entries]
            for name, entries in histories.items()
        },
        **fields,
    }


def read(record: dict[str, Any], end: datetime = END) -> Timeline:
    return timeline(TICKETS, record, end, "Asia/Shanghai")


def stages(known: Timeline) -> list[tuple[str, str | None]]:
    return [(f"{v.valid_from:%d %H:%M}", v.values["hs_pipeline_stage"]) for v in known.versions]


PAST = ticket(
    {
        "hs_pipeline_stage": [
            ("2026-03-20T01:00:00Z", "4"),
            ("2026-03-05T17:00:00Z", "3"),  # the sixth in Shanghai
            ("2026-03-05T15:00:00Z", "2"),
            ("2026-03-05T14:00:00Z", "3"),
            ("2026-03-02T01:00:00Z", "1"),
        ],
        "hs_ticket_priority": [("2026-03-02T01:00:00Z", "LOW")],
    }
)


def test_each_day_of_change_is_a_version_dated_by_its_last_change() -> None:
    assert stages(read(PAST)) == [("02 01:00", "1"), ("05 15:00", "2"), ("05 17:00", "3"), ("20 01:00", "4")]
    assert {version.values["hs_ticket_priority"] for version in read(PAST).versions} == {"LOW"}
    assert {version.values["closed_date"] for version in read(PAST).versions} == {None}


def test_what_lies_at_the_end_or_after_it_is_not_seen() -> None:
    at = datetime(2026, 3, 5, 17, tzinfo=UTC)
    assert stages(read(PAST, at)) == [("02 01:00", "1"), ("05 15:00", "2")]
    assert stages(read(PAST, at + timedelta(seconds=1)))[-1] == ("05 17:00", "3")
    assert read(PAST, datetime(2026, 3, 2, 1, tzinfo=UTC)).versions == ()


def test_a_change_taken_back_on_its_day_makes_no_version() -> None:
    record = ticket(
        {
            "subject": [
                ("2026-03-09T03:00:00Z", "A"),
                ("2026-03-09T02:00:00Z", "B"),
                ("2026-03-02T01:00:00Z", "A"),
            ]
        }
    )
    assert [version.values["subject"] for version in read(record).versions] == ["A"]


def test_of_two_values_at_one_instant_the_newer_holds_and_an_empty_one_is_none() -> None:
    at = "2026-03-09T02:00:00Z"
    record = ticket(
        {"subject": [(at, "new"), (at, "old")], "closed_date": [(at, ""), ("2026-03-03T02:00:00Z", at)]}
    )
    last = read(record).versions[-1]
    assert (last.values["subject"], last.values["closed_date"]) == ("new", None)


def test_a_value_from_before_the_record_counts_from_its_creation() -> None:
    (version,) = read(ticket({"subject": [("2025-01-01T00:00:00Z", "merged")]})).versions
    assert (version.values["subject"], version.valid_from) == ("merged", datetime(2026, 3, 2, 1, tzinfo=UTC))


def test_archived_on_the_last_day_is_a_version_and_later_is_none() -> None:
    record = ticket({}, archived=True, archivedAt="2026-03-31T15:59:00Z")
    assert [version.is_archived for version in read(record).versions] == [False, True]
    assert [version.is_archived for version in read(record, END - timedelta(days=1)).versions] == [False]


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        (
            [
                ("20", "ticket_to_company_unlabeled"),
                ("9", "ticket_to_company"),
                ("9", "ticket_to_company_unlabeled"),
            ],
            "9",
        ),
        ([("20", "ticket_to_company_unlabeled"), ("9", "ticket_to_company_unlabeled")], "9"),
        (
            [
                ("100", "partner"),
                ("20", "ticket_to_company_unlabeled"),
                ("100", "ticket_to_company_unlabeled"),
            ],
            "20",
        ),
        ([], None),
    ],
)
def test_the_primary_company_is_the_owner(links: list[tuple[str, str]], expected: str | None) -> None:
    results = [{"id": company, "type": kind} for company, kind in links]
    record = ticket({}, associations={"companies": {"results": results}} if results else {})
    assert read(record).company_record_id == expected
    assert timeline(COMPANIES, record, END, "UTC").company_record_id is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": None}, "no_id"),
        ({"createdAt": None}, "unreadable_date"),
        ({"updatedAt": "soon"}, "unreadable_date"),
        ({"archived": True}, "unreadable_date"),
        ({"propertiesWithHistory": {"subject": [{"value": "A"}]}}, "unreadable_date"),
    ],
)
def test_a_record_without_id_or_dates_says_why(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(ticket({}) | fields)
