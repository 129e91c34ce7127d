"""The proof on a simulated company, whose truth is known: how near the models come to the best that anyone could know.

The truth knows each account's hidden engagement (include/simulate/market/truth.py) and is never loaded. A model trained
as of a month-end foretells the 90 days after it, and is set beside that truth on the very accounts and outcomes.
No record shows engagement, nor which categories an account has taken to and not bought in yet, so both are also set beside
the most that the records can tell (tests/ml/particle_filter.py).
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from include.simulate.market.scales import LAST_DAY, Scale
from include.simulate.market.write import write_market
from include.sources.behavior import ingest_behavior
from include.sources.config import load_sources
from include.sources.crm import ingest_crm_and_records
from include.sources.orders import ingest_orders
from include.warehouse.connect import connect
from include.warehouse.lock import fail_run
from ml import registry
from ml.estimators import probabilities
from ml.frames import labelled_frame
from ml.metrics import auc, once
from ml.next_best import next_best, ranked_first
from ml.targets import Policy, target_of
from ml.train import train
from tests.conftest import Warehouse
from tests.ml.chain import build_marts
from tests.ml.particle_filter import (
    Drawn,
    drawn_from_records,
    new_category_from_records,
    no_order_from_records,
)

SCALE, SEED = Scale("proof", 4_000, 200_000, 1_200_000), 21
CUTOFF = date(2025, 9, 30)  # the 90 days after it are over on the company's last day
BINS = 10
CALIBRATED = 0.03
# The aim of 0.02 below the truth is out of reach: of churn 0.840 where the truth reaches 0.880, a filter that knows every
# constant of the simulation 0.847 (6,000 particles; 0.846 with 400) from the same orders and sessions; of upsell 0.780 where
# the truth reaches 0.823, and the filter, told also which categories were taken to and bought, but no tastes, 0.789. Of what
# the records can tell it holds, either way.
BELOW_TRUTH, ABOVE_TRUTH = {"churn": 0.05, "upsell": 0.07}, 0.02
BY_RECORDS, PARTICLES = 0.02, 400

pytestmark = pytest.mark.extended

TRUTHS = {
    "churn": "select account_no as account_id, no_order_90d as truth from '{folder}/truth/churn.parquet' "
    "where as_of_date = date '{day}'",
    "upsell": "select account_no as account_id, new_category_90d as truth from '{folder}/truth/new_category.parquet' "
    "where as_of_date = date '{day}'",
}


class Proof:
    """A simulated company in a warehouse, and of each model trained as of CUTOFF the scored and labelled accounts."""

    def __init__(self, folder: Path) -> None:
        write_market(folder, SCALE, SEED)
        sources = load_sources(folder / "sources.yml")
        ingest_orders(sources, LAST_DAY)
        ingest_crm_and_records(sources, LAST_DAY)
        ingest_behavior(sources, LAST_DAY)
        self.folder = folder
        build_marts(LAST_DAY)
        fail_run(LAST_DAY, "end of step")
        self.scored = {model: self._scored(model) for model in TRUTHS}

    def _scored(self, model: str) -> pd.DataFrame:
        """Return account_id, probability, happened and truth of each account that the truth knows, too."""
        model_id = train(model, CUTOFF)
        with connect("scorer") as connection:
            found = registry.by_id(connection, model_id)
            policy = Policy(found.horizon_days, found.active_days, found.min_rise)
            frame = labelled_frame(connection, target_of(model, found.definition), [CUTOFF], policy)
            frame["probability"] = probabilities(registry.load(connection, found), frame)
        query = TRUTHS[model].format(folder=self.folder, day=CUTOFF)
        known = duckdb.sql(query).df()
        kept = frame[["account_id", "probability", "happened"]].merge(known, on="account_id", how="left")
        return kept.dropna(subset=["truth"])

    def auc(self, model: str, column: str) -> float:
        """The AUC of a column over a model's accounts."""
        rows = self.scored[model]
        return float(auc(rows[column].to_numpy(float), rows["happened"].to_numpy(float), once(len(rows)))[0])

    def calibration_error(self, model: str) -> float:
        """The mean distance of told and true over BINS equal parts of the accounts (ECE)."""
        rows = self.scored[model].sort_values("probability")
        parts = np.array_split(np.arange(len(rows)), BINS)
        told, true = (rows[column].to_numpy(float) for column in ("probability", "happened"))
        return float(sum(len(at) * abs(told[at].mean() - true[at].mean()) for at in parts) / len(rows))


@pytest.fixture(scope="module")
def proof(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    return Proof(tmp_path_factory.mktemp("market") / "company")


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """What orders and sessions leave open of each account on CUTOFF."""
    return drawn_from_records(SCALE, SEED, CUTOFF, PARTICLES)


@pytest.mark.parametrize("model", TRUTHS)
def test_a_model_comes_close_to_the_truth(proof: Proof, model: str) -> None:
    own, truth = proof.auc(model, "probability"), proof.auc(model, "truth")
    assert truth - BELOW_TRUTH[model] <= own <= truth + ABOVE_TRUTH


@pytest.mark.parametrize(
    ("model", "records_tell"),
    [
        ("churn", no_order_from_records),
        pytest.param("upsell", new_category_from_records, marks=pytest.mark.slow),
    ],
)
def test_a_model_comes_within_two_hundredths_of_the_most_that_records_can_tell(
    proof: Proof, drawn: Drawn, model: str, records_tell: Callable[[Scale, int, date, Drawn], np.ndarray]
) -> None:
    rows = proof.scored[model]
    best = records_tell(SCALE, SEED, CUTOFF, drawn)[rows["account_id"].str.removeprefix("C").astype(int)]
    bound = float(auc(best.astype(float), rows["happened"].to_numpy(float), once(len(rows)))[0])
    print(
        f"{model}: {proof.auc(model, 'probability'):.3f}, of records {bound:.3f}, truth {proof.auc(model, 'truth'):.3f}"
    )
    assert abs(proof.auc(model, "probability") - bound) <= BY_RECORDS
    assert bound < proof.auc(model, "truth")


@pytest.mark.parametrize("model", TRUTHS)
def test_what_is_told_comes_true(proof: Proof, model: str) -> None:
    happened, error = proof.scored[model]["happened"], proof.calibration_error(model)
    print(f"{model}: {len(happened):,} accounts, {happened.mean():.3f} came true, error {error:.3f}")
    assert error <= CALIBRATED


def test_the_next_best_category_is_bought_more_often_than_the_most_common_one(proof: Proof) -> None:
    with connect("scorer") as connection:
        owned = pd.DataFrame(
            connection.execute(
                "select account_id, product_category from marts.account_categories where as_of_date = %s",
                [CUTOFF],
            ).fetchall(),
            columns=["account_id", "product_category"],
        )
        later = connection.execute(
            "select account_id, product_category from marts.account_categories where as_of_date = %s "
            "and first_order_date > %s and first_order_date <= %s + 90",
            [LAST_DAY, CUTOFF, CUTOFF],
        ).fetchall()
    bought = set(later)
    common = owned["product_category"].value_counts().index
    of = owned.groupby("account_id")["product_category"].agg(set)
    hits = {"next best": 0, "most common": 0}
    told = ranked_first(owned, 20.0)
    for account, category in zip(told["account_id"], told["next_best"], strict=True):
        first = next(name for name in common if name not in of[account])
        hits["next best"] += (account, category) in bought
        hits["most common"] += (account, first) in bought
    print(hits)
    assert hits["next best"] > hits["most common"]


def test_the_next_best_category_is_bought_as_often_as_it_was_told(proof: Proof) -> None:
    """Learned on the 90 days before CUTOFF alone, and told of those after it."""
    with connect("scorer") as connection:
        likeliest = next_best(connection, CUTOFF, 90)
        later = connection.execute(
            "select account_id, product_category from marts.account_categories where as_of_date = %s "
            "and first_order_date > %s and first_order_date <= %s + 90",
            [LAST_DAY, CUTOFF, CUTOFF],
        ).fetchall()
    rows = proof.scored["upsell"].merge(likeliest, on="account_id")
    told = (rows["probability"] * rows["chance"]).to_numpy(float)
    bought, pairs = set(later), zip(rows["account_id"], rows["next_best"], strict=True)
    true = np.array([float(pair in bought) for pair in pairs])
    parts = np.array_split(np.argsort(told), BINS)
    errors = [len(at) * abs(told[at].mean() - true[at].mean()) for at in parts]
    print(
        f"next best: told {told.mean():.4f}, came true {true.mean():.4f}, error {sum(errors) / len(told):.4f}"
    )
    assert sum(errors) / len(told) <= CALIBRATED
    chance_error = np.sqrt((told * (1 - told)).sum()) / len(told)
    assert abs(told.mean() - true.mean()) <= 3 * chance_error
