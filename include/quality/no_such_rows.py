"""An expectation told in SQL: the rows that a query finds contradict it."""

from typing import Any

from great_expectations.expectations.core import UnexpectedRowsExpectation

EXAMPLES = 3


class ExpectNoSuchRows(UnexpectedRowsExpectation):
    """Great Expectations' own one, which also tells a few of the rows it found, however briefly it reports.

    Written `expect_no_such_rows` in a suite; fails where `unexpected_rows_query` returns a row.
    """

    def _validate(
        self, metrics: dict, runtime_configuration: dict | None = None, execution_engine: Any = None
    ) -> Any:
        told: Any = super()._validate(metrics, runtime_configuration, execution_engine)
        rows = [dict(row) for row in metrics["unexpected_rows_query.table"][:EXAMPLES]]
        told["result"]["details"] = {"unexpected_rows": rows}
        return told
