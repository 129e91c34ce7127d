"""Salesforce lands as versions: what each record was at the end of the as-of date, pulled bit by bit."""

import logging
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from include.errors import StratumError
from include.sources import salesforce
from include.sources.crm_change import retire_others
from include.sources.crm_landing import Landing
from include.sources.replay import crm_rows_open
from include.sources.retract import retract
from tests.conftest import Warehouse
from tests.integration.salesforce_fixture import (
    DAY_1,
    DAY_2,
    DAY_3,
    FEBRUARY,
    FIRST_LOAD,
    JANUARY,
    MANY,
    SECRET,
    World,
    moment,
    salesforce_world,
)

pytestmark = pytest.mark.extended


@pytest.fixture
def world(module_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with salesforce_world(module_warehouse, tmp_path, monkeypatch) as made:
        yield made


def test_a_first_pull_lands_all_and_a_second_one_nothing_new(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    stage = world.stage
    with caplog.at_level(logging.INFO):
        assert stage.ingest(DAY_1) == FIRST_LOAD
    assert any("api-usage=" in record.getMessage() for record in caplog.records)
    held = stage.versions()
    asked = len(stage.crm.queries)
    # What was modified within the overlap before the newest modification is looked at again, and is unchanged.
    assert stage.ingest(DAY_1) == {entity: (0, 0, new, 0) for entity, (new, *_) in FIRST_LOAD.items()}
    assert stage.versions() == held
    assert all(
        "SystemModstamp >= 2026-" in query for query in stage.crm.queries[asked:] if "Tracked" not in query
    )
    landed = stage.warehouse.rows(
        "select record_id, account_number, valid_from, known_on, is_archived, properties "
        "from raw_salesforce.accounts where account_number = 'A3'"
    )
    assert [row[:5] for row in landed] == [(world.ids.accounts[3], "A3", JANUARY, JANUARY.date(), False)]
    assert landed[0][5] == {
        "Name": "Account 3",
        "Industry": "Retail",
        "BillingCountry": "Norway",
        "OwnerId": world.ids.users[0],
        "Website": None,
        "ParentId": None,
        "MasterRecordId": None,
        "AccountNumber": "A3",
        "createdate": JANUARY.isoformat(),
    }
    unattributed = stage.warehouse.rows(
        "select entity, rows_unattributed from audit.loads where status = 'loaded' order by load_seq limit 5"
    )
    assert [rows for _, rows in unattributed] == [1, 1, 0, 0, 0]


def test_only_what_was_modified_since_is_pulled(world: World) -> None:
    stage, org = world.stage, world.stage.org
    org.update(world.ids.accounts[6], FEBRUARY, Description="nothing we pull")
    stage.ingest(DAY_1)
    org.update(world.ids.accounts[4], moment(DAY_2), BillingCountry="Sweden")
    # Account 6 was the newest of all: it lies within the overlap.
    assert stage.ingest(DAY_2)["accounts"] == (0, 1, 1, 0)
    assert stage.value("accounts", world.ids.accounts[4], DAY_2, "BillingCountry") == "Sweden"
    assert stage.value("accounts", world.ids.accounts[4], DAY_1, "BillingCountry") == "Norway"
    (dated,) = stage.warehouse.rows(
        "select valid_from, known_on from raw_salesforce.accounts where record_id = %s order by valid_from desc limit 1",
        world.ids.accounts[4],
    )
    assert dated == (moment(DAY_2), DAY_2)


def test_a_modification_committed_late_is_found_within_the_overlap(world: World) -> None:
    stage, org = world.stage, world.stage.org
    org.update(world.ids.accounts[4], moment(DAY_1, 6), BillingCountry="Sweden")
    stage.ingest(DAY_1)
    org.update(world.ids.accounts[5], moment(DAY_1, 6) - timedelta(minutes=50), BillingCountry="Denmark")
    assert stage.ingest(DAY_2)["accounts"] == (0, 1, 1, 0)
    assert stage.value("accounts", world.ids.accounts[5], DAY_1, "BillingCountry") == "Denmark"


def test_a_deleted_record_is_an_archived_version_and_so_is_its_return(world: World) -> None:
    stage, org, gone = world.stage, world.stage.org, world.ids.contacts[0]
    stage.ingest(DAY_1)
    org.delete(gone, moment(DAY_2))
    assert stage.ingest(DAY_2)["contacts"] == (0, 1, 1, 0)  # the other one lies within the overlap
    seen = stage.seen("contacts", gone, DAY_2)
    assert seen is not None
    assert (seen[0], seen[2]) == (world.ids.accounts[1], True)
    assert stage.warehouse.value(
        "select valid_from from raw_salesforce.contacts where is_archived"
    ) == moment(DAY_2)
    org.undelete(gone, moment(DAY_3))
    assert stage.ingest(DAY_3)["contacts"] == (0, 1, 0, 0)
    days = [stage.seen("contacts", gone, day) for day in (DAY_1, DAY_2, DAY_3)]
    assert [each and each[2] for each in days] == [False, True, False]


def test_the_past_of_a_tracked_field_is_told_and_of_another_is_null_before_the_first_capture(
    world: World,
) -> None:
    stage, org, account = world.stage, world.stage.org, world.ids.accounts[1]
    org.update(account, FEBRUARY, Industry="Steel", BillingCountry="Sweden", OwnerId=world.ids.users[1])
    org.update(account, moment(DAY_1), BillingCountry="Denmark")
    stage.ingest(DAY_2)
    days = (date(2026, 1, 31), date(2026, 2, 28), DAY_1)
    told = [
        [stage.value("accounts", account, day, name) for name in ("Industry", "OwnerId", "BillingCountry")]
        for day in days
    ]
    assert told == [
        ["Retail", world.ids.users[0], None],
        ["Steel", world.ids.users[1], None],
        ["Steel", world.ids.users[1], "Denmark"],
    ]
    assert stage.seen("accounts", account, date(2026, 1, 9)) is None
    # What was captured stands until something newer is known.
    org.update(account, moment(DAY_3, 3), Industry="Wood")
    org.update(account, moment(date(2026, 3, 4)), BillingCountry="Finland")
    stage.ingest(date(2026, 3, 5))
    assert [stage.value("accounts", account, DAY_3, name) for name in ("Industry", "BillingCountry")] == [
        "Wood",
        "Denmark",
    ]


def test_history_that_does_not_reach_back_to_the_creation_does_not_tell_the_beginning(world: World) -> None:
    stage, org, account = world.stage, world.stage.org, world.ids.accounts[1]
    org.update(account, FEBRUARY, Industry="Steel")
    with org.db:
        org.db.execute(
            "delete from rows where object = 'AccountHistory' and field_values like '%\"created\"%'"
        )
    stage.ingest(DAY_1)
    assert stage.value("accounts", account, date(2026, 1, 31), "Industry") is None
    assert stage.value("accounts", account, date(2026, 2, 28), "Industry") == "Steel"


def test_the_stages_of_an_opportunity_are_told_without_any_tracking(world: World) -> None:
    stage, org, deal = world.stage, world.stage.org, world.ids.opportunity
    org.update(deal, FEBRUARY, StageName="Negotiation", Amount=1500.5)
    org.update(deal, moment(DAY_2), StageName="Closed Won", IsWon=True, LeadSource="Web")
    stage.ingest(DAY_2)
    days = (date(2026, 1, 31), date(2026, 2, 28), DAY_2)
    names = ("StageName", "Amount", "IsWon", "LeadSource")
    told = [[stage.value("opportunities", deal, day, name) for name in names] for day in days]
    assert told == [
        ["Prospecting", "1000", None, None],
        ["Negotiation", "1500.5", None, None],
        ["Closed Won", "1500.5", "true", "Web"],
    ]


def test_a_case_is_closed_from_the_moment_it_was(world: World) -> None:
    stage, org, case = world.stage, world.stage.org, world.ids.case
    org.update(case, moment(DAY_1), Status="Closed", ClosedDate="2026-03-01T04:00:00.000+0000")
    org.update(case, moment(DAY_3), Subject="Late again", Priority="High")
    stage.ingest(DAY_3)
    before, closed = (stage.seen("cases", case, day) for day in (date(2026, 2, 28), DAY_2))
    assert before is not None
    assert closed is not None
    assert (before[1]["ClosedDate"], closed[1]["ClosedDate"]) == (None, "2026-03-01T04:00:00.000Z")
    assert (closed[1]["Priority"], closed[1]["Status"]) == ("Low", None)


def test_what_happened_after_the_day_is_not_seen_on_the_day(world: World) -> None:
    """16:00 UTC of the second is midnight in Shanghai: the third has begun."""
    stage, org = world.stage, world.stage.org
    org.update(world.ids.accounts[4], datetime(2026, 3, 2, 16, tzinfo=UTC), Industry="Steel")
    org.update(world.ids.accounts[5], datetime(2026, 3, 2, 15, 59, tzinfo=UTC), Industry="Wood")
    late = org.insert("Account", moment(DAY_3), Name="Later", AccountNumber="A9")
    org.delete(world.ids.contacts[0], moment(DAY_3))
    counts = stage.ingest(DAY_2)
    assert (counts["accounts"], counts["contacts"]) == ((MANY, 0, 0, 0), (2, 0, 0, 0))
    assert stage.warehouse.value("select rows_later from audit.loads where entity = 'accounts'") == 1
    assert [stage.value("accounts", world.ids.accounts[n], DAY_2, "Industry") for n in (4, 5)] == [
        "Retail",
        "Wood",
    ]
    assert stage.seen("accounts", late, DAY_3) is None
    assert stage.warehouse.value("select max(valid_from) from raw_salesforce.accounts") < datetime(
        2026, 3, 2, 16, tzinfo=UTC
    )
    assert not stage.warehouse.value("select count(*) from raw_salesforce.contacts where is_archived")
    counts = stage.ingest(DAY_3)
    assert (counts["accounts"], counts["contacts"]) == ((1, 1, 1, 0), (0, 1, 0, 0))
    assert stage.value("accounts", world.ids.accounts[4], DAY_3, "Industry") == "Steel"


@pytest.mark.parametrize("many", [7, pytest.param(30, marks=pytest.mark.slow)])
def test_days_in_any_order_leave_what_one_pass_leaves(world: World, many: int) -> None:
    stage, org, ids = world.stage, world.stage.org, world.ids
    days = [DAY_1 + timedelta(days=number) for number in range(many)]
    chance = random.Random(7)
    for day in days:
        at = moment(day, chance.randrange(24))
        org.update(chance.choice(ids.accounts), at, Industry=chance.choice(("Steel", "Wood", "Retail")))
        org.update(chance.choice(ids.accounts), at, BillingCountry=chance.choice(("Sweden", "Norway")))
        org.update(ids.opportunity, at, StageName=chance.choice(("Prospecting", "Negotiation")))
        org.update(ids.case, at, Priority=chance.choice(("Low", "High")), AccountId=ids.accounts[2])
        org.insert("Contact", at, AccountId=chance.choice(ids.accounts), Title=f"Hired {day}")
    org.delete(ids.accounts[6], moment(days[-3]))
    org.delete(ids.role, moment(days[-2]))
    for day in days:
        stage.ingest(day)
    in_order = stage.versions()
    assert len(in_order) > 2 * many
    stage.forget()
    chance.shuffle(days)
    for day in days:
        stage.ingest(day)
    assert stage.versions() == in_order
    stage.forget()
    stage.ingest(max(days))
    assert stage.versions() == in_order


def test_a_kill_in_the_middle_leaves_whole_loads_and_the_next_run_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = world.stage
    land = Landing.land

    def killed(self: Landing, timelines: list, held: dict) -> None:
        land(self, timelines, held)
        if self.entity.name == "opportunities":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Landing, "land", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.ingest(DAY_1)
    assert stage.warehouse.rows("select entity from audit.loads order by load_seq") == [
        ("accounts",),
        ("contacts",),
        ("contact_roles",),
    ]
    assert stage.warehouse.value("select count(*) from audit.cursors") == 3
    counts = stage.ingest(DAY_1)
    assert {entity: counts[entity] for entity in ("opportunities", "cases")} == {
        entity: FIRST_LOAD[entity] for entity in ("opportunities", "cases")
    }
    assert counts["accounts"] == (0, 0, MANY, 0)
    in_pieces = stage.versions()
    stage.forget()
    stage.ingest(DAY_1)
    assert stage.versions() == in_pieces


def test_a_field_or_a_history_the_user_does_not_see_is_null_until_it_is_shown(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    stage, org, account = world.stage, world.stage.org, world.ids.accounts[1]
    org.update(account, FEBRUARY, Industry="Steel")
    org.hidden = {"Account.BillingCountry", "AccountHistory"}
    with caplog.at_level(logging.WARNING):
        stage.ingest(DAY_1)
    assert "Salesforce shows no BillingCountry of Account" in caplog.text
    assert stage.value("accounts", account, DAY_1, "BillingCountry") is None
    assert stage.value("accounts", account, date(2026, 1, 31), "Industry") is None
    org.hidden = set()
    # Another question begins anew: all accounts are read, though none was modified.
    assert stage.ingest(DAY_2)["accounts"] == (0, MANY, 0, 0)
    assert stage.value("accounts", account, DAY_2, "BillingCountry") == "Norway"


def test_the_account_number_stands_where_the_sources_say(world: World) -> None:
    stage, org, account = world.stage, world.stage.org, world.ids.accounts[1]
    org.update(account, FEBRUARY, ERP_Number__c="E77")
    stage.sources = stage.sources_with(account_number_field="ERP_Number__c")
    stage.ingest(DAY_1)
    seen = stage.seen("accounts", account, DAY_1)
    assert seen is not None
    assert (seen[0], seen[1]["ERP_Number__c"], "AccountNumber" in seen[1]) == ("E77", "E77", False)
    stage.sources = stage.sources_with(account_number_field="Nothing__c")
    with pytest.raises(StratumError, match=r"no field Nothing__c.*account_number_field"):
        stage.ingest(DAY_1)


def test_no_name_and_no_address_of_a_person_is_asked_for(world: World) -> None:
    world.stage.org.insert("Account", JANUARY, Name="Secret", IsPersonAccount=True)
    assert world.stage.ingest(DAY_1) == FIRST_LOAD
    asked = [query.lower() for query in world.stage.crm.queries]
    assert any("from contact" in query for query in asked)
    assert not [
        query for query in asked for word in ("lastname", "email,", "phone", " user") if word in query
    ]
    landed = world.stage.warehouse.value(
        "select string_agg(properties::text, ' ') from "
        "(select properties from raw_salesforce.contacts union all select properties from raw_salesforce.accounts) as p"
    )
    assert "Secret" not in str(landed)


def test_an_unreadable_record_is_quarantined_with_its_reason(world: World) -> None:
    stage, org = world.stage, world.stage.org
    with org.db:
        org.db.execute(
            "update rows set field_values = json_set(field_values, '$.CreatedDate', 'soon') where id = ?",
            [world.ids.accounts[2]],
        )
    assert stage.ingest(DAY_1)["accounts"] == (MANY - 1, 0, 0, 1)
    refused = stage.warehouse.rows("select source, entity, reason, original ->> 'Id' from quarantine.rows")
    assert refused == [("salesforce", "accounts", "unreadable_date", world.ids.accounts[2])]
    assert crm_rows_open(None) == crm_rows_open("salesforce") == 1
    with org.db:
        org.db.execute(
            "update rows set field_values = json_set(field_values, '$.CreatedDate', ?, '$.SystemModstamp', ?) "
            "where id = ?",
            [*[moment(DAY_2).strftime("%Y-%m-%dT%H:%M:%S.000+0000")] * 2, world.ids.accounts[2]],
        )
    assert stage.ingest(DAY_2)["accounts"][0] == 1
    assert crm_rows_open(None) == 0


def test_a_load_queues_the_accounts_it_touched(world: World) -> None:
    stage, org, ids = world.stage, world.stage.org, world.ids
    stage.ingest(DAY_1)
    stage.warehouse.rows("delete from intermediate.restatement_queue")
    org.update(ids.role, moment(DAY_2), Role="Evaluator")
    org.update(ids.accounts[3], moment(DAY_2), AccountNumber="A33")
    org.update(ids.case, moment(DAY_2), AccountId=ids.accounts[4])
    stage.ingest(DAY_2)
    queued = stage.warehouse.rows(
        "select account_key, from_date from intermediate.restatement_queue order by from_date, account_key"
    )
    january = JANUARY.date()
    assert queued == [
        ("A3", january),
        (f"salesforce:{ids.accounts[3]}", january),
        *((f"salesforce:{ids.accounts[number]}", DAY_2) for number in (1, 2, 4)),
    ]


def test_what_a_retracted_load_brought_is_pulled_again(world: World) -> None:
    stage, org = world.stage, world.stage.org
    stage.ingest(DAY_1)
    # Further apart than the overlap, so that the cursor alone decides.
    org.update(world.ids.accounts[4], moment(DAY_2, 1), BillingCountry="Sweden")
    org.update(world.ids.accounts[6], moment(DAY_2, 9), BillingCountry="Finland")
    stage.ingest(DAY_2)
    org.update(world.ids.accounts[5], moment(DAY_3), BillingCountry="Denmark")
    stage.ingest(DAY_3)
    held = stage.versions()
    load_id = stage.warehouse.value(
        "select load_id::text from audit.loads where entity = 'accounts' and as_of_date = %s", DAY_2
    )
    taken = retract(str(load_id), "a test")
    assert taken.rows == 2
    assert stage.value("accounts", world.ids.accounts[4], DAY_3, "BillingCountry") == "Norway"
    queued = stage.warehouse.rows(
        "select account_key from intermediate.restatement_queue where load_id = %s order by 1", load_id
    )
    keys = [f"salesforce:{world.ids.accounts[number]}" for number in (4, 6)]
    assert queued == [("A4",), ("A6",), *((key,) for key in keys)]
    assert stage.ingest(DAY_2)["accounts"][1] == 2
    assert stage.versions() == held


def test_salesforce_comes_back_whole_after_another_crm(world: World) -> None:
    stage = world.stage
    stage.org.update(world.ids.accounts[6], FEBRUARY, Industry="Steel")  # the others lie before the overlap
    stage.ingest(DAY_1)
    retire_others("hubspot", stage.sources.company, DAY_2)
    assert stage.ingest(DAY_3) == {entity: (0, new, 0, 0) for entity, (new, *_) in FIRST_LOAD.items()}
    archived = [stage.seen("accounts", world.ids.accounts[1], day) for day in (DAY_1, DAY_2, DAY_3)]
    assert [each and each[2] for each in archived] == [False, True, False]


def test_hubspots_entities_are_absent_where_salesforce_is_pulled(world: World) -> None:
    world.stage.ingest(DAY_1)
    absent = world.stage.warehouse.rows(
        "select source, count(*) from audit.loads where status = 'absent' group by source"
    )
    assert absent == [("crm", 5)]
    assert salesforce.SOURCE not in dict(absent)
    assert SECRET not in str(world.stage.warehouse.rows("select * from audit.loads"))
