"""A held sync on real Airflow: it waits for a person, in Airflow's own list or at the command line, and for no longer."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.errors import StratumError
from include.local.chain import follow_sync
from include.local.processes import wait_until
from tests.e2e.installation import Installation
from tests.integration.sandbox_fixture import record_id

ACCOUNTS = 3
AS_OF = date(2026, 6, 30)
SOURCES = """\
company: {name: tiny, timezone: UTC, currency: CNY}
crm: {system: hubspot, connection: hubspot_sandbox}
sync: sync.yml
"""
# By the publisher, as in a real publish: what the owner grants, each command that starts the warehouse sets right again.
PUBLISHED = f"""
set role stratum_publisher;
create table published.customer_360 (account_id text, crm_record_id text, tier text, crm_system text);
insert into published.customer_360
values {", ".join(f"('C{n}', '{record_id(n)}', 'A', 'hubspot')" for n in range(ACCOUNTS))};
grant select on published.customer_360 to stratum_syncer;
reset role;
insert into published.current_run (run_id, as_of_date, published_at) values ('run-1', '{AS_OF}', now())"""
TIER = {"stratum_tier": "tier"}
TOLD = {
    "system": "hubspot",
    "connection": "hubspot_sandbox",
    "make_fields": True,
    "fields": TIER,
    "brakes": {"first_sync": True},
}
NOWHERE = TOLD | {"connection": "nowhere"}


class Company:
    """A slice of the simulated company, whose sync.yml a test writes."""

    def __init__(self, stratum: Installation, folder: Path) -> None:
        self.stratum = stratum
        self.folder = folder

    def configure(self, **targets: dict[str, Any]) -> None:
        (self.folder / "sync.yml").write_text(yaml.safe_dump(targets))

    def start_sync(self) -> str:
        return self.stratum.api().trigger("sync_crm", AS_OF)

    def state(self, run_id: str) -> str:
        return self.stratum.api().run("sync_crm", run_id)["state"]

    def question(self, run_id: str) -> dict[str, Any]:
        """Wait until a task asks and its worker is gone, as a person would who reads first; return what it asks.

        Airflow loses an answer that comes before its scheduler saw the worker end: it takes the task for killed, and
        asks again in the next try.
        """
        api = self.stratum.api()
        assert wait_until(lambda: bool(api.questions("sync_crm")), 300)
        (question,) = api.questions("sync_crm")
        assert question["task_instance"]["dag_run_id"] == run_id
        assert wait_until(lambda: self.worker_ended(run_id), 300)
        return question

    def worker_ended(self, run_id: str) -> bool:
        """Return whether the scheduler's log says that the worker of a run's sync has ended."""
        task = f"TaskInstanceKey(dag_id='sync_crm', task_id='sync', run_id='{run_id}'"
        ended = f"executor event with state success for task instance {task}"
        return ended in (self.stratum.home / "run" / "scheduler.log").read_text()

    def holds(self) -> list[tuple[str, str | None]]:
        """Status and answerer of each hold, the oldest first."""
        return self.stratum.rows("select status, decided_by from sync.holds order by hold_id")

    def ended(self, run_id: str) -> str:
        assert wait_until(lambda: self.state(run_id) in ("success", "failed"), 300)
        return self.state(run_id)


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    """An installation that is up, with three published accounts; neither of its two targets was told of them yet."""
    (tmp_path / "sources.yml").write_text(SOURCES)
    company = Company(Installation(tmp_path / "home"), tmp_path)
    company.configure(nowhere=NOWHERE, crm=TOLD)
    try:
        up = company.stratum.run("up", "--sources", str(tmp_path / "sources.yml"))
        assert up.returncode == 0, up.stderr
        company.stratum.rows(PUBLISHED)
        yield company
    finally:
        down = company.stratum.run("down")
        left = company.stratum.processes()
        for process in left:
            process.kill()
        assert down.returncode == 0, down.stderr


@pytest.mark.extended
def test_a_held_sync_waits_for_a_person_and_goes_on_or_fails(company: Company) -> None:
    stratum = company.stratum
    first, said = company.start_sync(), []
    with pytest.raises(StratumError, match=r"sync_crm\.sync nowhere failed: No connection 'nowhere'"):
        follow_sync(stratum.api(), first, said.append, lambda: None)
    assert [line.split() for line in said if " held" in line] == [["sync_crm", "sync", "crm", "held"]]
    assert company.state(first) == "running", "it waits, though the other target failed"
    held = stratum.rows("select target, sent, held, calls from sync.runs where status = 'held'")
    assert held == [("hubspot:hubspot_sandbox", 0, ACCOUNTS, 0)]
    assert "first_sync" in stratum.run("sync", "status").stdout

    rejected = stratum.run("sync", "reject", "crm", "--reason", "not yet")
    assert rejected.returncode == 0, rejected.stderr
    assert company.ended(first) == "failed"
    ((status, by),) = company.holds()
    assert status == "rejected"
    assert by

    # Nobody answers: the run fails when the hold expires. Another field is another plan, which is asked about anew.
    company.configure(crm=TOLD | {"fields": TIER | {"stratum_a": "tier"}, "brakes": {"expire_hours": 0.001}})
    unanswered = company.start_sync()
    assert company.ended(unanswered) == "failed"
    assert company.holds()[1] == ("expired", None)

    # The command line answers the task that waits, and it goes on.
    company.configure(crm=TOLD | {"fields": TIER | {"stratum_b": "tier"}})
    waits = company.start_sync()
    assert company.question(waits)["task_instance"]["rendered_map_index"] == "crm"
    approved = stratum.run("sync", "approve", "crm", "--reason", "looked at the plan")
    assert approved.returncode == 0, approved.stderr
    assert company.state(waits) == "success"
    assert company.holds()[2] == ("approved", by)
    (last,) = json.loads(stratum.run("sync", "status", "--json").stdout)
    assert last["last"]["status"] == "finished"
    assert last["last"]["sent"] == ACCOUNTS
    assert last["hold"] is None

    # Airflow's own screen answers by this very call. The ledger is lost, so the sync is a first one again.
    stratum.rows("delete from sync.ledger")
    company.configure(crm=TOLD | {"fields": TIER | {"stratum_c": "tier"}})
    waits = company.start_sync()
    question = company.question(waits)
    instance = question["task_instance"]
    stratum.api().answer(
        "sync_crm", waits, instance["task_id"], instance["map_index"], question["options"][0]
    )
    assert company.ended(waits) == "success"
    assert company.holds()[3] == ("approved", "admin (Airflow)")
    sends = stratum.rows("select sent > 0 from sync.runs where status = 'finished' order by sync_id")
    assert sends == [(True,), (True,)]

    # Nothing is held: nothing waits. A target that is switched off is told nothing, and its run ends.
    stopped = stratum.run("sync", "stop", "--reason", "a test")
    assert stopped.returncode == 0, stopped.stderr
    assert company.ended(company.start_sync()) == "success"
    assert stratum.rows("select status, calls from sync.runs order by sync_id desc limit 1") == [("held", 0)]
    assert "switched off by" in stratum.run("sync", "status").stdout
    assert stratum.run("sync", "start").returncode == 0
    assert company.ended(company.start_sync()) == "success"
    assert stratum.rows("select status from sync.runs order by sync_id desc limit 1") == [("finished",)]
    assert len(company.holds()) == 4
    gates = stratum.rows("select distinct success from audit.checks where gate = 'sync'")
    assert gates == [(True,)]
