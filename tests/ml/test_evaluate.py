"""A frozen model is judged on what came true since, beside simpler ways, or says clearly why it cannot be."""

import json
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from include.commands import models as commands
from include.errors import StratumError
from include.sources.loads import bind_company, landing
from include.warehouse.connect import connect
from ml import baselines, registry, value
from ml.baselines import bg_nbd, expected_spend, logistic
from ml.card import drawings, facts_of, render
from ml.estimators import probabilities
from ml.evaluate import Report, evaluate
from ml.figures import POOLED, held_out_rows
from ml.frames import labelled_frame, later_revenue, training_frame
from ml.judge import BG_NBD, LOGISTIC, ON_DATE, RECENCY, judge
from ml.metrics import auc, once
from ml.params import params_of
from ml.report import as_plain, held_out_lines, lines, list_models, model_lines
from ml.targets import CHURN, REPURCHASE, Policy, policy_on
from ml.train import Fitted, train
from ml.verdict import in_short
from tests.conftest import Warehouse
from tests.ml.chain import fitted_on
from tests.ml.world import FIRST, add_date, features, make_marts, month_ends, order_days

TRAINED = date(2026, 3, 9)
CUTOFF = date(2026, 3, 20)
ON = CUTOFF + timedelta(days=90)  # 2026-06-18
BASELINES = (RECENCY, LOGISTIC, BG_NBD)


@pytest.fixture(scope="module")
def world(module_warehouse: Warehouse) -> Warehouse:
    """The small company loaded and built through ON, and a model trained before the cutoff."""
    with landing("orders", "order_lines", ON) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    make_marts(order_days(), [*month_ends(FIRST, date(2026, 2, 28)), CUTOFF, ON - timedelta(days=30), ON])
    train("churn", TRAINED)
    train("repurchase", TRAINED)
    return module_warehouse


@pytest.fixture(scope="module")
def report(world: Warehouse) -> Report:
    return evaluate("churn", ON)


def test_the_cutoff_lies_the_horizon_before_the_day(report: Report) -> None:
    assert (report.trained_as_of, report.cutoff, report.on) == (TRAINED, CUTOFF, ON)


def test_figures_are_those_of_the_frozen_scores_and_the_orders_since(
    world: Warehouse, report: Report
) -> None:
    with connect("scorer") as connection:
        frame = labelled_frame(connection, CHURN, [CUTOFF], Policy(90, 90))
        pipeline = registry.load(connection, registry.by_id(connection, report.model_id))
    later = order_days()[lambda days: (days["order_date"] > CUTOFF) & (days["order_date"] <= ON)]
    stayed = frame["account_id"].isin(later["account_id"])
    scores = probabilities(pipeline, frame)
    for population, rows in (("all", stayed == stayed), ("active_90", frame["days_since_last_order"] < 90)):
        churned = (~stayed)[rows].to_numpy(float)
        figure = report.figure(population, "model", "auc")
        assert figure.value == pytest.approx(auc(scores[rows], churned, once(len(churned)))[0])
        assert figure.rows == len(churned)
        assert figure.low is not None
        assert figure.low < figure.value < figure.high
        assert report.figure(population, "observed", "churn_rate").value == pytest.approx(churned.mean())


def test_every_baseline_stands_beside_the_model_with_a_paired_difference(report: Report) -> None:
    for population in ("all", "active_90"):
        for metric in ("auc", "pr_auc", "lift", "brier"):
            own = report.figure(population, "model", metric).value
            for baseline in BASELINES:
                other = report.figure(population, baseline, metric)
                if (population, metric) == ("all", "auc"):
                    assert other.value > 0.75  # it ranks the right way round
                difference = report.figure(population, f"model-{baseline}", metric)
                assert difference.value == pytest.approx(own - other.value)
                assert difference.low is not None
                assert difference.low <= difference.high


def test_rules_rank_by_severity_and_then_by_the_number_of_warnings(world: Warehouse, report: Report) -> None:
    """Where warnings of the cutoff are kept, the rules stand beside the model; else a note says that they are not."""
    none = f"The warning rules do not stand beside the model: warnings of {CUTOFF} are kept of no account."
    assert report.notes[0] == none
    with pytest.raises(KeyError):
        report.figure("all", "rules", "auc")
    with connect("scorer") as connection:
        frame = labelled_frame(connection, CHURN, [CUTOFF], Policy(90, 90))
    churned = frame["happened"].to_numpy(float)
    # A third is unknown, the others are told the truth but for every ninth; two mild warnings are less than a severe one.
    told = np.where(np.arange(len(frame)) % 9 == 0, 1 - churned, churned)
    severity = [None if at % 3 == 0 else "high" if one else "medium" for at, one in enumerate(told)]
    number = [None if at % 3 == 0 else 1 if one else 2 for at, one in enumerate(told)]
    scores = np.array([{None: 0, "medium": 2, "high": 3}[one] for one in severity], dtype=float)
    with connect("transformer") as connection:
        connection.execute(
            "create table marts.account_warnings (as_of_date date, account_id text, severity text, rules_warning int)"
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into marts.account_warnings values (%s, %s, %s, %s)",
                [(CUTOFF, *row) for row in zip(frame["account_id"], severity, number, strict=True)],
            )
    try:
        found = evaluate("churn", ON)
        figure = found.figure("all", "rules", "auc")
        assert figure.value == pytest.approx(auc(scores, churned, once(len(churned)))[0])
        difference = found.figure("all", "model-rules", "auc")
        assert difference.value == pytest.approx(found.figure("all", "model", "auc").value - figure.value)
        assert difference.low < difference.value < difference.high
        with pytest.raises(KeyError):
            found.figure("all", "rules", "brier")
        assert f"Of {severity.count(None)} accounts no warning rule could tell anything" in found.notes[0]
        assert "warning rules" in "\n".join(lines(found))
        world.rows("delete from marts.account_warnings where account_id = %s", frame["account_id"].iloc[0])
        assert f"are kept not of 1 of {len(frame)} accounts" in evaluate("churn", ON).notes[0]
        world.rows("update marts.account_warnings set severity = null")
        world.rows("insert into marts.account_warnings values (%s, %s)", CUTOFF, frame["account_id"].iloc[0])
        assert "none could tell anything" in evaluate("churn", ON).notes[0]
    finally:
        world.rows("drop table marts.account_warnings")
        assert evaluate("churn", ON) == report


def test_what_acting_is_worth_stands_beside_recency_and_chance_with_the_assumption(
    world: Warehouse, report: Report
) -> None:
    with connect("scorer") as connection:
        frame = labelled_frame(connection, CHURN, [CUTOFF], Policy(90, 90))
    everybody = (frame["happened"] * frame["net_revenue_365d"].clip(lower=0) * 90 / 365 * 0.1 - 2).sum()
    assert report.figure("all", "random", "acting_10").value == pytest.approx(everybody / 10)
    by_value = report.figure("all", "model_by_value", "acting_20")
    assert by_value.value > report.figure("all", "random", "acting_20").value
    assert by_value.low < by_value.value < by_value.high
    assert report.figure("active_90", "model-recency", "acting_05").low is not None
    assert "a contact costs 2.00 CNY and keeps 10% of those that would churn" in report.notes[-1]
    assert any("worth at 20%" in line for line in lines(report))
    world.rows("delete from marts.thresholds where name = 'contact_cost'")
    try:
        found = evaluate("churn", ON)
        assert not any(figure.metric.startswith("acting") for figure in found.figures)
        assert "is not told: marts.thresholds lacks" in found.notes[-1]
    finally:
        world.rows("insert into marts.thresholds values ('contact_cost', 2, '2000-01-01')")
        assert evaluate("churn", ON) == report


def test_reliability_has_ten_parts_of_equally_many_accounts_from_the_lowest_up(report: Report) -> None:
    predicted = [report.figure("all", "model", f"reliability_{part:02d}_predicted") for part in range(1, 11)]
    observed = [report.figure("all", "model", f"reliability_{part:02d}_observed") for part in range(1, 11)]
    assert [part.value for part in predicted] == sorted(part.value for part in predicted)
    assert sum(part.rows for part in observed) == report.figure("all", "model", "auc").rows
    assert max(part.rows for part in observed) - min(part.rows for part in observed) <= 1
    rate = sum(part.value * part.rows for part in observed) / sum(part.rows for part in observed)
    assert rate == pytest.approx(report.figure("all", "observed", "churn_rate").value)


def test_a_difference_that_is_nothing_has_an_interval_around_nothing(
    frame: pd.DataFrame, fitted: Fitted
) -> None:
    newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
    same = np.random.default_rng(1).random(len(newest))
    scores = dict.fromkeys(("model", *BASELINES, "recency_probability"), same)
    figures = {
        (f.population, f.estimator, f.metric): f for f in judge(CHURN, newest, scores, 90, params_of("churn"))
    }
    difference = figures["all", "model-logistic", "auc"]
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert figures["all", "model", "auc"].high - figures["all", "model", "auc"].low > 0.05


def test_figures_are_kept_and_a_second_judgement_replaces_them(world: Warehouse, report: Report) -> None:
    def kept() -> list[tuple]:
        return world.rows(
            "select population, estimator, metric, value, low, high, rows from ml.metrics "
            "where kind = 'evaluation' and evaluated_as_of = %s order by 1, 2, 3",
            ON,
        )

    before = kept()
    assert len(before) == len(report.figures)
    assert evaluate("churn", ON) == report
    assert kept() == before


@pytest.mark.parametrize(
    ("on", "model_id", "told"),
    [
        (
            date(2025, 9, 1),
            None,
            "No model was trained as of 2025-06-03 or before, 90 days before 2025-09-01",
        ),
        (ON, "churn_x", "There is no model 'churn_x'"),
        (
            ON + timedelta(days=1),
            None,
            "Orders are loaded through 2026-06-18, so what came true by 2026-06-19",
        ),
        (ON - timedelta(days=1), None, "stratum backfill --from 2026-03-19 --to 2026-03-19"),
    ],
)
def test_what_cannot_be_judged_is_told_in_one_line(
    world: Warehouse, on: date, model_id: str | None, told: str
) -> None:
    with pytest.raises(StratumError, match=told) as caught:
        evaluate("churn", on, model_id)
    assert "\n" not in str(caught.value)


def test_orders_that_are_loaded_and_not_built_do_not_look_like_churn(world: Warehouse) -> None:
    with landing("orders", "order_lines", ON + timedelta(days=1)):
        pass
    try:
        with pytest.raises(StratumError, match="Orders are built through 2026-06-18"):
            evaluate("churn", ON + timedelta(days=1))
    finally:
        world.rows("delete from audit.loads where as_of_date > %s", ON)


def test_a_model_is_not_judged_on_what_it_has_seen(world: Warehouse, report: Report) -> None:
    with pytest.raises(
        StratumError, match="trained as of 2026-03-09 and would be judged on accounts of 2026-02-28"
    ):
        evaluate("churn", date(2026, 5, 29), report.model_id)


def test_a_model_of_another_horizon_is_judged_by_its_own_when_named(world: Warehouse, report: Report) -> None:
    world.rows("insert into marts.thresholds values ('churn_horizon_days', 60, '2026-06-01')")
    add_date(order_days(), ON - timedelta(days=60))
    try:
        with pytest.raises(StratumError, match="foretells 90 days, and the policy on 2026-06-18 says 60"):
            evaluate("churn", ON)
        assert evaluate("churn", ON, report.model_id).cutoff == CUTOFF
    finally:
        world.rows("delete from marts.thresholds where value = 60")


def test_restated_training_frames_are_told(world: Warehouse, report: Report) -> None:
    assert not any("restated" in note for note in report.notes)
    world.rows(
        "update marts.account_features set orders_90d = orders_90d + 1 where as_of_date = '2025-06-30'"
    )
    try:
        assert any("restated since the model was trained" in note for note in evaluate("churn", ON).notes)
    finally:
        world.rows(
            "update marts.account_features set orders_90d = orders_90d - 1 where as_of_date = '2025-06-30'"
        )


def test_the_report_reads_as_a_table(report: Report) -> None:
    text = "\n".join(lines(report))
    assert f"Model {report.model_id} (no order), trained as of 2026-03-09, judged on 2026-06-18" in text
    assert "All: " in text
    assert "Bought in the last 90 days: " in text
    for name in ("recency alone", "logistic regression", "BG/NBD, expected orders", "AUC", "PR-AUC", "Brier"):
        assert name in text
    value = report.figure("all", "model-recency", "auc")
    assert f"model less this: {value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f})" in text
    assert max(map(len, lines(report))) < 130
    assert "Worth of contacting those at the top, in CNY:" in text
    _, _, short = text.partition("\nIn short\n")
    found = {(one.population, one.estimator, one.metric): one for one in report.figures}
    for population, name in (("all", "All"), ("active_90", "Bought in the last 90 days")):
        assert f"{name}: {in_short(found, population)}" in short.replace("\n  ", " ")
    assert json.loads(json.dumps(as_plain(report), default=str))["figures"][0]["population"] == "all"


def test_models_are_listed(world: Warehouse, report: Report) -> None:
    one, other = sorted(list_models(), key=lambda found: found["model"])
    assert (one["model_id"], other["model"]) == (report.model_id, "repurchase")
    assert "artefact" not in one
    (line,) = model_lines([one])
    assert line.startswith(f"{report.model_id}  trained as of 2026-03-09 on ")
    assert model_lines([]) == [
        "No model has been trained yet: a run trains one once there is enough history."
    ]


def test_the_commands_print_tables_and_json(
    world: Warehouse, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    monkeypatch.setattr(commands, "warehouse", lambda tell: contextlib.nullcontext())

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(commands.models_app, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert f"{report.model_id}  trained" in said("list")
    assert report.model_id in {one["model_id"] for one in json.loads(said("list", "--json"))}
    assert "BG/NBD" in said("report", "--evaluate", str(ON))
    held_out = said("report", report.model_id)
    with connect("scorer") as connection:
        facts = facts_of(connection, report.model_id)
    assert held_out.splitlines() == held_out_lines(facts)
    assert facts.dates()
    for day, found in facts.dates().items():
        less = found[ON_DATE, "model-bg_nbd", "auc"]
        of_day = held_out.partition(f"\n{day}: ")[2].partition("\n\n")[0]
        assert f"model less this: {less.value:+.3f} ({less.low:+.3f} to {less.high:+.3f})" in of_day
    assert f"All: {in_short(facts.held_out(), POOLED)}" in held_out.replace("\n  ", " ")
    plain = json.loads(said("report", report.model_id, "--json"))
    assert {one["as_of_date"] for one in plain["figures"] if one["population"] == ON_DATE} == set(
        map(str, facts.dates())
    )
    assert "Say what to report: MODEL_ID" in str(
        CliRunner().invoke(commands.models_app, ["report"]).exception
    )
    told = json.loads(said("report", report.model_id, "--evaluate", str(ON), "--json"))
    assert (told["cutoff"], told["model_id"]) == (str(CUTOFF), report.model_id)


def test_an_expected_value_stands_beside_what_came_and_beside_gamma_gamma(world: Warehouse) -> None:
    found = evaluate("repurchase", ON)
    true = found.figure("all", "observed", "value").value
    assert true > 0
    for estimator in ("model", "gamma_gamma"):
        assert found.figure("all", estimator, "value").value == pytest.approx(true, rel=0.5)
    own, other = (
        found.figure("all", estimator, "value_error").value for estimator in ("model", "gamma_gamma")
    )
    assert own < 1.1 * other
    assert found.figure("all", "model", "auc").value > 0.7
    assert found.figure("all", "recency", "auc").value > 0.5  # the right way round
    text = "\n".join(lines(found))
    assert f"Net revenue per account in the 30 days: {true:,.2f} (" in text
    assert (
        f"Expected value: {found.figure('all', 'model', 'value').value:,.2f} CNY per account was told" in text
    )


def test_expected_values_of_held_out_dates_are_kept_by_a_training_and_told_on_the_card(
    world: Warehouse,
) -> None:
    """Each line is fitted on what was known on its date; all is reckoned here again from the marts."""
    fitted, params = fitted_on(TRAINED, "repurchase"), params_of("repurchase")
    rows = held_out_rows(fitted.model, fitted.predicted, params)
    with connect("scorer") as connection:
        policy = policy_on(connection, REPURCHASE, TRAINED)
        frame = training_frame(connection, REPURCHASE, TRAINED, policy)
        dates = sorted(frame["as_of_date"].dt.date.unique())
        revenue = later_revenue(connection, REPURCHASE, dates, policy)["net_revenue"].to_numpy(float)
        facts = facts_of(connection, fitted.model.model_id)
    came, model, gamma = [], [], []
    days = sorted(rows["as_of_date"].unique())
    for day in days:
        known = (frame["happened"] == 1) & (frame["as_of_date"] + pd.Timedelta(days=30) <= day)
        line = value.fit(frame[known], revenue[known], 30)
        of_day, part = frame["as_of_date"] == day, rows[rows["as_of_date"] == day]
        assert part["account_id"].tolist() == frame.loc[of_day, "account_id"].tolist()
        model.append(value.expected(line, frame[of_day], part["probability"].to_numpy(), 30))
        came.append(revenue[of_day])
        now = features(order_days(), pd.Timestamp(day).date())
        penalizers = params.evaluation.bg_nbd_penalizers
        gamma.append(expected_spend(now, now, bg_nbd(now, now, 30, penalizers).orders, penalizers))
    section = render(facts, drawings(facts)).partition("<h2>Expected value</h2>")[2].partition("<h2>")[0]
    of_all = (facts.held_out(), POOLED, np.concatenate(came), np.concatenate(model), np.concatenate(gamma))
    of_days = [
        (facts.dates()[pd.Timestamp(day).date()], ON_DATE, *of)
        for day, *of in zip(days, came, model, gamma, strict=True)
    ]
    for found, population, true, own, other in (of_all, *of_days):
        assert found[population, "observed", "value"].value == pytest.approx(true.mean())
        for way, told in (("model", own), ("gamma_gamma", other)):
            figure = found[population, way, "value"]
            assert figure.value == pytest.approx(told.mean(), rel=1e-3)
            assert figure.low < figure.value < figure.high
            assert found[population, way, "value_missed"].value == pytest.approx(
                (told - true).mean(), abs=1e-2
            )
            error = found[population, way, "value_error"].value
            assert error == pytest.approx(np.sqrt(((told - true) ** 2).mean()), rel=1e-3)
            assert f"{figure.value:,.2f} ({figure.low:,.2f} to {figure.high:,.2f})" in section
        less = found[population, "model-gamma_gamma", "value_error"]
        assert less.low < less.value < less.high
        assert f"{less.value:+,.2f}, {less.low:+,.2f} to {less.high:+,.2f}" in section
    assert "in CNY" in section


# Baselines


def test_bg_nbd_tries_a_penalizer_where_it_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    import lifetimes
    from lifetimes.utils import ConvergenceError

    tried = []

    class Stubborn(lifetimes.BetaGeoFitter):
        def fit(self, *arguments, **named):
            tried.append(self.penalizer_coef)
            if self.penalizer_coef < 0.01:
                raise ConvergenceError("no")
            return super().fit(*arguments, **named)

    monkeypatch.setattr(lifetimes, "BetaGeoFitter", Stubborn)
    now = features(order_days(), CUTOFF)
    assert (bg_nbd(now, now, 90, [0.0, 0.001, 0.01]).orders >= 0).all()
    assert tried == [0.0, 0.001, 0.01]
    with pytest.raises(StratumError, match="does not converge with any of the penalizers"):
        bg_nbd(now, now, 90, [0.0, 0.001])


def test_bg_nbd_expects_less_of_an_account_that_has_fallen_silent() -> None:
    now = features(order_days(), CUTOFF)
    silent = now.head(1).assign(order_days_total=6.0, tenure_days=400, days_since_last_order=200.0)
    lively = silent.assign(days_since_last_order=5.0)
    of_lively, of_silent = (bg_nbd(now, one, 90, [0.0, 0.01]) for one in (lively, silent))
    assert of_lively.orders[0] > 2 * of_silent.orders[0]
    assert of_lively.probability[0] > 1.5 * of_silent.probability[0]


def test_the_probability_of_bg_nbd_is_that_of_an_order_on_some_day() -> None:
    """Of few days it is what is expected of them, of ever more it comes to the chance that the account is still there."""
    now = features(order_days(), CUTOFF)
    day, month, age = (bg_nbd(now, now, days, [0.0, 0.01]) for days in (1, 30, 10**7))
    assert day.probability == pytest.approx(day.orders, rel=0.05)
    assert (month.probability < month.orders).all()
    assert (day.probability < month.probability).all()
    assert (month.probability < age.probability).all()
    assert (age.probability <= 1).all()


def test_gamma_gamma_tells_the_same_in_any_currency() -> None:
    now = features(order_days(), CUTOFF)
    dear = now.assign(average_order_value=10_000 * now["average_order_value"])
    orders = np.ones(len(now))
    told, told_dear = (expected_spend(one, one, orders, [0.0]) for one in (now, dear))
    assert (told > 0).all()
    assert told_dear == pytest.approx(10_000 * told, rel=1e-6)


def test_recency_as_a_probability_keeps_the_order_of_recency(frame: pd.DataFrame) -> None:
    fitted = logistic(frame, ["days_since_last_order"], 0.1, 1)
    days = pd.DataFrame({"days_since_last_order": [0.0, 10.0, 100.0, 400.0]})
    assert (np.diff(fitted.predict_proba(days)[:, 1]) > 0).all()


def test_unknown_values_enter_the_logistic_regression(frame: pd.DataFrame) -> None:
    assert frame["gap_ratio"].isna().any()
    fitted = logistic(frame, ["gap_ratio", "net_revenue_90d"], 0.1, 1)
    assert np.isfinite(fitted.predict_proba(frame[["gap_ratio", "net_revenue_90d"]])).all()
    assert baselines.signed_log(pd.DataFrame({"a": [-9.0, 0.0, 9.0]})).ravel() == pytest.approx(
        [-np.log(10), 0, np.log(10)]
    )
