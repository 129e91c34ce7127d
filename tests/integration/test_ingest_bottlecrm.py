"""BottleCRM lands as versions, though it lists only what is: what has no date counts where it was looked at in time."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from include.errors import StratumError, TransientError
from include.sources import bottlecrm, bottlecrm_api
from include.sources.replay import crm_rows_open
from include.sources.retract import retract
from include.sources.survey import survey
from tests.conftest import Warehouse
from tests.integration.bottlecrm_fixture import Bottle, Stage, reach, running_bottle, utc

pytestmark = pytest.mark.extended

DAY_1, DAY_2, DAY_3 = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)
JANUARY, FEBRUARY = utc(date(2026, 1, 10)), utc(date(2026, 2, 10))
NIGHT_1 = datetime(2026, 3, 1, 18, tzinfo=UTC)
"""Two o'clock in Shanghai, in the night after the first day: when that day's load runs."""
NIGHT_2 = NIGHT_1 + timedelta(days=1)
MANY = 7
FIRST_LOAD = {
    "accounts": (MANY, 0, 0, 0),
    "contacts": (2, 0, 0, 0),
    "opportunities": (1, 0, 0, 0),
    "tickets": (1, 0, 0, 0),
}


@dataclass
class World:
    """A stage, the organization it pulls, and the ids of its records."""

    stage: Stage
    crm: Bottle
    accounts: list[str]
    contacts: list[str]
    deal: str
    ticket: str


@pytest.fixture
def world(module_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An organization looked at in the night after the first day, and an empty warehouse."""
    with running_bottle(NIGHT_1) as crm:
        accounts = [
            crm.add(
                "accounts",
                JANUARY,
                name=f"Account {number}",
                custom_fields={"account_number": f"A{number}"} if number else {},
            )
            for number in range(MANY)
        ]
        contacts = [crm.add("contacts", JANUARY, account=owner) for owner in (accounts[1], None)]
        deal = crm.add(
            "opportunities", JANUARY, account={"id": accounts[1]}, stage_changed_at=FEBRUARY.isoformat()
        )
        ticket = crm.add("cases", FEBRUARY, account={"id": accounts[2]})
        reach(monkeypatch, crm.url)
        stage = Stage(module_warehouse)
        stage.forget()
        yield World(stage, crm, accounts, contacts, deal, ticket)


def unchanged(loads: dict[str, tuple[int, int, int, int]]) -> bool:
    return all((new, corrected, refused) == (0, 0, 0) for new, corrected, _, refused in loads.values())


def test_a_first_pull_lands_all_and_a_second_one_nothing_new(world: World) -> None:
    stage = world.stage
    assert stage.ingest(DAY_1) == FIRST_LOAD
    held = stage.versions()
    assert stage.ingest(DAY_1) == {entity: (0, 0, new, 0) for entity, (new, *_) in FIRST_LOAD.items()}
    assert stage.versions() == held
    landed = stage.warehouse.rows(
        "select account_number, valid_from, known_on, is_archived, properties from raw_bottlecrm.accounts "
        "where record_id = %s order by valid_from",
        world.accounts[3],
    )
    nothing = dict.fromkeys(("name", "industry", "country", "website", "assigned_to", "account_number"))
    made = {"createdate": JANUARY.isoformat()}
    assert landed[0] == (None, JANUARY, JANUARY.date(), False, nothing | made)
    last_moment = datetime(2026, 3, 1, 15, 59, 59, 999999, tzinfo=UTC)
    assert landed[1] == (
        "A3",
        last_moment,
        DAY_1,
        False,
        {
            "name": "Account 3",
            "industry": "SOFTWARE",
            "country": "NO",
            "website": None,
            "assigned_to": "p1",
            "account_number": "A3",
        }
        | made,
    )
    unattributed = stage.warehouse.rows(
        "select entity, rows_unattributed from audit.loads where status = 'loaded' order by load_seq limit 4"
    )
    assert [rows for _, rows in unattributed] == [1, 1, 0, 0]


def test_no_name_and_no_address_of_a_person_is_landed_or_quarantined(world: World) -> None:
    world.crm.change("contacts", world.contacts[0], created_at="yesterday")
    assert world.stage.ingest(DAY_1)["contacts"] == (1, 0, 0, 1)
    everything = str(world.stage.versions()) + str(
        world.stage.warehouse.rows("select original from quarantine.rows")
    )
    assert "Buyer" in everything
    assert "ecret" not in everything
    assert "omebody" not in everything


def test_a_refused_record_is_settled_by_the_next_pull_that_can_read_it(world: World) -> None:
    created = world.crm.records["contacts"][world.contacts[0]]["created_at"]
    world.crm.change("contacts", world.contacts[0], created_at="yesterday")
    world.stage.ingest(DAY_1)
    assert crm_rows_open("bottlecrm") == 1
    world.crm.change("contacts", world.contacts[0], created_at=created)
    world.stage.ingest(DAY_1)
    assert crm_rows_open(None) == 0


def test_a_look_counts_every_list_and_names_custom_fields_that_are_not_pulled(world: World) -> None:
    world.crm.fields.append("territory")
    seen = list(survey(world.stage.sources))
    assert [(each.entity, each.rows, each.fault) for each in seen] == [
        (entity, new, None) for entity, (new, *_) in FIRST_LOAD.items()
    ]
    assert [each.not_mapped for each in seen] == [["territory"], [], [], []]


def test_the_stage_of_a_deal_and_all_of_a_contact_hold_from_their_own_date(world: World) -> None:
    stage, crm = world.stage, world.crm
    crm.change("contacts", world.contacts[0], title="Director", updated_at=FEBRUARY.isoformat())
    stage.ingest(DAY_1)
    before = date(2026, 2, 9)
    assert stage.value("opportunities", world.deal, before, "stage") is None
    assert stage.value("opportunities", world.deal, FEBRUARY.date(), "stage") == "PROSPECTING"
    assert stage.value("opportunities", world.deal, FEBRUARY.date(), "amount") is None
    assert stage.value("opportunities", world.deal, DAY_1, "amount") == "100.00"
    assert stage.value("contacts", world.contacts[0], before, "title") is None
    assert stage.value("contacts", world.contacts[0], FEBRUARY.date(), "title") == "Director"


def test_what_changed_after_the_day_by_its_own_date_is_not_seen_on_it(world: World) -> None:
    stage, crm = world.stage, world.crm
    stage.ingest(DAY_1)
    crm.now = NIGHT_2
    after = (NIGHT_2 - timedelta(hours=1)).isoformat()
    crm.change("opportunities", world.deal, stage="CLOSED_WON", stage_kind="won", stage_changed_at=after)
    crm.change("contacts", world.contacts[0], title="Director", updated_at=after)
    crm.change("cases", world.ticket, status="Closed", resolved_at=after, closed_on="2026-03-03")
    later = crm.add("accounts", NIGHT_2 - timedelta(hours=1))
    assert unchanged(stage.ingest(DAY_2))
    assert stage.seen("accounts", later, DAY_3) is None
    crm.now = NIGHT_2 + timedelta(days=1)
    counts = stage.ingest(DAY_3)
    assert counts == {
        "accounts": (1, 0, MANY, 0),
        "contacts": (0, 1, 1, 0),
        "opportunities": (0, 1, 0, 0),
        "tickets": (0, 1, 0, 0),
    }
    for day, stage_name, title, status in (
        (DAY_2, "PROSPECTING", "Buyer", "New"),
        (DAY_3, "CLOSED_WON", "Director", "Closed"),
    ):
        assert stage.value("opportunities", world.deal, day, "stage") == stage_name
        assert stage.value("contacts", world.contacts[0], day, "title") == title
        assert stage.value("tickets", world.ticket, day, "status") == status


def test_a_change_without_a_date_is_seen_from_the_day_whose_load_saw_it(world: World) -> None:
    stage, crm = world.stage, world.crm
    stage.ingest(DAY_1)
    crm.now = NIGHT_2
    crm.change("accounts", world.accounts[4], country="SE", custom_fields={"account_number": "B4"})
    crm.change("opportunities", world.deal, account={"id": world.accounts[5]})
    counts = stage.ingest(DAY_2)
    assert (counts["accounts"], counts["opportunities"]) == ((0, 1, MANY - 1, 0), (0, 1, 0, 0))
    assert [stage.value("accounts", world.accounts[4], day, "country") for day in (DAY_1, DAY_2)] == [
        "NO",
        "SE",
    ]
    owners = [stage.seen("opportunities", world.deal, day) for day in (DAY_1, DAY_2)]
    assert [owner[0] for owner in owners if owner] == [world.accounts[1], world.accounts[5]]
    queued = stage.warehouse.rows(
        "select account_key, from_date from intermediate.restatement_queue where load_id in "
        "(select load_id from audit.loads where as_of_date = %s) order by 1",
        DAY_2,
    )
    assert set(queued) == {
        (f"bottlecrm:{world.accounts[4]}", JANUARY.date()),
        ("A4", JANUARY.date()),
        (f"bottlecrm:{world.accounts[1]}", DAY_2),
        (f"bottlecrm:{world.accounts[5]}", DAY_2),
    }


def test_a_date_that_is_loaded_again_later_does_not_see_what_changed_meanwhile(world: World) -> None:
    stage, crm = world.stage, world.crm
    stage.ingest(DAY_1)
    held = stage.versions()
    crm.now = NIGHT_1 + timedelta(hours=8)
    crm.change("accounts", world.accounts[4], country="SE")
    del crm.records["accounts"][world.accounts[5]]
    assert unchanged(stage.ingest(DAY_1))
    assert stage.versions() == held
    # While a day lasts, each load of it sees more of it.
    assert stage.ingest(DAY_2)["accounts"] == (0, 2, MANY - 2, 0)
    crm.now += timedelta(hours=1)
    crm.change("accounts", world.accounts[4], country="FI")
    assert stage.ingest(DAY_2)["accounts"] == (0, 1, MANY - 2, 0)
    assert stage.value("accounts", world.accounts[4], DAY_2, "country") == "FI"


def test_a_day_long_past_is_given_only_what_has_a_date_and_the_order_of_days_does_not_matter(
    world: World,
) -> None:
    stage = world.stage
    long_past = date(2026, 2, 20)
    assert stage.ingest(long_past) == FIRST_LOAD
    assert stage.value("accounts", world.accounts[3], long_past, "name") is None
    assert stage.value("opportunities", world.deal, long_past, "stage") == "PROSPECTING"
    assert stage.value("tickets", world.ticket, long_past, "priority") is None
    before_ticket = date(2026, 2, 1)
    assert stage.ingest(before_ticket)["tickets"] == (0, 0, 0, 0)
    later = stage.warehouse.value(
        "select rows_later from audit.loads where entity = 'tickets' and as_of_date = %s and source = 'bottlecrm'",
        before_ticket,
    )
    assert later == 1
    stage.ingest(DAY_1)
    assert stage.value("accounts", world.accounts[3], DAY_1, "name") == "Account 3"
    assert stage.value("accounts", world.accounts[3], long_past, "name") is None
    in_order = stage.versions()
    stage.forget()
    for day in (DAY_1, before_ticket, long_past):
        stage.ingest(day)
    assert stage.versions() == in_order


def test_a_deleted_record_is_archived_once_and_one_put_aside_comes_back(world: World) -> None:
    stage, crm = world.stage, world.crm
    stage.ingest(DAY_1)
    crm.now = NIGHT_2
    del crm.records["accounts"][world.accounts[6]]
    del crm.records["opportunities"][world.deal]
    crm.change("accounts", world.accounts[5], is_active=False)
    asked = len(crm.asked)
    counts = stage.ingest(DAY_2)
    assert (counts["accounts"], counts["opportunities"]) == ((0, 2, MANY - 2, 0), (0, 1, 0, 0))
    assert crm.asked[asked:].count(f"accounts/{world.accounts[6]}/") == 1
    gone = stage.seen("accounts", world.accounts[6], DAY_2)
    assert gone is not None
    assert (gone[0], gone[1]["name"], gone[2]) == ("A6", "Account 6", True)
    deal = stage.seen("opportunities", world.deal, DAY_2)
    assert deal is not None
    assert (deal[0], deal[2]) == (world.accounts[1], True)
    for account in (5, 6):
        before = stage.seen("accounts", world.accounts[account], DAY_1)
        assert before is not None
        assert not before[2]
    crm.now += timedelta(days=1)
    crm.change("accounts", world.accounts[5], is_active=True)
    asked = len(crm.asked)
    assert stage.ingest(DAY_3)["accounts"] == (0, 1, MANY - 2, 0)
    assert f"accounts/{world.accounts[6]}/" not in crm.asked[asked:]
    back = stage.seen("accounts", world.accounts[5], DAY_3)
    assert back is not None
    assert not back[2]


def test_pages_that_do_not_make_up_the_count_are_read_again_in_one_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, crm = world.stage, world.crm
    monkeypatch.setattr(bottlecrm_api, "PAGE_SIZE", 3)
    assert stage.ingest(DAY_1) == FIRST_LOAD
    stage.forget()
    original = crm._list

    def shifting(kind: str, limit: int, offset: int) -> dict[str, Any]:
        # Between two pages one row moved up: the second page begins one too late.
        return original(kind, limit, offset + (1 if offset and limit == 3 else 0))

    monkeypatch.setattr(crm, "_list", shifting)
    assert stage.ingest(DAY_1) == FIRST_LOAD
    stage.forget()
    monkeypatch.setattr(crm, "_list", lambda kind, limit, offset: original(kind, limit - 1, offset + 1))
    with pytest.raises(TransientError, match="kept changing while they were read"):
        stage.ingest(DAY_1)
    assert stage.is_empty()


def test_a_record_that_the_list_leaves_out_but_the_crm_still_has_is_not_taken_for_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, crm = world.stage, world.crm
    stage.ingest(DAY_1)
    crm.now = NIGHT_2
    hidden = crm.records["accounts"].pop(world.accounts[6])
    crm.answers = lambda path, query: (200, hidden) if hidden["id"] in path else None
    with pytest.raises(TransientError, match=r"accounts of BottleCRM at .* changed while they were read"):
        stage.ingest(DAY_2)


def test_another_organization_or_an_empty_one_does_not_delete_a_company(world: World) -> None:
    stage, crm = world.stage, world.crm
    stage.ingest(DAY_1)
    held = stage.versions()
    crm.now = NIGHT_2
    crm.organization = "another"
    with pytest.raises(
        StratumError, match="shows another organization, where accounts of the organization 0e9b"
    ):
        stage.ingest(DAY_2)
    crm.records["accounts"].clear()
    with pytest.raises(StratumError, match="shows no account at all"):
        stage.ingest(DAY_2)
    assert stage.versions() == held


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"token": "wrong"},
            r"did not let Stratum in \(HTTP 403: Organization context is required.*'bottlecrm_default'",
        ),
        ({"role": "USER"}, "sees only their own records. Use the token of an administrator"),
        ({"fields": ["erp"]}, r"no custom field 'account_number' \(there are: erp\)"),
        ({"body": b"<html>"}, "is no BottleCRM API"),
    ],
)
def test_a_way_in_that_does_not_lead_in_is_said_in_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    stage, crm = world.stage, world.crm
    if "token" in change:
        reach(monkeypatch, crm.url, change["token"])
    crm.role, crm.fields = change.get("role", crm.role), change.get("fields", crm.fields)
    if "body" in change:
        crm.answers = lambda path, query: (200, change["body"])
    with pytest.raises(StratumError, match=says) as raised:
        stage.ingest(DAY_1)
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, TransientError)
    assert "wrong" not in str(raised.value)
    assert stage.is_empty()


def test_an_entity_that_may_not_be_read_is_absent_and_the_others_are_loaded(world: World) -> None:
    stage, crm = world.stage, world.crm
    crm.answers = lambda path, query: (
        (403, {"detail": "It needs the cases:read scope."}) if path == "cases/" else None
    )
    counts = stage.ingest(DAY_1)
    assert set(counts) == {"accounts", "contacts", "opportunities"}
    assert stage.warehouse.rows(
        "select entity from audit.loads where source = 'bottlecrm' and status = 'absent'"
    ) == [("tickets",)]


def test_a_token_that_expires_in_the_middle_ends_the_load_and_nothing_is_absent_for_it(world: World) -> None:
    stage, crm = world.stage, world.crm
    answered: list[str] = []

    def expiring(path: str, query: dict[str, str]) -> tuple[int, Any] | None:
        answered.append(path)
        return (403, {"detail": "Organization context is required."}) if "contacts/" in answered else None

    crm.answers = expiring
    with pytest.raises(StratumError, match="did not let Stratum read the contacts"):
        stage.ingest(DAY_1)
    assert stage.is_empty()


def test_server_faults_are_outlived_and_a_server_that_stays_down_is_named(world: World) -> None:
    stage, crm = world.stage, world.crm
    faults = [(503, b"busy"), (429, {"detail": "slow down"}), (500, b"")]
    crm.answers = lambda path, query: faults.pop() if path == "contacts/" and faults else None
    assert stage.ingest(DAY_1) == FIRST_LOAD
    assert stage.slept == [1.0, 10.0, 2.0]
    stage.forget()
    crm.answers = lambda path, query: (502, b"") if path == "cases/" else None
    with pytest.raises(TransientError, match=r"does not answer \(HTTP 502\). Is it up"):
        stage.ingest(DAY_1)
    assert stage.is_empty()


def test_a_kill_in_the_middle_leaves_whole_entities_and_a_second_run_completes_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = world.stage
    stage.ingest(DAY_1)
    whole = stage.versions()
    stage.forget()
    original = bottlecrm.Landing._append

    def killed(place: bottlecrm.Landing, landed: list[Any]) -> None:
        original(place, landed)
        if place.entity.name == "opportunities":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bottlecrm.Landing, "_append", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.ingest(DAY_1)
    entities = stage.warehouse.rows("select entity from audit.loads order by load_seq")
    assert entities == [("accounts",), ("contacts",)]
    counts = stage.ingest(DAY_1)
    assert counts == FIRST_LOAD | {"accounts": (0, 0, MANY, 0), "contacts": (0, 0, 2, 0)}
    assert stage.versions() == whole


def test_a_retracted_load_is_landed_again_by_its_date(world: World) -> None:
    stage = world.stage
    stage.ingest(DAY_1)
    held = stage.versions()
    for (load_id,) in stage.warehouse.rows("select load_id::text from audit.loads where status = 'loaded'"):
        retract(load_id, "test")
    assert not stage.versions()
    assert stage.ingest(DAY_1) == FIRST_LOAD
    assert stage.versions() == held


def test_hubspot_is_absent_where_bottlecrm_is_pulled(world: World) -> None:
    world.stage.ingest(DAY_1)
    absent = world.stage.warehouse.rows(
        "select count(*) from audit.loads where source = 'crm' and status = 'absent'"
    )
    assert absent == [(5,)]


def test_an_account_number_that_is_a_number_is_landed_as_text(world: World) -> None:
    world.crm.change("accounts", world.accounts[3], custom_fields={"account_number": 1003})
    world.stage.ingest(DAY_1)
    seen = world.stage.seen("accounts", world.accounts[3], DAY_1)
    assert seen is not None
    assert (seen[0], seen[1]["account_number"]) == ("1003", "1003")
