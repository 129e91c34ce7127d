"""The verdict says ahead or behind where the interval of a difference does not hold 0, and of errors the other way round."""

from ml.judge import Figure
from ml.verdict import AHEAD, APART, BEHIND, in_short, standing, value_in_short


def less(way: str, metric: str, value: float, low: float, high: float) -> Figure:
    return Figure("all", f"model-{way}", metric, value, low, high, 100)


def by_key(*figures: Figure) -> dict[tuple[str, str, str], Figure]:
    return {(one.population, one.estimator, one.metric): one for one in figures}


def test_a_difference_is_ahead_behind_or_not_told_apart() -> None:
    for metric, more, fewer in (
        ("auc", AHEAD, BEHIND),
        ("brier", BEHIND, AHEAD),
        ("value_error", BEHIND, AHEAD),
    ):
        assert standing(less("recency", metric, 0.2, 0.1, 0.3)) == more
        assert standing(less("recency", metric, -0.2, -0.3, -0.1)) == fewer
        assert standing(less("recency", metric, 0.2, -0.1, 0.3)) == APART
        assert standing(less("recency", metric, 0.2, 0.0, 0.3)) == APART
    assert standing(Figure("all", "model-rules", "auc", 0.2, None, None, 100)) == APART


def test_the_sentence_names_each_way_once_with_how_much() -> None:
    found = by_key(
        less("recency", "auc", 0.04, 0.033, 0.046),
        less("logistic", "auc", 0.004, 0.002, 0.007),
        less("rules", "auc", 0.001, -0.002, 0.004),
        less("bg_nbd", "auc", -0.02, -0.03, -0.01),
    )
    assert in_short(found, "all") == (
        "By AUC the model is ahead of recency alone (+0.040, +0.033 to +0.046) and logistic regression "
        "(+0.004, +0.002 to +0.007); not told apart from warning rules (+0.001, -0.002 to +0.004); "
        "behind BG/NBD, expected orders (-0.020, -0.030 to -0.010)."
    )
    assert in_short({}, "all") == ""


def test_an_expected_value_is_too_little_or_too_much_where_the_interval_says_so() -> None:
    def of(
        estimator: str, metric: str, value: float, low: float | None = None, high: float | None = None
    ) -> Figure:
        return Figure("all", estimator, metric, value, low, high, 100)

    came = of("observed", "value", 170.0)
    told = (
        of("model", "value", 129.2),
        of("model", "value_missed", -40.8, -60.0, -20.0),
        of("model", "value_error", 1179),
    )
    alone = value_in_short(by_key(came, *told), "all", "GBP")
    assert alone == (
        "Expected value: 129.20 GBP per account was told and 170.00 came, too little (-40.80, -60.00 to -20.00); it is off "
        "by 1,179.00 (root mean square)."
    )
    error = less("gamma_gamma", "value_error", -125.0, -300.0, -10.0)
    beside = value_in_short(by_key(came, *told, error), "all", "GBP")
    assert beside == alone[:-1] + ", ahead of BG/NBD × Gamma-Gamma (-125.00, -300.00 to -10.00)."
    holds = of("model", "value_missed", -40.8, -60.0, 20.0)
    assert "not told apart from what came" in value_in_short(by_key(came, *told, holds), "all", "GBP")
    assert value_in_short(by_key(came), "all", "GBP") == ""
