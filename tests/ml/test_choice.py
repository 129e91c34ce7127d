"""Which setting of the boosting serves: chosen on dates before those that are judged, by data and seed alone."""

from collections.abc import Iterator
from datetime import date

import numpy as np
import pandas as pd
import pytest

from ml import choice, estimators
from ml.card import Facts, render
from ml.champion import challenged
from ml.choice import STANDARD, choose, reckoned_s, settings, with_setting, within_budget
from ml.estimators import fit, one_thread, used_features
from ml.frames import LABEL
from ml.params import Boosting, Params, params_of
from ml.targets import CHURN, MODELS, Policy
from ml.train import CHOICE, Fitted, fit_model

POLICY = Policy(90, 90)
ABLE = Boosting(
    max_iter=40, learning_rate=0.05, max_leaf_nodes=4, min_samples_leaf=20, l2_regularization=10.0
)
HELPLESS = Boosting(
    max_iter=1, learning_rate=0.01, max_leaf_nodes=2, min_samples_leaf=200, l2_regularization=10.0
)


def knobs(**choices: object) -> Params:
    """The knobs of churn, validated on two month-ends so that the small company has some before them."""
    params = params_of("churn")
    return params.model_copy(
        update={"validation_folds": 2, "choice": params.choice.model_copy(update=choices)}
    )


@pytest.fixture(autouse=True)
def as_in_training() -> Iterator[None]:
    """Threads that wait for one another take most of a busy machine."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def used(frame: pd.DataFrame) -> list[str]:
    return used_features(CHURN, frame, 0.5)


def test_only_windows_that_ended_before_the_first_judged_date_choose(
    frame: pd.DataFrame, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = []

    def remember(pipeline, known):
        learned.append(max(known["as_of_date"]).date())
        return fit(pipeline, known)

    monkeypatch.setattr(estimators, "fit", remember)
    found = choose(CHURN, frame, 90, knobs(), used)
    # It is validated on 2025-10-31 and 2025-11-30; the window of 2025-07-31 ended on 2025-10-29.
    assert [one.date() for one in found.dates] == [date(2025, 6, 30), date(2025, 7, 31)]
    assert learned == [date(2025, 3, 31), date(2025, 4, 30)] * len(settings(knobs()))


def test_what_is_judged_changes_no_choice(frame: pd.DataFrame, used: list[str]) -> None:
    changed = frame.copy()
    late = changed["as_of_date"] > pd.Timestamp(2025, 7, 31)
    changed.loc[late, LABEL] = 1 - changed.loc[late, LABEL]
    assert choose(CHURN, changed, 90, knobs(), used) == choose(CHURN, frame, 90, knobs(), used)


def test_a_setting_that_is_better_by_the_margin_serves_and_else_the_standard_one(
    frame: pd.DataFrame, used: list[str]
) -> None:
    params = knobs(others={"able": ABLE}).model_copy(update={"boosting": HELPLESS})
    found = choose(CHURN, frame, 90, params, used)
    assert found.name == "able"
    assert found.log_loss["able"] < found.log_loss[STANDARD] - 0.01
    assert f"able {found.log_loss['able']:.5f}" in found.why
    careful = params.model_copy(update={"choice": params.choice.model_copy(update={"margin": 1.0})})
    assert choose(CHURN, frame, 90, careful, used).name == STANDARD
    assert choose(CHURN, frame, 90, knobs(others={"helpless": HELPLESS}), used).name == STANDARD


def test_the_clock_and_the_order_of_rows_decide_nothing(
    frame: pd.DataFrame, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = knobs(rows=500)
    before = choose(CHURN, frame, 90, params, used)
    assert before.rows < 700 < len(frame)
    clock = iter(np.arange(0, 1e6, 1e4))
    monkeypatch.setattr(choice, "perf_counter", lambda: next(clock))
    assert choose(CHURN, frame, 90, params, used) == before
    assert choose(CHURN, frame, 90, params.model_copy(update={"seed": 5}), used).log_loss != before.log_loss


def test_what_the_budget_has_no_room_for_is_not_tried_whatever_the_clock_shows(
    frame: pd.DataFrame, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = choose(CHURN, frame, 90, knobs(), used)
    names = list(settings(knobs()))
    assert list(every.log_loss) == names == [STANDARD, "additive", "deeper"]
    assert "budget" not in every.why
    needed = np.cumsum(
        [reckoned_s(one, knobs(), every.rows, len(used)) for one in settings(knobs()).values()]
    )
    clock = iter(np.arange(0, 1e6, 1e4))
    monkeypatch.setattr(choice, "perf_counter", lambda: next(clock))
    # Of two the second is still tried where the budget is just what both need.
    two = choose(CHURN, frame, 90, knobs(budget_s=float(needed[1])), used)
    assert dict(two.log_loss) == {name: every.log_loss[name] for name in names[:2]}
    assert two.why.endswith(f"; the budget of {needed[1]:g} s is over before deeper")
    for budget in (needed[1] * 0.99, needed[0] * 0.5):
        one = choose(CHURN, frame, 90, knobs(budget_s=float(budget)), used)
        assert (one.name, dict(one.log_loss)) == (STANDARD, {})
        assert one.why.startswith(f"nothing was tried; the budget of {budget:g} s is over before ")


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_of_every_model_fits_the_budget_however_large_the_company(model: str) -> None:
    params = params_of(model)
    assert within_budget(params, params.choice.rows, 60) == list(settings(params))


@pytest.mark.parametrize("model", ["lapse", "trial"])
def test_models_of_few_rows_try_smaller_leaves_than_churn(model: str) -> None:
    few, many = settings(params_of(model)), settings(params_of("churn"))
    assert few.keys() == many.keys()
    assert all(few[name].min_samples_leaf < many[name].min_samples_leaf for name in few)


def test_where_history_is_short_nothing_is_tried_and_it_is_said(frame: pd.DataFrame, used: list[str]) -> None:
    found = choose(CHURN, frame, 90, params_of("churn"), used)  # six of eleven month-ends are validated on
    assert (found.name, dict(found.log_loss)) == (STANDARD, {})
    assert "too few month-ends lie before 2025-06-30" in found.why


def test_the_choice_is_kept_with_the_model_and_its_challenger_is_judged_by_it(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = knobs(others={"able": ABLE}).model_copy(update={"boosting": HELPLESS})
    found = fit_model(CHURN, date(2026, 3, 1), frame, POLICY, params)
    assert found.model.parameters["setting"] == "able"
    assert found.model.parameters["boosting"] == ABLE.model_dump()
    kept = {row[2]: (row[0], row[4]) for row in found.metrics if row[1] == CHOICE}
    assert set(kept) == {STANDARD, "able"}
    assert kept["able"][0] == date(2025, 7, 31)
    assert kept["able"][1] < kept[STANDARD][1]
    tried = []
    monkeypatch.setattr(
        "ml.champion.make_pipeline",
        lambda target, params, used: (
            tried.append(params.boosting) or estimators.make_pipeline(target, params, used)
        ),
    )
    challenged(CHURN, frame, found.model, POLICY, params)
    assert tried == [ABLE]


def test_the_card_tells_the_choice(fitted: Fitted) -> None:
    facts = Facts(fitted.model, "boosting", "v1", "2026-03-02", {}, fitted.importances, {}, [])
    why = fitted.model.parameters["setting_why"]
    assert f"<th>Chosen by</th><td>{why}</td>" in render(facts, {})


def test_a_setting_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        with_setting(params_of("churn"), "unheard of")
