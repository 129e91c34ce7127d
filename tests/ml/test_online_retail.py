"""The proof on real data: a model of Online Retail II as of 2011-09-10, judged on the 90 days after.

The bands come from yardsticks of the data set itself (recency, BG/NBD, logistic regression, boosting): above
them lies a leak, below them a fault. "Not below" a baseline: the 95 % interval of the paired difference does
not lie below 0 as a whole.
"""

import os
from datetime import date
from pathlib import Path

import pytest

from include.settings import PROJECT_DIR
from include.sources.config import load_sources
from include.sources.orders import ingest_orders
from include.warehouse.lock import fail_run
from ml.evaluate import Report, evaluate
from ml.score import score_accounts
from ml.train import train
from tests.conftest import Warehouse
from tests.ml.chain import build_marts, fitted_on, scores_of

TRAINED = date(2011, 9, 10)
JUDGED = date(2011, 12, 9)
BANDS = {"all": (0.795, 0.83), "active_90": (0.755, 0.80)}

pytestmark = pytest.mark.slow


class Proof:
    """What was scored before anything later was loaded, and what was made after it."""

    def __init__(self, warehouse: Warehouse) -> None:
        ingest_orders(load_sources(PROJECT_DIR / "docs" / "examples" / "online_retail_ii.yml"), TRAINED)
        run_id = build_marts(TRAINED)
        self.model_id = train("churn", TRAINED)
        score_accounts("churn", TRAINED, run_id)
        self.artefact = fitted_on(TRAINED).artefact
        self.scores = scores_of(warehouse, run_id)
        fail_run(TRAINED, "end of step")
        ingest_orders(load_sources(PROJECT_DIR / "docs" / "examples" / "online_retail_ii.yml"), JUDGED)
        build_marts(JUDGED)
        fail_run(JUDGED, "end of step")
        self.report: Report = evaluate("churn", JUDGED)


@pytest.fixture(scope="module")
def proof(module_warehouse: Warehouse) -> Proof:
    folder = Path(os.environ.get("STRATUM_DATA", PROJECT_DIR.parent / "shared" / "data"))
    if not (folder / "online_retail_ii.parquet").exists():
        pytest.skip(f"Online Retail II is not in {folder}: set STRATUM_DATA to its folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRATUM_DATA", str(folder))
        return Proof(module_warehouse)


def test_the_model_learned_from_windows_alone_that_had_ended(
    proof: Proof, module_warehouse: Warehouse
) -> None:
    assert proof.report.model_id == proof.model_id
    assert module_warehouse.rows("select window_from, window_to from ml.models") == [
        (date(2009, 12, 31), date(2011, 5, 31))
    ]


@pytest.mark.parametrize("population", BANDS)
def test_auc_lies_within_the_band(proof: Proof, population: str) -> None:
    low, high = BANDS[population]
    assert low <= proof.report.figure(population, "model", "auc").value <= high


@pytest.mark.parametrize("population", BANDS)
def test_the_model_is_above_recency_alone(proof: Proof, population: str) -> None:
    low = proof.report.figure(population, "model-recency", "auc").low
    assert low is not None
    assert low > 0


@pytest.mark.parametrize("population", BANDS)
@pytest.mark.parametrize("baseline", ["bg_nbd", "logistic"])
def test_the_model_is_not_below_other_ways(proof: Proof, population: str, baseline: str) -> None:
    high = proof.report.figure(population, f"model-{baseline}", "auc").high
    assert high is not None
    assert high >= 0


def test_the_yardsticks_are_those_of_the_data_set(proof: Proof) -> None:
    """So that a baseline made weak by mistake does not make the model look good."""
    for population, recency, bg_nbd in (("all", 0.763, 0.801), ("active_90", 0.599, 0.756)):
        assert proof.report.figure(population, "recency", "auc").value == pytest.approx(recency, abs=0.01)
        assert proof.report.figure(population, "bg_nbd", "auc").value == pytest.approx(bg_nbd, abs=0.01)
    assert proof.report.figure("all", "observed", "churn_rate").value == pytest.approx(0.566, abs=0.01)


def test_probabilities_beat_recency_as_a_probability(proof: Proof) -> None:
    for population in BANDS:
        high = proof.report.figure(population, "model-recency", "brier").high
        assert high is not None
        assert high < 0


def test_the_same_model_and_scores_come_of_the_loaded_future(
    proof: Proof, module_warehouse: Warehouse
) -> None:
    run_id = build_marts(TRAINED)
    assert fitted_on(TRAINED).artefact == proof.artefact
    assert train("churn", TRAINED) == proof.model_id
    score_accounts("churn", TRAINED, run_id)
    assert scores_of(module_warehouse, run_id) == proof.scores
    fail_run(TRAINED, "end of test")
