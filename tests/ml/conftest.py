"""One model of the small company, fitted once for all tests that only look at it."""

from datetime import date

import pandas as pd
import pytest

from ml.frames import Policy
from ml.params import params_of
from ml.train import Fitted, fit_model
from tests.ml.world import labelled, month_ends, order_days

AS_OF = date(2026, 3, 1)
TRAINED_ON = month_ends(date(2025, 1, 1), date(2025, 11, 30))


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    """The labelled frame a model of the small company is trained on as of AS_OF."""
    return labelled(order_days(), TRAINED_ON)


@pytest.fixture(scope="session")
def fitted(frame: pd.DataFrame) -> Fitted:
    """The model fitted on it."""
    return fit_model("churn", AS_OF, frame, Policy(90, 90), params_of("churn"))


@pytest.fixture(scope="session")
def later(frame: pd.DataFrame) -> pd.DataFrame:
    """The labelled frame of a date the model knows nothing of."""
    return labelled(order_days(), [date(2026, 3, 31)])
