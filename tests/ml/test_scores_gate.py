"""What is watched of a run's scores, and the gate that stops those that are not to be told."""

import re
from datetime import date, timedelta

import numpy as np
import pytest

from include.quality import suites
from include.quality.gate import GateFailed, run_gate
from include.quality.limits import limits
from include.settings import get_settings
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run, fail_run
from ml import champion, drift, realised, registry
from ml.card_watch import DRIFT
from ml.card_watch import watched as watched_since
from ml.drift_report import watch_lines, watched
from ml.frames import features_on, labelled_frame
from ml.report import list_models, model_lines
from ml.score import score_accounts, score_all
from ml.targets import CHURN, Policy
from tests.conftest import Warehouse
from tests.ml.chain import without_groups
from tests.ml.conftest import SCORED_ON as DAY
from tests.ml.world import add_date, order_days

RUN = "20260310_00000001"


@pytest.fixture
def run_id(trained: Warehouse):
    """A scored run as of DAY that holds the build lock."""
    run_id = begin_run(DAY)
    score_all(DAY, run_id)
    without_groups(DAY, run_id)
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
    assert found["ml.scores_shift_churn", "not_applicable", None]
    assert not [
        check for check in found if check[0] == "ml.scores_shift_churn" and check[1] == "expect_no_such_rows"
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
    assert checks(trained, run_id)["ml.scores_shift_churn", "not_applicable", None]  # another season
    publish(trained, "moved", DAY - timedelta(days=2))
    with pytest.raises(GateFailed, match=r"ml\.scores_shift_churn: .*mean_before"):
        run_gate("scores", DAY, run_id)
    publish(trained, "same", DAY - timedelta(days=1))  # the newest one counts
    publish(trained, "moved", DAY + timedelta(days=1))  # a later date does not
    run_gate("scores", DAY, run_id)


def test_the_set_to_compare_with_is_the_newest_before_the_date_that_told_the_same(
    trained: Warehouse, run_id: str
) -> None:
    def scored(name: str, days_before: int, horizon_days: int = 90, rows: str = "true") -> None:
        day = DAY - timedelta(days=days_before)
        trained.rows(
            "insert into ml.runs (run_id, model, as_of_date, status, model_id, accounts, definition, horizon_days) "
            "select %s, model, %s, status, model_id, accounts, definition, %s from ml.runs where run_id = %s "
            "and model = 'churn'",
            name,
            day,
            horizon_days,
            run_id,
        )
        trained.rows(
            "insert into ml.scores select %s, model, account_id, %s, model_id, probability / 5, score_rank, reason_1, "
            f"reason_2, reason_3 from ml.scores where run_id = %s and {rows}",
            name,
            day,
            run_id,
        )
        publish(trained, name, day)

    def last() -> tuple[date, np.ndarray] | str:
        with connect("scorer") as connection:
            found = registry.newest(connection, "churn", DAY)
            assert found is not None
            return drift.last_set(connection, DAY, found, 45)

    names = ("after", "of the day", "long ago", "another horizon", "not kept", "a week ago")
    try:
        scored(names[0], -1)
        scored(names[1], 0)
        assert last() == "no earlier set is published: there is nothing to compare with"
        scored(names[2], 46)
        assert last() == "the last published set is of 2026-01-23, more than 45 days ago (score_shift_days)"
        publish(trained, "without churn", DAY - timedelta(days=45))
        assert last() == "the last published set, of 2026-01-24, holds no scores of churn"
        scored(names[3], 20, horizon_days=60)
        assert last() == "the last published set, of 2026-02-18, told something else: no order in 60 days"
        run_gate("scores", DAY, run_id)  # a fifth of the probabilities, and yet no shift
        assert checks(trained, run_id)["ml.scores_shift_churn", "not_applicable", None]
        scored(names[4], 8, rows="false")
        assert last() == "the scores of the last published set, of 2026-03-02, are no longer kept"
        scored(names[5], 7)
        found = last()
        assert isinstance(found, tuple)
        assert found[0] == DAY - timedelta(days=7)
        kept = trained.rows("select probability from ml.scores where run_id = %s", names[5])
        assert sorted(found[1]) == sorted(float(value) for (value,) in kept)
    finally:
        for table in ("scores", "runs"):
            trained.rows(f"delete from ml.{table} where run_id = any(%s)", list(names))


def test_a_first_set_says_that_it_has_nothing_to_compare_with(trained: Warehouse, run_id: str) -> None:
    ((reason, psi),) = trained.rows(
        "select reason, psi from ml.drift where run_id = %s and reference = 'last_set'", run_id
    )
    assert psi is None
    assert reason == "no earlier set is published: there is nothing to compare with"
    run_gate("scores", DAY, run_id)
    assert checks(trained, run_id)["ml.calibration_drift_churn", "not_applicable", None]


def test_a_shifted_distribution_of_scores_stops_the_gate_and_is_accepted_by_a_dated_limit(
    trained: Warehouse, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores around 4 % that double move their quantiles by little: the index sees it."""
    trained.rows(
        "insert into ml.runs select 'before', model, as_of_date - 1, status, model_id, reason, accounts, scored_at, "
        "definition, horizon_days from ml.runs where run_id = %s",
        run_id,
    )
    trained.rows(
        "insert into ml.scores select 'before', model, account_id, as_of_date - 1, model_id, "
        "least(probability * 0.1 + 0.01, 1), score_rank, reason_1, reason_2, reason_3 from ml.scores where run_id = %s",
        run_id,
    )
    publish(trained, "before", DAY - timedelta(days=1))
    told = trained.rows(
        "select account_id, probability * 0.2 + 0.02 from ml.scores where run_id = %s", run_id
    )
    with connect("scorer") as connection:
        found = registry.newest(connection, "churn", DAY)
        assert found is not None
        frame = features_on(connection, CHURN, [DAY])
        now = dict(told)
        probability = np.array([float(now[account]) for account in frame["account_id"]])
        seen = drift.Seen(found, drift.bins_of_model(connection, found.model_id))
        for part in (frame[:100], frame[100:]):
            seen.add(part)
        rows = drift.watch(connection, run_id, DAY, found, seen, probability)
    trained.rows("update ml.scores set probability = probability * 0.2 + 0.02 where run_id = %s", run_id)
    (last,) = [row for row in rows if row.reference == "last_set"]
    assert last.psi is not None
    assert last.psi > 0.25
    assert last.distance is not None
    assert last.distance < 0.1
    published = trained.rows("select * from published.history_run order by as_of_date")
    with pytest.raises(GateFailed, match=r"score_psi in expectations/limits\.csv accepts it"):
        run_gate("scores", DAY, run_id)
    assert trained.rows("select * from published.history_run order by as_of_date") == published
    raised = {**limits(DAY), "score_psi": last.psi + 0.01}
    monkeypatch.setattr(suites, "limits", lambda as_of, path: raised)
    run_gate("scores", DAY, run_id)


def test_the_state_of_each_model_is_told_in_plain_words(trained: Warehouse, run_id: str) -> None:
    """Of the newest run by date: churn is scored, the others never were trained."""
    of_model = {one["model"]: one for one in watched()}
    churn = of_model["churn"]
    assert [row["reference"] for row in churn["drift"] if row["subject"] == "score"] == [
        "last_set",
        "training",
    ]
    told = dict(line.split(": ", 1) for line in watch_lines([*of_model.values()]))
    assert "shifted: the score lies otherwise than in training (PSI" in told["churn"]
    assert "not compared: no earlier set is published" in told["churn"]
    assert "what came true is not known yet" in told["churn"]
    assert "no model serves: no model is trained" in told["repurchase"]
    assert (
        "no model serves, the warning rules stand alone: too little history: 0 month-ends with 120 days"
        in told["lapse"]
    )
    assert (
        "no model serves, the rule of trials stands alone: too little history: 0 month-ends" in told["trial"]
    )


def test_the_champion_of_the_newest_date_is_named_among_the_models(trained: Warehouse, run_id: str) -> None:
    champions = [one for one in list_models() if one["champion_on"]]
    newest = trained.value("select max(as_of_date) from ml.runs")
    assert [(one["model"], one["champion_on"]) for one in champions] == [("churn", newest)]
    assert model_lines(champions)[0].endswith(f"; champion as of {newest}")


def test_a_card_is_told_the_drift_of_the_newest_date_of_each_month(trained: Warehouse, run_id: str) -> None:
    def of_day(day: date) -> tuple[float, float]:
        ((score, feature),) = trained.rows(
            "select max(psi) filter (where subject = 'score'), max(psi) filter (where subject = 'feature') "
            "from ml.drift where model_id = %s and reference = 'training' and as_of_date = %s",
            found.model_id,
            day,
        )
        return score, feature

    with connect("scorer") as connection:
        found = champion.champion_on(connection, "churn", DAY)
        assert found is not None
        newest = DAY + timedelta(days=1)
        score_accounts("churn", newest, "newest")
        seen = watched_since(connection, found.model_id)
    score, feature = of_day(newest)
    for name, value in (("scores", score), ("farthest feature", feature)):
        march = [point for point in seen[DRIFT][name] if point[0] >= date(2026, 3, 1)]
        assert march == [(newest, value)]
    assert (score, feature) != of_day(DAY)
    for table in ("drift", "scores", "runs"):
        trained.rows(f"delete from ml.{table} where run_id = 'newest'")


def test_features_that_shifted_warn_and_stop_nothing(trained: Warehouse, run_id: str) -> None:
    trained.rows("update ml.drift set state = 'shifted' where run_id = %s and name = 'orders_90d'", run_id)
    result = run_gate("scores", DAY, run_id)
    assert result.failed == 0
    assert any("ml.drift_churn" in warning and "psi_shifted" in warning for warning in result.warnings)
    rows = trained.rows(
        "select success from audit.checks where run_id = %s and table_name = 'ml.drift_churn' "
        "and arguments ->> 'severity' = 'warning'",
        run_id,
    )
    assert rows == [(False,)]
    index = (get_settings().data_docs / "index.html").read_text()
    assert "warned. A warning stops nothing." in index
    assert 'ml.drift_churn</a></td><td><span class="warned">warned</span>' in index


def test_a_run_whose_drift_nobody_measured_stops_at_the_gate(trained: Warehouse, run_id: str) -> None:
    trained.rows("delete from ml.drift where run_id = %s", run_id)
    with pytest.raises(GateFailed, match=r"ml\.drift_churn: .*or it says why not"):
        run_gate("scores", DAY, run_id)


def test_scores_of_a_month_end_meet_what_came_true_once(trained: Warehouse) -> None:
    told_on, newest = date(2025, 11, 30), date(2026, 2, 28)
    with connect("scorer") as connection:
        found = registry.newest(connection, "churn", DAY)
        assert found is not None
        frame = labelled_frame(connection, CHURN, [told_on], Policy(90, 90))
    told = np.linspace(0.05, 0.95, len(frame)).round(6)
    with connect("scorer") as connection, connection.cursor() as cursor:
        cursor.execute(
            "insert into ml.runs (run_id, model, as_of_date, status, model_id, accounts, definition, horizon_days) "
            "values ('november', 'churn', %s, 'scored', %s, %s, 'no order', 90)",
            [told_on, found.model_id, len(frame)],
        )
        cursor.executemany(
            "insert into ml.scores (run_id, model, account_id, as_of_date, model_id, probability, score_rank, reason_1, "
            "reason_2, reason_3) values ('november', 'churn', %s, %s, %s, %s, 1, 'a', 'b', 'c')",
            [
                (account, told_on, found.model_id, one)
                for account, one in zip(frame["account_id"], told, strict=True)
            ],
        )
    middle = date(2025, 11, 15)
    add_date(order_days(), middle)
    trained.rows(
        "insert into ml.runs (run_id, model, as_of_date, status, model_id, accounts, definition, horizon_days) "
        "select 'middle', model, %s, status, model_id, accounts, definition, horizon_days from ml.runs "
        "where run_id = 'november'",
        middle,
    )
    trained.rows(
        "insert into ml.scores select 'middle', model, account_id, %s, model_id, probability, score_rank, reason_1, "
        "reason_2, reason_3 from ml.scores where run_id = 'november'",
        middle,
    )
    publish(trained, "middle", middle)
    try:
        with connect("scorer") as connection:
            # Nobody was told the one, and the other is no month-end.
            assert realised.measure(connection, "churn", newest) == []
        publish(trained, "november", told_on)
        with connect("scorer") as connection:
            assert (
                realised.measure(connection, "churn", newest - timedelta(days=1)) == []
            )  # a day is still to come
            assert realised.measure(connection, "churn", newest) == [told_on]
            assert realised.measure(connection, "churn", DAY) == []  # once
        kept = trained.rows(
            "select part, accounts, mean_probability, observed_rate, low, high, auc, brier, calibration_error, "
            "measured_as_of "
            "from ml.calibration_drift where run_id = 'november' order by part"
        )
        happened = frame["happened"].to_numpy(float)
        expected = [
            (
                one.part,
                one.accounts,
                one.mean_probability,
                one.observed_rate,
                one.low,
                one.high,
                one.auc,
                one.brier,
                one.calibration_error,
            )
            for one in realised.parts_of(told, happened)
        ]
        assert [row[:-1] for row in kept] == expected
        assert {row[-1] for row in kept} == {newest}
        assert kept[0][3] == happened.mean()
    finally:
        trained.rows("delete from published.history_run")
        for table in ("account_features", "outcomes"):
            trained.rows(f"delete from marts.{table} where as_of_date = %s", middle)
        for table in ("calibration_drift", "scores", "runs"):
            trained.rows(f"delete from ml.{table} where run_id in ('november', 'middle')")


def test_an_absent_model_is_written_down_and_not_checked(trained: Warehouse) -> None:
    early = date(2025, 6, 30)
    run_id = begin_run(early)
    try:
        score_all(early, run_id)
        without_groups(early, run_id)
        assert run_gate("scores", early, run_id).failed == 0
        found = checks(trained, run_id)
        assert found["ml.scores_churn", "model_absent", None]
        assert found["ml.scores_shift_churn", "model_absent", None]
        reason = trained.value(
            "select observed->>'reason' from audit.checks where run_id = %s and table_name = 'ml.scores_churn'",
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
            "Every account of the population",
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
            f"update ml.scores set expected_value = -1, next_best_probability = 0.5 {scored}",
            f"update ml.runs set as_of_date = as_of_date + 1, model = 'other' {scored} and model = 'churn'",
            f"insert into ml.runs select run_id, 'churn', as_of_date, status, model_id, reason, 3 from ml.runs {scored} "
            "and model = 'other'",
            f"update ml.runs set model = 'another' {scored} and model = 'churn'",
            "update ml.drift set psi = 9, psi_by_chance = 0, distance = 1, mean_then = 0.3, state = 'shifted', "
            f"reason = null {scored}",
            f"delete from ml.drift {scored} and subject = 'score' and reference = 'training'",
            "insert into ml.calibration_drift select run_id, model, 0, as_of_date, model_id, definition, horizon_days, "
            f"as_of_date, 10, 0.2, 0.7, 0.5, 0.8, null, 0.3, 0.5 from ml.runs where run_id = '{RUN}' and model = 'churn'",
        ):
            trained.rows(statement)
        with pytest.raises(GateFailed):
            run_gate("scores", DAY, run_id)
        found = checks(trained, run_id)
        passed = {check for check, success in found.items() if success and check[1] != "model_absent"}
        # Those of clusters and lists: tests/ml/test_clusters_and_recommendations.py.
        passed = {check for check in passed if not re.match(r"ml\.(cluster|account|recommend)", check[0])}
        # Without a row of the run there is no count to compare with: it fails where the row is there.
        assert all("as scored" in str(query) for *_, query in passed), passed
        trained.rows(f"update ml.runs set model = 'churn' {scored} and model = 'another'")
        with pytest.raises(GateFailed):
            run_gate("scores", DAY, run_id)
        failed = [check for check, success in checks(trained, run_id).items() if not success]
        assert any("as scored" in str(query) for *_, query in failed)
    finally:
        for table in ("scores", "runs", "drift", "calibration_drift"):
            trained.rows(f"delete from ml.{table}")
        trained.rows(
            "alter table ml.scores add constraint scores_pkey primary key (run_id, model, account_id)"
        )
