"""A model of lapses is judged by contracts: on several dates, beside recency of activity, and what is at stake is a year."""

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
from ml.copies import write_rows
from ml.estimators import probabilities
from ml.evaluate import Report, evaluate
from ml.features import LAPSE_NAMES
from ml.frames import LABEL, labelled_frame
from ml.metrics import auc, interval, once
from ml.params import params_of
from ml.report import lines
from ml.targets import LAPSE, Policy
from ml.train import train
from tests.conftest import Warehouse
from tests.ml.world import FIRST, add_date, make_marts, month_ends, order_days

TRAINED, ON = date(2025, 12, 29), date(2026, 6, 30)
CUTOFF = ON - timedelta(days=120)  # 2026-03-02
CUTOFFS = [date(2025, 12, 31), date(2026, 1, 31), date(2026, 2, 28), CUTOFF]
DUE = 70
POLICY = Policy(120, 90)


def plant(dates: list[date]) -> None:
    """Make contracts that are due on each date; the fewer logins, the likelier their lapse. Half have ordered, too."""
    random, features, outcomes = np.random.default_rng(4), [], []
    for day in dates:
        for number in range(DUE):
            logins = int(random.integers(0, 20))
            values = dict.fromkeys(LAPSE_NAMES, 1) | {"has_renewal_sent": False, "has_decision_maker": False}
            values |= {
                "logins_90d": logins,
                "days_since_last_activity": max(0, 40 - 2 * logins + int(random.integers(-15, 15))),
                "yearly_contract_value": None if number % 5 == 0 else int(random.integers(1_000, 9_000)),
                "net_revenue_365d": (-50, None, 700)[number % 3],
            }
            account = f"{'A' if number % 2 else 'L'}{number:04d}"
            features.append((day, account, True, *values.values()))
            has_lapsed = bool(random.random() < 1 / (1 + np.exp(0.4 * logins - 3)))
            has_passed = day + timedelta(days=POLICY.horizon_days) <= ON
            outcomes.append((day, account, POLICY.horizon_days, has_lapsed if has_passed else None))
    with connect("transformer") as connection:
        columns = ("as_of_date", "account_id", "is_due", *LAPSE_NAMES)
        write_rows(connection, "marts.lapse_features", columns, features)
        columns = ("as_of_date", "account_id", "horizon_days", "has_lapsed")
        write_rows(connection, "marts.lapse_outcomes", columns, outcomes)


@pytest.fixture(scope="module")
def world(module_warehouse: Warehouse) -> Warehouse:
    """Contracts loaded and built through ON, and a model trained before the cutoff."""
    with landing("records", "contracts", ON) as load:
        bind_company(load.connection, "Test", "UTC", "CNY")
    dates = [*month_ends(FIRST, date(2026, 2, 28)), CUTOFF, ON]
    make_marts(order_days(20), dates)
    plant(dates)
    train("lapse", TRAINED)
    return module_warehouse


@pytest.fixture(scope="module")
def report(world: Warehouse) -> Report:
    return evaluate("lapse", ON)


@pytest.fixture(scope="module")
def judged(world: Warehouse, report: Report) -> pd.DataFrame:
    """The rows it is judged on, with the probability of the frozen model."""
    with connect("scorer") as connection:
        frame = labelled_frame(connection, LAPSE, CUTOFFS, POLICY)
        pipeline = registry.load(connection, registry.by_id(connection, report.model_id))
    return frame.assign(probability=probabilities(pipeline, frame))


def test_it_is_judged_on_the_cutoff_and_the_month_ends_since_its_training(report: Report) -> None:
    assert report.trained_as_of == TRAINED
    assert list(report.cutoffs) == CUTOFFS
    assert report.figure("all", "observed", "lapse_rate").rows == len(CUTOFFS) * DUE


def test_figures_are_those_of_the_frozen_scores_beside_recency_of_activity(
    report: Report, judged: pd.DataFrame
) -> None:
    happened, every = judged[LABEL].to_numpy(float), once(len(judged))
    for estimator, column in (("model", "probability"), ("recency", "days_since_last_activity")):
        expected = auc(judged[column].to_numpy(float), happened, every)[0]
        found = report.figure("all", estimator, "auc")
        assert found.value == pytest.approx(expected)
        assert found.low is not None
        assert found.low < found.value < found.high
    for metric in ("auc", "pr_auc", "lift", "brier", "log_loss", "ece"):
        own = report.figure("all", "model", metric).value
        for other in ("recency", "logistic"):
            difference = report.figure("all", f"model-{other}", metric)
            assert difference.value == pytest.approx(own - report.figure("all", other, metric).value)


def test_intervals_are_of_accounts_drawn_again_with_all_their_dates(
    report: Report, judged: pd.DataFrame
) -> None:
    params, rates = params_of("lapse"), []
    of_account = [rows[LABEL].to_numpy(float) for _, rows in judged.groupby("account_id", sort=False)]
    random = np.random.default_rng(params.seed)
    for _ in range(params.evaluation.bootstrap):
        rates.append(np.concatenate([of_account[at] for at in random.integers(0, DUE, DUE)]).mean())
    found = report.figure("all", "observed", "lapse_rate")
    assert (found.low, found.high) == pytest.approx(interval(np.array(rates)))


def test_bg_nbd_is_absent_and_the_reason_is_told(report: Report) -> None:
    assert not any("bg_nbd" in one.estimator for one in report.figures)
    assert any(
        note.startswith("BG/NBD does not stand beside the model: it foretells orders")
        for note in report.notes
    )


def test_contacting_saves_a_year_of_the_contract_or_of_spend(report: Report, judged: pd.DataFrame) -> None:
    spend = judged["net_revenue_365d"].fillna(0).clip(lower=0)
    stake = judged["yearly_contract_value"].fillna(spend)
    everybody = (judged[LABEL] * stake * 0.1 - 2).sum()
    assert report.figure("all", "random", "acting_20").value == pytest.approx(everybody / 5)
    by_value = report.figure("all", "model_by_value", "acting_20")
    assert by_value.value > report.figure("all", "random", "acting_20").value
    assert by_value.low < by_value.value < by_value.high


def test_an_account_that_no_warning_speaks_of_stands_with_those_without_one(
    world: Warehouse, report: Report, judged: pd.DataFrame
) -> None:
    """Who has never ordered (L) has no row; of a date without any row the rules do not stand beside the model."""
    absent = f"The warning rules do not stand beside the model: warnings of {', '.join(map(str, CUTOFFS))} are kept of no"
    assert report.notes[0].startswith(absent)
    ordered = judged["account_id"].str.startswith("A")
    with connect("transformer") as connection:
        connection.execute(
            "create table marts.account_warnings (as_of_date date, account_id text, severity text, rules_warning int)"
        )
        rows = judged[ordered][["as_of_date", "account_id", LABEL]].itertuples(index=False, name=None)
        told = [(day.date(), account, "high" if one else "low", 1) for day, account, one in rows]
        write_rows(
            connection,
            "marts.account_warnings",
            ("as_of_date", "account_id", "severity", "rules_warning"),
            told,
        )
    try:
        found = evaluate("lapse", ON)
        scores = np.where(ordered, np.where(judged[LABEL] == 1, 3.0, 1.0), 0.0)
        happened = judged[LABEL].to_numpy(float)
        assert found.figure("all", "rules", "auc").value == pytest.approx(
            auc(scores, happened, once(len(happened)))[0]
        )
        assert found.notes[0].startswith(f"Of {(~ordered).sum()} rows no warning rule could tell anything")
        world.rows("delete from marts.account_warnings where as_of_date = %s", CUTOFFS[1])
        assert f"warnings of {CUTOFFS[1]} are kept of no account" in evaluate("lapse", ON).notes[0]
    finally:
        world.rows("drop table marts.account_warnings")


def test_contracts_and_not_orders_must_be_loaded_through_the_day(world: Warehouse) -> None:
    """No order was ever loaded here, and that is no reason to refuse."""
    with pytest.raises(
        StratumError, match=f"Contracts are loaded through {ON}, so what came true by 2026-07-01"
    ):
        evaluate("lapse", ON + timedelta(days=1))
    with landing("records", "contracts", ON + timedelta(days=1)):
        pass
    try:
        with pytest.raises(StratumError, match=f"Contracts are built through {ON}"):
            evaluate("lapse", ON + timedelta(days=1))
    finally:
        world.rows("delete from audit.loads where as_of_date > %s", ON)


def test_a_cutoff_that_was_not_built_or_has_nobody_due_is_told(world: Warehouse) -> None:
    with pytest.raises(StratumError, match="stratum backfill --from 2026-03-01 --to 2026-03-01"):
        evaluate("lapse", ON - timedelta(days=1))
    early = date(2025, 12, 30)
    add_date(order_days(20), early)
    try:
        with pytest.raises(StratumError, match=f"no account was of its population on {early}"):
            evaluate("lapse", early + timedelta(days=120))
    finally:
        for table in ("built_dates", "account_features", "outcomes"):
            world.rows(f"delete from marts.{table} where as_of_date = %s", early)


def test_the_command_prints_it_and_tells_every_date(
    world: Warehouse, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "warehouse", lambda tell: contextlib.nullcontext())

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(
            commands.models_app, ["report", "--of", "lapse", "--evaluate", str(ON), *arguments]
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    text = said()
    assert text.splitlines() == lines(report)
    assert f"accounts as they stood on {', '.join(map(str, CUTOFFS))}" in text
    assert f"All: {len(CUTOFFS) * DUE} rows of accounts on 4 dates" in text
    assert "recency alone" in text
    assert "BG/NBD, expected orders" not in text
    told = json.loads(said("--json"))
    assert (told["cutoffs"], told["model_id"]) == ([str(day) for day in CUTOFFS], report.model_id)
