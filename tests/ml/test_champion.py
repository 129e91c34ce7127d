"""A challenger replaces the champion on figures alone, in any order of dates; a person's choice stands before the rule's."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
import pytest
from typer.testing import CliRunner

from include.commands import models as commands
from include.errors import StratumError
from include.warehouse.connect import connect
from ml import champion, registry
from ml.card import facts_of
from ml.champion import champion_on, comparable, compared, promote, promotions, rollback, settle
from ml.params import params_of
from ml.targets import CHURN, Policy
from ml.train import Fitted, fit_model
from tests.conftest import Warehouse
from tests.ml.conftest import AS_OF
from tests.ml.world import FIRST, labelled, make_marts, month_ends, order_days

BEGAN = date(2026, 2, 2)  # the period's first day; the next one begins on 2026-08-03
TOO_EARLY = date(
    2026, 5, 26
)  # the outcomes of 2026-02-28, the first month-end since, are known on 2026-05-29
COMPARED = date(2026, 6, 2)  # a Tuesday
MONDAY = date(2026, 6, 1)
LATER = date(2026, 6, 30)
STAMP = pd.Timestamp("2026-02-28")


def of(probabilities: Sequence[float], happened: Sequence[int]) -> dict[pd.Timestamp, pd.DataFrame]:
    accounts = [f"A{number}" for number in range(len(happened))]
    return {STAMP: pd.DataFrame({"account_id": accounts, "happened": happened, "probability": probabilities})}


@pytest.mark.parametrize(
    ("challenger", "is_better"),
    [(0.81, True), (0.7998, False), (0.8002, False), (0.6, False)],
    ids=["better", "a little worse", "better by less than the margin", "worse"],
)
def test_a_challenger_is_promoted_only_where_it_is_better_by_the_margin(
    challenger: float, is_better: bool
) -> None:
    happened = [1, 0] * 50
    told = [challenger if one else 1 - challenger for one in happened]
    old = np.array([0.8 if one else 0.2 for one in happened])
    found = compared({STAMP: old}, of(told, happened), params_of("churn"))
    assert found is not None
    assert found.champion_value == pytest.approx(0.04)
    assert found.challenger_value == pytest.approx((1 - challenger) ** 2)
    assert (found.margin, found.compared_rows, found.compared_from) == (0.001, 100, STAMP.date())
    assert found.is_better is is_better
    assert found.difference_low <= found.challenger_value - found.champion_value + 1e-12


def test_more_of_an_auc_is_better() -> None:
    params = params_of("churn")
    params = params.model_copy(update={"champion": params.champion.model_copy(update={"metric": "auc"})})
    happened = [1, 0] * 50
    old = np.full(100, 0.5)
    found = compared({STAMP: old}, of([0.9 if one else 0.1 for one in happened], happened), params)
    assert found is not None
    assert (found.champion_value, found.challenger_value, found.is_better) == (0.5, 1.0, True)


def test_dates_whose_outcomes_the_champion_knew_are_not_compared(fitted: Fitted) -> None:
    days = [date(2025, 11, 30), date(2026, 2, 28), AS_OF, date(2026, 3, 31)]
    assert comparable(days, fitted.model) == [AS_OF, date(2026, 3, 31)]
    assert compared({}, of([0.5, 0.6], [0, 1]), params_of("churn")) is None


def test_dates_on_which_all_came_true_tell_nothing_of_who_is_better() -> None:
    for happened in (0, 1):
        assert compared({STAMP: np.full(2, 0.5)}, of([0.9, 0.9], [happened] * 2), params_of("churn")) is None


# In the warehouse


@pytest.fixture(scope="module")
def world(module_warehouse: Warehouse) -> Warehouse:
    """The marts of the small company at its month-ends."""
    make_marts(order_days(), month_ends(FIRST, date(2026, 5, 31)))
    return module_warehouse


@pytest.fixture(scope="module")
def bold() -> Fitted:
    """A champion of BEGAN that tells everyone far too much risk, and ranks as the true one does."""
    frame = labelled(order_days(), month_ends(FIRST, date(2025, 10, 31)))
    fitted = fit_model(CHURN, BEGAN, frame, Policy(90, 90), params_of("churn"))
    fitted.pipeline.set_params(boosting__intercept=4.0)
    artefact = registry.to_bytes(fitted.pipeline)
    digest = hashlib.sha256(artefact).hexdigest()
    return replace(
        fitted, artefact=artefact, model=replace(fitted.model, model_id="bold", artefact_sha256=digest)
    )


OF_MODELS = ("promotions", "metrics", "importances", "effects", "training_bins", "refusals", "runs", "models")
"""What a model leaves behind, in an order in which it can be deleted."""


def forget(warehouse: Warehouse) -> None:
    for table in OF_MODELS:
        warehouse.rows(f"delete from ml.{table}")


@pytest.fixture
def clean(world: Warehouse) -> Iterator[Warehouse]:
    yield world
    forget(world)


def save(fitted: Fitted) -> None:
    with connect("scorer") as connection:
        registry.save(connection, fitted.model, fitted.artefact, "test", "test")


def rows() -> list[champion.Promotion]:
    with connect("scorer") as connection:
        return promotions(connection, "churn")


def scoring(day: date) -> str | None:
    with connect("scorer") as connection:
        found = champion_on(connection, "churn", day)
    return found.model_id if found else None


def test_a_better_challenger_is_promoted_with_its_figures(clean: Warehouse, bold: Fitted) -> None:
    save(bold)
    assert settle("churn", TOO_EARLY) == []
    assert scoring(TOO_EARLY) == "bold"
    (new,) = settle("churn", COMPARED)
    assert new.startswith("churn_20260601_")
    promoted, kept = rows()
    assert (kept.decision, kept.champion_before, kept.challenger, kept.metric) == ("kept", "bold", None, None)
    assert "no month-end since it was trained has its outcomes" in kept.reason
    assert (promoted.as_of_date, promoted.decision, promoted.champion_before, promoted.champion) == (
        MONDAY,
        "promoted",
        "bold",
        new,
    )
    assert (promoted.compared_from, promoted.compared_to) == (STAMP.date(), STAMP.date())
    assert promoted.challenger_value is not None
    assert promoted.champion_value is not None
    assert promoted.difference_high is not None
    assert promoted.champion_value > promoted.challenger_value + 0.1
    assert promoted.difference_high < 0
    assert f"{promoted.challenger_value:.5f} of the challenger" in promoted.reason
    frame = labelled(order_days(), [STAMP.date()])
    told = bold.pipeline.predict_proba(frame.drop(columns=["as_of_date", "account_id", "happened"]))[:, 1]
    assert promoted.champion_value == pytest.approx(((told - frame["happened"]) ** 2).mean())
    assert (scoring(TOO_EARLY), scoring(COMPARED)) == ("bold", new)
    assert settle("churn", COMPARED) == []
    assert len(rows()) == 2
    with connect("scorer") as connection:
        assert [one.decision for one in facts_of(connection, "bold").promotions] == ["promoted", "kept"]
        assert [one.decision for one in facts_of(connection, new).promotions] == ["promoted"]


def test_a_challenger_that_is_not_better_by_the_margin_is_not_promoted(
    clean: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_of("churn")
    strict = params.model_copy(update={"champion": params.champion.model_copy(update={"margin": 0.5})})
    monkeypatch.setattr(champion, "params_of", lambda model: strict)
    old, new = settle("churn", COMPARED)[::-1]
    (kept,) = rows()
    assert (kept.decision, kept.champion_before, kept.challenger, kept.champion) == ("kept", old, new, old)
    assert kept.reason.endswith("not better by the margin of 0.5")
    assert scoring(LATER) == old


@pytest.mark.extended
def test_any_order_of_dates_gives_the_same_champions_by_the_same_figures(clean: Warehouse) -> None:
    days = [BEGAN, TOO_EARLY, COMPARED, LATER]

    def run(order: list[date]) -> tuple[list[champion.Promotion], dict[date, str | None], list[tuple]]:
        forget(clean)
        for day in order:
            settle("churn", day)
        return (
            rows(),
            {day: scoring(day) for day in days},
            clean.rows("select model_id from ml.models order by 1"),
        )

    forwards = run(days)
    assert len(forwards[0]) == 4
    assert run(days[::-1]) == forwards
    alone = run([COMPARED])
    assert alone[1][COMPARED] == forwards[1][COMPARED]
    assert alone[0] == [row for row in forwards[0] if row.as_of_date == MONDAY]


def test_a_champion_that_cannot_score_any_more_is_trained_anew(clean: Warehouse, bold: Fitted) -> None:
    save(bold)
    settle("churn", TOO_EARLY)
    clean.rows('update ml.models set parameters = parameters || \'{"definition": "something else"}\'')
    (new,) = settle("churn", TOO_EARLY)
    assert new.startswith("churn_20260202_")
    assert scoring(TOO_EARLY) == new


def test_a_persons_choice_stands_from_its_date_until_the_next_period(clean: Warehouse, bold: Fitted) -> None:
    save(bold)
    (new,) = settle("churn", COMPARED)
    row = rollback("churn", "the queue is too long", MONDAY + timedelta(days=3))
    assert (row.decided_by, row.decision, row.champion_before, row.champion) == (
        "person",
        "rolled back",
        new,
        "bold",
    )
    assert [scoring(MONDAY + timedelta(days=days)) for days in (2, 3, 20)] == [new, "bold", "bold"]
    assert settle("churn", LATER) == []  # nothing is decided over it
    assert scoring(date(2026, 8, 2)) == "bold"
    assert scoring(date(2026, 8, 3)) == new  # the next period: the rule again
    promote(new, "looked at again", MONDAY + timedelta(days=5))
    assert [scoring(MONDAY + timedelta(days=days)) for days in (3, 5)] == ["bold", new]
    assert [one.reason for one in rows()][:2] == ["looked at again", "the queue is too long"]


def test_a_model_is_not_promoted_before_it_was_trained_and_a_first_one_not_rolled_back(
    clean: Warehouse, bold: Fitted
) -> None:
    save(bold)
    with pytest.raises(StratumError, match="trained as of 2026-02-02 and knows what 2026-02-01 could not"):
        promote("bold", "why not", BEGAN - timedelta(days=1))
    with pytest.raises(StratumError, match="has scored no date yet"):
        promote("bold", "why not")
    with pytest.raises(StratumError, match="had no champion before the one of 2026-06-02"):
        rollback("churn", "why not", COMPARED)
    assert rows() == []


def test_the_commands_keep_the_reason(
    clean: Warehouse, bold: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "warehouse", lambda tell: contextlib.nullcontext())
    save(bold)
    (new,) = settle("churn", COMPARED)
    for arguments in (
        ("rollback", "churn", "--reason", "too bold", "--as-of", str(COMPARED)),
        ("promote", new, "--reason", "not bold", "--as-of", str(LATER)),
    ):
        done = CliRunner().invoke(commands.models_app, arguments)
        assert done.exit_code == 0, done.output
    assert [(one.champion, one.reason) for one in rows()[:2]] == [(new, "not bold"), ("bold", "too bold")]
    assert "Champion from 2026-06-30 on: " + new in done.output


def test_decisions_are_added_and_never_changed(world: Warehouse) -> None:
    for statement in ("delete from ml.promotions", "update ml.promotions set reason = 'another'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connect("scorer") as connection:
            connection.execute(statement)
