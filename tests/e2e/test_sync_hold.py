"""Syncs of a few rows on real Airflow: one that is held waits for a person; what was told is read back by its own DAG."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hubspot import HubSpot
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInput as Changes
from hubspot.crm.companies import SimplePublicObjectBatchInput as Change

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
NOWHERE = TOLD | {"connection": "nowhere", "brakes": {"first_sync": False}}


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

    def read_back(self) -> tuple[str, dict[str, str], dict[str, str]]:
        """Run reconcile_crm as Airflow's screen does; return its state, and by target its task's state and log."""
        api = self.stratum.api()
        started = api.call("POST", "/dags/reconcile_crm/dagRuns", json={"logical_date": None})["dag_run_id"]
        run = f"/dags/reconcile_crm/dagRuns/{started}"
        assert wait_until(lambda: api.call("GET", run)["state"] in ("success", "failed"), 300)
        tasks = {
            task["rendered_map_index"]: task
            for task in api.tasks("reconcile_crm", started)
            if task["task_id"] == "reconcile"
        }
        return (
            api.call("GET", run)["state"],
            {target: task["state"] for target, task in tasks.items()},
            {
                target: json.dumps(
                    api.call(
                        "GET",
                        f"{run}/taskInstances/reconcile/logs/1",
                        headers={"Accept": "application/json"},
                        params={"map_index": task["map_index"]},
                    )
                )
                for target, task in tasks.items()
            },
        )

    def drift(self) -> list[tuple]:
        """What the newest reading back found: its policy and counts, and each difference."""
        return self.stratum.rows(
            "select policy, records_read, equal, drifted, drift.record_id, field, confirmed, held, done "
            "from sync.reconciliations left join sync.drift using (reconciliation_id) "
            "where reconciliation_id = (select max(reconciliation_id) from sync.reconciliations)"
        )

    def crm(self) -> Any:
        """The official client, as somebody else in the CRM uses it."""
        token = json.loads((self.stratum.home / "secrets.json").read_text())["sandbox_token"]
        address = f"http://127.0.0.1:{self.stratum.environment['STRATUM_SANDBOX_PORT']}"
        return HubSpot(access_token=token, host=address).crm.companies

    def edit(self, record: str, **values: str) -> None:
        """Change a record as somebody in the CRM does."""
        self.crm().batch_api.update(Changes(inputs=[Change(id=record, properties=values)]))

    def shows(self, record: str, name: str) -> str:
        return self.crm().basic_api.get_by_id(record, properties=[name]).properties[name]


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """An installation that is up, with three published accounts; neither of its two targets was told of them yet."""
    folder = tmp_path_factory.mktemp("company")
    (folder / "sources.yml").write_text(SOURCES)
    company = Company(Installation(folder / "home"), folder)
    company.configure(nowhere=NOWHERE, crm=TOLD)
    try:
        up = company.stratum.run("up", "--sources", str(folder / "sources.yml"))
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
    assert "Approved: Sync to hubspot:hubspot_sandbox as of " in approved.stdout
    assert company.state(waits) == "success"
    assert company.holds()[2] == ("approved", by)
    statuses = {each["target"]: each for each in json.loads(stratum.run("sync", "status", "--json").stdout)}
    assert statuses["hubspot:nowhere"]["last"]["status"] == "failed"
    last = statuses["hubspot:hubspot_sandbox"]
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


@pytest.mark.extended
def test_what_somebody_edited_in_the_crm_is_read_back_listed_and_told_of_or_healed_by_the_policy(
    company: Company,
) -> None:
    stratum, edited = company.stratum, record_id(1)
    # A mapping of its own: by that of the first hold, which was rejected, the run is never sent.
    told = TOLD | {"fields": TIER | {"stratum_d": "tier"}, "brakes": {"first_sync": False}}
    company.configure(crm=told)
    assert company.ended(company.start_sync()) == "success"
    company.edit(edited, stratum_tier="gold")

    # Listed, and told of by a warning: a person may have meant it. Each target has a task with its name.
    company.configure(
        crm=told | {"reconcile": {}},
        nowhere=NOWHERE | {"reconcile": {}},
        never=NOWHERE | {"connection": "no"},
    )
    state, tasks, logs = company.read_back()
    assert (state, tasks) == ("failed", {"crm": "success", "nowhere": "failed"})
    assert f"no longer holds what it confirmed of 1 of {ACCOUNTS} records (stratum_tier)" in logs["crm"]
    assert "No connection 'nowhere'" in logs["nowhere"]
    found = (ACCOUNTS, ACCOUNTS - 1, 1, edited, "stratum_tier", "A", "gold")
    assert company.drift() == [("report", *found, "reported")]
    for command in (["status"], ["sync", "status"]):
        said = stratum.run(*command)
        assert said.returncode == 0, said.stderr
        assert f"{ACCOUNTS} records read = {ACCOUNTS - 1} equal + 1 drifted + 0 gone" in said.stdout
        assert "1 stratum_tier reported" in said.stdout
    assert company.shows(edited, "stratum_tier") == "gold", "reading back writes nothing"

    # The same is red where sync.yml says so.
    company.configure(crm=told | {"reconcile": {"on_drift": "fail"}})
    state, tasks, logs = company.read_back()
    assert (state, tasks) == ("failed", {"crm": "failed"})
    assert "no longer holds what it confirmed" in logs["crm"]

    # Healed, it is nothing to be red about: the next sync tells it again, and then nothing differs.
    company.configure(crm=told | {"reconcile": {"on_drift": "fail", "policy": "heal"}})
    assert company.read_back()[:2] == ("success", {"crm": "success"})
    assert company.drift() == [("heal", *found, "healed")]
    assert company.ended(company.start_sync()) == "success"
    assert company.shows(edited, "stratum_tier") == "A"
    assert company.read_back()[0] == "success"
    assert company.drift() == [("heal", ACCOUNTS, ACCOUNTS, 0, None, None, None, None, None)]
