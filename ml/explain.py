"""Why an account has its score, in three sentences a salesperson reads.

SHAP splits a score into what each feature added to or took from the log-odds. Features that say the same thing
are one group, so that three reasons are three different things. Each sentence tells the account's own value
and the typical one: for what raises the risk, that of accounts that ordered again; for what lowers it, that of
accounts that did not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import shap
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from include.errors import StratumError
from ml.frames import FEATURES, NAMES
from ml.phrases import PHRASES, written

Array = NDArray[np.float64]

REASONS = 3
ADDITIVE_TO = (
    1e-6  # log-odds: rounding of sums over some hundred trees lies far below, a wrong tree far above
)
RAISES, LOWERS, HARDLY = "Raises risk", "Lowers risk", "Hardly matters"
AGAINST = {1: "accounts that ordered again", -1: "accounts that did not order again"}
"""Whose typical value a reason is compared with: what raises the risk with those that stayed."""

_KINDS = {feature.name: feature.kind for feature in FEATURES}
_PLACES = {name: place for place, name in enumerate(NAMES)}
_GROUPS = {
    group: [name for name in NAMES if PHRASES[name].group == group]
    for group in dict.fromkeys(PHRASES[name].group for name in NAMES)
}
_RATIO, _SINCE, _GAP = "gap_ratio", "days_since_last_order", "mean_order_gap_days"


class Typical(NamedTuple):
    """The medians of a feature on the newest training date; None where no account had a value."""

    stayed: float | None
    churned: float | None

    def against(self, way: int) -> float | None:
        """Return the one that a pull `way` (1 up, -1 down) is compared with."""
        return self.stayed if way > 0 else self.churned


def contributions(pipeline: Pipeline, used: pd.DataFrame) -> pd.DataFrame:
    """Return what each used feature adds to each account's calibrated log-odds, against the average account.

    `used` are the columns the trees see (`estimators.selected`). The contributions of a row and the average sum
    to its log-odds; raises StratumError where they do not, since a reason would then be wrong.
    """
    boosting = pipeline[-1]
    explainer = shap.TreeExplainer(boosting.base_)
    values = np.asarray(explainer.shap_values(used, check_additivity=False), dtype=np.float64)
    average = float(np.ravel(explainer.expected_value)[0])
    check_additive(values, average, boosting.margin(used))
    return pd.DataFrame(boosting.slope * values, columns=used.columns, index=used.index)


def check_additive(values: Array, average: float, margin: Array) -> None:
    """Raise StratumError where contributions (accounts × features) and the average miss the margin (log-odds)."""
    off = np.abs(values.sum(axis=1) + average - margin).max(initial=0.0)
    if off > ADDITIVE_TO:
        raise StratumError(
            f"The contributions miss the score by {off:.2g} log-odds: shap and scikit-learn do not fit together. "
            "No reasons were written; install the locked versions."
        )


def importances(contributed: pd.DataFrame) -> dict[str, float]:
    """Return the mean absolute contribution of each feature, the greatest first; 0 for those not used."""
    weights = contributed.abs().mean().reindex(list(NAMES)).fillna(0.0)
    ordered = weights.sort_values(ascending=False, kind="stable")
    return {str(name): float(weight) for name, weight in ordered.items()}


def reasons(
    frame: pd.DataFrame, contributed: pd.DataFrame, contract: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """Return three different sentences per account, what matters most first.

    `frame` holds the features, `contributed` what each adds, row by row; `contract` the typical values
    (`registry.Model.features`). The groups that pull the account to its side of the average come first, the
    strongest before the others; then those that pull the other way. A group whose value does not differ from
    the typical one in the way it pulls comes after them, and one that pulls nowhere last. Where all three would
    lower the risk, the third gives way to the strongest that raises it, if one compares.
    """
    typical = {
        feature["name"]: Typical(feature["typical_stayed"], feature["typical_churned"])
        for feature in contract
    }
    pulls = contributed.reindex(columns=list(NAMES), fill_value=0.0).to_numpy(np.float64)
    members = [[_PLACES[name] for name in names] for names in _GROUPS.values()]
    groups = np.column_stack([pulls[:, places].sum(axis=1) for places in members])
    values = frame[list(NAMES)].to_numpy(np.float64)
    return [_of_account(values[row], pulls[row], groups[row], members, typical) for row in range(len(frame))]


def _of_account(
    values: Array, pulls: Array, groups: Array, members: list[list[int]], typical: Mapping[str, Typical]
) -> list[str]:
    side = 1 if groups.sum() >= 0 else -1
    found: list[tuple[tuple[bool, bool, bool, float], str]] = []
    told = {1: 0, -1: 0}  # sentences that compare, by the way they pull
    # By strength, so that most groups need no sentence: what is enough for a side is not written further.
    for at in sorted(range(len(members)), key=lambda at: (groups[at] * side <= 0, -abs(groups[at]))):
        pull = groups[at]
        way = 1 if pull > 0 else -1 if pull < 0 else side
        if way == side and told[side] == REASONS:
            continue
        pulling = [place for place in members[at] if pulls[place] * way > 0] or members[at]
        speakers = sorted(pulling, key=lambda place: -abs(pulls[place]))
        sentence, compares = _sentence([NAMES[place] for place in speakers], pull, way, values, typical)
        found.append(((pull == 0, not compares, way != side, -abs(pull)), sentence))
        told[way] += compares and pull != 0
        if told[side] == REASONS and (side > 0 or told[1]):
            break
    # sorted() keeps the order of equals, which is that of the groups.
    return _with_a_warning([sentence for _, sentence in sorted(found, key=lambda one: one[0])], told[1] > 0)


def _with_a_warning(sentences: list[str], there: bool) -> list[str]:
    """Return the first three, the last of them the strongest that raises the risk where none of them did.

    Who is asked to call a large account is owed what speaks for it, though its risk is below the average.
    """
    best = sentences[:REASONS]
    if there and not any(sentence.startswith(RAISES) for sentence in best):
        best[-1] = next(sentence for sentence in sentences if sentence.startswith(RAISES))
    return best


def _sentence(
    speakers: list[str], pull: float, way: int, values: Array, typical: Mapping[str, Typical]
) -> tuple[str, bool]:
    """Return the sentence of a group, and whether it compares; the first speaker that can compare speaks."""
    head = (RAISES if way > 0 else LOWERS) if pull else HARDLY
    for name in speakers:
        if fact := _compared(name, way, values, typical):
            return f"{head}: {fact}", True
    return f"{head}: {_fact(speakers[0], values)}", False


def _compared(name: str, way: int, values: Array, typical: Mapping[str, Typical]) -> str | None:
    """Return the fact with what it is compared with; None where the two do not differ in the way it pulls."""
    value, phrase, kind = values[_PLACES[name]], PHRASES[name], _KINDS[name]
    if np.isnan(value):
        return None if name == _RATIO else phrase.without
    if name == _RATIO:  # an account is compared with itself
        differ = written(values[_PLACES[_SINCE]], "days") != written(values[_PLACES[_GAP]], "days")
        return _fact(name, values) if differ and (value - 1) * way > 0 else None
    other = typical[name].against(way)
    if (
        other is None
        or (value - other) * way * phrase.more <= 0
        or written(value, kind) == written(other, kind)
    ):
        return None
    return f"{_fact(name, values)} ({AGAINST[way]}: {written(other, kind)})"


def _fact(name: str, values: Array) -> str:
    value = values[_PLACES[name]]
    if np.isnan(value):
        return PHRASES[name].without
    if name == _RATIO:
        own = {one: written(values[_PLACES[one]], "days") for one in (_SINCE, _GAP)}
        text = PHRASES[name].words.format(**own)
    else:
        text = PHRASES[name].words.format(value=written(value, _KINDS[name]))
    return text.replace(" 0 days ago", " today")
