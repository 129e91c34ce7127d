"""The trial model on planted trials: frames of its own marts, scores with reasons, absent where nobody is in a trial."""

from datetime import date, timedelta

import numpy as np
import pytest

from include.quality.gate import run_gate
from include.sources.loads import bind_company, landing
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run
from ml.champion import settle
from ml.copies import write_rows
from ml.features import TRIAL_NAMES
from ml.score import score_accounts, score_all
from tests.conftest import Warehouse
from tests.ml.chain import without_groups
from tests.ml.world import FIRST, make_marts, month_ends, order_days

DAY = date(2026, 3, 10)
TRIALS = 80
RULE = {"login_days_in_a_row_90d": 7, "core_feature_uses_90d": 5}


def plant(days: list[date]) -> None:
    """Make trials of each date; the more days with a login, the likelier they convert."""
    random = np.random.default_rng(3)
    features, outcomes = [], []
    for day in days:
        for number in range(TRIALS):
            login_days = int(random.integers(0, 20))
            account, chance = f"T{day:%m}{number:03d}", 1 / (1 + np.exp(4 - 0.4 * login_days))
            values = dict.fromkeys(TRIAL_NAMES, 1) | {
                "login_days_90d": login_days,
                "login_days_in_a_row_90d": int(random.integers(0, 1 + login_days)),
                "days_since_last_use": int(random.integers(0, 30)),
                "days_since_first_use": int(random.integers(30, 80)),
                "core_feature_uses_90d": int(random.integers(0, 9)),
            }
            features.append((day, account, *values.values()))
            outcomes.append((day, account, 90, bool(random.random() < chance)))
    with connect("transformer") as connection:
        write_rows(connection, "marts.trial_features", ("as_of_date", "account_id", *TRIAL_NAMES), features)
        connection.execute("drop table if exists marts.trial_rules")
        connection.execute(
            "create table marts.trial_rules (rule text, measure text, from_value numeric, effective_from date)"
        )
        rules = [(measure, measure, least, FIRST) for measure, least in RULE.items()]
        write_rows(
            connection, "marts.trial_rules", ("rule", "measure", "from_value", "effective_from"), rules
        )
        columns = ("as_of_date", "account_id", "horizon_days", "has_converted")
        write_rows(connection, "marts.trial_outcomes", columns, outcomes)


@pytest.fixture(scope="module")
def planted(module_warehouse: Warehouse) -> Warehouse:
    """Trials of every month-end and of DAY, the model of the period, and scores of DAY that have passed the gate."""
    with landing("orders", "order_lines", DAY) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    dates = [*month_ends(FIRST, date(2026, 2, 28)), DAY]
    make_marts(order_days(25), dates)
    plant(dates)
    assert len(settle("trial", DAY)) == 1
    planted_run = begin_run(DAY)
    score_all(DAY, planted_run)
    without_groups(DAY, planted_run)
    run_gate("scores", DAY, planted_run)
    return module_warehouse


def test_every_standing_trial_is_scored_by_a_model_of_trials(planted: Warehouse) -> None:
    assert planted.rows(
        "select status, definition, horizon_days, accounts from ml.runs where model = 'trial'"
    ) == [("scored", "first order or contract", 90, TRIALS)]
    assert planted.rows("select model, training_rows, window_to from ml.models") == [
        ("trial", 10 * TRIALS, date(2025, 10, 31))
    ]


def test_the_probability_follows_what_was_planted_and_its_reasons_say_so(planted: Warehouse) -> None:
    told = planted.rows(
        "select features.login_days_90d::int, probability::float8, reason_1, reason_2, reason_3 from ml.scores as scores "
        "join marts.trial_features as features using (as_of_date, account_id) where scores.model = 'trial'"
    )
    often = [row for row in told if row[0] >= 15]
    assert min(row[1] for row in often) > max(row[1] for row in told if row[0] <= 4)
    assert all(
        any(
            reason.startswith("Speaks for a first order: days with a login in the last 90:")
            for reason in row[2:]
        )
        for row in often
    )
    assert all(len(set(row[2:])) == 3 for row in told)


def test_trials_are_told_for_all_alone_beside_their_last_use(planted: Warehouse) -> None:
    """They have no orders, so there are no recent buyers among them."""
    told = planted.rows("select distinct population, estimator from ml.metrics where kind = 'validation'")
    assert {population for population, _ in told} == {"all", "held out", "on the date"}
    assert {estimator for _, estimator in told} == {
        "model", "observed", "recency", "model-recency", "logistic", "model-logistic", "trial_rule", "model-trial_rule"
    }  # fmt: skip


def test_a_date_without_trials_has_no_scores_and_says_so(planted: Warehouse) -> None:
    result = score_accounts("trial", DAY + timedelta(days=1), "no trials")
    assert (result.status, result.reason) == ("absent", "no account is of its population on 2026-03-11")


def test_few_trials_are_too_little_history(planted: Warehouse) -> None:
    early = date(2025, 6, 30)
    assert score_accounts("trial", early, "early").reason == (
        "too little history: 3 month-ends with 90 days after them lie before 2025-06-30, 6 are needed"
    )
