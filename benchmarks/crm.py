"""The cases of the reverse sync: planning many accounts, and sending to the sandbox."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import yaml
from hubspot import HubSpot
from hubspot.crm.companies import BatchInputSimplePublicObjectBatchInput, SimplePublicObjectBatchInput

from benchmarks import drt_core
from benchmarks.data import LAST_DAY
from benchmarks.meter import Meter, Stopwatch, flat, held_mb
from benchmarks.place import Place, Row, as_owner, free_port

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
PART = 10
"""The whole is so many times the size that its own memory is compared with."""
START_S = 120
RUN = "bench"
CONTRACT = Path(__file__).parents[1] / "dbt_project" / "models" / "published" / "published_customer_360.yml"
# Type of a column of customer_360 → its value in the row of number `n`: the same rows every time.
VALUES = {
    "text": "left('{name}', 12) || ' ' || n % 7",
    "boolean": "n % 3 = 0",
    "date": f"date '{LAST_DAY - timedelta(days=700)}' + n % 700",
    "numeric(18,2)": "round(n % 99991 / 7.0, 2)",
    "numeric": "round(n % 991 / 1000.0, 4)",
    "other": "n % 1000",  # whole numbers
}
RECORD_ID = "{first} + (n - 1) * {step}"
PEER_PLAN = (
    "drt-core {version}: the snapshot comparison of its PostgreSQL source, which copies all rows first; its engine "
    "offers it to SQL destinations alone"
)
PEER_SEND = (
    "drt-core {version}: its REST destination, {batch} rows a request, held to HubSpot's limit; its HubSpot destination "
    "makes a call for each record. Takes every 2xx for all rows, notes and reads back nothing"
)
BARE_JOIN = (
    "select count(*) from published.customer_360 as account "
    "join sync.ledger as ledger on ledger.target = %s and ledger.record_id = account.crm_record_id"
)


def sync_plan(place: Place) -> list[Row]:
    """Plan the sync of many accounts, of which one in a hundred changed; the floor is the bare join of both tables.

    Two rows: with the ledger settled, as on any day, and with no row settled, as after a change of the mapping, where
    each is compared field by field. A third has drt-core find the same changes; there the floor is our plan of any day.
    All are the better of three, and so is the floor.

    Memory is told of the plan that has most to hold: a first sync, which tells each account, made and gone through as
    sending does. Raises RuntimeError where it grows with the accounts.
    """
    from include.sync.ledger import Ledger
    from include.sync.mapping import SyncMapping
    from include.sync.plan import READ_AT_ONCE, make_plan
    from include.warehouse.connect import connect

    mapping = SyncMapping.model_validate(
        {"system": "hubspot", "connection": "bench", "fields": FIELDS, "removal": "clear"}
    )
    never_told = mapping.model_copy(update={"connection": "bench_first"})
    accounts = place.size.scaled
    some = max(accounts // PART, READ_AT_ONCE)
    changed = -(-accounts // ONE_IN)

    def planned() -> Meter:
        with place.meter() as meter:
            plan = make_plan(books, mapping, RUN, LAST_DAY)
        _check("Stratum", len(plan.changes), changed)
        return meter

    def joined() -> Meter:
        with place.meter() as meter:
            books.execute(BARE_JOIN, [TARGET]).fetchall()
        return meter

    def planned_first(wanted: int) -> float:
        """Return the MB of this process alone that a first sync of all accounts takes above what it held before."""
        before = held_mb()
        with Meter() as meter:
            plan = make_plan(books, never_told, RUN, LAST_DAY)
            found = sum(len(rows) for rows in plan.changes.chunks())
        _check("Stratum", found, wanted)
        return meter.own_peak_mb - before

    with connect("syncer") as books:
        books.autocommit = True
        _publish_accounts(1, some)
        of_some = planned_first(some)
        _publish_accounts(some + 1, accounts)
        anew = _best([planned() for _ in range(3)])
        ledger = Ledger(books, TARGET)
        ledger.open_run(RUN, LAST_DAY)
        ledger.note_plan(make_plan(books, mapping, RUN, LAST_DAY))
        with as_owner() as owner:
            owner.execute("vacuum (full, analyze) sync.ledger")
            owner.execute("vacuum (analyze) sync.ledger")
        pairs = [(planned(), joined()) for _ in range(3)]
        memory = flat("planning", {some: of_some, accounts: planned_first(accounts)})
    settled, floor = _best([plan for plan, _ in pairs]), _best([join for _, join in pairs])
    said = "the bare hash join of both tables; in CPU time {:.2f} s, ratio {:.1f}; " + memory
    rows = [
        place.row(name, accounts, meter, said.format(floor.cpu_s, _of_cpu(meter, floor)), floor.wall_s)
        for name, meter in (("sync_plan_1m", settled), ("sync_plan_anew", anew))
    ]
    return [*rows, _peer_plan(place, accounts, changed, settled)]


def _peer_plan(place: Place, accounts: int, changed: int, ours: Meter) -> Row:
    """Return the row of drt-core's comparison of the published rows with those of its last run."""
    columns = ["record_id", *FIELDS.values()]
    now = f"select crm_record_id as record_id, {', '.join(FIELDS.values())} from published.customer_360"  # noqa: S608
    before = now.replace(
        " tier,", f" case when {_is_changed('account_id')} then 'other' else tier end as tier,"
    )
    drt_core.run(place, "snapshot", before, columns)
    with as_owner() as owner:
        owner.execute("vacuum (analyze)")
    found = [drt_core.run(place, "plan", now, columns) for _ in range(3)]
    for _, answer in found:
        _check("drt-core", answer["rows"], changed)
    meter = _best([meter for meter, _ in found])
    said = PEER_PLAN.format(version=found[0][1]["version"])
    said += f". Floor: sync_plan_1m; in CPU time {ours.cpu_s:.2f} s, ratio {_of_cpu(meter, ours):.1f}"
    return place.row("sync_plan_drt", accounts, meter, said, ours.wall_s)


def _check(who: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{who} did {found} rows, and {wanted} were to be done")


def _of_cpu(meter: Meter, floor: Meter) -> float:
    """Return the ratio of processor times, which the system counts in hundredths of a second."""
    return meter.cpu_s / max(floor.cpu_s, 0.01)


def _best(meters: list[Meter]) -> Meter:
    return min(meters, key=lambda meter: meter.cpu_s)


def sync_send(place: Place) -> list[Row]:
    """Send changes to the sandbox and book each answer; and have drt-core send the same rows, whose floor is ours.

    Our floor is the slower of the CRM's limit and a bare loop of the official client over the same batches, which books
    nothing and has no limit to keep: longer than a burst, so that what the limit allows for ever is what counts.
    Memory is that of this process above the changes themselves. Raises RuntimeError where it grows with them.
    """
    from include.connections import ApiConnection
    from include.sandbox.app import BURST_CALLS, BURST_WINDOW_S
    from include.sandbox.store import FIRST_RECORD_ID, RECORD_ID_STEP
    from include.sync import hubspot_api
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

            def send(name: str, told: list[Change]) -> tuple[Meter, float]:
                """Send changes by books of their own; return what it took, and the MB of this process alone."""
                ledger = Ledger(books, f"{TARGET}_{name}")
                ledger.open_run(RUN, LAST_DAY)
                books.execute(
                    "update sync.runs set queried = %s, failed = %s where sync_id = %s",
                    [len(told), len(told), ledger.sync_id],
                )
                before = held_mb()
                with place.meter() as meter:
                    Engine(target, ledger, max_tries=1).send(told)
                ledger.close_run("finished", target.calls)
                _check("Stratum", ledger.counts()[1], len(told))
                return meter, meter.own_peak_mb - before

            some = changes[: len(changes) // PART]
            _, of_some = send("some", some)
            # Those calls count for the burst, and are not to be waited for.
            time.sleep(hubspot_api.BURST_WINDOW_S)
            meter, of_all = send("all", changes)
    memory = flat("sending", {len(some): of_some, len(changes): of_all})
    with _sandbox(place, burst_calls=10**9) as url:
        with hubspot(ApiConnection("bench", url, TOKEN), None) as api:
            set_up(HubSpotTarget(api), kinds)
        bare_s = _bare_loop(url, ids, values, BATCH_SIZE)
    limit_s = len(ids) / BATCH_SIZE / BURST_CALLS * BURST_WINDOW_S
    floor_s = max(bare_s, limit_s)
    said = (
        f"the slower of the limit ({limit_s:.1f} s) and the official client alone ({bare_s:.1f} s); "
        f"{floor_s / meter.wall_s:.2f} of its speed; {memory}"
    )
    row = place.row("sync_send", len(changes), meter, said, floor_s)
    return [row, _peer_send(place, kinds, values, BATCH_SIZE, BURST_CALLS, BURST_WINDOW_S, meter)]


def _peer_send(
    place: Place,
    kinds: dict[str, str],
    values: dict[str, str | None],
    batch: int,
    burst_calls: int,
    window_s: float,
    ours: Meter,
) -> Row:
    """Return the row of drt-core sending the same values to the same records of a sandbox of the same limit."""
    from include.connections import ApiConnection
    from include.sandbox.store import FIRST_RECORD_ID, RECORD_ID_STEP
    from include.sync.hubspot_api import hubspot
    from include.sync.setup import set_up
    from include.sync.targets.hubspot import HubSpotTarget

    record_id = RECORD_ID.format(first=FIRST_RECORD_ID, step=RECORD_ID_STEP)
    told = ", ".join(f"'{value}' as {name}" for name, value in values.items())
    with as_owner() as owner:
        owner.execute("create schema if not exists floor; drop table if exists floor.to_send")
        owner.execute(
            f"create table floor.to_send as select ({record_id})::text as record_id, {told} "  # noqa: S608
            f"from generate_series(1, {place.size.sent}) as n"
        )
    with _sandbox(place, burst_calls) as url:
        with hubspot(ApiConnection("bench", url, TOKEN), None) as api:
            set_up(HubSpotTarget(api), kinds)
        time.sleep(window_s)  # those calls count for the burst, and are not to be waited for
        meter, answer = drt_core.run(
            place,
            "send",
            "select * from floor.to_send",
            ["record_id", *values],
            url=f"{url}/crm/v3/objects/companies/batch/update",
            token=TOKEN,
            batch=batch,
            requests_per_s=burst_calls / window_s,
        )
        writes = httpx.get(f"{url}/sandbox/writes", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    if answer["failed"]:
        raise RuntimeError(f"drt-core: {answer['failed']} rows failed: {answer['errors']}")
    _check("drt-core", answer["rows"], place.size.sent)
    _check("drt-core at the sandbox", sum(write["values"] == values for write in writes), place.size.sent)
    said = PEER_SEND.format(version=answer["version"], batch=batch) + ". Floor: sync_send"
    return place.row("sync_send_drt", place.size.sent, meter, said, ours.wall_s)


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


def _publish_accounts(first: int, last: int) -> None:
    """Publish accounts with a record each; by the ledger the CRM was told of them, of one in a hundred otherwise."""
    from include.sandbox.store import FIRST_RECORD_ID, RECORD_ID_STEP
    from include.warehouse.publish import ensure_table

    columns = {
        each["name"]: each["data_type"]
        for each in yaml.safe_load(CONTRACT.read_text())["models"][0]["columns"]
    }
    values = {name: _value(name, kind) for name, kind in columns.items()} | {
        "run_id": f"'{RUN}'",
        "as_of_date": f"date '{LAST_DAY}'",
        "account_id": "'A' || n",
        "crm_system": "'hubspot'",
        "crm_record_id": f"({RECORD_ID.format(first=FIRST_RECORD_ID, step=RECORD_ID_STEP)})::text",
    }
    with as_owner() as owner:
        ensure_table(owner, "customer_360", columns)
        owner.execute(
            "insert into published.current_run (run_id, as_of_date, published_at) select %s, %s, now() "
            "where not exists (select from published.current_run)",
            [RUN, LAST_DAY],
        )
        owner.execute(
            f"insert into published.customer_360_by_run ({', '.join(values)}) "  # noqa: S608
            f"select {', '.join(values.values())} from generate_series({first}, {last}) as n"
        )
        owner.execute(
            "with told as (insert into sync.runs (target, as_of_date, run_id, status) "  # noqa: S608
            "values (%s, %s, 'before', 'finished') returning sync_id) "
            "insert into sync.ledger (target, record_id, account_id, confirmed, sync_id) "
            f"select %s, crm_record_id, account_id, case when {_is_changed('account_id')} "
            f'then {_told()} || \'{{"stratum_tier": "other"}}\' else {_told()} end, sync_id '
            f"from published.customer_360 as account, told where substr(account_id, 2)::bigint >= {first}",
            [TARGET, LAST_DAY, TARGET],
        )
        owner.execute("vacuum (analyze) published.customer_360_by_run, sync.ledger")


def _value(name: str, kind: str) -> str:
    """Return the SQL of a column's value in the row of number `n`."""
    whole = "numeric" if kind.startswith("numeric") else "other"
    return VALUES.get(kind, VALUES[whole]).format(name=name)


def _is_changed(account_id: str) -> str:
    """Return the SQL that tells whether an account changed since the CRM was told: one in a hundred did, the first too."""
    return f"mod(substr({account_id}, 2)::bigint - 1, {ONE_IN}) = 0"


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
