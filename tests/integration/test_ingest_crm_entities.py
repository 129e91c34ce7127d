"""Contacts, deals, tickets and survey answers land as versions, each dated by HubSpot's own histories."""

import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from include.errors import StratumError
from include.sandbox.store import FIRST_IDS, RECORD_ID_STEP, Record
from include.sources.hubspot import ingest_crm
from include.sources.retract import retract
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import CREATED, Stage, account, reach, record_id, running_sandbox

DAY_1, DAY_2, DAY_3 = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)
NOON = {day: datetime(day.year, day.month, day.day, 4, tzinfo=UTC) for day in (DAY_1, DAY_2, DAY_3)}
JANUARY, FEBRUARY = datetime(2026, 1, 10, 4, tzinfo=UTC), datetime(2026, 2, 10, 4, tzinfo=UTC)
MANY = 60  # tickets: two pages


def made(kind: str, index: int) -> str:
    """Return the record id of the index-th record of a kind in RECORDS."""
    return str(FIRST_IDS[kind] + index * RECORD_ID_STEP)


RECORDS = (
    Record(
        "contacts",
        "A0001",
        JANUARY,
        (
            ("jobtitle", JANUARY, "Buyer"),
            ("hs_buying_role", FEBRUARY, "DECISION_MAKER"),
            ("hs_email_optout", NOON[DAY_2], "true"),
        ),
    ),
    Record("contacts", None, JANUARY, (("jobtitle", JANUARY, "Of no company"),)),
    Record(
        "deals",
        "A0001",
        JANUARY,
        (
            ("amount", JANUARY, "1000"),
            ("dealstage", JANUARY, "appointmentscheduled"),
            ("dealstage", FEBRUARY, "contractsent"),
            ("dealstage", NOON[DAY_3], "closedwon"),
            ("hs_is_closed_won", NOON[DAY_3], "true"),
        ),
    ),
    *(
        Record("tickets", f"A{number % 3:04d}", FEBRUARY, (("hs_ticket_priority", FEBRUARY, "LOW"),))
        for number in range(MANY)
    ),
    Record("tickets", "A0002", NOON[DAY_3], (("hs_ticket_priority", NOON[DAY_3], "HIGH"),)),
    Record("feedback_submissions", "A0002", FEBRUARY, (("hs_value", FEBRUARY, "9"),)),
)
FIRST_LOAD = {
    "companies": (3, 0, 0, 0),
    "contacts": (2, 0, 0, 0),
    "deals": (1, 0, 0, 0),
    "tickets": (MANY, 0, 0, 0),
    "feedback_submissions": (1, 0, 0, 0),
}


@pytest.fixture
def stage(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    accounts = [account(number) for number in range(3)]
    with running_sandbox(tmp_path / "crm.sqlite", accounts, records=RECORDS) as crm:
        reach(monkeypatch, crm)
        yield Stage(warehouse, crm)


def books(stage: Stage, as_of: date) -> dict[str, tuple[int, int, int, int]]:
    """Ingest, and return new, corrected, unchanged, quarantined of each entity, as the warehouse has them."""
    loads = ingest_crm(stage.sources, as_of)
    assert loads is not None
    ids = [load.load_id for load in loads.values()]
    return {
        row[0]: row[1:]
        for row in stage.warehouse.rows(
            "select entity, rows_new, rows_corrected, rows_unchanged, rows_quarantined from audit.loads "
            "where load_id = any(%s) order by load_seq",
            ids,
        )
    }


def seen(stage: Stage, entity: str, record: str, day: date) -> tuple:
    """Return what a reader as of a day sees of a record that is there: its owner, its properties, if archived."""
    found = stage.seen(entity, record, day)
    assert found is not None
    return found


def all_versions(stage: Stage) -> list[tuple]:
    """Return what the tables hold, but for which load brought it."""
    return [
        row
        for entity in FIRST_LOAD
        for row in stage.warehouse.rows(
            f"select '{entity}', record_id, valid_from, row_hash, properties::text from raw_hubspot.{entity} "
            "order by record_id, valid_from"
        )
    ]


def test_one_ingest_lands_every_entity_with_its_books(stage: Stage) -> None:
    assert books(stage, DAY_1) == FIRST_LOAD
    later = stage.warehouse.rows(
        "select entity, rows_later, rows_unattributed from audit.loads order by load_seq"
    )
    assert later == [
        ("companies", 0, 0),
        ("contacts", 0, 1),
        ("deals", 0, 0),
        ("tickets", 1, 0),
        ("feedback_submissions", 0, 0),
    ]
    again = books(stage, DAY_1)
    # Read again is what was modified within the hour before the newest modification seen, and after the day.
    assert again == {
        "companies": (0, 0, 3, 0),
        "contacts": (0, 0, 1, 0),
        "deals": (0, 0, 1, 0),
        "tickets": (0, 0, 0, 0),
        "feedback_submissions": (0, 0, 1, 0),
    }
    assert stage.warehouse.value("select count(*) from raw_hubspot.tickets") == MANY


def test_a_first_load_tells_what_was_true_on_every_day_before_it(stage: Stage) -> None:
    books(stage, DAY_3)
    deal, contact = made("deals", 0), made("contacts", 0)
    days = (date(2026, 1, 31), date(2026, 2, 28), DAY_3)
    stages = [seen(stage, "deals", deal, day)[1]["dealstage"] for day in days]
    assert stages == ["appointmentscheduled", "contractsent", "closedwon"]
    assert stage.seen("deals", deal, date(2026, 1, 9)) is None
    roles = [seen(stage, "contacts", contact, day)[1]["hs_buying_role"] for day in (days[0], DAY_1)]
    assert roles == [None, "DECISION_MAKER"]
    assert all(
        known == day
        for known, day in stage.warehouse.rows(
            "select known_on, (valid_from at time zone 'Asia/Shanghai')::date from raw_hubspot.deals"
        )
    )


def test_a_later_change_is_not_seen_on_an_earlier_date_and_asking_again_says_the_same(stage: Stage) -> None:
    books(stage, DAY_2)
    contact, deal = made("contacts", 0), made("deals", 0)
    before = seen(stage, "contacts", contact, DAY_2), seen(stage, "deals", deal, DAY_2)
    assert before[0][1]["hs_email_optout"] == "true"
    assert before[1][1]["dealstage"] == "contractsent"
    stage.crm.sandbox.store.update([(contact, {"jobtitle": "Director"})], NOON[DAY_3], "contacts")
    assert books(stage, DAY_3)["contacts"] == (0, 1, 0, 0)
    held = all_versions(stage)
    assert books(stage, DAY_2)["contacts"] == (0, 0, 1, 0)
    assert all_versions(stage) == held
    assert (stage.seen("contacts", contact, DAY_2), stage.seen("deals", deal, DAY_2)) == before
    assert seen(stage, "contacts", contact, DAY_3)[1]["jobtitle"] == "Director"


def test_dates_in_any_order_leave_the_same_versions(stage: Stage) -> None:
    for day in (DAY_3, DAY_1, DAY_2):
        books(stage, day)
    backwards = all_versions(stage)
    stage.warehouse.rows(
        f"truncate audit.loads cascade; truncate {', '.join(f'raw_hubspot.{e}' for e in FIRST_LOAD)}"
    )
    for day in (DAY_1, DAY_2, DAY_3):
        books(stage, day)
    assert all_versions(stage) == backwards


def test_a_record_that_could_not_be_read_before_is_known_from_the_day_it_could(stage: Stage) -> None:
    store, ticket = stage.crm.sandbox.store, made("tickets", 0)
    with store.db:
        store.db.execute("update records set created_at = 'soon' where id = ?", [int(ticket)])
    assert books(stage, DAY_2)["tickets"] == (MANY - 1, 0, 0, 1)
    with store.db:
        store.db.execute("update records set created_at = '2026-02-10T04:00:00Z' where id = ?", [int(ticket)])
    store.update([(ticket, {"source": "corrected"})], NOON[DAY_3], "tickets")
    assert books(stage, DAY_3)["tickets"] == (2, 0, 0, 0)  # and the one opened on the third
    known = stage.warehouse.rows(
        "select known_on, valid_from from raw_hubspot.tickets where record_id = %s", ticket
    )
    assert known == [(DAY_3, FEBRUARY)]


def test_another_company_is_known_from_the_day_it_was_seen_and_never_before(stage: Stage) -> None:
    books(stage, DAY_1)
    store, ticket = stage.crm.sandbox.store, made("tickets", 0)
    store.associate(ticket, record_id(1), NOON[DAY_2])
    assert books(stage, DAY_1)["tickets"] == (0, 0, 1, 0)
    assert books(stage, DAY_3)["tickets"] == (1, 1, 0, 0)
    assert books(stage, DAY_2)["tickets"] == (0, 0, 0, 0)
    owners = [seen(stage, "tickets", ticket, day)[0] for day in (DAY_1, DAY_2, DAY_3)]
    assert owners == [record_id(0), record_id(1), record_id(1)]
    touched = stage.warehouse.rows(
        "select account_key, from_date from intermediate.restatement_queue join audit.loads using (load_id) "
        "where entity = 'tickets' and as_of_date = %s order by account_key",
        DAY_3,
    )
    assert touched == [(f"hubspot:{record_id(0)}", DAY_2), (f"hubspot:{record_id(1)}", DAY_2),
                       (f"hubspot:{record_id(2)}", DAY_3)]  # fmt: skip


def test_a_change_that_hubspot_does_not_date_never_rewrites_a_day_that_was_left(stage: Stage) -> None:
    books(stage, DAY_1)
    books(stage, DAY_2)
    store, ticket = stage.crm.sandbox.store, made("tickets", 0)
    store.associate(ticket, record_id(1))
    assert books(stage, DAY_1)["tickets"] == (0, 0, 0, 0)
    assert books(stage, DAY_2)["tickets"] == (0, 1, 0, 0)
    assert books(stage, DAY_2)["tickets"] == (0, 0, 0, 0)
    owners = [seen(stage, "tickets", ticket, day)[0] for day in (DAY_1, DAY_2)]
    assert owners == [record_id(0), record_id(1)]


def test_what_a_retracted_load_brought_lands_again_though_later_versions_stand(stage: Stage) -> None:
    books(stage, DAY_1)
    books(stage, DAY_2)
    contact = made("contacts", 0)
    told = seen(stage, "contacts", contact, DAY_1)
    load_id = stage.warehouse.value(
        "select load_id::text from audit.loads where entity = 'contacts' and as_of_date = %s", DAY_1
    )
    retract(str(load_id), "a test")
    assert stage.seen("contacts", contact, DAY_1) is None
    assert books(stage, DAY_1)["contacts"] == (1, 1, 0, 0)
    assert seen(stage, "contacts", contact, DAY_1) == told


def test_an_archived_record_keeps_the_company_it_had(stage: Stage) -> None:
    books(stage, DAY_1)
    stage.crm.sandbox.store.archive(made("contacts", 0), NOON[DAY_3], "contacts")
    assert books(stage, DAY_3)["contacts"] == (0, 1, 0, 0)
    versions = [seen(stage, "contacts", made("contacts", 0), day) for day in (DAY_2, DAY_3)]
    assert [(owner, is_archived) for owner, _, is_archived in versions] == [
        (record_id(1), False),
        (record_id(1), True),
    ]


def test_a_load_queues_each_account_it_touched_from_the_first_day_it_touched(stage: Stage) -> None:
    books(stage, DAY_1)
    query = (
        "select entity, account_key, from_date from intermediate.restatement_queue join audit.loads using (load_id) "
        "where entity <> 'companies' order by load_seq, account_key"
    )
    january, february = JANUARY.date(), FEBRUARY.date()
    assert stage.warehouse.rows(query) == [
        ("contacts", f"hubspot:{record_id(1)}", january),
        ("deals", f"hubspot:{record_id(1)}", january),
        *(("tickets", f"hubspot:{record_id(number)}", february) for number in range(3)),
        ("feedback_submissions", f"hubspot:{record_id(2)}", february),
    ]
    stage.warehouse.rows("delete from intermediate.restatement_queue")
    books(stage, DAY_2)
    assert stage.warehouse.rows(query) == [("contacts", f"hubspot:{record_id(1)}", DAY_2)]


def test_a_company_of_another_number_queues_both_accounts_from_its_first_day(stage: Stage) -> None:
    books(stage, DAY_1)
    stage.warehouse.rows("delete from intermediate.restatement_queue")
    stage.edit(0, NOON[DAY_2], account_number="A0009")
    books(stage, DAY_2)
    queued = stage.warehouse.rows(
        "select account_key, from_date from intermediate.restatement_queue order by 1"
    )
    first = CREATED.date()
    assert queued[:1] + queued[-1:] == [("A0000", first), (f"hubspot:{record_id(1)}", DAY_2)]
    assert (f"hubspot:{record_id(0)}", first) in queued


def test_each_version_of_a_company_carries_the_number_it_had(stage: Stage) -> None:
    """Also where the first load finds a number that was corrected before it."""
    stage.edit(0, NOON[DAY_1], account_number="A0009")
    books(stage, DAY_2)
    numbers = stage.warehouse.rows(
        "select account_number, properties ->> 'account_number' from raw_hubspot.companies "
        "where record_id = %s order by valid_from",
        record_id(0),
    )
    assert numbers == [("A0000", "A0000"), ("A0009", "A0009")]


@pytest.mark.parametrize("fault", ["missing_scopes", "missing_objects"])
def test_what_the_token_may_not_read_is_absent_and_the_rest_lands(
    stage: Stage, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage.crm.fault(**{fault: ["feedback_submissions", "deals"]})
    with caplog.at_level(logging.WARNING):
        assert set(books(stage, DAY_1)) == {"companies", "contacts", "tickets"}
    absent = stage.warehouse.rows("select entity from audit.loads where status = 'absent' order by load_seq")
    assert absent == [("deals",), ("feedback_submissions",)]
    told = [
        record.getMessage() for record in caplog.records if "crm.objects.deals.read" in record.getMessage()
    ]
    assert len(told) == 1
    assert "HTTP 40" in told[0]
    # With the scope, the next date brings all of it.
    stage.crm.fault(**{fault: []})
    assert books(stage, DAY_2)["deals"] == FIRST_LOAD["deals"]


def test_companies_are_never_absent_where_there_is_a_crm(stage: Stage) -> None:
    stage.crm.fault(missing_scopes=["companies"])
    with pytest.raises(StratumError, match=r"HTTP 403.*scopes"):
        ingest_crm(stage.sources, DAY_1)
    assert stage.warehouse.value("select count(*) from audit.loads") == 0


def test_a_property_that_hubspot_no_longer_gives_stops_the_load_by_its_name(stage: Stage) -> None:
    books(stage, DAY_1)
    store = stage.crm.sandbox.store
    with store.db:
        store.db.execute("delete from history where property = 'hs_ticket_priority'")
    with pytest.raises(StratumError, match=rf"'hs_ticket_priority' of tickets: {MANY} records had it"):
        ingest_crm(stage.sources, DAY_2)
    assert stage.warehouse.value("select count(*) from raw_hubspot.tickets") == MANY
