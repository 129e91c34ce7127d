"""A Salesforce record's past, from what the record, its history and an earlier capture tell."""

from datetime import UTC, datetime

import pytest

from include.sources.crm_landing import Held
from include.sources.crm_versions import Timeline, Unreadable
from include.sources.salesforce_versions import Past, Row, kinds, timeline

ACCOUNT, CONTACT, ROLE, OPPORTUNITY, CASE = kinds("AccountNumber")
TYPES = {"Amount": "currency", "OwnerId": "reference", "Name": "string"}
END = datetime(2026, 4, 1, tzinfo=UTC)
RECORD = {"Id": "1", "IsDeleted": "false"}
FIRST, SECOND = "0055g0000000001AAA", "0055g0000000002AAA"


def day(number: int, hour: int = 0) -> str:
    return f"2026-03-{number:02d}T{hour:02d}:00:00.000Z"


def at(number: int, hour: int = 0) -> datetime:
    return datetime(2026, 3, number, hour, tzinfo=UTC)


def account(modified: int, **values: str) -> Row:
    names = ("Name", "Industry", "BillingCountry", "OwnerId", "AccountNumber")
    fixed = RECORD | {"CreatedDate": day(1), "SystemModstamp": day(modified)}
    return fixed | dict.fromkeys(names, "") | values


def change(number: int, field: str, old: str = "", new: str = "") -> Row:
    return {"Field": field, "OldValue": old, "NewValue": new, "CreatedDate": day(number)}


def told(record: Row, past: Past, held: Held | None = None, end: datetime = END) -> Timeline:
    return timeline(ACCOUNT, TYPES, record, past, held, end, "UTC")


def values(known: Timeline, name: str) -> list[tuple[int, str | None]]:
    return [(version.valid_from.day, version.values[name]) for version in known.versions]


def test_without_history_a_value_is_known_from_the_last_modification_on() -> None:
    assert values(told(account(9, Industry="Steel"), Past()), "Industry") == [(1, None), (9, "Steel")]
    assert values(told(account(9, Industry="Steel"), Past(), end=at(9)), "Industry") == [(1, None)]
    assert values(told(account(1, Industry="Steel"), Past()), "Industry") == [(1, "Steel")]
    assert told(account(9), Past(), end=at(1)).versions == ()


def test_a_tie_without_history_counts_from_the_day_that_first_sees_it_whenever_the_record_was_touched() -> (
    None
):
    for touched in (3, 9):
        known = told(account(touched, AccountNumber="A1", Industry="Steel"), Past())
        assert values(known, "AccountNumber") == [(1, None), (touched, None), (31, "A1")]
        assert values(known, "Industry")[1] == (touched, "Steel")
    held = Held("hash", at(5), "A1", {"AccountNumber": "A1", "createdate": day(1)})
    assert values(told(account(9, AccountNumber="B2"), Past(), held), "AccountNumber")[-1] == (9, "B2")


def test_a_tie_whose_history_is_kept_counts_from_the_change() -> None:
    rows = [change(1, "created"), change(4, "AccountNumber", "", "A1")]
    known = told(account(9, AccountNumber="A1"), Past({"AccountNumber"}, {"1": rows}))
    assert values(known, "AccountNumber") == [(1, None), (4, "A1")]


def test_a_history_from_the_creation_on_tells_the_beginning() -> None:
    rows = [change(1, "created"), change(4, "Industry", "Wood", "Steel")]
    known = told(account(9, Industry="Steel", Name="x"), Past({"Industry"}, {"1": rows}))
    assert values(known, "Industry") == [(1, "Wood"), (4, "Steel"), (9, "Steel")]
    assert values(known, "Name") == [(1, None), (4, None), (9, "x")]
    unchanged = told(account(9, Industry="Steel"), Past({"Industry"}, {"1": rows[:1]}))
    assert values(unchanged, "Industry") == [(1, "Steel")]


def test_a_history_that_begins_later_tells_nothing_before_it() -> None:
    rows = [change(4, "Industry", "Wood", "Steel")]
    known = told(account(9, Industry="Steel"), Past({"Industry"}, {"1": rows}))
    assert values(known, "Industry") == [(1, None), (4, "Steel")]


def test_an_owner_is_told_by_the_ids_and_not_by_the_names() -> None:
    rows = [change(1, "created"), change(4, "Owner", "Ann B", "Carl D"), change(4, "Owner", FIRST, SECOND)]
    known = told(account(9, OwnerId=SECOND), Past({"OwnerId"}, {"1": rows}))
    assert values(known, "OwnerId") == [(1, FIRST), (4, SECOND)]


def test_what_the_history_holds_beyond_the_record_is_left_for_the_next_pull() -> None:
    rows = [change(1, "created"), change(12, "Industry", "Steel", "Glass")]
    known = told(account(9, Industry="Steel"), Past({"Industry"}, {"1": rows}))
    assert values(known, "Industry") == [(1, "Steel")]


def test_a_capture_stands_until_something_newer_is_known() -> None:
    held = Held("hash", at(3), None, {"Name": "old", "Industry": "Wood", "createdate": day(1)})
    rows = [change(5, "Industry", "Wood", "Steel")]
    known = told(account(9, Industry="Steel", Name="new"), Past({"Industry"}, {"1": rows}), held)
    assert values(known, "Name")[-3:] == [(3, "old"), (5, "old"), (9, "new")]
    assert values(known, "Industry")[-3:] == [(3, "Wood"), (5, "Steel"), (9, "Steel")]


def test_amounts_are_one_in_all_their_spellings_and_stages_come_from_the_snapshots() -> None:
    names = dict.fromkeys(OPPORTUNITY.entity.properties, "")
    fixed = RECORD | {"CreatedDate": day(1), "SystemModstamp": day(9), "AccountId": "7"}
    record = names | fixed | {"Amount": "100.0", "StageName": "B"}
    snapshots = [
        {"CreatedDate": day(1), "StageName": "A", "Amount": "1E+2", "CloseDate": ""},
        {"CreatedDate": day(4), "StageName": "B", "Amount": "100", "CloseDate": ""},
    ]
    known = timeline(OPPORTUNITY, TYPES, record, Past(snapshots={"1": snapshots}), None, END, "UTC")
    assert [(v.values["StageName"], v.values["Amount"]) for v in known.versions] == [
        ("A", "100"),
        ("B", "100"),
    ]
    assert known.company_record_id == "7"


def test_a_deleted_record_is_archived_from_its_deletion_on() -> None:
    known = told(account(9, Name="x") | {"IsDeleted": "true"}, Past())
    assert [(v.valid_from.day, v.is_archived) for v in known.versions] == [(1, False), (9, True)]
    assert known.is_archived_now


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"Id": ""}, "no_id"),
        ({"CreatedDate": "soon"}, "unreadable_date"),
        ({"SystemModstamp": ""}, "unreadable_date"),
    ],
)
def test_a_record_without_id_or_dates_is_unreadable(broken: Row, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        told(account(9) | broken, Past())
