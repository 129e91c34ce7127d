"""Why an account has its score, in three sentences a salesperson reads.

SHAP splits a score into what each feature added to or took from the log-odds. Features that say the same thing
are one group, so that three reasons are three different things. Each sentence tells the account's own value
and a typical one, and whose: for what raises the probability, the median of all accounts of the newest training date that it
did not happen to; for what lowers it, that of all it happened to. Accounts of the same size or kind are not singled out: the
sentence names the accounts it speaks of, and claims no likeness.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import shap
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from include.errors import StratumError
from ml.phrases import PHRASES
from ml.targets import Words
from ml.wording import Mask, Places, Ways, Wording

Array = NDArray[np.float64]

REASONS = 3
ADDITIVE_TO = (
    1e-6  # log-odds: rounding of sums over some hundred trees lies far below, a wrong tree far above
)


def contributions(pipeline: Pipeline, used: pd.DataFrame) -> pd.DataFrame:
    """Return what each used feature adds to each account's calibrated log-odds, against the average account.

    `used` are the columns the trees see (`estimators.selected`). The contributions of a row and the average sum
    to its log-odds; raises StratumError where they do not, since a reason would then be wrong.
    """
    boosting = pipeline[-1]
    explainer = shap.TreeExplainer(boosting.base_)
    values = shapley_values(explainer, used.to_numpy(np.float64))
    average = float(np.ravel(explainer.expected_value)[0])
    check_additive(values, average, boosting.margin(used))
    return pd.DataFrame(boosting.slope * values, columns=used.columns, index=used.index)


def shapley_values(explainer: shap.TreeExplainer, used: Array) -> Array:
    """Return what `explainer.shap_values` does of the accounts (accounts × features, NaN where unknown), but sooner.

    A tree cannot tell accounts apart whose values lie on the same sides of all its splits: SHAP is asked of one of
    them and holds for the others. A tree of six leaves has 2^5 such sets of accounts at most, however many they are.
    """
    columns = np.asfortranarray(used)
    values: Array = np.zeros(used.shape, order="F")
    for tree in explainer.model.trees:
        splits = np.flatnonzero(tree.children_left >= 0)
        sides = np.zeros(len(used), dtype=np.min_scalar_type(2 ** len(splits) - 1))
        for split in splits:
            value = columns[:, tree.features[split]]
            left = value <= tree.thresholds[split]
            if tree.children_default[split] == tree.children_left[split]:
                left |= np.isnan(value)
            sides = 2 * sides + left
        _, one, which = np.unique(sides, return_index=True, return_inverse=True)
        of_one = shap.TreeExplainer([tree]).shap_values(used[one], check_additivity=False)
        for feature in np.unique(tree.features[splits]):
            values[:, feature] += of_one[which, feature]
    return values


def check_additive(values: Array, average: float, margin: Array) -> None:
    """Raise StratumError where contributions (accounts × features) and the average miss the margin (log-odds)."""
    off = np.abs(values.sum(axis=1) + average - margin).max(initial=0.0)
    if off > ADDITIVE_TO:
        raise StratumError(
            f"The contributions miss the score by {off:.2g} log-odds: shap and scikit-learn do not fit together. "
            "No reasons were written; install the locked versions."
        )


def importances(contributed: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Return the mean absolute contribution of each of the features, the greatest first; 0 for those not used."""
    weights = contributed.abs().mean().reindex(list(names)).fillna(0.0)
    ordered = weights.sort_values(ascending=False, kind="stable")
    return {str(name): float(weight) for name, weight in ordered.items()}


def reasons(
    frame: pd.DataFrame, contributed: pd.DataFrame, contract: Sequence[Mapping[str, Any]], words: Words
) -> list[list[str]]:
    """Return three different sentences per account, what matters most first.

    `frame` holds the features, `contributed` what each adds, row by row; `contract` the kinds and the typical values
    (`registry.Model.features`), `words` what the model's sentences say. The groups that pull the account to its side of
    the average come first, the strongest before the others; then those that pull the other way. A group whose value does
    not differ from the typical one in the way it pulls comes after them, and one that pulls nowhere last. Where all three
    would lower the probability, the third gives way to the strongest that raises it, if one compares.
    """
    names = [feature["name"] for feature in contract]
    wording = Wording(frame.reindex(columns=names).to_numpy(np.float64), contract, words)
    pulls = contributed.reindex(columns=names, fill_value=0.0).to_numpy(np.float64)
    members: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        members.setdefault(PHRASES[name].group, []).append(place)
    groups = np.column_stack([pulls[:, places].sum(axis=1) for places in members.values()])
    matters = groups != 0
    side = np.where(groups.sum(axis=1) >= 0, 1, -1)[:, None]
    way = np.where(matters, np.sign(groups), side).astype(np.int8)
    found = [
        _speakers(wording, places, pulls[:, places], way[:, at]) for at, places in enumerate(members.values())
    ]
    speakers, compares = (np.column_stack(of) for of in zip(*found, strict=True))
    # The sort keeps the order of equals, which is that of the contract.
    order = np.lexsort((-np.abs(groups), 4 * ~matters + 2 * ~compares + (way != side)), axis=1)
    best = _with_what_raises(order, matters & (way > 0), compares)
    of_best = (np.take_along_axis(of, best, 1) for of in (speakers, compares, way, matters))
    return wording.sentences(*of_best).tolist()


def _speakers(wording: Wording, places: list[int], pulls: Array, way: Ways) -> tuple[Places, Mask]:
    """Return the place of the feature that speaks for a group, and whether it compares, for each account.

    `pulls` are those of the group's features at `places`, `way` that of the group. Of those that pull its way (of all
    where none does) the strongest that can compare speaks, or else the strongest.
    """
    pulling = pulls * way[:, None] > 0
    pulling |= ~pulling.any(axis=1, keepdims=True)
    can = pulling & np.column_stack([wording.compares(place, way) for place in places])
    compares: Mask = np.any(can, axis=1)
    asked = np.where(compares[:, None], can, pulling)
    return np.asarray(places)[np.where(asked, np.abs(pulls), -1.0).argmax(axis=1)], compares


def _with_what_raises(order: Places, raises: Mask, compares: Mask) -> Places:
    """Return the first three groups, the last of them the strongest that raises the probability where none of them did.

    Who is asked to call a large account is owed what speaks for it, though its probability is below the average.
    """
    best = order[:, :REASONS].copy()
    does_raise, could = (np.take_along_axis(of, order, 1) for of in (raises, raises & compares))
    owed = could.any(axis=1) & ~does_raise[:, :REASONS].any(axis=1)
    best[owed, -1] = order[owed, could[owed].argmax(axis=1)]
    return best
