"""After a change of CRM the companies of the old one stand no more, from the new one's first date on."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.sources.crm_change import retire_others
from include.sources.retract import retract
from include.sources.row_sources import Company
from tests.conftest import Warehouse
from tests.integration.sandbox_fixture import account, reach, record_id, running_sandbox
from tests.integration.test_ingest_crm_changes import (
    COMPANIES,
    CONTACTS,
    DAY,
    RECORDS,
    TICKETS,
    Changing,
    made,
    noon,
)

CHANGE = DAY + timedelta(days=3)
COMPANY = Company(name="Test", timezone="Asia/Shanghai", currency="CNY")


@pytest.fixture
def stage(module_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Changing]:
    accounts = [account(number) for number in range(COMPANIES)]
    with running_sandbox(tmp_path / "crm.sqlite", accounts, burst_calls=100_000, records=RECORDS) as crm:
        reach(monkeypatch, crm)
        changing = Changing(module_warehouse, crm)
        changing.forget()
        changing.pull(DAY)
        yield changing


def standing(stage: Changing, day: date) -> tuple[bool, bool]:
    """Whether a company, and a contact, of the old CRM stand on a day."""
    seen = [stage.seen("companies", record_id(1), day), stage.seen("contacts", made("contacts", 1), day)]
    return tuple(each is not None and not each[2] for each in seen)  # type: ignore[return-value]


def test_the_old_ones_records_are_archived_as_of_the_first_date_of_the_new_one(stage: Changing) -> None:
    stage.warehouse.rows("delete from intermediate.restatement_queue")
    loads = retire_others("salesforce", COMPANY, CHANGE)
    counts = {table: (load.rows_in, load.rows_corrected) for table, load in loads.items()}
    assert counts == {
        "raw_hubspot.companies": (COMPANIES, COMPANIES),
        "raw_hubspot.contacts": (CONTACTS, CONTACTS),
        "raw_hubspot.deals": (1, 1),
        "raw_hubspot.tickets": (TICKETS, TICKETS),
        "raw_hubspot.feedback_submissions": (1, 1),
    }
    assert standing(stage, CHANGE) == (False, False)
    assert standing(stage, CHANGE - timedelta(days=1)) == (True, True)
    queued = dict(
        stage.warehouse.rows(
            "select account_key, min(from_date) from intermediate.restatement_queue group by account_key"
        )
    )
    first = date(2025, 3, 4)  # of its companies
    assert queued["A0001"] == queued[f"hubspot:{record_id(1)}"] == first
    assert len(queued) == 2 * COMPANIES
    # Nothing is left to archive, on this date or any other; and the CRM that is configured is left alone.
    assert retire_others("salesforce", COMPANY, CHANGE) == {}
    assert retire_others("hubspot", COMPANY, CHANGE) == {}


def test_a_date_on_which_it_was_still_the_crm_changes_nothing(stage: Changing) -> None:
    stage.pull(CHANGE)
    assert retire_others("salesforce", COMPANY, DAY) == {}
    assert standing(stage, CHANGE) == (True, True)


def test_the_old_crm_comes_back_whole(stage: Changing) -> None:
    retire_others("bottlecrm", COMPANY, CHANGE)
    back = CHANGE + timedelta(days=1)
    counts = stage.pull(back)
    assert (counts["companies"], counts["contacts"]) == ((0, COMPANIES, 0), (0, CONTACTS, 0))
    assert [standing(stage, day) for day in (DAY, CHANGE, back)] == [
        (True, True),
        (False, False),
        (True, True),
    ]
    assert all(new == corrected == 0 for new, corrected, _ in stage.pull(back).values())


def test_the_change_can_be_taken_out_again(stage: Changing) -> None:
    loads = retire_others("salesforce", COMPANY, CHANGE)
    assert retract(str(loads["raw_hubspot.companies"].load_id), "the CRM was named wrongly").rows == COMPANIES
    assert standing(stage, CHANGE) == (True, False)
    stage.edit(1, noon(CHANGE), industry="Steel")
    assert stage.pull(CHANGE)["companies"][:2] == (0, 1)
