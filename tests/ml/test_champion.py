"""A challenger replaces the champion on figures alone, in any order of dates; a person's choice stands before the rule's."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pytest
from typer.testing import CliRunner

from include.commands import models as commands
from include.errors import StratumError
from include.warehouse.connect import connect
from ml import champion, due, registry
from ml.card import facts_of
from ml.champion import (
    can_score,
    champion_on,
    comparable,
    compared,
    promote,
    promotions,
    rollback,
    settle,
    settle_all,
)
from ml.params import params_of
from ml.targets import CHURN, MODELS, NEW_CATEGORY, RISE, Policy, Target
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


@pytest.mark.parametrize(
    ("policy", "is_able"),
    [(Policy(90, 90), True), (Policy(60, 90), False), (Policy(90, 30), True), (Policy(90, 90, 0.5), True)],
    ids=["as trained", "another horizon", "other recent buyers", "a rise, which churn does not ask for"],
)
def test_a_model_scores_for_the_policy_it_was_trained_under(
    fitted: Fitted, policy: Policy, is_able: bool
) -> None:
    assert can_score(fitted.model, CHURN, policy) is is_able


def test_a_model_of_a_rise_scores_for_that_rise_alone(fitted: Fitted) -> None:
    parameters = {**fitted.model.parameters, "definition": RISE.definition, "min_rise": 0.3}
    of_rise = replace(fitted.model, model="upsell", parameters=parameters, features=contract(RISE))
    assert can_score(of_rise, RISE, Policy(90, 90, 0.3))
    assert not can_score(of_rise, RISE, Policy(90, 90, 0.5))
    assert not can_score(of_rise, NEW_CATEGORY, Policy(90, 90, 0.3))


def contract(target: Target) -> list[dict[str, object]]:
    return [{"name": one.name, "kind": one.kind, "typical_happened": None} for one in target.features]


def test_a_model_of_other_features_or_of_another_definition_cannot_score(fitted: Fitted) -> None:
    first, *others = contract(CHURN)
    for features in (
        others,
        [*others, first],
        [first | {"name": "shoe_size"}, *others],
        [first | {"kind": "flag"}, *others],
        [{name: first[name] for name in ("name", "kind")}, *others],
    ):
        assert not can_score(replace(fitted.model, features=features), CHURN, Policy(90, 90))
    assert can_score(replace(fitted.model, features=[first, *others]), CHURN, Policy(90, 90))
    other = replace(fitted.model, parameters={**fitted.model.parameters, "definition": "no login"})
    assert not can_score(other, CHURN, Policy(90, 90))


def test_a_model_that_fails_stops_no_other_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def settles(model: str, as_of: date) -> list[str]:
        tried.append(model)
        if model in failing:
            raise StratumError(f"{model} lacks a month-end.")
        return [f"{model} of {as_of}"]

    monkeypatch.setattr(champion, "settle", settles)
    tried: list[str] = []
    failing = ("churn", "upsell")
    with pytest.raises(StratumError) as failure:
        settle_all(COMPARED)
    assert tried == list(MODELS)
    assert str(failure.value) == "churn: churn lacks a month-end. upsell: upsell lacks a month-end."
    failing = ()
    assert settle_all(COMPARED) == [f"{model} of {COMPARED}" for model in MODELS]


def test_a_model_that_fails_keeps_cards_clusters_and_lists_not_waiting_and_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(as_of: date) -> list[str]:
        raise StratumError("churn: nothing is built.")

    others = (
        "write_missing_cards",
        "write_missing_cluster_cards",
        "fit_clusters_if_due",
        "fit_recommendations_if_due",
    )
    done = []
    monkeypatch.setattr(due, "settle_all", fails)
    for name in others:
        monkeypatch.setattr(due, name, lambda *given, name=name: done.append(name))
    with pytest.raises(StratumError, match="churn: nothing is built"):
        due.fit_all_due(COMPARED, tmp_path)
    assert sorted(done) == sorted(others)


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


def keep(fitted: Fitted, *model_ids: str, **changes: object) -> None:
    """Keep a model under other names, as others of the same kind."""
    for model_id in model_ids:
        save(replace(fitted, model=replace(fitted.model, model_id=model_id, **changes)))  # type: ignore[arg-type]


def rule(warehouse: Warehouse, day: date, model_id: str) -> None:
    """Write down a decision of the rule."""
    warehouse.rows(
        "insert into ml.promotions (model, as_of_date, decided_by, decision, champion, reason) "
        "values ('churn', %s, 'rule', 'promoted', %s, 'better')",
        day,
        model_id,
    )


@contextlib.contextmanager
def horizon(warehouse: Warehouse, days: int, effective_from: date) -> Iterator[None]:
    """Another churn horizon is policy from a date on."""
    warehouse.rows("insert into marts.thresholds values ('churn_horizon_days', %s, %s)", days, effective_from)
    try:
        yield
    finally:
        warehouse.rows("delete from marts.thresholds where effective_from = %s", effective_from)


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


def test_of_several_choices_of_a_date_the_last_one_stands_and_before_the_rules(
    clean: Warehouse, bold: Fitted
) -> None:
    keep(bold, "first", "second", "third", "fourth")
    rule(clean, BEGAN, "first")
    for model_id in ("second", "third"):
        promote(model_id, "why not", MONDAY)
    rule(clean, MONDAY, "fourth")
    assert (scoring(MONDAY - timedelta(days=1)), scoring(MONDAY)) == ("first", "third")
    assert (scoring(date(2026, 8, 2)), scoring(date(2026, 8, 3))) == ("third", "fourth")  # the next period
    assert [(one.decided_by, one.champion) for one in rows()] == [
        ("person", "third"),
        ("person", "second"),
        ("rule", "fourth"),
        ("rule", "first"),
    ]


def test_each_rollback_goes_back_one_champion_and_never_to_one_that_was_rolled_back(
    clean: Warehouse, bold: Fitted
) -> None:
    keep(bold, "first", "second", "third")
    rule(clean, BEGAN, "first")
    for days, model_id in enumerate(("second", "third")):
        promote(model_id, "better", MONDAY + timedelta(days=days))
    back = [rollback("churn", "worse", MONDAY + timedelta(days=days)) for days in (2, 3)]
    assert [(one.champion_before, one.champion) for one in back] == [("third", "second"), ("second", "first")]
    assert [scoring(MONDAY + timedelta(days=days)) for days in range(4)] == [
        "second",
        "third",
        "second",
        "first",
    ]
    with pytest.raises(StratumError, match="had no champion before the one of 2026-06-05"):
        rollback("churn", "worse", MONDAY + timedelta(days=4))
    promote("third", "it was not that one", MONDAY + timedelta(days=5))
    promote("second", "or was it", MONDAY + timedelta(days=6))
    assert rollback("churn", "no", MONDAY + timedelta(days=7)).champion == "third"


def test_a_rollback_of_a_date_looks_at_nothing_that_was_decided_for_a_later_one(
    clean: Warehouse, bold: Fitted
) -> None:
    keep(bold, "first", "second", "third")
    rule(clean, BEGAN, "first")
    promote("second", "better", MONDAY)
    promote("third", "better", LATER)
    assert rollback("churn", "worse", COMPARED).champion == "first"


def test_a_choice_that_cannot_score_any_more_gives_way_to_the_rule_and_cannot_be_made_again(
    clean: Warehouse, bold: Fitted
) -> None:
    keep(bold, "ruled", horizon_days=60)
    keep(bold, "chosen")
    rule(clean, BEGAN, "ruled")
    promote("chosen", "why not", MONDAY)
    with horizon(clean, 60, COMPARED):
        assert (scoring(MONDAY), scoring(COMPARED)) == ("chosen", "ruled")
        with pytest.raises(StratumError, match="chosen has other features, or foretells something else"):
            promote("chosen", "still", COMPARED)
        with pytest.raises(StratumError, match="chosen has other features, or foretells something else"):
            rollback("churn", "still", COMPARED)
    assert len(rows()) == 2


def test_where_another_thing_is_foretold_than_when_the_period_began_the_weeks_own_model_scores(
    clean: Warehouse, bold: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trains(model: str, as_of: date) -> str:
        keep(bold, f"of {as_of}", trained_as_of=as_of, horizon_days=60)
        return f"of {as_of}"

    save(bold)
    promote("bold", "why not", BEGAN)
    monkeypatch.setattr(champion, "train", trains)
    with horizon(clean, 60, BEGAN + timedelta(days=1)):
        assert settle("churn", COMPARED) == [f"of {MONDAY}"]
        assert scoring(COMPARED) == f"of {MONDAY}"
        (began, _) = rows()
    assert (began.decision, began.champion_before, began.challenger) == ("began", None, f"of {MONDAY}")
    assert began.reason == f"what the model foretells has changed since the period began on {BEGAN}"


def test_before_anything_is_decided_the_newest_model_that_knows_nothing_later_scores(
    clean: Warehouse, bold: Fitted
) -> None:
    keep(bold, "early")
    keep(bold, "late", trained_as_of=MONDAY)
    days = (BEGAN - timedelta(days=1), BEGAN, MONDAY - timedelta(days=1), MONDAY)
    assert [scoring(day) for day in days] == [None, "early", "early", "late"]


def test_a_choice_without_a_date_stands_from_the_newest_one_scored(clean: Warehouse, bold: Fitted) -> None:
    save(bold)
    for model, day in (("churn", MONDAY), ("churn", TOO_EARLY), ("lapse", LATER)):
        clean.rows(
            "insert into ml.runs (run_id, model, as_of_date, status, reason, accounts) "
            "values (%s, %s, %s, 'absent', 'x', 0)",
            str(day),
            model,
            day,
        )
    assert promote("bold", "why not").as_of_date == MONDAY


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
