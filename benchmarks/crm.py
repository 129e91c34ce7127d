"""The cases of the reverse sync: planning many accounts, and sending to the sandbox."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
from hubspot import HubSpot
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInput, SimplePublicObjectBatchInput

from benchmarks.data import LAST_DAY
from benchmarks.meter import Meter, Stopwatch
from benchmarks.place import Place, Row, as_owner, free_port
from benchmarks.warehouse import copy_rows

TARGET = "hubspot:bench"
TOKEN = "benchmark"  # noqa: S105 - of a sandbox on loopback that lives as long as its case
FIELDS = {
    "stratum_tier": "tier",
    "stratum_rfm_score": "rfm_score",
    "stratum_recency_band": "recency_band",
    "stratum_next_action": "next_action",
    "stratum_yearly_net_spend": "yearly_net_spend",
    "stratum_age_stage": "age_stage",
    "stratum_churn_probability": "churn_probability",
    "stratum_churn_risk": "churn_risk",
}
NUMBERS = ("yearly_net_spend", "churn_probability")
ONE_IN = 100  # accounts of which something changed since the CRM was told
START_S = 120
BARE_JOIN = (
    "select count(*) from published.customer_360 as account "
    "join sync.ledger as ledger on ledger.target = %s and ledger.record_id = account.crm_record_id"
)


def sync_plan(place: Place) -> list[Row]:
    """Plan the sync of many accounts, of which one in a hundred changed; the floor is the bare join of both tables.

    Two rows: with the ledger settled, as on any day, and with no row settled, as after a change of the mapping, where
    each is compared field by field. Both are the better of three, and so is the floor.
    """
    from include.sync.ledger import Ledger
    from include.sync.mapping import SyncMapping
    from include.sync.plan import make_plan
    from include.warehouse.connect import connect

    mapping = SyncMapping.model_validate(
        {"system": "hubspot", "connection": "bench", "fields": FIELDS, "removal": "clear"}
    )
    run_id = _many_accounts(place.size.scaled)

    def planned() -> Meter:
        with place.meter() as meter:
            plan = make_plan(books, mapping, run_id, LAST_DAY)
        if len(plan.changes) != -(-plan.queried // ONE_IN) or plan.queried != place.size.scaled:
            raise RuntimeError(f"{len(plan.changes)} changes of {plan.queried} accounts planned")
        return meter

    def joined() -> Meter:
        with place.meter() as meter:
            books.execute(BARE_JOIN, [TARGET]).fetchall()
        return meter

    with connect("syncer") as books:
        books.autocommit = True
        anew = _best([planned() for _ in range(3)])
        ledger = Ledger(books, TARGET)
        ledger.open_run(run_id, LAST_DAY)
        ledger.note_plan(make_plan(books, mapping, run_id, LAST_DAY))
        with as_owner() as owner:
            owner.execute("vacuum (full, analyze) sync.ledger")
            owner.execute("vacuum (analyze) sync.ledger")
        pairs = [(planned(), joined()) for _ in range(3)]
    settled, floor = _best([plan for plan, _ in pairs]), _best([join for _, join in pairs])
    said = "the bare hash join of both tables; in CPU time {:.2f} s, ratio {:.1f}"
    return [
        place.row(
            name, place.size.scaled, meter, said.format(floor.cpu_s, meter.cpu_s / floor.cpu_s), floor.wall_s
        )
        for name, meter in (("sync_plan_1m", settled), ("sync_plan_anew", anew))
    ]


def _best(meters: list[Meter]) -> Meter:
    return min(meters, key=lambda meter: meter.cpu_s)


def sync_send(place: Place) -> list[Row]:
    """Send changes to the sandbox and book each answer.

    The floor is the slower of the CRM's limit and a bare loop of the official client over the same batches, which books
    nothing and has no limit to keep: longer than a burst, so that what the limit allows for ever is what counts.
    """
    from include.connections import ApiConnection
    from include.sandbox.app import BURST_CALLS, BURST_WINDOW_S
    from include.sandbox.store import FIRST_RECORD_ID, RECORD_ID_STEP
    from include.sync.engine import Engine
    from include.sync.hubspot_api import BATCH_SIZE, hubspot
    from include.sync.ledger import Ledger
    from include.sync.plan import Change
    from include.sync.setup import set_up
    from include.sync.targets.hubspot import HubSpotTarget
    from include.warehouse.connect import connect

    kinds = {name: "number" if column in NUMBERS else "string" for name, column in FIELDS.items()}
    values: dict[str, str | None] = {
        name: "1" if kind == "number" else "told" for name, kind in kinds.items()
    }
    ids = [str(FIRST_RECORD_ID + index * RECORD_ID_STEP) for index in range(place.size.sent)]
    changes = [Change(f"A{index}", each, values, {}) for index, each in enumerate(ids)]
    with _sandbox(place, BURST_CALLS) as url, connect("syncer") as books:
        books.autocommit = True
        with hubspot(ApiConnection("bench", url, TOKEN), "syncer", time.time, time.sleep) as api:
            target = HubSpotTarget(api)
            set_up(target, kinds)
            ledger = Ledger(books, f"{TARGET}_sent")
            ledger.open_run("bench", LAST_DAY)
            books.execute(
                "update sync.runs set queried = %s, failed = %s where sync_id = %s",
                [len(changes), len(changes), ledger.sync_id],
            )
            with place.meter() as meter:
                Engine(target, ledger, max_tries=1).send(changes)
            ledger.close_run("finished", target.calls)
            sent = ledger.counts()[1]
    if sent != len(changes):
        raise RuntimeError(f"{sent} of {len(changes)} records were confirmed")
    with _sandbox(place, burst_calls=10**9) as url:
        with hubspot(ApiConnection("bench", url, TOKEN), None) as api:
            set_up(HubSpotTarget(api), kinds)
        bare_s = _bare_loop(url, ids, values, BATCH_SIZE)
    limit_s = len(ids) / BATCH_SIZE / BURST_CALLS * BURST_WINDOW_S
    floor_s = max(bare_s, limit_s)
    said = (
        f"the slower of the limit ({limit_s:.1f} s) and the official client alone ({bare_s:.1f} s); "
        f"{floor_s / meter.wall_s:.2f} of its speed"
    )
    return [place.row("sync_send", sent, meter, said, floor_s)]


def _bare_loop(url: str, ids: list[str], values: dict[str, str | None], batch_size: int) -> float:
    """Return the seconds HubSpot's own client takes for the same batches, one after the other."""
    client = HubSpot(access_token=TOKEN, host=url)
    with Stopwatch() as watch:
        for start in range(0, len(ids), batch_size):
            inputs = [
                SimplePublicObjectBatchInput(id=each, properties=values)
                for each in ids[start : start + batch_size]
            ]
            client.crm.companies.batch_api.update(BatchInputSimplePublicObjectBatchInput(inputs=inputs))
    return watch.s


def _many_accounts(wanted: int) -> str:
    """Multiply the published accounts, give each a record in the CRM, and let the ledger say what it was told."""
    from include.sandbox.store import FIRST_RECORD_ID, RECORD_ID_STEP

    with as_owner() as owner:
        row = owner.execute("select run_id from published.current_run").fetchone()
        run_id = str(row[0]) if row else ""
        copy_rows("published.customer_360_by_run", wanted, "run_id = %(run_id)s", {"run_id": run_id})
        owner.execute(
            "update published.customer_360_by_run as account "
            "set crm_system = 'hubspot', crm_record_id = numbered.record_id from ("
            "select account_id, (%s + (row_number() over (order by account_id) - 1) * %s)::text as record_id "
            "from published.customer_360_by_run where run_id = %s) as numbered "
            "where numbered.account_id = account.account_id and account.run_id = %s",
            [FIRST_RECORD_ID, RECORD_ID_STEP, run_id, run_id],
        )
        owner.execute(
            "with told as (insert into sync.runs (target, as_of_date, run_id, status) "  # noqa: S608
            "values (%s, %s, 'before', 'finished') returning sync_id) "
            "insert into sync.ledger (target, record_id, account_id, confirmed, sync_id) "
            f"select %s, crm_record_id, account_id, case when number %% {ONE_IN} = 0 "
            f'then {_told()} || \'{{"stratum_tier": "other"}}\' else {_told()} end, sync_id '
            "from (select *, row_number() over (order by account_id) - 1 as number from published.customer_360) "
            "as account, told",
            [TARGET, LAST_DAY, TARGET],
        )
        owner.execute("vacuum (analyze) published.customer_360_by_run, sync.ledger")
    return run_id


def _told() -> str:
    """Return the SQL of what the CRM is told of an account, in the form of the ledger."""
    texts = [
        f"'{name}', {f'trim_scale({column})::text' if column in NUMBERS else f'account.{column}'}"
        for name, column in FIELDS.items()
    ]
    return f"jsonb_strip_nulls(jsonb_build_object({', '.join(texts)}))"


@contextmanager
def _sandbox(place: Place, burst_calls: int) -> Iterator[str]:
    """Serve a sandbox that holds as many companies as are sent."""
    from include.sandbox.store import Account, Store

    state, port = place.home / "sandbox.db", free_port()
    store = Store(state)
    created = datetime(2024, 1, 1, tzinfo=UTC)
    store.seed(Account(f"A{n}", f"Account {n}", None, None, created) for n in range(place.size.sent))
    store.close()
    command = [sys.executable, "-m", "include.sandbox", "--port", str(port), "--state", str(state)]
    command += ["--burst-calls", str(burst_calls)]
    server = subprocess.Popen(command, env=os.environ | {"STRATUM_SANDBOX_TOKEN": TOKEN})
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url)
        yield url
    finally:
        server.terminate()
        server.wait(START_S)
        state.unlink()


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            httpx.get(f"{url}/health")
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
