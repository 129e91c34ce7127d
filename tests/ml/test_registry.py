"""A model's bytes are the same for the same data, and are loaded only as they were written."""

import gc
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import registry
from ml.estimators import probabilities
from ml.params import params_of
from ml.targets import CHURN, Policy
from ml.train import Fitted, fit_model
from tests.conftest import Warehouse
from tests.ml.conftest import AS_OF


def saved(fitted: Fitted, **changes: object) -> registry.Model:
    found = replace(fitted.model, **changes)  # type: ignore[arg-type]
    with connect("scorer") as connection:
        registry.save(connection, found, fitted.artefact, "test", "test")
    return found


def test_the_same_frame_gives_the_same_bytes(frame: pd.DataFrame, fitted: Fitted) -> None:
    held = [bytearray(number) for number in range(1000)]  # other addresses in memory
    gc.collect()
    again = fit_model(CHURN, AS_OF, frame.copy(), Policy(90, 90), params_of("churn"))
    assert again.artefact == fitted.artefact
    assert again.model == fitted.model
    assert again.metrics == fitted.metrics
    assert held


def test_another_row_gives_another_model(frame: pd.DataFrame, fitted: Fitted) -> None:
    changed = frame.copy()
    changed.loc[0, "happened"] = 1 - changed.loc[0, "happened"]
    other = fit_model(CHURN, AS_OF, changed, Policy(90, 90), params_of("churn"))
    assert other.model.data_fingerprint != fitted.model.data_fingerprint
    assert other.model.model_id != fitted.model.model_id


def test_a_loaded_model_scores_as_the_fitted_one(
    warehouse: Warehouse, fitted: Fitted, later: pd.DataFrame
) -> None:
    saved(fitted)
    with connect("scorer") as connection:
        found = registry.newest(connection, "churn", AS_OF)
        assert found == fitted.model
        loaded = registry.load(connection, found)
    np.testing.assert_array_equal(probabilities(loaded, later), probabilities(fitted.pipeline, later))


def test_saving_the_same_model_again_changes_nothing(warehouse: Warehouse, fitted: Fitted) -> None:
    saved(fitted)
    before = warehouse.rows("select * from ml.models")
    saved(fitted)
    assert warehouse.rows("select * from ml.models") == before


def test_changed_bytes_are_not_loaded(warehouse: Warehouse, fitted: Fitted) -> None:
    found = saved(fitted)
    warehouse.rows("update ml.models set artefact = artefact || '\\x00'::bytea")
    with (
        connect("scorer") as connection,
        pytest.raises(StratumError, match=f"{found.model_id} does not match its checksum"),
    ):
        registry.load(connection, found)


def test_a_type_that_is_not_trusted_is_not_loaded() -> None:
    harmful = Pipeline([("x", FunctionTransformer(print))])
    with pytest.raises(StratumError, match=r"types that are not trusted: .*print"):
        registry.from_bytes(skops.io.dumps(harmful))


def test_every_trusted_type_is_needed(fitted: Fitted) -> None:
    assert set(skops.io.get_untrusted_types(data=fitted.artefact)) == set(registry.TRUSTED)


def test_a_date_is_scored_by_the_newest_model_that_is_not_later(warehouse: Warehouse, fitted: Fitted) -> None:
    for day in (date(2026, 1, 5), date(2026, 3, 2), date(2026, 2, 2)):
        saved(fitted, model_id=f"m{day}", trained_as_of=day)
    saved(fitted, model_id="other", model="upsell", trained_as_of=date(2026, 2, 20))
    with connect("scorer") as connection:

        def newest(day: date) -> str | None:
            found = registry.newest(connection, "churn", day)
            return found.model_id if found else None

        assert newest(date(2026, 1, 4)) is None
        assert newest(date(2026, 2, 1)) == "m2026-01-05"
        assert newest(date(2026, 3, 1)) == "m2026-02-02"
        assert newest(date(2026, 3, 2)) == "m2026-03-02"
        assert [one.model_id for one in registry.all_models(connection)][:2] == ["m2026-03-02", "other"]
        with pytest.raises(StratumError, match="no model 'x'"):
            registry.by_id(connection, "x")
