"""Drift: the index is the formula's, what moved is found and what did not is not, earlier scores meet what came true."""

from math import log

import numpy as np
import pytest
from scipy.stats import binomtest

from ml.drift import bins_of, counts_of, psi, psi_by_chance
from ml.metrics import auc, brier, once
from ml.realised import calibration_error, parts_of, wilson

RANDOM = np.random.default_rng(11)


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


def test_a_shifted_feature_is_found_and_one_that_did_not_shift_is_not() -> None:
    then = RANDOM.exponential(30, 4000)
    same, shifted, fading = RANDOM.exponential(30, 400), RANDOM.exponential(60, 400), then[:400].copy()
    fading[:80] = np.nan
    bins = bins_of(then, 4000)
    for now, is_shifted in ((same, False), (shifted, True), (fading, True)):
        counts = counts_of(now, bins.edges)
        found = psi(bins.counts, counts)
        assert (found > max(0.25, psi_by_chance(bins.counts, counts, 4000))) is is_shifted


def test_few_accounts_lie_apart_by_chance_and_the_chance_is_as_told() -> None:
    then, trials = RANDOM.normal(size=100_000), 400
    bins = bins_of(then, len(then))
    above = 0
    for _ in range(trials):
        counts = counts_of(RANDOM.normal(size=60), bins.edges)
        above += psi(bins.counts, counts) > psi_by_chance(bins.counts, counts, len(then))
    # 1 % by the theory of large samples; bins of six rows each have longer tails.
    assert above / trials < 0.04
    assert psi_by_chance(bins.counts, counts_of(then[:60], bins.edges), 100_000) > 0.25


def test_calibration_equals_a_plain_computation() -> None:
    told = RANDOM.uniform(size=1003)
    happened = (RANDOM.uniform(size=1003) < told**2).astype(float)
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
    assert calibration_error([whole, *tenths]) == pytest.approx(sum(gaps) / 1003)


def test_accounts_that_all_came_true_have_no_auc_and_fewer_than_ten_no_empty_tenth() -> None:
    whole, *tenths = parts_of(np.array([0.2, 0.9, 0.4]), np.ones(3))
    assert whole.auc is None
    assert [one.mean_probability for one in tenths] == [0.2, 0.4, 0.9]


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (7, 20), (20, 20), (1, 1), (314, 1000)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)
