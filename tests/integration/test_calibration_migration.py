"""A month-end that was measured before the calibration error was kept has it after the migration."""

from datetime import date

import numpy as np
import psycopg
import pytest

from include.warehouse.migrate import migrate
from ml.metrics import ece, once
from ml.realised import PARTS, parts_of
from tests.conftest import PASSWORDS, Warehouse, embedded
from tests.integration.migration_stage import database_at


def test_what_was_measured_before_has_the_error_that_would_be_kept_today(
    warehouse: Warehouse, cluster: embedded.Cluster
) -> None:
    random = np.random.default_rng(5)
    told = random.uniform(size=503)
    happened = (random.uniform(size=503) < told**2).astype(float)
    with database_at("0032", warehouse, cluster) as before:
        with psycopg.connect(before) as connection:
            connection.execute(
                "insert into ml.models (model_id, model, trained_as_of, horizon_days, window_from, window_to, "
                "training_rows, training_positives, parameters, features, data_fingerprint, artefact_sha256, estimator, "
                "code_version, artefact) values ('m', 'churn', '2026-01-05', 90, '2025-01-31', '2025-09-30', 9, 3, "
                "'{}', '[]', '', '', '', '', '')"
            )
            for one in parts_of(told, happened):
                connection.execute(
                    "insert into ml.calibration_drift (run_id, model, as_of_date, model_id, horizon_days, measured_as_of, "
                    "part, accounts, mean_probability, observed_rate, low, high) "
                    "values ('r', 'churn', %s, 'm', 90, %s, %s, %s, %s, %s, %s, %s)",
                    [date(2026, 1, 31), date(2026, 5, 4), one.part, one.accounts, one.mean_probability,
                     one.observed_rate, one.low, one.high],
                )  # fmt: skip
        migrate(before, PASSWORDS)
        with psycopg.connect(before) as connection:
            kept = dict(
                connection.execute("select part, calibration_error from ml.calibration_drift").fetchall()
            )
    expected = float(ece(PARTS)(told, happened, once(len(told)))[0])
    assert expected > 0.05
    assert kept == {0: pytest.approx(expected), **dict.fromkeys(range(1, PARTS + 1))}
