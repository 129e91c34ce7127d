"""A run's scores: one per account that has ordered, or a reason why there are none; due models; the gate."""

from datetime import date, timedelta

import pytest

from include.errors import StratumError
from include.quality.gate import GateFailed, run_gate
from include.sources.loads import bind_company, landing
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, fail_run
from ml import train
from ml.frames import NAMES
from ml.score import score_accounts
from ml.train import due_date, train_if_due
from tests.conftest import Warehouse
from tests.ml.world import FIRST, make_marts, month_ends, order_days

DAY = date(2026, 3, 10)  # a Tuesday
MONDAY = date(2026, 3, 9)
RUN = "20260310_00000001"


@pytest.fixture(scope="module")
def trained(module_warehouse: Warehouse) -> Warehouse:
    """The small company's marts at its month-ends and three days of March, and the model of the week."""
    with landing("orders", "order_lines", DAY) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    make_marts(order_days(), [*month_ends(FIRST, date(2026, 2, 28)), DAY, DAY + timedelta(days=1)])
    assert train_if_due("churn", DAY) is not None
    return module_warehouse


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


def test_the_model_of_the_week_is_trained_once(trained: Warehouse) -> None:
    assert trained.rows("select trained_as_of, window_to from ml.models") == [(MONDAY, date(2025, 11, 30))]
    assert train_if_due("churn", DAY) is None
    assert train_if_due("churn", DAY + timedelta(days=5)) is None
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


def test_another_run_leaves_a_runs_scores_alone(trained: Warehouse) -> None:
    score_accounts("churn", DAY, RUN)
    before = scores(trained, RUN)
    score_accounts("churn", DAY + timedelta(days=1), "20260311_00000001")
    assert scores(trained, RUN) == before


def test_a_date_before_every_model_has_no_scores_and_says_why(trained: Warehouse) -> None:
    early = date(2025, 6, 30)
    assert train_if_due("churn", early) is None
    result = score_accounts("churn", early, "early")
    assert (result.status, result.accounts, result.model_id) == ("absent", 0, None)
    assert result.reason is not None
    assert result.reason.startswith("too little history: 3 month-ends with 90 days after them")
    assert scores(trained, "early") == []
    assert trained.rows("select status, reason from ml.runs where run_id = 'early'") == [
        ("absent", result.reason)
    ]


def test_enough_history_without_a_model_says_that_none_is_trained(trained: Warehouse) -> None:
    result = score_accounts("churn", MONDAY - timedelta(days=1), "sunday")
    assert result.reason == "no model is trained as of 2026-03-08 or before: see the runs of train_models"


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
        monkeypatch.setattr(train, "train", lambda model, as_of: asked.append(as_of))
        train_if_due("churn", DAY)
        assert asked == [MONDAY]
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
        2025, 11, 30
    )
    assert trained.value("select count(*) from ml.importances") == len(NAMES)


# The gate


@pytest.fixture
def run_id(trained: Warehouse):
    """A scored run as of DAY that holds the build lock."""
    run_id = begin_run(DAY)
    score_accounts("churn", DAY, run_id)
    yield run_id
    fail_run(DAY, "end of test")
    trained.rows("delete from published.history_run")


def checks(warehouse: Warehouse, run_id: str) -> dict[tuple[str, str, str | None], bool]:
    """The last result of each check of a run: (table, expectation, query)."""
    rows = warehouse.rows(
        "select table_name, expectation, coalesce(arguments->>'unexpected_rows_query', column_name), success "
        "from audit.checks where run_id = %s order by check_id",
        run_id,
    )
    return {row[:3]: row[3] for row in rows}


def publish(warehouse: Warehouse, run_id: str, as_of: date) -> None:
    warehouse.rows("insert into published.history_run (as_of_date, run_id) values (%s, %s)", as_of, run_id)


def test_good_scores_pass_and_a_first_set_has_nothing_to_drift_from(trained: Warehouse, run_id: str) -> None:
    assert run_gate("scores", DAY, run_id).failed == 0
    found = checks(trained, run_id)
    assert found["ml.scores_shift", "not_applicable", None]
    assert not [
        check for check in found if check[0] == "ml.scores_shift" and check[1] == "expect_no_such_rows"
    ]


def test_scores_are_compared_with_the_last_published_set(trained: Warehouse, run_id: str) -> None:
    for day, name, moved in (
        (DAY - timedelta(days=1), "same", "probability"),
        (DAY - timedelta(days=2), "moved", "probability / 5"),
        (DAY - timedelta(days=60), "old", "probability / 5"),
    ):
        trained.rows(
            "insert into ml.scores select %s, model, account_id, %s, model_id, "
            + moved
            + ", score_rank, reason_1, "
            "reason_2, reason_3 from ml.scores where run_id = %s",
            name,
            day,
            run_id,
        )
    publish(trained, "old", DAY - timedelta(days=60))
    run_gate("scores", DAY, run_id)
    assert checks(trained, run_id)["ml.scores_shift", "not_applicable", None]  # another season
    publish(trained, "moved", DAY - timedelta(days=2))
    with pytest.raises(GateFailed, match=r"ml\.scores_shift: .*mean_before"):
        run_gate("scores", DAY, run_id)
    publish(trained, "same", DAY - timedelta(days=1))  # the newest one counts
    publish(trained, "moved", DAY + timedelta(days=1))  # a later date does not
    run_gate("scores", DAY, run_id)


def test_an_absent_model_is_written_down_and_not_checked(trained: Warehouse) -> None:
    early = date(2025, 6, 30)
    run_id = begin_run(early)
    try:
        score_accounts("churn", early, run_id)
        assert run_gate("scores", early, run_id).failed == 0
        found = checks(trained, run_id)
        assert found["ml.scores", "model_absent", None]
        assert found["ml.scores_shift", "model_absent", None]
        reason = trained.value(
            "select observed->>'reason' from audit.checks where run_id = %s and table_name = 'ml.scores'",
            run_id,
        )
        assert str(reason).startswith("too little history")
    finally:
        fail_run(early, "end of test")


def test_a_run_that_nobody_scored_stops_at_the_gate(trained: Warehouse, run_id: str) -> None:
    for table in ("scores", "runs"):
        trained.rows(f"delete from ml.{table} where run_id = %s", run_id)
    with pytest.raises(GateFailed, match=r"ml\.runs: .*Every model has scored the run"):
        run_gate("scores", DAY, run_id)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (
            "delete from ml.scores where run_id = %(run)s and account_id = 'A0003'",
            "Every account that has ordered",
        ),
        ("update ml.scores set probability = 0.5 where run_id = %(run)s", "tell accounts apart"),
        (
            "update ml.scores set reason_2 = reason_1 where run_id = %(run)s and score_rank = 3",
            "Three different reasons",
        ),
        (
            "update ml.scores set reason_3 = 'a <b>' where run_id = %(run)s and score_rank = 3",
            "Three different reasons",
        ),
        ("update ml.scores set score_rank = 7 where run_id = %(run)s and score_rank = 9", "Ranks run from 1"),
    ],
)
def test_bad_scores_stop_the_gate(trained: Warehouse, run_id: str, break_it: str, told: str) -> None:
    trained.rows(break_it.replace("%(run)s", f"'{run_id}'"))
    with pytest.raises(GateFailed, match=told):
        run_gate("scores", DAY, run_id)


def test_every_expectation_of_the_scores_suite_can_fail(trained: Warehouse, run_id: str) -> None:
    trained.rows("alter table ml.scores drop constraint scores_pkey")
    trained.rows("alter table ml.scores drop constraint scores_probability_check")
    scored = f"where run_id = '{run_id}'"
    try:
        publish(trained, RUN, DAY - timedelta(days=1))
        score_accounts("churn", DAY, RUN)
        for statement in (
            f"update ml.scores set probability = 0.01 {scored}",
            f"update ml.scores set probability = 1.5, reason_3 = '' {scored} and account_id = 'A0005'",
            f"update ml.scores set account_id = 'A0001' {scored} and account_id = 'A0003'",
            f"update ml.runs set as_of_date = as_of_date + 1, model = 'other' {scored}",
            f"insert into ml.runs select run_id, 'churn', as_of_date, status, model_id, reason, 3 from ml.runs {scored}",
            f"update ml.runs set model = 'another' {scored} and model = 'churn'",
        ):
            trained.rows(statement)
        with pytest.raises(GateFailed):
            run_gate("scores", DAY, run_id)
        passed = {check for check, success in checks(trained, run_id).items() if success}
        # Without a row of the run there is no count to compare with: it fails where the row is there.
        assert all("as scored" in str(query) for *_, query in passed), passed
        trained.rows(f"update ml.runs set model = 'churn' {scored} and model = 'another'")
        with pytest.raises(GateFailed):
            run_gate("scores", DAY, run_id)
        failed = [check for check, success in checks(trained, run_id).items() if not success]
        assert any("as scored" in str(query) for *_, query in failed)
    finally:
        trained.rows("delete from ml.scores")
        trained.rows("delete from ml.runs")
        trained.rows(
            "alter table ml.scores add constraint scores_pkey primary key (run_id, model, account_id)"
        )


def test_the_scorer_changes_no_model(trained: Warehouse) -> None:
    import psycopg

    for statement in (
        "delete from ml.models",
        "update ml.models set artefact = ''",
        "update ml.scores set probability = 0",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connect("scorer") as connection:
            connection.execute(statement)
