"""The join of three announcements, under the race that loses builds (docs/decisions/0003)."""

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.local.chain import INGESTS
from include.local.processes import wait_until
from tests.e2e.installation import Installation

ROUNDS = 5
DATES = 20
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

            def built(keys: list[date] = keys) -> bool:
                runs = [run for key in keys for run in api.runs("build_marts", key)]
                assert not [run for run in runs if run["state"] == "failed"]
                return len(runs) >= DATES and all(run["state"] == "success" for run in runs)

            assert wait_until(built, 900, every_s=2), f"round {round_number}: a key was lost"
            builds = Counter(key for key in keys for _ in api.runs("build_marts", key))
            assert builds == Counter(keys), f"round {round_number}: a key more or less than once"
    finally:
        stratum.run("down")
        assert stratum.processes() == []
