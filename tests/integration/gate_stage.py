"""What a gate wrote down, and how it stops."""

import re
from datetime import date

import pytest

from include.quality.gate import GateFailed, run_gate
from include.settings import get_settings
from tests.conftest import Warehouse

DAY = date(2026, 6, 30)
NEXT = date(2026, 7, 1)


def checks(warehouse: Warehouse, success: bool) -> set[tuple]:
    return set(
        warehouse.rows(
            "select gate, table_name, column_name, expectation from audit.checks where success = %s", success
        )
    )


def failed_and_all(warehouse: Warehouse) -> tuple[set[tuple], set[tuple]]:
    """The checks that failed and all that were made, but those that are no expectation: (table, column, what)."""
    rows = warehouse.rows(
        "select table_name, column_name, expectation, arguments->>'unexpected_rows_query', success from audit.checks "
        "where expectation not in ('loads_checked', 'source_absent')"
    )
    return {tuple(row[:4]) for row in rows if not row[4]}, {tuple(row[:4]) for row in rows}


def stopped(warehouse: Warehouse, gate: str, run_id: str, told: str) -> None:
    """The gate stops with one line that matches `told`, and each failed check is in audit.checks."""
    with pytest.raises(GateFailed) as caught:
        run_gate(gate, DAY, run_id)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"Gate {gate} stopped run {run_id} (as of {DAY}): ")
    assert re.search(told, line), line
    assert f"See file://{get_settings().data_docs}/index.html" in line
    failed = {check for check in checks(warehouse, success=False) if check[3] != "loads_checked"}
    assert failed
    assert {check[0] for check in failed} == {gate}
