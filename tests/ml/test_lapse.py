"""The lapse model on a simulated company, some of whose accounts pay by yearly contracts and the others by order alone.

An account lets its contract lapse where it has turned away by 8 weeks before its end (crm.contracts). No record says that it
has: the truth knows it (truth.lapse_probability), and a particle filter that knows every constant of the simulation
guesses it from orders and sessions (tests/ml/particle_filter.py), which is the most that these can tell.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from include.dbt import build
from include.quality.gate import run_gate
from include.simulate.market.scales import LAST_DAY, Scale
from include.simulate.market.write import write_market
from include.sources.behavior import ingest_behavior
from include.sources.config import load_sources
from include.sources.crm import ingest_crm_and_records
from include.sources.orders import ingest_orders
from include.warehouse.connect import connect
from ml.features import recency_of
from ml.figures import POOLED
from ml.frames import LABEL, features_on, labelled_frame
from ml.metrics import auc, interval, once, resamples
from ml.rules import MOST_RULES, SEVERITIES
from ml.score import score_all
from ml.targets import CHURN, LAPSE, policy_on
from ml.train import train
from tests.conftest import Warehouse
from tests.ml.chain import build_marts, fitted_on, without_groups
from tests.ml.particle_filter import lapse_from_records

pytestmark = pytest.mark.extended

SCALE, SEED = Scale("proof", 4_000, 200_000, 1_200_000), 21
SENT_BEFORE = 10
"""Days before the end by which the next contract is sent: from then on the records tell whether there is one."""
BELOW_TRUTH, BELOW_RECORDS, PARTICLES = 0.12, 0.02, 400
CALIBRATED = 0.06  # ten parts of 120 accounts: chance alone leaves 0.03
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Proof:
    """The company's warehouse, its run, and each account of the held-out month-ends whose renewal was still to come.

    `rows` hold its features, LABEL, `margin` of a model that knew nothing of the date, `rules`, `truth` and `best`,
    what orders and sessions can tell at most. `whole` holds those in their grace, too.
    """

    warehouse: Warehouse
    run_id: str
    rows: pd.DataFrame
    whole: pd.DataFrame

    def auc(self, column: str) -> float:
        """The AUC of a column."""
        scores, happened = (self.rows[name].to_numpy(np.float64) for name in (column, LABEL))
        return float(auc(scores, happened, once(len(happened)))[0])

    def above(self, column: str) -> tuple[float, float]:
        """The 95 % interval over accounts of the model's AUC less that of a column."""
        happened = self.rows[LABEL].to_numpy(np.float64)
        accounts, names = pd.factorize(self.rows["account_id"])
        drawn = resamples(len(names), 300, 1)[:, accounts]
        own, other = (
            auc(self.rows[name].to_numpy(np.float64), happened, drawn) for name in ("margin", column)
        )
        return interval(own - other)


@pytest.fixture(scope="module")
def proof(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    folder: Path = tmp_path_factory.mktemp("market") / "company"
    write_market(folder, SCALE, SEED)
    sources = load_sources(folder / "sources.yml")
    ingest_orders(sources, LAST_DAY)
    ingest_crm_and_records(sources, LAST_DAY)
    ingest_behavior(sources, LAST_DAY)
    run_id = build_marts(LAST_DAY)
    build("marts", LAST_DAY, run_id, only=("account_warnings",))
    predicted = fitted_on(LAST_DAY, "lapse").predicted
    dates = [one.date.date() for one in predicted]
    with connect("scorer") as connection:
        frame = labelled_frame(connection, LAPSE, dates, policy_on(connection, LAPSE, LAST_DAY))
        warned = connection.execute(
            "select as_of_date, account_id, severity, rules_warning from marts.account_warnings where as_of_date = any(%s)",
            [dates],
        ).fetchall()
    keys = ["as_of_date", "account_id"]
    margins = pd.concat([one.rows.assign(as_of_date=one.date) for one in predicted])
    rules = pd.DataFrame(warned, columns=[*keys, "severity", "number"])
    worst = rules["severity"].map(SEVERITIES).fillna(0)
    rules["rules"] = (MOST_RULES * worst + rules["number"].fillna(0)).astype(float)
    truth = duckdb.sql(
        f"select account_no as account_id, as_of_date, lapse_120d as truth from '{folder}/truth/lapse.parquet'"
    ).df()
    best = pd.concat([records_tell(day) for day in dates])
    whole = frame.merge(margins[[*keys, "margin"]], on=keys)
    for found in (rules[[*keys, "rules"]], truth, best):
        found["as_of_date"] = pd.to_datetime(found["as_of_date"]).astype(whole["as_of_date"].dtype)
        whole = whole.merge(found, on=keys, how="left")
    whole["rules"] = whole["rules"].fillna(
        0.0
    )  # an account of which no rule speaks stands with those without a warning
    to_come = whole["days_to_contract_end"] > SENT_BEFORE
    return Proof(module_warehouse, run_id, whole[to_come].dropna(subset=["truth", "best"]), whole)


def records_tell(day: date) -> pd.DataFrame:
    """Return what orders and sessions can tell of each account on a date, by the number that the orders know it by."""
    found = lapse_from_records(SCALE, SEED, day, PARTICLES)
    return pd.DataFrame(
        {"as_of_date": day, "account_id": [f"C{number:07d}" for number in range(len(found))], "best": found}
    )


def test_lapses_are_ranked_above_the_rules_and_above_recency(proof: Proof) -> None:
    """Measured on 2026-11-23: 0.897, rules 0.777, last activity 0.780, on 1,208 accounts of six month-ends, 29 % lapsed."""
    assert len(proof.rows) > 1_000
    assert 0.2 < proof.rows[LABEL].mean() < 0.4
    assert proof.above("rules")[0] > 0
    assert proof.above("days_since_last_activity")[0] > 0


def test_lapses_are_ranked_as_well_as_orders_and_sessions_can_tell(proof: Proof) -> None:
    """Measured: 0.897 beside 0.887 of the filter, which sees no tickets, and 0.995 of the truth, which sees the turning."""
    assert proof.auc("truth") - BELOW_TRUTH <= proof.auc("margin") <= proof.auc("truth")
    assert proof.auc("margin") >= proof.auc("best") - BELOW_RECORDS


def test_the_truth_comes_true(proof: Proof) -> None:
    assert proof.rows["truth"].mean() == pytest.approx(proof.rows[LABEL].mean(), abs=0.02)


def test_what_is_told_of_a_lapse_comes_true(proof: Proof) -> None:
    train("lapse", LAST_DAY)
    found = dict(
        proof.warehouse.rows(
            "select metric, value::float8 from ml.metrics where kind = 'validation' and population = %s "
            "and estimator = 'model' and metric in ('ece', 'mean_probability')",
            POOLED,
        )
    )
    assert found["ece"] <= CALIBRATED


def test_each_account_is_scored_by_the_model_of_its_own_form(proof: Proof) -> None:
    """Who is under a contract has a probability of lapse where it is due, and none of no order; the others the reverse."""
    train("lapse", LAST_DAY)
    train("churn", LAST_DAY)
    score_all(LAST_DAY, proof.run_id)
    without_groups(LAST_DAY, proof.run_id)
    run_gate("scores", LAST_DAY, proof.run_id)
    scored: dict[str, set[str]] = {
        model: {
            account
            for (account,) in proof.warehouse.rows("select account_id from ml.scores where model = %s", model)
        }
        for model in ("churn", "lapse")
    }
    held = dict(
        proof.warehouse.rows(
            "select account_id, is_due from marts.lapse_features where as_of_date = %s", LAST_DAY
        )
    )
    ordered = {
        account
        for (account,) in proof.warehouse.rows(
            "select account_id from marts.account_features where as_of_date = %s", LAST_DAY
        )
    }
    assert scored["lapse"] == {account for account, is_due in held.items() if is_due}
    assert scored["churn"] == ordered - set(held)
    assert len(scored["lapse"]) > 150
    assert len(scored["churn"]) > 1_000
    with connect("scorer") as connection:
        assert recency_of(features_on(connection, LAPSE, [LAST_DAY])) == "days_since_last_activity"
        assert recency_of(features_on(connection, CHURN, [LAST_DAY])) == "days_since_last_order"
