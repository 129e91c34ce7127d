"""Drift: the index is the formula's, what moved is found and what did not is not, earlier scores meet what came true."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from math import log

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from ml import drift
from ml.drift import Bins, Now, Seen, bins_of, counts_of, psi, psi_by_chance, told, training_bins
from ml.metrics import auc, brier, once, wilson
from ml.realised import parts_of
from ml.train import Fitted


@pytest.fixture
def random() -> np.random.Generator:
    """The same numbers whichever tests ran before."""
    return np.random.default_rng(11)


def index(then: np.ndarray, now: np.ndarray) -> float:
    bins = bins_of(then, len(then))
    return psi(bins.counts, counts_of(now, bins.edges))


def test_the_index_equals_a_calculation_by_hand() -> None:
    then, now = np.array([50, 30, 20]), np.array([20, 30, 50])
    by_hand = (0.2 - 0.5) * log(0.2 / 0.5) + 0 + (0.5 - 0.2) * log(0.5 / 0.2)
    assert psi(then, now) == pytest.approx(by_hand) == pytest.approx(0.5498, abs=1e-4)
    # Empty on one side: half a row of that side; empty on both: nothing.
    gone = (0.5 / 100 - 0.2) * log(0.5 / 100 / 0.2)
    assert psi(np.array([80, 20, 0]), np.array([80, 0, 0])) == pytest.approx(
        (1 - 0.8) * log(1 / 0.8) + (0.5 / 80 - 0.2) * log(0.5 / 80 / 0.2)
    )
    assert psi(np.array([80, 20, 0]), np.array([80, 0, 20])) == pytest.approx(
        gone + (0.2 - 0.5 / 100) * log(0.2 / (0.5 / 100))
    )


def test_bins_are_tenths_that_never_part_ties_and_missing_is_one_of_its_own() -> None:
    values = np.r_[np.zeros(60), np.arange(1.0, 41.0), [np.nan] * 25]
    bins = bins_of(values, 125)
    assert bins.edges.tolist() == [0, 10, 20, 30]
    assert bins.counts.tolist() == [60, 10, 10, 10, 10, 25]
    assert bins.mean == pytest.approx(8.2)
    flags = bins_of(np.array([0.0, 1, 1, 0, 1]), 5)
    assert counts_of(np.array([0.0, 1, np.nan, 7]), flags.edges).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("now", [-1.0, 1.0])
def test_a_constant_that_changes_is_seen_on_either_side(now: float) -> None:
    then = np.zeros(500)
    assert index(then, np.zeros(500)) == 0
    assert index(then, np.full(500, now)) > 1


def test_a_shifted_feature_is_found_and_one_that_did_not_shift_is_not(random: np.random.Generator) -> None:
    then = random.exponential(30, 4000)
    same, shifted, fading = random.exponential(30, 400), random.exponential(60, 400), then[:400].copy()
    fading[:80] = np.nan
    bins = bins_of(then, 4000)
    for now, is_shifted in ((same, False), (shifted, True), (fading, True)):
        counts = counts_of(now, bins.edges)
        found = psi(bins.counts, counts)
        assert (found > max(0.25, psi_by_chance(bins.counts, counts, 4000))) is is_shifted


def test_few_accounts_lie_apart_by_chance_and_the_chance_is_as_told(random: np.random.Generator) -> None:
    then, trials = random.normal(size=100_000), 400
    bins = bins_of(then, len(then))
    above = 0
    for _ in range(trials):
        counts = counts_of(random.normal(size=60), bins.edges)
        above += psi(bins.counts, counts) > psi_by_chance(bins.counts, counts, len(then))
    # 1 % by the theory of large samples; bins of six rows each have longer tails.
    assert above / trials < 0.04
    assert psi_by_chance(bins.counts, counts_of(then[:60], bins.edges), 100_000) > 0.25


LIMIT = {"psi_moved": 0.1, "psi_shifted": 0.25, "missing_shift": 0.1}


@pytest.mark.parametrize(
    ("then", "now", "state"),
    [
        ((500, 500, 0), (500, 500, 0), "steady"),
        ((500, 500, 0), (590, 410, 0), "steady"),
        ((500, 500, 0), (680, 320, 0), "moved"),
        ((500, 500, 0), (800, 200, 0), "shifted"),
        ((500, 500, 0), (8, 2, 0), "steady"),
        ((350, 350, 300), (275, 275, 450), "shifted"),
        ((275, 275, 450), (350, 350, 300), "shifted"),
        ((350, 350, 300), (310, 310, 380), "steady"),
        ((350, 350, 300), (3, 3, 4), "steady"),
    ],
    ids=[
        "the same",
        "within the limit",
        "above the first limit",
        "above the second",
        "ten accounts, by chance",
        "values are lost",
        "values are gained",
        "few are lost",
        "ten accounts of which one more has no value",
    ],
)
def test_a_state_needs_a_limit_to_be_passed_and_more_than_chance(
    then: Sequence[int], now: Sequence[int], state: str
) -> None:
    bins = Bins(np.array([1.0]), np.array(then), sum(then), 1.0)
    row = drift._compared(
        "feature", "orders_90d", "training", date(2025, 10, 31), bins, Now(np.array(now), 1.0), None, LIMIT
    )
    assert row.state == state
    assert (row.missing_then, row.missing_now) == (then[-1] / sum(then), now[-1] / sum(now))
    assert (row.accounts_then, row.accounts_now) == (sum(then), sum(now))


def test_what_a_model_sees_chunk_by_chunk_is_what_all_accounts_are(
    fitted: Fitted, later: pd.DataFrame
) -> None:
    whole, parts = Seen(fitted.model, fitted.bins), Seen(fitted.model, fitted.bins)
    whole.add(later)
    for chunk in (later[:40], later[40:41], later[41:]):
        parts.add(chunk)
    used = [one["name"] for one in fitted.model.features if one["used"]]
    assert list(parts.by_name()) == used
    for name, now in parts.by_name().items():
        values = later[name].to_numpy(np.float64)
        assert now.counts.tolist() == counts_of(values, fitted.bins[name].edges).tolist()
        assert now.counts.tolist() == whole.by_name()[name].counts.tolist()
        assert now.accounts == len(later)
        assert now.mean == (pytest.approx(np.nanmean(values)) if (~np.isnan(values)).any() else None)


def test_bins_of_training_hold_its_accounts_once_and_the_rate_that_came_true(frame: pd.DataFrame) -> None:
    told = np.linspace(0.1, 0.9, 100)
    bins = training_bins(frame, ["orders_90d"], told)
    assert list(bins) == ["orders_90d", "probability"]
    assert bins["orders_90d"].counts.sum() == len(frame)
    assert bins["orders_90d"].accounts == frame["account_id"].nunique() < len(frame)
    assert bins["probability"].counts.sum() == 100
    assert bins["probability"].mean == pytest.approx(frame["happened"].mean())


def test_what_has_shifted_is_told_the_score_first_and_then_the_farthest() -> None:
    def row(name: str, now: Sequence[int], subject: str = "feature") -> drift.Drift:
        then = Bins(np.array([1.0]), np.array([500, 500, 0]), 1000, 1.0)
        found = drift._compared(
            "feature", name, "training", date(2025, 10, 31), then, Now(np.array(now), 1.0), None, LIMIT
        )
        return replace(found, subject=subject)  # type: ignore[arg-type]

    rows = [
        row("near", (800, 200, 0)),
        row("still", (500, 500, 0)),
        row("far", (950, 50, 0)),
        row("middle", (900, 100, 0)),
        row("probability", (790, 210, 0), "score"),
    ]
    line = told(rows)
    assert line is not None
    assert line.startswith("4 shifted: the score lies otherwise than in training (PSI ")
    assert line.index("the score") < line.index("far lies") < line.index("middle lies")
    assert line.endswith("; and 1 more")
    assert told([row("still", (500, 500, 0)), row("some", (680, 320, 0))]) is None


def test_calibration_equals_a_plain_computation(random: np.random.Generator) -> None:
    told = random.uniform(size=1003)
    rate = np.where(
        told < 0.5, told**2, np.sqrt(told)
    )  # too much is told of the lower half, of the upper too little
    happened = (random.uniform(size=1003) < rate).astype(float)
    whole, *tenths = parts_of(told, happened)
    every = once(1003)
    assert whole.part == 0
    assert whole.accounts == 1003
    assert whole.auc == pytest.approx(float(auc(told, happened, every)[0]))
    assert (
        whole.brier
        == pytest.approx(((told - happened) ** 2).mean())
        == pytest.approx(float(brier(told, happened, every)[0]))
    )
    order = np.argsort(told)
    assert [one.accounts for one in tenths] == [101] * 3 + [100] * 7
    first = order[:101]
    assert tenths[0].mean_probability == pytest.approx(told[first].mean())
    assert tenths[0].observed_rate == pytest.approx(happened[first].mean())
    gaps = [abs(one.mean_probability - one.observed_rate) * one.accounts for one in tenths]
    assert whole.calibration_error == pytest.approx(sum(gaps) / 1003)
    assert {one.calibration_error for one in tenths} == {None}
    assert sum(gaps) / 1003 > 2 * abs(whole.mean_probability - whole.observed_rate)


def test_accounts_that_all_came_true_have_no_auc_and_fewer_than_ten_no_empty_tenth() -> None:
    whole, *tenths = parts_of(np.array([0.2, 0.9, 0.4]), np.ones(3))
    assert whole.auc is None
    assert [one.mean_probability for one in tenths] == [0.2, 0.4, 0.9]


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (7, 20), (20, 20), (1, 1), (314, 1000)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)
