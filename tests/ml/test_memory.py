"""What a training holds in memory, counted by the bytes of its arrays: the same on every machine."""

import tracemalloc
from datetime import timedelta

from benchmarks import matrix
from benchmarks.data import LAST_DAY
from benchmarks.models import MONTH_ENDS, MOST_MEMORY, POLICY
from ml.params import params_of
from ml.train import fit_model

ROWS = 10_000


def test_a_training_with_validation_and_books_holds_three_times_its_matrix_at_most() -> None:
    """Above the frame itself. It was 2.35 times of 20,000 rows: the rows a fold learns from, and twice their features."""
    frame = matrix.accounts(ROWS, MONTH_ENDS)
    as_of = LAST_DAY + timedelta(days=POLICY.horizon_days)
    few = frame[frame["account_id"] < f"A{ROWS // MONTH_ENDS // 4:07d}"]
    fit_model(
        matrix.WIDE_CHURN, as_of, few, POLICY, params_of("churn")
    )  # what is loaded at first use is not counted
    tracemalloc.start()
    try:
        fit_model(matrix.WIDE_CHURN, as_of, frame, POLICY, params_of("churn"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MOST_MEMORY * frame[list(matrix.WIDE_CHURN.names)].to_numpy().nbytes
