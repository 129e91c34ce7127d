"""What a BottleCRM record was on a day, from answers in the shape the CRM gives them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.sources.bottlecrm_versions import KINDS, Kind, Sight, reduced, timeline
from include.sources.crm_landing import Held, farewell
from include.sources.crm_versions import Timeline, Unreadable

END = datetime(2026, 3, 1, 16, tzinfo=UTC)
"""The end of the first of March in Shanghai."""
LAST_MOMENT = END - timedelta(microseconds=1)
NIGHT = END + timedelta(hours=2)
MADE = datetime(2026, 1, 10, 4, tzinfo=UTC)
ACCOUNT, CONTACT, OPPORTUNITY, TICKET = KINDS
PERSON = {
    "id": "7d0c",
    "user_details": {"email": "somebody@example.com", "name": "Somebody"},
    "phone": "+47 000",
    "role": "USER",
}
ANSWERS: dict[Kind, dict[str, Any]] = {
    ACCOUNT: {
        "name": "Account",
        "email": "office@example.com",
        "industry": "SOFTWARE",
        "country": "NO",
        "country_display": "Norway",
        "assigned_to": [PERSON, PERSON | {"id": "1a2b"}],
        "created_by": PERSON,
        "custom_fields": {"erp": "A1", "other": "x"},
    },
    CONTACT: {
        "first_name": "Some",
        "last_name": "Body",
        "email": "somebody@example.com",
        "title": "Buyer",
        "do_not_call": True,
        "account": None,
        "linked_accounts": [{"id": "b", "name": "B"}, {"id": "a", "name": "A"}],
        "updated_at": "2026-02-10T04:00:00.5Z",
    },
    OPPORTUNITY: {
        "name": "Deal",
        "account": {"id": "a", "name": "A"},
        "pipeline": "main",
        "stage": "PROPOSAL",
        "stage_kind": "open",
        "opportunity_type": None,
        "currency": "EUR",
        "amount": "100.50",
        "closed_on": "2026-06-30",
        "lead_source": "",
        "assigned_to": [],
        "stage_changed_at": "2026-02-10T04:00:00Z",
    },
    TICKET: {
        "name": "Ticket",
        "account": None,
        "status": "Closed",
        "priority": "High",
        "case_type": "Question",
        "closed_on": "2026-02-10",
        "resolved_at": "2026-02-10T04:00:00Z",
    },
}


def record(kind: Kind, **changes: Any) -> dict[str, Any]:
    """Return an answer, reduced."""
    answer = {"id": "1", "is_active": True, "created_at": "2026-01-10T04:00:00Z"} | ANSWERS[kind] | changes
    return reduced(kind, answer, "erp")


def seen(
    kind: Kind, at: datetime = NIGHT, held: Held | None = None, first: bool = True, **changes: Any
) -> Timeline:
    return timeline(kind, record(kind, **changes), held, Sight(at, END, first), "Asia/Shanghai")


def told(found: Timeline, name: str) -> list[tuple[datetime, str | None]]:
    """Return when a property was what, by version."""
    return [(version.valid_from, version.values[name]) for version in found.versions]


def test_of_a_record_only_ids_dates_and_the_pulled_fields_are_kept() -> None:
    assert record(ACCOUNT) == {
        "id": "1",
        "account": None,
        "is_active": True,
        "created_at": "2026-01-10T04:00:00Z",
        "properties": {
            "name": "Account",
            "industry": "SOFTWARE",
            "country": "NO",
            "website": None,
            "assigned_to": "1a2b;7d0c",
            "account_number": "A1",
        },
    }
    assert record(CONTACT)["properties"] == {"title": "Buyer", "do_not_call": "true"}
    assert record(OPPORTUNITY)["properties"]["lead_source"] is None


def test_a_contact_belongs_to_its_own_account_else_to_the_lowest_that_lists_it() -> None:
    assert record(CONTACT)["account"] == "a"
    assert record(CONTACT, account="z")["account"] == "z"
    assert record(CONTACT, linked_accounts=[])["account"] is None


def test_what_has_no_date_is_null_until_the_days_own_load_has_seen_it() -> None:
    assert told(seen(ACCOUNT), "country") == [(MADE, None), (LAST_MOMENT, "NO")]
    noon = END - timedelta(hours=12)
    assert told(seen(ACCOUNT, at=noon, first=False), "country") == [(MADE, None), (noon, "NO")]
    assert told(seen(ACCOUNT, first=False), "country") == [(MADE, None)]
    assert told(seen(ACCOUNT, at=END + timedelta(days=1)), "country") == [(MADE, None)]
    assert not seen(ACCOUNT, created_at="2026-03-01T16:00:00Z").versions


def test_a_stage_and_a_resolution_hold_from_their_own_date_and_not_on_a_day_before_it() -> None:
    february = datetime(2026, 2, 10, 4, tzinfo=UTC)
    assert told(seen(OPPORTUNITY), "stage") == [
        (MADE, None),
        (february, "PROPOSAL"),
        (LAST_MOMENT, "PROPOSAL"),
    ]
    assert told(seen(OPPORTUNITY), "amount") == [(MADE, None), (february, None), (LAST_MOMENT, "100.50")]
    assert told(seen(TICKET), "status") == [(MADE, None), (february, "Closed"), (LAST_MOMENT, "Closed")]
    later = seen(TICKET, resolved_at="2026-03-01T17:00:00Z", closed_on="2026-03-01")
    assert told(later, "status") == [(MADE, None), (LAST_MOMENT, None)]
    assert told(later, "priority") == [(MADE, None), (LAST_MOMENT, "High")]


def test_a_ticket_that_was_opened_again_is_resolved_no_more() -> None:
    closed = Held(
        "hash", END - timedelta(days=3), "a", {"status": "Closed", "resolved_at": "2026-02-10T04:00:00Z"}
    )
    found = seen(TICKET, held=closed, status="Assigned", resolved_at=None, closed_on=None)
    assert told(found, "resolved_at") == [
        (MADE, None),
        (closed.valid_from, "2026-02-10T04:00:00Z"),
        (LAST_MOMENT, None),
    ]


def test_a_contact_holds_from_its_modification_and_stays_what_it_was_where_that_is_after_the_day() -> None:
    assert told(seen(CONTACT), "title")[-1] == (datetime(2026, 2, 10, 4, 0, 0, 500000, tzinfo=UTC), "Buyer")
    held = Held("hash", datetime(2026, 2, 10, 4, tzinfo=UTC), "a", {"title": "Clerk", "do_not_call": "false"})
    found = seen(CONTACT, held=held, updated_at="2026-03-01T16:00:00Z")
    assert told(found, "title") == [(MADE, None), (held.valid_from, "Clerk")]
    assert not seen(CONTACT, is_active=False, updated_at="2026-03-01T16:00:00Z").versions[-1].is_archived
    assert seen(CONTACT, is_active=False).versions[-1].is_archived


def test_a_deleted_record_is_what_it_was_and_archived() -> None:
    held = Held("hash", MADE, "a", {"title": "Buyer", "do_not_call": None, "createdate": MADE.isoformat()})
    found = farewell(CONTACT.entity, "1", held, Sight(NIGHT, END, is_first_of_day=True).moment)
    (last,) = found.versions
    assert (last.values, last.is_archived, last.valid_from) == (
        {"title": "Buyer", "do_not_call": None},
        True,
        LAST_MOMENT,
    )
    assert (found.record_id, found.created_at, found.company_record_id) == ("1", MADE, None)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        (ACCOUNT, {"id": None}, "no_id"),
        (ACCOUNT, {"created_at": "yesterday"}, "unreadable_date"),
        (CONTACT, {"updated_at": None}, "unreadable_date"),
        (OPPORTUNITY, {"stage_changed_at": "soon"}, "unreadable_date"),
    ],
)
def test_a_record_without_id_or_with_an_unreadable_date_is_refused(
    kind: Kind, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unreadable, match=reason):
        seen(kind, **changes)
