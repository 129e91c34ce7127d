"""What is fitted knows nothing of what it is judged on, is calibrated on later data, and refuses other columns."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from include.errors import StratumError
from ml import estimators
from ml.estimators import (
    CalibratedBoosting,
    HeldOut,
    fit,
    make_pipeline,
    out_of_time,
    probabilities,
    selected,
    slope_of,
    used_features,
)
from ml.features import NAMES
from ml.frames import LABEL
from ml.metrics import auc, once
from ml.params import params_of
from ml.targets import CHURN
from ml.train import Fitted

PARAMS = params_of("churn")


def test_a_date_is_predicted_by_dates_alone_whose_label_windows_had_ended(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = []

    def remember(pipeline, known):
        learned.append(sorted(known["as_of_date"].dt.date.unique()))
        return fit(pipeline, known)

    monkeypatch.setattr(estimators, "fit", remember)
    predicted = out_of_time(make_pipeline(CHURN, PARAMS, used_features(CHURN, frame, 0.5)), frame, 90, 3, 2)
    assert [one.date.date() for one in predicted] == [
        date(2025, 9, 30),
        date(2025, 10, 31),
        date(2025, 11, 30),
    ]
    # 2025-07-02 + 90 days is 2025-09-30, and 2025-06-30 the month-end before it.
    assert [dates[-1] for dates in learned] == [date(2025, 6, 30), date(2025, 7, 31), date(2025, 8, 31)]
    assert all(dates[0] == date(2025, 1, 31) for dates in learned)


def test_dates_with_too_little_before_them_are_not_predicted(frame: pd.DataFrame) -> None:
    pipeline = make_pipeline(CHURN, PARAMS, used_features(CHURN, frame, 0.5))
    assert [one.date.date() for one in out_of_time(pipeline, frame, 90, 12, 7)] == [
        date(2025, 10, 31),
        date(2025, 11, 30),
    ]


def test_a_feature_that_varies_on_too_few_dates_is_left_out(frame: pd.DataFrame) -> None:
    changed = frame.copy()
    dates = sorted(changed["as_of_date"].unique())
    for name, known in (("logins_30d", dates[-3:]), ("tickets_90d", dates[-7:])):
        rows = changed["as_of_date"].isin(known)
        changed.loc[rows, name] = np.arange(rows.sum()) % 5.0
    used = used_features(CHURN, changed, 0.5)
    assert "logins_30d" not in used
    assert "tickets_90d" in used
    assert "contacts" not in used  # 0 for everybody
    assert "days_since_last_order" in used


def test_the_model_finds_what_the_small_company_is_made_of(fitted: Fitted, later: pd.DataFrame) -> None:
    scores, churned = probabilities(fitted.pipeline, later), later[LABEL].to_numpy(float)
    assert auc(scores, churned, once(len(later)))[0] > 0.75


def test_more_of_a_directed_feature_moves_the_risk_its_way_alone(fitted: Fitted, later: pd.DataFrame) -> None:
    before = probabilities(fitted.pipeline, later)
    for feature in CHURN.features:
        if feature.direction:
            step = later[feature.name].abs().max() / 3 + 1
            after = probabilities(fitted.pipeline, later.assign(**{feature.name: later[feature.name] + step}))
            assert ((after - before) * feature.direction >= 0).all(), feature.name


def test_a_feature_that_nobody_had_a_value_of_yet_fits_and_moves_nothing(
    fitted: Fitted, frame: pd.DataFrame
) -> None:
    seen = selected(fitted.pipeline, frame)
    name = str(seen.columns[-1])
    known, happened = seen.assign(**{name: np.nan}), frame[LABEL].to_numpy()
    trees = CalibratedBoosting(fitted.pipeline[-1].base).fit(known, happened)
    assert np.ptp(trees.margin(known)) > 0
    assert (trees.margin(known.assign(**{name: 9.0})) == trees.margin(known)).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda frame: frame.drop(columns="orders_90d"), "missing orders_90d; new none"),
        (lambda frame: frame.assign(shoe_size=1.0), "missing none; new shoe_size"),
    ],
)
def test_a_missing_or_new_column_at_scoring_is_an_error(
    fitted: Fitted, later: pd.DataFrame, change, told: str
) -> None:
    with pytest.raises(StratumError, match=told):
        probabilities(fitted.pipeline, change(later))


def test_the_order_of_columns_does_not_matter(fitted: Fitted, later: pd.DataFrame) -> None:
    turned = later[later.columns[::-1]]
    np.testing.assert_array_equal(
        probabilities(fitted.pipeline, turned), probabilities(fitted.pipeline, later)
    )


def test_an_unknown_feature_cannot_be_used() -> None:
    with pytest.raises(StratumError, match="shoe_size"):
        make_pipeline(CHURN, PARAMS, ["orders_90d", "shoe_size"])


def held_out(true_slope: float, levels: list[float], accounts: int = 20_000) -> list[HeldOut]:
    """Dates whose log-odds tell churn up to a slope, and a level that differs by date."""
    random = np.random.default_rng(3)
    dates = []
    for number, level in enumerate(levels):
        margin = random.normal(0, 1.5, accounts)
        churned = (random.random(accounts) < expit(true_slope * margin + level)).astype(np.int8)
        rows = pd.DataFrame({"margin": margin, LABEL: churned})
        known = rows.assign(as_of_date=pd.Timestamp(2025, 1 + number, 28))
        dates.append(HeldOut(pd.Timestamp(2026, 1 + number, 28), rows, known))
    return dates


@pytest.mark.parametrize("slope", [0.6, 1.0, 1.4])
def test_calibration_finds_the_slope_whatever_the_season_does_to_all(slope: float) -> None:
    assert slope_of(held_out(slope, [-1.0, 0.5, 1.5])) == pytest.approx(slope, abs=0.05)


def test_what_ranks_no_better_than_chance_later_is_not_kept() -> None:
    with pytest.raises(StratumError, match="learned nothing that holds later"):
        slope_of(held_out(-0.5, [0.0, 0.0]))


def test_probabilities_over_the_training_frame_average_to_its_churn(
    fitted: Fitted, frame: pd.DataFrame
) -> None:
    assert probabilities(fitted.pipeline, frame).mean() == pytest.approx(frame[LABEL].mean(), abs=1e-9)


def test_every_name_of_the_contract_is_told_once() -> None:
    assert len(set(NAMES)) == len(NAMES)
