"""A model of trials is judged by the first orders and contracts that came: on several dates, beside recency of use."""

import contextlib
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
from ml import registry
from ml.estimators import probabilities
from ml.evaluate import Report, evaluate
from ml.frames import LABEL, labelled_frame
from ml.metrics import auc, once
from ml.report import lines
from ml.targets import TRIAL, Policy
from ml.train import train
from tests.conftest import Warehouse
from tests.ml.test_trial_model import RULE, TRIALS, plant
from tests.ml.world import FIRST, make_marts, month_ends, order_days

TRAINED, ON = date(2026, 2, 2), date(2026, 6, 30)
CUTOFF = ON - timedelta(days=90)  # 2026-04-01
CUTOFFS = [date(2026, 2, 28), date(2026, 3, 31), CUTOFF]


@pytest.fixture(scope="module")
def world(module_warehouse: Warehouse) -> Warehouse:
    """Orders loaded and built through ON, trials of every month-end and the cutoff, and a model trained before them."""
    with landing("orders", "order_lines", ON) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    dates = [*month_ends(FIRST, date(2026, 3, 31)), CUTOFF, ON]
    make_marts(order_days(20), dates)
    plant(dates)
    train("trial", TRAINED)
    return module_warehouse


@pytest.fixture(scope="module")
def report(world: Warehouse) -> Report:
    return evaluate("trial", ON)


def test_trials_are_judged_on_the_cutoff_and_the_month_ends_since_the_training(report: Report) -> None:
    assert (report.trained_as_of, list(report.cutoffs)) == (TRAINED, CUTOFFS)
    assert report.figure("all", "observed", "trial_rate").rows == len(CUTOFFS) * TRIALS
    assert {one.population for one in report.figures} == {"all"}


def test_figures_are_those_of_the_frozen_scores_beside_recency_of_use(
    world: Warehouse, report: Report
) -> None:
    with connect("scorer") as connection:
        frame = labelled_frame(connection, TRIAL, CUTOFFS, Policy(90, 90))
        pipeline = registry.load(connection, registry.by_id(connection, report.model_id))
    happened, every = frame[LABEL].to_numpy(float), once(len(frame))
    told = {"model": probabilities(pipeline, frame), "recency": -frame["days_since_last_use"].to_numpy(float)}
    for estimator, scores in told.items():
        assert report.figure("all", estimator, "auc").value == pytest.approx(auc(scores, happened, every)[0])
    assert report.figure("all", "model", "auc").value > 0.8
    for metric in ("auc", "pr_auc", "brier", "log_loss", "ece"):
        own = report.figure("all", "model", metric).value
        for other in ("recency", "logistic"):
            difference = report.figure("all", f"model-{other}", metric)
            assert difference.value == pytest.approx(own - report.figure("all", other, metric).value)
            assert difference.low <= difference.high


def test_the_trial_rule_ranks_by_conditions_met_and_then_by_how_near_the_others_are(
    world: Warehouse, report: Report
) -> None:
    with connect("scorer") as connection:
        frame = labelled_frame(connection, TRIAL, CUTOFFS, Policy(90, 90))
    logins, uses = (frame[name].to_numpy(float) / least for name, least in RULE.items())
    met = (logins >= 1).astype(int) + (uses >= 1)
    near = np.minimum(logins, 1) + np.minimum(uses, 1)
    assert set(met) == {0, 1, 2}
    score = (
        pd.Series(list(zip(met, near, strict=True))).rank().to_numpy()
    )  # pairs: the second where the first are equal
    happened = frame[LABEL].to_numpy(float)
    rule = report.figure("all", "trial_rule", "auc")
    assert rule.value == pytest.approx(auc(score, happened, once(len(frame)))[0])
    assert 0.5 < rule.value < report.figure("all", "model", "auc").value
    difference = report.figure("all", "model-trial_rule", "auc")
    assert difference.value == pytest.approx(report.figure("all", "model", "auc").value - rule.value)
    assert difference.low < difference.value < difference.high
    with pytest.raises(KeyError):
        report.figure("all", "trial_rule", "brier")
    assert "the trial rule" in "\n".join(lines(report))


def test_the_rule_of_a_date_is_the_one_in_force_and_without_any_the_reason_is_told(
    world: Warehouse, report: Report
) -> None:
    world.rows(
        "insert into marts.trial_rules select rule, measure, 1000, '2026-03-31' from marts.trial_rules"
    )
    try:
        assert evaluate("trial", ON).figure("all", "trial_rule", "auc") != report.figure(
            "all", "trial_rule", "auc"
        )
        world.rows("update marts.trial_rules set effective_from = '2026-03-31'")
        found = evaluate("trial", ON)
        assert not {one.estimator for one in found.figures} & {"trial_rule", "model-trial_rule"}
        none = "The trial rule does not stand beside the model: the policy trial_rules has none in force on 2026-02-28."
        assert none in found.notes
    finally:
        world.rows("delete from marts.trial_rules where from_value = 1000")
        world.rows("update marts.trial_rules set effective_from = %s", FIRST)
        assert evaluate("trial", ON) == report


def test_warnings_and_bg_nbd_do_not_speak_of_trials(report: Report) -> None:
    assert not {one.estimator for one in report.figures} & {"rules", "bg_nbd"}
    assert not any(one.metric.startswith("acting") for one in report.figures)
    (note,) = report.notes
    assert note.startswith("BG/NBD does not stand beside the model: it foretells orders from")


def test_what_tells_a_conversion_must_be_loaded_where_it_ever_was(world: Warehouse, report: Report) -> None:
    """A company without contracts is judged by its orders; one whose contracts lag behind is not judged yet."""
    with landing("records", "contracts", ON - timedelta(days=1)):
        pass
    try:
        with pytest.raises(
            StratumError, match=f"Contracts are loaded through {ON - timedelta(days=1)}, so what"
        ):
            evaluate("trial", ON)
        with landing("records", "contracts", ON):
            pass
        assert evaluate("trial", ON) == report
    finally:
        world.rows("delete from audit.loads where source = 'records'")
    world.rows("update audit.loads set as_of_date = as_of_date - 1")
    try:
        with pytest.raises(StratumError, match="Orders are loaded through 2026-06-29"):
            evaluate("trial", ON)
    finally:
        world.rows("update audit.loads set as_of_date = as_of_date + 1")


def test_the_command_prints_it(world: Warehouse, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "warehouse", lambda tell: contextlib.nullcontext())

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(
            commands.models_app, ["report", "--of", "trial", "--evaluate", str(ON), *arguments]
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    text = said()
    assert text.splitlines() == lines(report)
    assert f"All: {len(CUTOFFS) * TRIALS} rows of accounts on 3 dates" in text
    assert "logistic regression" in text
    assert json.loads(said("--json"))["model_id"] == report.model_id
