"""The level of a date is foretold from what had been measured before it, and only where that proved to help."""

from copy import deepcopy
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from ml import registry
from ml.card_parts import level_told
from ml.estimators import HeldOut, foretells, probabilities, told_later
from ml.frames import LABEL
from ml.level import by_date, forecast, has_year_before, level_of, measure, offsets_on, workdays
from ml.train import Fitted

MONTH_ENDS = pd.date_range("2023-01-31", "2025-06-30", freq="ME")
ACCOUNTS = 4_000
NEXT = [pd.Timestamp("2025-09-30"), pd.Timestamp("2025-12-31")]


def yearly(date: pd.Timestamp) -> float:
    """A season: 0.5 above the mean in winter, as much below in summer."""
    return 0.5 * float(np.cos(2 * np.pi * date.day_of_year / 365.25))


def measured(offset, dates=MONTH_ENDS, horizon: int = 90) -> dict:
    """What `measure` returns where the level of each date was `offset` of it, measured closely."""
    days = [(date - pd.Timestamp(0)).days for date in dates]
    return {
        "horizon_days": horizon,
        "days": days,
        "offsets": [offset(date) for date in dates],
        "variances": [1e-4] * len(days),
    }


@lru_cache
def rows(date: pd.Timestamp, offset: float, seed: int = 0) -> pd.DataFrame:
    """Accounts whose log-odds tell what comes true but for the level of their date."""
    random = np.random.default_rng([seed, (date - pd.Timestamp(0)).days])
    margin = random.normal(0, 1.5, ACCOUNTS)
    happened = (random.random(ACCOUNTS) < expit(margin + offset)).astype(np.int8)
    return pd.DataFrame({"as_of_date": date, "margin": margin, LABEL: happened})


def held_out(offset, dates) -> list[HeldOut]:
    """The dates, each predicted by what was known 90 days before it."""
    return [
        HeldOut(
            date,
            rows(date, offset(date), seed=1),
            pd.concat(
                rows(one, offset(one)) for one in MONTH_ENDS if one + pd.Timedelta(days=90) <= date
            ),
        )
        for date in dates
    ]  # fmt: skip


@pytest.mark.parametrize("date", NEXT)
def test_a_season_that_was_seen_twice_is_foretold(date: pd.Timestamp) -> None:
    assert forecast(measured(yearly), date) == pytest.approx(yearly(date), abs=0.12)
    assert forecast(measured(lambda one: -yearly(one)), date) == pytest.approx(-yearly(date), abs=0.12)


def test_a_trend_goes_on() -> None:
    def falls(date: pd.Timestamp) -> float:
        return -0.02 * (date - MONTH_ENDS[15]).days / 30.4

    for date in NEXT:
        assert forecast(measured(falls), date) == pytest.approx(falls(date), abs=0.03)


def test_a_level_that_rose_and_stayed_is_told_on() -> None:
    assert forecast(measured(lambda date: 0.3 * (date >= MONTH_ENDS[24])), NEXT[0]) == pytest.approx(
        0.3, abs=0.05
    )


def test_what_befell_the_newest_window_alone_is_told_on_in_part() -> None:
    level = measured(lambda date: 0.3 * (date == MONTH_ENDS[-1]))
    assert 0 < forecast(level, NEXT[0]) < 0.9 * 0.3


def test_where_nothing_was_measured_no_level_is_told() -> None:
    assert forecast(measured(yearly, []), NEXT[0]) == 0.0


def test_chance_alone_moves_little() -> None:
    random = np.random.default_rng(4)
    noise = {date: float(random.normal(0, 0.02)) for date in MONTH_ENDS}
    level = {**measured(noise.__getitem__), "variances": [0.02**2] * len(MONTH_ENDS)}
    assert all(abs(forecast(level, date)) < 0.03 for date in NEXT)


def test_a_window_of_few_working_days_is_told_so() -> None:
    def by_work(date: pd.Timestamp) -> float:
        return 2.0 * float(np.log(workdays((date - pd.Timestamp(0)).days, 30) / 21.4))

    few, many = pd.Timestamp("2025-10-31"), pd.Timestamp("2025-09-30")
    assert [workdays((date - pd.Timestamp(0)).days, 30) for date in (few, many)] == [20, 22]
    level = measured(by_work, horizon=30)
    assert forecast(level, many) - forecast(level, few) == pytest.approx(2 * np.log(22 / 20), abs=0.06)


def test_months_of_half_empty_windows_and_of_few_outcomes_are_not_measured() -> None:
    dates = MONTH_ENDS[:12]
    known = pd.concat([rows(date, yearly(date)) for date in dates], ignore_index=True)
    known.loc[known["as_of_date"] == dates[-1], LABEL] = 0
    level = measure(known, 1.0, 90, 150)
    assert list(by_date(level)) == [str(date.date()) for date in dates[5:-1]]


def test_the_level_of_a_month_end_is_what_its_accounts_lie_above_the_whole() -> None:
    known = pd.concat([rows(date, 0.4 * (-1) ** number) for number, date in enumerate(MONTH_ENDS[:8])])
    level = measure(known, 1.0, 90, 0)
    np.testing.assert_allclose(level["offsets"], [0.4, -0.4] * 4, atol=0.1)
    assert np.sqrt(level["variances"]) == pytest.approx([0.04] * 8, abs=0.01)


def test_levels_are_of_the_log_odds_that_are_told_not_of_the_margin() -> None:
    known = pd.concat([rows(date, 0.4 * (-1) ** number) for number, date in enumerate(MONTH_ENDS[:8])])
    told, timid = measure(known, 1.0, 90, 0), measure(known.assign(margin=known["margin"] / 3), 3.0, 90, 0)
    for what in ("offsets", "variances"):
        np.testing.assert_allclose(timid[what], told[what], rtol=1e-6)


def test_a_year_before_is_a_month_end_of_the_same_time_of_the_year() -> None:
    level = measured(yearly, [pd.Timestamp("2024-06-30")])
    assert has_year_before(level, pd.Timestamp("2025-06-30"))
    assert has_year_before(level, pd.Timestamp("2025-07-14"))
    assert not has_year_before(level, pd.Timestamp("2025-08-31"))
    assert not has_year_before(level, pd.Timestamp("2024-07-31"))


def test_it_serves_only_where_it_proved_nearer_on_dates_before() -> None:
    serves, why = foretells(held_out(yearly, MONTH_ENDS[-6:]), 1.0, 90, 150)
    assert serves, why
    turned = held_out(yearly, MONTH_ENDS[-6:])
    turned = [replace(one, rows=rows(one.date, -2 * yearly(one.date))) for one in turned]
    assert not foretells(turned, 1.0, 90, 150)[0]


def test_without_a_year_before_no_season_is_told() -> None:
    serves, why = foretells(held_out(yearly, MONTH_ENDS[8:14]), 1.0, 90, 150)
    assert not serves
    assert "no year before" in why


def test_what_is_told_of_a_date_knows_nothing_of_its_outcomes_nor_of_later_ones() -> None:
    predicted = held_out(yearly, MONTH_ENDS[-8:])
    last = predicted[-1].date
    unknown = [
        one
        if one.date + pd.Timedelta(days=90) <= last
        else replace(one, rows=one.rows.assign(**{LABEL: 1 - one.rows[LABEL]}))
        for one in predicted
    ]
    assert sum(one is not other for one, other in zip(predicted, unknown, strict=True)) >= 3
    before, after = (told_later(of, 90, 150)[-1].rows["probability"] for of in (predicted, unknown))
    np.testing.assert_array_equal(before, after)
    plain = expit(predicted[-1].rows["margin"]).mean()
    assert abs(before.mean() - predicted[-1].rows[LABEL].mean()) < abs(
        plain - predicted[-1].rows[LABEL].mean()
    )


def test_a_model_with_a_level_tells_each_date_its_own_and_keeps_the_order(
    fitted: Fitted, later: pd.DataFrame
) -> None:
    pipeline = deepcopy(fitted.pipeline).set_params(boosting__level=measured(yearly))
    for date in NEXT:
        of_date = later.assign(as_of_date=date)
        plain, told = probabilities(fitted.pipeline, of_date), probabilities(pipeline, of_date)
        np.testing.assert_allclose(logit(told) - logit(plain), forecast(measured(yearly), date), atol=1e-9)
    both = pd.concat([later.assign(as_of_date=date) for date in NEXT])
    assert probabilities(pipeline, both)[0] == probabilities(pipeline, later.assign(as_of_date=NEXT[0]))[0]
    assert probabilities(pipeline, both)[-1] == probabilities(pipeline, later.assign(as_of_date=NEXT[1]))[-1]
    assert (offsets_on(None, both["as_of_date"]) == 0).all()


def test_a_kept_artefact_has_its_level(fitted: Fitted, later: pd.DataFrame) -> None:
    pipeline = deepcopy(fitted.pipeline).set_params(boosting__level=measured(yearly))
    loaded = registry.from_bytes(registry.to_bytes(pipeline))
    np.testing.assert_array_equal(probabilities(loaded, later), probabilities(pipeline, later))


def test_the_card_says_whose_level_is_told(fitted: Fitted) -> None:
    found = fitted.model
    assert not found.parameters["level"]["is_foretold"]  # eleven month-ends: no year before
    told = level_told(found)
    assert told.startswith(f"that of {found.window_from} to {found.window_to} as a whole")
    assert "no year before to tell the season" in told
    level = {"is_foretold": True, "why": "it helped", "by_month_end": by_date(measured(yearly))}
    later = replace(found, parameters={**found.parameters, "level": level})
    assert level_told(later) == (
        "that of the date, from what season, trend and working days did on 2023-01-31 to 2025-06-30: it helped"
    )


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.97])
def test_the_level_makes_the_mean_probability_the_rate(rate: float) -> None:
    margin = np.random.default_rng(1).normal(0, 2, 1000)
    assert expit(1.3 * margin + level_of(margin, 1.3, rate)).mean() == pytest.approx(rate, abs=1e-9)
