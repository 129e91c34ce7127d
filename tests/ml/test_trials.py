"""The trial model on a simulated company: who converts is ranked above chance and beside the stated rule.

What a trial does follows its hidden engagement, which also decides whether it becomes a customer
(include/simulate/market/population.py). Nothing of the model or the rule knows that number.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from include.quality.gate import run_gate
from include.simulate.market.scales import LAST_DAY, Scale
from include.simulate.market.write import write_market
from include.sources.behavior import ingest_behavior
from include.sources.config import load_sources
from include.sources.crm import ingest_crm_and_records
from include.sources.orders import ingest_orders
from include.warehouse.connect import connect
from ml.frames import LABEL, labelled_frame
from ml.metrics import auc, interval, resamples
from ml.score import score_all
from ml.targets import TRIAL, policy_on
from ml.train import train
from tests.conftest import Warehouse
from tests.ml.chain import build_marts, fitted_on, without_groups

pytestmark = pytest.mark.extended

LOGIN_DAYS, CORE_USES = 7, 5
"""The rule of the articles (001)."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Proof:
    """The company's warehouse, its run, and every trial of the held-out month-ends with `margin` and LABEL."""

    warehouse: Warehouse
    run_id: str
    rows: pd.DataFrame

    def difference(self, column: str, than: Array | None = None) -> tuple[float, float]:
        """The 95 % interval over accounts of a column's AUC less that of other scores, of chance where there are none."""
        happened, scores = (self.rows[name].to_numpy(np.float64) for name in (LABEL, column))
        accounts, names = pd.factorize(self.rows["account_id"])
        drawn = resamples(len(names), 300, 1)[:, accounts]
        other = 0.5 if than is None else auc(than, happened, drawn)
        return interval(auc(scores, happened, drawn) - other)


@pytest.fixture(scope="module")
def proof(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    folder: Path = tmp_path_factory.mktemp("market") / "company"
    write_market(folder, Scale("trials", 5_000, 150_000, 3_000_000), seed=5)
    sources = load_sources(folder / "sources.yml")
    ingest_orders(sources, LAST_DAY)
    ingest_crm_and_records(sources, LAST_DAY)
    ingest_behavior(sources, LAST_DAY)
    run_id = build_marts(LAST_DAY)
    predicted = fitted_on(LAST_DAY, "trial").predicted
    with connect("scorer") as connection:
        dates = [one.date.date() for one in predicted]
        frame = labelled_frame(connection, TRIAL, dates, policy_on(connection, TRIAL, LAST_DAY))
    margins = pd.concat([one.rows.assign(as_of_date=one.date) for one in predicted])
    rows = frame.merge(margins[["account_id", "as_of_date", "margin"]], on=["account_id", "as_of_date"])
    return Proof(module_warehouse, run_id, rows)


def test_trials_that_convert_are_ranked_above_chance(proof: Proof) -> None:
    """Measured on 2026-11-23: 0.671 (0.624-0.710) on 948 trials of six month-ends, of which 47 % converted."""
    happened = proof.rows[LABEL].to_numpy(np.float64)
    assert 0.3 < happened.mean() < 0.6
    assert len(happened) > 500
    assert proof.difference("margin")[0] > 0


def test_the_model_ranks_above_the_rule(proof: Proof) -> None:
    """Sessions of the simulated company are few: 3 of 1,000 trials meet the rule. Its AUC is 0.501 (0.498-0.506)."""
    rows = proof.rows
    meets = (rows["login_days_in_a_row_90d"] >= LOGIN_DAYS) & (rows["core_feature_uses_90d"] >= CORE_USES)
    assert meets.any()
    assert proof.difference("margin", meets.to_numpy(np.float64))[0] > 0


def test_every_standing_trial_has_a_score_that_passes_the_gate(proof: Proof) -> None:
    train("trial", LAST_DAY)
    score_all(LAST_DAY, proof.run_id)
    without_groups(LAST_DAY, proof.run_id)
    run_gate("scores", LAST_DAY, proof.run_id)
    standing = proof.warehouse.value(
        "select count(*) from marts.trial_features where as_of_date = %s", LAST_DAY
    )
    assert proof.warehouse.rows("select model, accounts from ml.runs where status = 'scored'") == [
        ("trial", standing)
    ]
