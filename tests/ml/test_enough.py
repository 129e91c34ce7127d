"""What is too little to learn from: month-ends, rows, and different accounts of each outcome."""

from datetime import date

import pandas as pd
import pytest

from include.warehouse.connect import connect
from ml.champion import settle
from ml.params import params_of
from ml.score import score_accounts
from ml.train import too_little
from tests.conftest import Warehouse
from tests.ml.world import make_marts, month_ends

ENOUGH = params_of("churn").enough
AS_OF = date(2026, 3, 2)
DATES = month_ends(date(2025, 2, 28), date(2025, 11, 30))
"""Ten month-ends whose windows have passed."""


def company(silent: int, steady: int) -> pd.DataFrame:
    """Accounts that order every month and go on, and silent ones, which ordered before the first date and never again."""
    first = pd.date_range("2025-01-10", "2026-03-01", freq="20D").date
    rows = [(f"S{number:03d}", day, 10.0) for number in range(steady) for day in first]
    rows += [(f"Q{number:03d}", first[0], 10.0) for number in range(silent)]
    return pd.DataFrame(rows, columns=["account_id", "order_date", "amount"])


@pytest.mark.parametrize(
    ("silent", "steady", "suffices"),
    [(5, 45, False), (45, 5, False), (ENOUGH.accounts_of_each_outcome, 45, True)],
    ids=["five of one outcome", "five of the other", "enough of both"],
)
def test_accounts_that_repeat_an_outcome_on_ten_month_ends_count_once(
    warehouse: Warehouse, silent: int, steady: int, suffices: bool
) -> None:
    make_marts(company(silent, steady), DATES)
    with connect("scorer") as connection:
        reason = too_little(connection, "churn", AS_OF)
    rows, happened = 10 * (silent + steady), 10 * silent
    assert min(happened, rows - happened) >= ENOUGH.of_each_outcome, "by rows alone there is enough"
    assert rows >= ENOUGH.rows
    assert len(DATES) >= ENOUGH.month_ends
    if suffices:
        assert reason is None
        return
    assert reason == (
        f"too little history: {rows} accounts × month-ends before {AS_OF}, of which {happened} with the outcome "
        f"(no order in 90 days); {silent} different accounts had it, {steady} had not. 300 are needed, 50 of each outcome, "
        "and 30 different accounts of each"
    )
    assert settle("churn", AS_OF) == []
    assert score_accounts("churn", AS_OF, "few").reason == reason
    assert warehouse.rows("select status, reason from ml.runs") == [("absent", reason)]
