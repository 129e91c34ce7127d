"""The companies of the CRM land as versions: what each was at the end of the as-of date."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from include.errors import StratumError, TransientError
from include.sandbox.store import Account
from include.sources.crm_versions import ENTITIES
from include.sources.hubspot import ingest_crm
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import CREATED, Stage, account, reach, record_id, running_sandbox

DAY_1, DAY_2, DAY_3 = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)
NOON = {day: datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in (DAY_1, DAY_2, DAY_3)}
MANY = 120  # three pages with histories


@pytest.fixture
def stage(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    accounts = [account(n) for n in range(MANY)]
    accounts.append(Account(None, "No number", None, None, NOON[DAY_1]))
    accounts.append(account(900, NOON[DAY_3]))
    with running_sandbox(tmp_path / "crm.sqlite", accounts) as crm:
        reach(monkeypatch, crm)
        yield Stage(warehouse, crm)


def test_all_companies_land_with_their_record_ids_once(stage: Stage) -> None:
    assert stage.ingest(DAY_1) == (MANY + 1, 0, 0, 0)
    landed = stage.warehouse.rows(
        "select record_id, account_number, known_on, valid_from, is_archived, properties "
        "from raw_hubspot.companies where account_number = 'A0007'"
    )
    created = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert landed == [
        (
            record_id(7),
            "A0007",
            date(2025, 3, 4),
            created,
            False,
            {
                "name": "Account 7",
                "industry": "Retail",
                "country": "Norway",
                "account_number": "A0007",
                "domain": None,
                "hs_parent_company_id": None,
                "hs_merged_object_ids": None,
                "createdate": created.isoformat(),
            },
        )
    ]
    booked = stage.warehouse.rows(
        "select rows_unattributed, rows_later from audit.loads where entity = 'companies'"
    )
    assert booked == [(1, 1)]
    assert stage.ingest(DAY_1) == (0, 0, 0, 0)
    assert stage.warehouse.value("select count(*) from raw_hubspot.companies") == MANY + 1


def test_a_company_created_later_waits_for_its_day(stage: Stage) -> None:
    stage.ingest(DAY_2)
    assert stage.as_of(MANY + 1, DAY_2) is None
    assert stage.ingest(DAY_3) == (1, 0, 0, 0)


def test_a_change_makes_a_version_and_our_own_writes_make_none(stage: Stage) -> None:
    stage.ingest(DAY_1)
    store = stage.crm.sandbox.store
    store.add_property({"name": "stratum_tier", "type": "string", "groupName": "companyinformation"})
    stage.edit(3, NOON[DAY_2], stratum_tier="A")
    stage.edit(4, NOON[DAY_2], industry="Steel")
    assert stage.ingest(DAY_2) == (0, 1, 1, 0)
    assert stage.as_of(4, DAY_1) == ("Retail", False)
    assert stage.as_of(4, DAY_2) == ("Steel", False)
    (version,) = stage.warehouse.rows(
        "select valid_from, known_on from raw_hubspot.companies where record_id = %s order by load_seq desc limit 1",
        record_id(4),
    )
    assert version == (NOON[DAY_2], DAY_2)


def test_a_value_set_after_the_day_is_not_seen_on_the_day(stage: Stage) -> None:
    """16:00 UTC of the second is midnight in Shanghai: the third has begun."""
    stage.edit(4, datetime(2026, 3, 2, 16, 0, tzinfo=UTC), industry="Steel")
    stage.edit(5, datetime(2026, 3, 2, 15, 59, tzinfo=UTC), industry="Wood")
    stage.ingest(DAY_2)
    assert stage.as_of(4, DAY_2) == ("Retail", False)
    assert stage.as_of(5, DAY_2) == ("Wood", False)
    stage.ingest(DAY_3)
    assert stage.as_of(4, DAY_3) == ("Steel", False)


def test_days_loaded_in_either_order_show_the_same(stage: Stage) -> None:
    stage.edit(4, NOON[DAY_2], industry="Steel")
    stage.edit(4, NOON[DAY_3], industry="Wood")
    for day in (DAY_3, DAY_1, DAY_2, DAY_3, DAY_1):
        stage.ingest(day)
    assert [stage.as_of(4, day) for day in (DAY_1, DAY_2, DAY_3)] == [
        ("Retail", False),
        ("Steel", False),
        ("Wood", False),
    ]
    assert stage.warehouse.value("select count(*) from raw_hubspot.companies") == MANY + 2 + 2
    # The first load brought the whole past, each version known from its own day on.
    known = stage.warehouse.rows(
        "select properties ->> 'industry', known_on from raw_hubspot.companies where record_id = %s "
        "order by load_seq",
        record_id(4),
    )
    assert sorted(known) == [("Retail", CREATED.date()), ("Steel", DAY_2), ("Wood", DAY_3)]


def test_an_archived_company_is_a_version_and_so_is_its_return(stage: Stage) -> None:
    stage.ingest(DAY_1)
    store = stage.crm.sandbox.store
    store.archive(record_id(6), NOON[DAY_2])
    assert stage.ingest(DAY_2) == (0, 1, 0, 0)
    assert stage.as_of(6, DAY_2) == ("Retail", True)
    store.restore(record_id(6))
    assert stage.ingest(DAY_3) == (1, 1, 0, 0)
    assert stage.as_of(6, DAY_3) == ("Retail", False)
    assert stage.ingest(DAY_3) == (0, 0, 1, 0)  # that which was created on the day lies within the overlap


def test_an_unreadable_company_is_quarantined_once_with_its_reason(stage: Stage) -> None:
    store = stage.crm.sandbox.store
    with store.db:
        store.db.execute("update records set created_at = 'soon' where id = ?", [int(record_id(2))])
    assert stage.ingest(DAY_1) == (MANY, 0, 0, 1)
    stage.edit(2, NOON[DAY_2], industry="Steel")
    assert stage.ingest(DAY_2) == (0, 0, 0, 1)
    refused = stage.warehouse.rows(
        "select reason, original ->> 'id', original -> 'properties' ->> 'industry', resolved_load_id is null "
        "from quarantine.rows order by first_load_id = resolved_load_id, resolved_at nulls last"
    )
    assert refused == [
        ("unreadable_date", record_id(2), "Retail", False),
        ("unreadable_date", record_id(2), "Steel", True),
    ]
    assert stage.warehouse.rows("select reason, rows from audit.load_reasons") == [("unreadable_date", 1)] * 2


def test_an_absent_crm_is_written_down(stage: Stage) -> None:
    absent = stage.sources.model_copy(update={"crm": None})
    assert ingest_crm(absent, DAY_1) is None
    booked = stage.warehouse.rows("select source, entity, status, rows_in from audit.loads")
    assert booked == [("crm", entity.name, "absent", 0) for entity in ENTITIES]
    assert stage.crm.sandbox.calls.by_endpoint.total() == 0


def test_a_refused_token_lands_nothing_and_is_not_shown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = stage.crm.url.removeprefix("http://")
    monkeypatch.setenv(
        "AIRFLOW_CONN_HUBSPOT_DEFAULT",
        json.dumps({"conn_type": "http", "host": f"http://{address}", "password": "wrong-token"}),
    )
    with pytest.raises(StratumError, match="HTTP 401") as refused:
        ingest_crm(stage.sources, DAY_1)
    assert "wrong-token" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert stage.warehouse.value("select count(*) from audit.loads") == 0


def test_a_crm_that_is_down_is_said_in_one_line(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_HUBSPOT_DEFAULT", "http://:token@127.0.0.1:9")
    slept: list[float] = []
    with pytest.raises(TransientError, match="Is it up") as refused:
        ingest_crm(stage.sources, DAY_1, sleep=slept.append)
    assert len(slept) == 5
    assert "\n" not in str(refused.value)


def test_a_rate_limit_in_the_middle_of_the_pages_loses_nothing(stage: Stage) -> None:
    stage.crm.fault(rate_limited=1, retry_after=0)
    assert stage.ingest(DAY_1) == (MANY + 1, 0, 0, 0)
