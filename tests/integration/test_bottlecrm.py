"""A BottleCRM from PyPI, with its own API and database, is filled, pulled, changed, and pulled again."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.connections import get_connection
from include.dates import zone
from include.errors import StratumError
from include.settings import PROJECT_DIR
from include.sources import bottlecrm_api
from include.sync.target import Row, Setup
from include.sync.targets.bottlecrm import BottleCrmTarget
from include.warehouse import embedded
from tests.conftest import Warehouse
from tests.integration.bottlecrm_fixture import ENTITIES, Stage, reach
from tests.integration.bottlecrm_server import BottleServer, running_bottlecrm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # of which its migrations may take half

MANY = 12
ALL_NEW = dict.fromkeys(ENTITIES, (MANY, 0, 0, 0))
ALL_UNCHANGED = dict.fromkeys(ENTITIES, (0, 0, MANY, 0))

# Lands what the sources name, and stands still once the opportunities' rows are written and not committed.
STANDS_STILL = """
import sys, time
from datetime import date
from pathlib import Path
from include.sources import bottlecrm
from include.sources.config import load_sources

append = bottlecrm.Landing._append

def standing_still(place, landed):
    append(place, landed)
    if place.entity.name == "opportunities":
        print("here", flush=True)
        time.sleep(600)

bottlecrm.Landing._append = standing_still
bottlecrm.ingest_bottlecrm(load_sources(Path(sys.argv[1])), date.fromisoformat(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def server(cluster: embedded.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BottleServer]:
    with running_bottlecrm(cluster, tmp_path_factory.mktemp("bottlecrm")) as bottle:
        field = {"target_model": "Account", "key": "account_number", "label": "Number", "field_type": "text"}
        assert bottle.http.post("custom-fields/", json=field).status_code == 201
        yield bottle


@dataclass
class World:
    """A stage, the CRM, the day it is there, and the ids of its records by the path they are under."""

    stage: Stage
    crm: BottleServer
    today: date
    ids: dict[str, list[str]]


@pytest.fixture
def world(server: BottleServer, module_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> World:
    """A filled CRM and an empty warehouse, in a time zone where it is about noon: no test runs into midnight."""
    server.clear()
    now = server.now()
    stage = Stage(module_warehouse, f"Etc/GMT{now.hour - 12:+d}")
    stage.forget()
    reach(monkeypatch, server.url, server.tokens["reader"])
    # Lists of several pages.
    monkeypatch.setattr(bottlecrm_api, "PAGE_SIZE", 5)
    ids: dict[str, list[str]] = {"accounts": [], "contacts": [], "opportunities": [], "cases": []}
    for number in range(MANY):
        account = server.add(
            "accounts",
            name=f"Account {number}",
            industry="SOFTWARE",
            country="NO",
            custom_fields={"account_number": f"A{number}"},
        )
        ids["accounts"].append(account)
        ids["contacts"].append(
            server.add("contacts", first_name="Secret", last_name="Secret", title="Buyer", account=account)
        )
        deal = {"stage": "PROSPECTING", "amount": "100.50", "currency": "EUR", "closed_on": "2030-01-31"}
        ids["opportunities"].append(
            server.add("opportunities", name=f"Deal {number}", account=account, **deal)
        )
        ids["cases"].append(
            server.add("cases", name=f"Ticket {number}", account=account, status="New", priority="High")
        )
    return World(stage, server, now.astimezone(zone(stage.timezone)).date(), ids)


def contents(stage: Stage) -> set[tuple[str, str, str]]:
    """Return what was landed, without when it was seen."""
    return {(entity, record_id, row_hash) for entity, record_id, _, _, _, row_hash, _ in stage.versions()}


def test_everything_is_pulled_once_and_changes_and_deletions_are_seen(world: World) -> None:
    stage, crm, today = world.stage, world.crm, world.today
    accounts, contacts, deals, tickets = world.ids.values()
    assert stage.ingest(today) == ALL_NEW
    assert stage.ingest(today) == ALL_UNCHANGED
    assert stage.value("accounts", accounts[3], today, "account_number") == "A3"
    assert stage.value("accounts", accounts[3], today, "country") == "NO"
    assert stage.value("opportunities", deals[3], today, "amount") == "100.50"
    assert stage.value("opportunities", deals[3], today, "stage_kind") == "open"
    assert stage.value("tickets", tickets[3], today, "priority") == "High"
    contact = stage.seen("contacts", contacts[3], today)
    assert contact is not None
    assert (contact[0], contact[1]["title"], contact[1]["do_not_call"]) == (accounts[3], "Buyer", "false")
    assert "Secret" not in str(stage.versions())

    crm.change("accounts", accounts[0], country="SE", custom_fields={"account_number": "B0"})
    crm.change("accounts", accounts[1], is_active=False)
    crm.change("contacts", contacts[0], title="Director", do_not_call=True)
    crm.change("opportunities", deals[0], stage="CLOSED_WON")
    crm.change("cases", tickets[0], status="Closed")
    crm.delete("accounts", accounts[2])  # and with it its opportunity and its ticket; its contact loses it
    crm.delete("contacts", contacts[4])
    assert stage.ingest(today) == {
        "accounts": (0, 3, MANY - 3, 0),
        "contacts": (0, 3, MANY - 3, 0),
        "opportunities": (0, 2, MANY - 2, 0),
        "tickets": (0, 2, MANY - 2, 0),
    }
    assert stage.value("accounts", accounts[0], today, "account_number") == "B0"
    assert stage.value("opportunities", deals[0], today, "stage_kind") == "won"
    assert stage.value("tickets", tickets[0], today, "resolved_at") is not None
    archived = {
        (entity, record_id)
        for entity, ids in zip(ENTITIES, world.ids.values(), strict=True)
        for record_id in ids
        if (seen := stage.seen(entity, record_id, today)) and seen[2]
    }
    assert archived == {
        ("accounts", accounts[1]),
        ("accounts", accounts[2]),
        ("contacts", contacts[4]),
        ("opportunities", deals[2]),
        ("tickets", tickets[2]),
    }
    assert stage.ingest(today) == {
        "accounts": (0, 0, MANY - 1, 0),
        "contacts": (0, 0, MANY - 1, 0),
        "opportunities": (0, 0, MANY - 1, 0),
        "tickets": (0, 0, MANY - 1, 0),
    }


def test_an_earlier_day_is_given_nothing_of_what_was_made_later(world: World) -> None:
    assert world.stage.ingest(world.today - timedelta(days=1)) == dict.fromkeys(ENTITIES, (0, 0, 0, 0))
    later = world.stage.warehouse.rows("select rows_later from audit.loads where source = 'bottlecrm'")
    assert later == [(MANY,)] * len(ENTITIES)
    assert not world.stage.versions()


def test_a_pull_that_is_killed_leaves_whole_entities_and_is_completed_by_the_next(
    world: World, tmp_path: Path
) -> None:
    stage = world.stage
    sources = tmp_path / "sources.yml"
    sources.write_text(
        f"company: {{name: Test, timezone: '{stage.timezone}', currency: CNY}}\ncrm: {{system: bottlecrm}}\n"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL, str(sources), world.today.isoformat()],
        cwd=PROJECT_DIR,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "here\n"
    killed.kill()
    killed.wait(30)
    killed.stdout.close()
    assert {entity for entity, *_ in stage.versions()} == {"accounts", "contacts"}
    counts = stage.ingest(world.today)
    assert counts == ALL_NEW | {"accounts": (0, 0, MANY, 0), "contacts": (0, 0, MANY, 0)}
    in_pieces = contents(stage)
    stage.forget()
    stage.ingest(world.today)
    assert contents(stage) == in_pieces


def test_a_token_that_is_wrong_or_sees_too_little_is_told_apart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, crm = world.stage, world.crm
    for token, says in (
        ("bcrm_pat_nonsense", "did not let Stratum in"),
        (crm.tokens["USER"], "sees only their own records"),
    ):
        reach(monkeypatch, crm.url, token)
        with pytest.raises(StratumError, match=says) as raised:
            stage.ingest(world.today)
        assert token not in str(raised.value)
    assert not stage.versions()
    reach(monkeypatch, crm.url, crm.tokens["less"])
    assert set(stage.ingest(world.today)) == set(ENTITIES) - {"tickets"}


def test_what_is_told_shows_in_its_own_api_and_a_field_it_dropped_is_seen(
    server: BottleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.clear()
    ids = [
        server.add("accounts", name=f"Account {n}", custom_fields={"account_number": f"A{n}"})
        for n in range(3)
    ]
    reach(monkeypatch, server.url, server.tokens["ADMIN"])
    kinds = {
        "stratum_text": "string",
        "stratum_number": "number",
        "stratum_date": "date",
        "stratum_flag": "bool",
    }
    api = bottlecrm_api.BottleCrmApi(get_connection("bottlecrm_default"))
    target = BottleCrmTarget(api)
    assert target.setup(kinds | {"their_own": "string"}, make=True) == Setup(
        list(kinds), {"their_own": "a custom field of accounts, type textarea"}
    )
    assert target.setup(kinds, make=True) == Setup()
    told = dict(zip(kinds, ["华为技术有限公司 🚀", "-3.1", "2026-06-30", "true"], strict=True))
    full = Row("1", "A0", ids[0], told)
    plain = Row(
        "2", "A1", ids[1], {"stratum_text": "00123", "stratum_number": "120000", "stratum_flag": "false"}
    )
    dropped = Row("3", "A2", ids[2], {"stratum_text": "kept", "not_there": "lost"})
    odd = Row("4", "A2", ids[2], {"stratum_number": "much"})
    gone = Row("5", "A3", "00000000-0000-0000-0000-000000000000", {"stratum_text": "x"})
    answer = target.write([full, plain, dropped, odd, gone], lambda job_id: None)
    assert answer.confirmed == [full, plain]
    reasons = {row.key: reason for row, reason in answer.refused}
    assert reasons["3"] == "BottleCRM answered 200 and dropped not_there"
    assert reasons["4"].startswith("HTTP 400: ")
    assert reasons["5"].startswith("HTTP 404: ")

    def shown(record_id: str) -> dict[str, object]:
        return server.http.get(f"accounts/{record_id}/").json()["account_obj"]["custom_fields"]

    values = {"stratum_number": -3.1, "stratum_date": "2026-06-30", "stratum_flag": True}
    assert shown(ids[0]) == {"account_number": "A0", "stratum_text": told["stratum_text"], **values}
    assert shown(ids[1])["stratum_text"] == "00123"
    cleared = Row("6", "A0", ids[0], {"stratum_text": None, "stratum_flag": None})
    assert target.write([cleared], lambda job_id: None).confirmed == [cleared]
    assert shown(ids[0]) == {"account_number": "A0", "stratum_number": -3.1, "stratum_date": "2026-06-30"}
    assert target.read(ids[:1], ["stratum_number", "stratum_text"]) == {
        ids[0]: {"stratum_number": "-3.1", "stratum_text": None}
    }
    # A member who is no administrator may not make fields: it is said, and nothing fails.
    reach(monkeypatch, server.url, server.tokens["USER"])
    member = BottleCrmTarget(bottlecrm_api.BottleCrmApi(get_connection("bottlecrm_default")))
    done = member.setup({"stratum_more": "string"}, make=True)
    assert (done.made, list(done.by_hand)) == ([], ["stratum_more"])
    assert "BottleCRM said: HTTP 403" in done.by_hand["stratum_more"]
    member.api.close()
    api.close()
