"""Figures equal scikit-learn's, and a resample's weights mean the same as its accounts written out."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from ml import metrics
from ml.metrics import (
    auc,
    average_precision,
    brier,
    ece,
    interval,
    lift,
    log_loss,
    mean,
    once,
    ranking,
    resamples,
    share_interval,
    top_sums,
)

RANDOM = np.random.default_rng(11)
LABEL = (RANDOM.random(400) < 0.4).astype(float)
PROBABILITY = np.clip(0.3 * LABEL + 0.7 * RANDOM.random(400), 0, 1)
TIED = np.round(PROBABILITY, 1)


@pytest.mark.parametrize("scores", [PROBABILITY, TIED])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (auc, roc_auc_score),
        (average_precision, average_precision_score),
        (brier, brier_score_loss),
    ],
)
def test_a_figure_equals_scikit_learns(scores: np.ndarray, ours, theirs) -> None:
    assert ours(scores, LABEL, once(400))[0] == pytest.approx(theirs(LABEL, scores))


@pytest.mark.parametrize("metric", [auc, average_precision, brier, lift(0.1)])
def test_weights_are_accounts_written_out(metric) -> None:
    weights = resamples(400, 5, seed=2)
    assert weights.sum(axis=1).tolist() == [400] * 5
    weighted = metric(TIED, LABEL, weights)
    for draw, value in zip(weights, weighted, strict=True):
        rows = np.repeat(np.arange(400), draw.astype(int))
        assert value == pytest.approx(metric(TIED[rows], LABEL[rows], once(400))[0])


@pytest.mark.parametrize("scores", [PROBABILITY, TIED])
def test_several_figures_of_one_ordering_are_those_of_each(scores: np.ndarray) -> None:
    weights = resamples(400, 5, seed=2)
    each = [metric(scores, LABEL, weights) for metric in (auc, average_precision, lift(0.05), lift(0.2))]
    np.testing.assert_array_equal(ranking(0.05, 0.2)(scores, LABEL, weights), np.column_stack(each))
    sums = top_sums(0.05, 0.2)(scores, LABEL, weights)
    expected = np.column_stack([lift(share)(scores, LABEL, weights) * share for share in (0.05, 0.2)])
    np.testing.assert_allclose(sums / (weights @ LABEL)[:, None], expected)


def test_lift_counts_the_top_and_equal_scores_in_proportion() -> None:
    churned = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=float)
    ranked = np.arange(10, 0, -1.0)
    assert lift(0.1)(ranked, churned, once(10))[0] == pytest.approx(5.0)
    assert lift(0.2)(ranked, churned, once(10))[0] == pytest.approx(5.0)
    assert lift(0.5)(ranked, churned, once(10))[0] == pytest.approx(2.0)
    assert lift(0.1)(np.ones(10), churned, once(10))[0] == pytest.approx(1.0)


def test_a_resample_with_one_outcome_alone_has_no_auc_and_does_not_spoil_the_interval() -> None:
    values = auc(PROBABILITY, LABEL, np.vstack([once(400), 1 - LABEL]))
    assert np.isnan(values[1])
    assert interval(values) == (pytest.approx(values[0]), pytest.approx(values[0]))


def test_the_same_seed_draws_the_same_accounts() -> None:
    np.testing.assert_array_equal(resamples(50, 3, seed=1), resamples(50, 3, seed=1))
    assert (resamples(50, 3, seed=1) != resamples(50, 3, seed=2)).any()


@pytest.mark.parametrize(
    "metric",
    [auc, average_precision, brier, log_loss, lift(0.1), ece(10), top_sums(0.1), ranking(0.1, 0.2), mean],
)
def test_memory_does_not_grow_with_the_resamples(metric, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, a metric holds few at a time; and all of them have the values each has alone."""
    rows = 2_000
    scores, happened = RANDOM.random(rows), (RANDOM.random(rows) < 0.4).astype(float)
    drawn = resamples(rows, 400, seed=3)
    monkeypatch.setattr(metrics, "AT_ONCE", 20 * rows)
    few, many = peak_of(metric, scores, happened, drawn[:20]), peak_of(metric, scores, happened, drawn)
    assert many < 1.5 * few < drawn.size * 8, "twenty times the resamples"
    of_each = [metric(scores, happened, one[None])[0] for one in drawn[15:25]]
    np.testing.assert_allclose(metric(scores, happened, drawn)[15:25], of_each, rtol=1e-12)


def peak_of(metric, scores: np.ndarray, happened: np.ndarray, drawn: np.ndarray) -> int:
    """The most bytes that the metric's arrays took together."""
    metric(scores, happened, drawn[:1])
    tracemalloc.start()
    try:
        metric(scores, happened, drawn)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("happened", "low", "high"), [([0] * 10, 0.0, 0.2775), ([1] * 10, 0.7225, 1.0)])
def test_a_share_of_none_or_of_all_is_not_told_as_sure(happened: list[int], low: float, high: float) -> None:
    outcomes = np.asarray(happened, np.float64)
    resampled = mean(outcomes, outcomes, resamples(10, 200, seed=1))
    assert interval(resampled) == (outcomes[0], outcomes[0]), "every resample says so"
    assert share_interval(resampled, outcomes) == pytest.approx((low, high), abs=1e-4)


def test_any_other_share_has_the_interval_of_its_resamples() -> None:
    outcomes = np.asarray([0, 1] * 20, np.float64)
    resampled = mean(outcomes, outcomes, resamples(40, 200, seed=1))
    assert share_interval(resampled, outcomes) == interval(resampled)
