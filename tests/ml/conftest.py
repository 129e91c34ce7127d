"""The small company: one model fitted once for all tests that only look at it, and a warehouse that holds one."""

from datetime import date, timedelta

import pandas as pd
import pytest

from include.sources.loads import bind_company, landing
from ml.champion import settle
from ml.params import params_of
from ml.targets import CHURN, Policy
from ml.train import Fitted, fit_model
from tests.conftest import Warehouse
from tests.ml.world import FIRST, labelled, make_marts, month_ends, order_days

AS_OF = date(2026, 3, 1)
TRAINED_ON = month_ends(date(2025, 1, 1), date(2025, 11, 30))

SCORED_ON = date(2026, 3, 10)  # a Tuesday


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    """The labelled frame a model of the small company is trained on as of AS_OF."""
    return labelled(order_days(), TRAINED_ON)


@pytest.fixture(scope="session")
def fitted(frame: pd.DataFrame) -> Fitted:
    """The model fitted on it."""
    return fit_model(CHURN, AS_OF, frame, Policy(90, 90), params_of("churn"))


@pytest.fixture(scope="session")
def later(frame: pd.DataFrame) -> pd.DataFrame:
    """The labelled frame of a date the model knows nothing of."""
    return labelled(order_days(), [date(2026, 3, 31)])


@pytest.fixture(scope="module")
def trained(module_warehouse: Warehouse) -> Warehouse:
    """The small company's marts at its month-ends and three days of March, and the model of the week."""
    with landing("orders", "order_lines", SCORED_ON) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    make_marts(
        order_days(), [*month_ends(FIRST, date(2026, 2, 28)), SCORED_ON, SCORED_ON + timedelta(days=1)]
    )
    assert len(settle("churn", SCORED_ON)) == 1
    return module_warehouse
