"""In which condition an installation is: what is up, what is published, what waits. Reading it changes nothing."""

from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import dict_row

from include.local.airflow_api import AirflowApi
from include.local.chain import CHAIN
from include.local.processes import listens
from include.local.stack import Stack
from include.sources.loads import ungated_loads
from include.sync.switches import known_targets, status_lines, status_of
from include.warehouse import embedded
from include.warehouse.backfill import pending
from include.warehouse.connect import connect

Facts = dict[str, Any]

# Queues are in the build's schema, which the auditor does not read.
QUEUED = """
select (select count(*) from intermediate.account_day_queue) as account_days,
    (select count(*) from intermediate.usage_day_queue) as usage_days,
    (select count(*) from intermediate.restatement_queue) as restatements"""
QUARANTINED = """
select source, entity, count(*) as rows from quarantine.rows where resolved_load_id is null
group by source, entity order by source, entity"""
# Of the newest load of each entity that read columns.
COLUMN_CHANGES = """
select source, entity, as_of_date, column_name, change, type_before, type_now from audit.column_changes
where load_id in (
    select distinct on (source, entity) load_id from audit.loads
    where status = 'loaded' and columns is not null order by source, entity, load_seq desc
) order by source, entity, change, column_name"""
LOCK = """
select run_id, as_of_date, acquired_at, lease_until, lease_until < clock_timestamp() as lease_ended
from audit.build_lock"""


def processes(stack: Stack) -> Facts:
    """Return what runs: PostgreSQL, each part of Airflow with its heartbeat, the sandbox, the schedules."""
    return {
        "postgres": postgres(stack),
        "airflow": airflow(stack),
        "sandbox": "up" if listens(stack.settings.sandbox_host, stack.settings.sandbox_port) else "down",
        "schedules": schedules(stack),
    }


def postgres(stack: Stack) -> str:
    """Return whether the warehouse's server is `up`, `down`, or `yours` (a server that we do not run)."""
    if stack.settings.postgres_url or stack.settings.warehouse_url:
        return "yours"
    return "up" if embedded.is_running(stack.cluster) else "down"


def airflow(stack: Stack) -> dict[str, Facts]:
    """Return the status and the last heartbeat of each part of Airflow.

    A part whose process is gone is `down` at once; Airflow itself goes by heartbeats and needs 30 s for it.
    """
    health = stack.api().health()
    parts = {
        "api-server": {"status": "healthy" if health else "down", "heartbeat": None},
        "scheduler": health.get("scheduler") or {"status": "down", "heartbeat": None},
        "dag-processor": health.get("dag_processor") or {"status": "down", "heartbeat": None},
    }
    if not stack.settings.airflow_url:
        for process in stack.airflow:
            if not process.find():
                parts[process.name]["status"] = "down"
    return parts


def schedules(stack: Stack) -> str:
    """Return whether the ingests run daily: `on`, `off`, or `not running` where no scheduler of ours does."""
    if stack.settings.airflow_url:
        return "on" if stack.settings.schedule else "off"
    running = stack.airflow[1].find()
    if running is None:
        return "not running"
    return "on" if running.environ().get("STRATUM_SCHEDULE") == "1" else "off"


def last_runs(api: AirflowApi) -> list[Facts]:
    """Return the newest run of each DAG: its date, state, and when it began and ended."""
    runs = []
    for dag_id in (*CHAIN, "reconcile_crm", "housekeeping"):
        newest = api.runs(dag_id)[:1]
        runs += [
            {
                "dag_id": dag_id,
                "as_of_date": run["partition_key"],
                "state": run["state"],
                "started_at": run["start_date"],
                "ended_at": run["end_date"],
            }
            for run in newest
        ]
    return runs


def books() -> Facts:
    """Return what the warehouse knows: what is published, who builds, what waits. Needs a warehouse that is up."""
    with connect("auditor") as connection, connection.cursor(row_factory=dict_row) as cursor:

        def one(query: LiteralString) -> Any:
            return cursor.execute(query).fetchone()

        facts: Facts = {
            "published": one("select run_id, as_of_date, published_at from published.current_run"),
            "build_lock": one(LOCK),
            "quarantined": cursor.execute(QUARANTINED).fetchall(),
            "column_changes": cursor.execute(COLUMN_CHANGES).fetchall(),
        }
    facts["sync"] = [status_of(target) for target in known_targets()]
    with connect("auditor") as connection:
        facts["ungated_loads"] = len(ungated_loads(connection))
    facts["backfills"] = [
        {"as_of_date": as_of, "requested_at": requested_at} for as_of, requested_at in pending()
    ]
    with connect("housekeeper") as connection, connection.cursor(row_factory=dict_row) as cursor:
        facts["queued"] = cursor.execute(QUEUED).fetchone()
    return facts


def lines(facts: Facts) -> list[str]:
    """Return the condition as lines for a terminal."""
    shown = [f"PostgreSQL     {_postgres_line(facts['postgres'])}"]
    for name, part in facts["airflow"].items():
        beat = f"  last heartbeat {_moment(part['heartbeat'])}" if part["heartbeat"] else ""
        shown.append(f"{name:<14} {part['status']}{beat}")
    shown += [f"CRM sandbox    {facts['sandbox']}", f"Schedules      {facts['schedules']}", ""]
    published = facts["published"]
    shown.append(
        f"Published      {published['as_of_date']}, run {published['run_id']}, at {_moment(published['published_at'])}"
        if published
        else "Published      nothing yet. Run a date: stratum run --as-of DATE"
    )
    shown.append(f"Build lock     {_lock_line(facts['build_lock'])}")
    queued = facts["queued"]
    shown.append(
        f"Queued         {queued['account_days']:,} account-days, {queued['usage_days']:,} usage days, "
        f"{queued['restatements']:,} restatements, for the next build"
    )
    shown.append(f"Loads          {facts['ungated_loads']:,} that no raw gate has passed yet")
    shown += _source_lines(facts)
    shown += _sync_lines(facts["sync"])
    if facts["backfills"]:
        dates = ", ".join(str(row["as_of_date"]) for row in facts["backfills"])
        shown.append(f"Backfill       asked for and not in the history yet: {dates}")
    if facts["runs"]:
        shown += ["", "Last run of each DAG"]
    for run in facts["runs"]:
        when = _moment(run["ended_at"] or run["started_at"])
        shown.append(f"  {run['dag_id']:<16} {run['as_of_date'] or '':<10}  {run['state']:<8} {when}")
    return shown


def _postgres_line(state: str) -> str:
    return {"down": "down (started for this look alone)", "yours": "a server of yours, answers"}.get(
        state, state
    )


def _lock_line(lock: Facts | None) -> str:
    if lock is None:
        return "free"
    lease = "its lease ended at" if lock["lease_ended"] else "lease until"
    return (
        f"held by run {lock['run_id']} (as of {lock['as_of_date']}) since {_moment(lock['acquired_at'])}, "
        f"{lease} {_moment(lock['lease_until'])}"
    )


def _source_lines(facts: Facts) -> list[str]:
    counted = ", ".join(
        f"{each['rows']:,} of {each['source']}.{each['entity']}" for each in facts["quarantined"]
    )
    shown = [f"Quarantine     {f'{counted} (stratum quarantine list)' if counted else 'empty'}"]
    for each in facts["column_changes"]:
        types = " from {type_before} to {type_now}".format(**each) if each["change"] == "retyped" else ""
        shown.append(
            f"Columns        {each['source']}.{each['entity']}: '{each['column_name']}' is {each['change']}{types} "
            f"since the load of {each['as_of_date']}"
        )
    return shown


def _sync_lines(targets: list[Facts]) -> list[str]:
    if not targets:
        return ["Sync           none yet"]
    told = [line for target in targets for line in status_lines(target)]
    return [f"{'' if place else 'Sync':<15}{line}" for place, line in enumerate(told)]


def _moment(moment: datetime | str | None) -> str:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}" if moment else "-"
