"""The join of three announcements, under the race that loses builds (docs/decisions/0003)."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.local.airflow_api import AirflowApi
from include.local.chain import ENDED, INGESTS
from include.local.processes import wait_until
from tests.e2e.installation import Installation

ROUNDS = 5
DATES = 20
CUT_OFF_S = 20
"""A task of a run that is ended over REST goes on until its next heartbeat, and may still take the lock."""
FIRST = date(2026, 5, 1)
TINY = """\
company: {name: tiny, timezone: UTC, currency: CNY}
orders:
  file: orders.csv
  columns: {order_id: o, customer_id: c, product_id: p, quantity: q, unit_price: u, currency: "'CNY'", ordered_at: t}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A company of twelve accounts: the join is under test, not the building."""
    lines = [f"{i},c{i % 12},p{i % 3},{1 + i % 4},10,2026-0{1 + i % 4}-11 10:00:00" for i in range(48)]
    (tmp_path / "orders.csv").write_text("o,c,p,q,u,t\n" + "\n".join(lines) + "\n")
    (tmp_path / "sources.yml").write_text(TINY)
    return tmp_path / "sources.yml"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_twenty_dates_whose_ingests_end_together_give_twenty_builds_in_each_of_five_rounds(
    tmp_path: Path, tiny: Path
) -> None:
    """The race is in the making of the build's run: that is counted in every round, and the last one's builds
    are followed to their end. The others are ended once counted, for a build takes ten times as long."""
    stratum = Installation(tmp_path / "home")
    try:
        up = stratum.run("up", "--sources", str(tiny))
        assert up.returncode == 0, up.stderr
        api = stratum.api()
        for round_number in range(ROUNDS):
            keys = [FIRST + timedelta(days=round_number * DATES + day) for day in range(DATES)]
            for key in keys:
                for dag_id in INGESTS:
                    api.trigger(dag_id, key)
            ingested = wait_until(
                lambda keys=keys: states(api, INGESTS, keys) == {"success": 3 * DATES}, 900, 2
            )
            assert ingested, f"round {round_number}: {states(api, INGESTS, keys)}"
            # A hop takes about a second; a key without a build this long after its announcements was lost.
            wait_until(lambda keys=keys: states(api, ["build_marts"], keys).total() >= DATES, 60, 1)
            builds = Counter(run["partition_key"] for run in of(api, "build_marts", keys))
            print(f"round {round_number}: {builds.total()} builds of {len(builds)} dates")
            assert builds == Counter(map(str, keys)), f"round {round_number}: a key more or less than once"
            if round_number < ROUNDS - 1:
                for dag_id in ("build_marts", "publish", "sync_crm"):
                    for run in of(api, dag_id, keys):
                        if run["state"] not in ENDED:
                            api.fail_run(dag_id, run["dag_run_id"])
                time.sleep(CUT_OFF_S)
                stratum.rows("delete from audit.build_lock returning run_id")  # of the build that was cut off
        done = wait_until(
            lambda: states(api, ["build_marts", "publish"], keys) == {"success": 2 * DATES}, 1800, 3
        )
        assert done, states(api, ["build_marts", "publish"], keys)
        assert stratum.rows(
            "select count(distinct as_of_date) from audit.publishes where action <> 'drop'"
        ) >= [(DATES,)]
    finally:
        stratum.run("down")
        assert stratum.processes() == []


def of(api: AirflowApi, dag_id: str, keys: list[date]) -> list[dict]:
    """Return the runs of a DAG for these dates."""
    return [run for run in api.runs(dag_id) if run["partition_key"] in set(map(str, keys))]


def states(api: AirflowApi, dag_ids: Sequence[str], keys: list[date]) -> Counter[str]:
    """Count the runs of these DAGs and dates by their state."""
    return Counter(run["state"] for dag_id in dag_ids for run in of(api, dag_id, keys))
