"""A run's scores: one per account that has ordered, or a reason why there are none; due models."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import psycopg
import pytest

from include.errors import StratumError
from include.warehouse.connect import connect
from include.warehouse.roles import grant_all
from ml import champion, drift, realised, registry, train
from ml.champion import settle
from ml.copies import write_frame
from ml.features import NAMES
from ml.frames import features_in_chunks
from ml.score import score_accounts, score_frame
from ml.targets import CHURN
from ml.train import Fitted, due_date
from tests.conftest import Warehouse
from tests.ml.conftest import SCORED_ON as DAY

MONDAY = date(2026, 3, 9)
BEGAN = date(2026, 2, 2)  # of the period of 182 days that DAY lies in
RUN = "20260310_00000001"


def scores(warehouse: Warehouse, run_id: str) -> list[tuple]:
    return warehouse.rows(
        "select account_id, as_of_date, model_id, probability, score_rank, reason_1, reason_2, reason_3 "
        "from ml.scores where run_id = %s order by score_rank",
        run_id,
    )


@pytest.mark.parametrize("days", range(7))
def test_all_days_of_a_week_are_scored_by_the_model_of_its_monday(days: int) -> None:
    assert due_date(MONDAY + timedelta(days=days), 7) == MONDAY
    assert due_date(MONDAY - timedelta(days=1), 7) == MONDAY - timedelta(days=7)
    assert due_date(MONDAY + timedelta(days=days), 1) == MONDAY + timedelta(days=days)


def test_the_champion_of_the_period_is_trained_once(trained: Warehouse) -> None:
    assert trained.rows("select trained_as_of, window_to from ml.models") == [(BEGAN, date(2025, 10, 31))]
    assert settle("churn", DAY) == []
    assert settle("churn", DAY + timedelta(days=5)) == []
    assert trained.value("select count(*) from ml.models") == 1


def test_every_account_that_has_ordered_is_scored(trained: Warehouse) -> None:
    result = score_accounts("churn", DAY, RUN)
    found = scores(trained, RUN)
    accounts = trained.rows("select account_id from marts.account_features where as_of_date = %s", DAY)
    assert result.status == "scored"
    assert result.accounts == len(found) == len(accounts)
    assert {row[0] for row in found} == {account for (account,) in accounts}
    assert [row[4] for row in found] == list(range(1, len(found) + 1))
    assert found == sorted(found, key=lambda row: (-row[3], row[0]))
    assert {row[1] for row in found} == {DAY}
    assert all(len(set(row[5:])) == 3 for row in found)
    assert trained.rows("select status, model_id, reason, accounts from ml.runs where run_id = %s", RUN) == [
        ("scored", found[0][2], None, len(found))
    ]


def test_a_run_scored_twice_holds_the_same_rows_once(trained: Warehouse) -> None:
    score_accounts("churn", DAY, RUN)
    before = scores(trained, RUN)
    score_accounts("churn", DAY, RUN)
    assert scores(trained, RUN) == before
    assert trained.value("select count(*) from ml.runs where run_id = %s", RUN) == 1


def test_accounts_scored_in_chunks_have_the_same_rows_ranks_and_drift(
    trained: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifted = "select name, reference, accounts_now, psi, missing_now, state from ml.drift where run_id = %s order by 1, 2"
    means = "select mean_now from ml.drift where run_id = %s order by name, reference"

    def score() -> tuple[list[tuple], list[tuple], list[float]]:
        score_accounts("churn", DAY, RUN)
        found = [float(mean or 0) for (mean,) in trained.rows(means, RUN)]
        return scores(trained, RUN), trained.rows(drifted, RUN), found

    *whole, means_of_whole = score()
    asked = []

    def few(*given: object) -> Iterator[pd.DataFrame]:
        for chunk in features_in_chunks(*given, rows=40):
            asked.append(len(chunk))
            yield chunk

    monkeypatch.setattr("ml.score.features_in_chunks", few)
    *chunked, means_of_chunks = score()
    assert len(asked) > 2
    assert chunked == whole
    assert means_of_chunks == pytest.approx(means_of_whole)


def test_a_level_that_was_foretold_is_no_shift_of_the_accounts(
    trained: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A season lifts every score, and they lie no further from training; the scores as they are told would."""
    of_training = (
        "select psi, mean_now, state from ml.drift "
        "where run_id = %s and (subject, reference) = ('score', 'training')"
    )
    mean = "select avg(probability)::float8 from ml.scores where run_id = %s"
    score_accounts("churn", DAY, RUN)
    ((psi, mean_now, state),) = trained.rows(of_training, RUN)
    told = trained.value(mean, RUN)
    assert mean_now == pytest.approx(told)

    days = [(stamp - pd.Timestamp(0)).days for stamp in pd.date_range("2024-01-31", "2025-10-31", freq="ME")]
    level = {"horizon_days": 90, "days": days, "offsets": [2.0] * 22, "variances": [1e-4] * 22}
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda *given: load(*given).set_params(boosting__level=level))
    score_accounts("churn", DAY, RUN)
    assert trained.value(mean, RUN) > told + 0.2
    ((with_level, mean_with_level, state_with_level),) = trained.rows(of_training, RUN)
    assert (with_level, mean_with_level) == (pytest.approx(psi, abs=0.02), pytest.approx(mean_now, abs=1e-4))
    assert state_with_level == state
    with connect("scorer") as connection:
        then = drift.bins_of_model(connection, str(trained.value("select model_id from ml.models")))[
            drift.SCORE
        ]
    bare = np.array(trained.rows("select probability::float8 from ml.scores where run_id = %s", RUN))[:, 0]
    assert drift.psi(then.counts, drift.now_of(bare, then).counts) > psi + 0.5


def test_scores_wait_for_their_ranks_though_the_public_may_make_no_tables(trained: Warehouse) -> None:
    database = trained.value("select quote_ident(current_database())")
    trained.rows(f"revoke temporary on database {database} from public")
    try:
        with psycopg.connect(trained.owner_url) as owner:
            grant_all(owner)
        assert score_accounts("churn", DAY, RUN).status == "scored"
    finally:
        trained.rows(f"grant temporary on database {database} to public")


def test_the_books_of_a_run_say_what_its_model_was_made_of(trained: Warehouse) -> None:
    score_accounts("churn", DAY, RUN)
    expected = trained.rows(
        "select trained_as_of, horizon_days, round(training_positives::numeric / training_rows, 6) from ml.models"
    )
    assert (
        trained.rows("select trained_as_of, horizon_days, base_rate from ml.runs where run_id = %s", RUN)
        == expected
    )
    ((auc,),) = trained.rows("select auc from ml.runs where run_id = %s", RUN)
    assert float(auc) == pytest.approx(
        trained.value(
            "select avg(value) from ml.metrics where kind = 'validation' and population = 'all' "
            "and estimator = 'model' and metric = 'auc'"
        ),
        abs=5e-5,
    )


def test_a_run_that_no_model_scores_any_more_keeps_nothing_of_the_one_before(
    trained: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_accounts("churn", DAY, "twice")
    monkeypatch.setattr("ml.score.champion_on", lambda *_: None)
    assert score_accounts("churn", DAY, "twice").status == "absent"
    for table in ("scores", "drift"):
        assert trained.rows(f"select * from ml.{table} where run_id = 'twice'") == [], table
    assert trained.rows("select status from ml.runs where run_id = 'twice'") == [("absent",)]


def test_each_scoring_asks_what_came_true_of_earlier_scores(
    trained: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(realised, "measure", lambda _, *given: asked.append(given))
    early = date(2025, 6, 30)  # no model is there yet
    assert [score_accounts("churn", day, "asks").status for day in (DAY, early)] == ["scored", "absent"]
    assert asked == [("churn", DAY), ("churn", early)]


def test_a_date_that_was_built_without_an_account_has_no_scores_and_says_so(trained: Warehouse) -> None:
    empty = date(2026, 3, 12)
    trained.rows("insert into marts.built_dates values (%s)", empty)
    try:
        result = score_accounts("churn", empty, "empty")
    finally:
        trained.rows("delete from marts.built_dates where as_of_date = %s", empty)
    assert (result.status, result.reason) == ("absent", "no account is of its population on 2026-03-12")


def test_a_next_best_category_is_as_likely_as_buying_anything_new_times_its_chance(
    trained: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns every category, or none, is told no category, and has a score all the same."""
    account = trained.rows(
        "select account_id from marts.account_features where as_of_date = %s order by 1", DAY
    )
    likeliest = pd.DataFrame({"account_id": [account[0][0]], "next_best": ["tools"], "chance": [0.5]})
    monkeypatch.setattr("ml.score.next_best", lambda *_: likeliest)
    monkeypatch.setattr("ml.score.target_of", lambda *_: replace(CHURN, has_next_best=True))
    assert score_accounts("churn", DAY, RUN).accounts == len(account)
    told = trained.rows(
        "select account_id, next_best, next_best_probability, round(probability / 2, 6) from ml.scores "
        "where run_id = %s and next_best_probability is not null",
        RUN,
    )
    assert [row[:2] for row in told] == [(account[0][0], "tools")]
    assert float(told[0][2]) == pytest.approx(float(told[0][3]), abs=1.1e-6)


def test_an_expected_value_is_that_of_the_models_own_horizon(fitted: Fitted, later: pd.DataFrame) -> None:
    line = {"intercept": 0.0, "net_revenue_90d": 1.0, "yearly_net_spend": 0.0, "average_order_value": 0.0}
    found = replace(fitted.model, horizon_days=30, parameters={**fitted.model.parameters, "value": line})
    frame = later.drop(columns="happened")
    scores = score_frame(fitted.pipeline, found, frame, replace(CHURN, has_value=True))
    expected = scores["probability"] * frame["net_revenue_90d"] / 3
    np.testing.assert_allclose(scores["expected_value"], expected, atol=0.0051)
    assert expected.max() > 10


def test_another_run_leaves_a_runs_scores_alone(trained: Warehouse) -> None:
    score_accounts("churn", DAY, RUN)
    before = scores(trained, RUN)
    score_accounts("churn", DAY + timedelta(days=1), "20260311_00000001")
    assert scores(trained, RUN) == before


def test_a_date_before_every_model_has_no_scores_and_says_why(trained: Warehouse) -> None:
    early = date(2025, 6, 30)
    assert settle("churn", early) == []
    result = score_accounts("churn", early, "early")
    assert (result.status, result.accounts, result.model_id) == ("absent", 0, None)
    assert result.reason is not None
    assert result.reason.startswith("too little history: 3 month-ends with 90 days after them")
    assert scores(trained, "early") == []
    assert trained.rows("select status, reason from ml.runs where run_id = 'early'") == [
        ("absent", result.reason)
    ]


def test_enough_history_without_a_model_says_that_none_is_trained(trained: Warehouse) -> None:
    result = score_accounts("churn", BEGAN - timedelta(days=1), "sunday")
    assert result.reason == "no model is trained as of 2026-02-01 or before: see the runs of train_models"


def test_training_with_too_little_history_is_an_error_when_asked_for(trained: Warehouse) -> None:
    with pytest.raises(StratumError, match="cannot be trained as of 2025-06-30: too little history"):
        train.train("churn", date(2025, 6, 30))


def test_a_date_that_is_not_built_is_an_error(trained: Warehouse) -> None:
    with pytest.raises(StratumError, match="holds nothing as of 2026-03-15: build the date first"):
        score_accounts("churn", date(2026, 3, 15), "unbuilt")
    assert trained.rows("select * from ml.runs where run_id = 'unbuilt'") == []


def test_a_model_of_other_features_does_not_score_and_is_due_again(
    trained: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.rows(
        'update ml.models set features = features || \'[{"name": "shoe_size", "kind": "count", "used": false}]\''
    )
    try:
        with pytest.raises(StratumError, match="missing shoe_size; new none"):
            score_accounts("churn", DAY, "other")
        asked = []

        def asks(model: str, as_of: date) -> str:
            asked.append(as_of)
            raise StratumError("asked for")

        monkeypatch.setattr(champion, "train", asks)
        with pytest.raises(StratumError, match="asked for"):
            settle("churn", DAY)
        assert asked == [BEGAN, MONDAY]
    finally:
        trained.rows("update ml.models set features = features - -1")


def test_validation_figures_and_importances_are_kept(trained: Warehouse) -> None:
    kept = trained.rows(
        "select distinct population, estimator, metric from ml.metrics where kind = 'validation'"
    )
    for population in ("all", "active_90"):
        for metric in ("auc", "pr_auc", "lift", "brier"):
            assert (population, "model", metric) in kept
        assert (population, "recency", "auc") in kept
        assert (population, "observed", "churn_rate") in kept
    assert trained.value("select max(evaluated_as_of) from ml.metrics where kind = 'validation'") == date(
        2025, 10, 31
    )
    assert trained.value("select count(*) from ml.importances") == len(NAMES)


def test_the_scorer_changes_no_model(trained: Warehouse) -> None:
    import psycopg

    for statement in (
        "delete from ml.models",
        "update ml.models set artefact = ''",
        "update ml.scores set probability = 0",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connect("scorer") as connection:
            connection.execute(statement)


def test_a_frame_is_written_as_it_is(warehouse: Warehouse) -> None:
    """Texts that a CSV would trip over, unknown ones, an empty one, and the smallest probability."""
    texts = ['say "no", or\nyes', "\\N", None, ""]
    numbers = [0.000001, float("nan"), 1.0, 123456789.12]
    warehouse.rows("create table ml.written (a text, n numeric(18, 6)); grant insert on ml.written to public")
    with connect("scorer") as connection:
        write_frame(connection, "ml.written", pd.DataFrame({"n": numbers, "a": texts}))
    expected = [(texts[0], Decimal("0.000001")), ("\\N", None), (None, 1), ("", Decimal("123456789.12"))]
    assert warehouse.rows("select a, n from ml.written") == expected
