"""Whether a model is better than a simpler way, in plain words: ahead of it, behind it, or not told apart from it."""

from collections.abc import Mapping

from ml.judge import GAMMA_GAMMA, MODEL, OBSERVED, TITLES, VALUED, WAYS, Figure

Found = Mapping[tuple[str, str, str], Figure]
"""Figures by population, estimator and metric."""

AHEAD, APART, BEHIND = "ahead of", "not told apart from", "behind"
LESS_IS_BETTER = ("brier", "log_loss", "ece", "value_error")


def standing(less: Figure) -> str:
    """Return AHEAD, BEHIND or APART of the model's figure less another way's, by whether its interval holds 0."""
    if less.low is None or less.high is None or less.low <= 0 <= less.high:
        return APART
    return AHEAD if (less.value > 0) != (less.metric in LESS_IS_BETTER) else BEHIND


def in_short(found: Found, population: str) -> str:
    """Return one sentence: which ways the model ranks ahead of, behind, or not told apart from, by how much of AUC.

    Empty where no way stands beside it.
    """
    ways = [way for way in WAYS if (population, f"{MODEL}-{way}", "auc") in found]
    less = {way: found[population, f"{MODEL}-{way}", "auc"] for way in ways}
    parts = []
    for word in (AHEAD, APART, BEHIND):
        of_word = [f"{TITLES[way]} ({signed(less[way])})" for way in ways if standing(less[way]) == word]
        if of_word:
            parts.append(f"{word} {_listed(of_word)}")
    return f"By AUC the model is {'; '.join(parts)}." if parts else ""


def value_in_short(found: Found, population: str, currency: str) -> str:
    """Return one sentence on expected values: what was told and came, and the error beside Gamma-Gamma's; or nothing."""
    if (population, MODEL, "value_missed") not in found:
        return ""
    told, came = found[population, MODEL, "value"].value, found[population, OBSERVED, "value"].value
    missed, error = found[population, MODEL, "value_missed"], found[population, MODEL, "value_error"].value
    holds = missed.low is None or missed.high is None or missed.low <= 0 <= missed.high
    level = "not told apart from what came" if holds else "too much" if missed.value > 0 else "too little"
    text = (
        f"Expected value: {told:,.2f} {currency} per account was told and {came:,.2f} came, {level} "
        f"({signed(missed, digits=2)}); it is off by {error:,.2f} (root mean square)"
    )
    less = found.get((population, f"{MODEL}-{GAMMA_GAMMA}", "value_error"))
    if less is None:
        return f"{text}."
    return f"{text}, {standing(less)} {VALUED[GAMMA_GAMMA]} ({signed(less, digits=2)})."


def signed(figure: Figure, digits: int = 3) -> str:
    """Return a difference with its sign and interval: `+0.040, +0.033 to +0.046`."""
    form = f"+,.{digits}f"
    if figure.low is None or figure.high is None:
        return format(figure.value, form)
    return f"{figure.value:{form}}, {figure.low:{form}} to {figure.high:{form}}"


def _listed(parts: list[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
