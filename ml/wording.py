"""What can be said of accounts' features: whether a value differs from the typical one, and its sentence.

All accounts of a chunk are looked at together, feature by feature: a sentence is put into words once for all
accounts that are told the same, which is what makes reasons for a million accounts affordable.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.features import Kind
from ml.phrases import PHRASES, written
from ml.targets import Words

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]
Ways = NDArray[np.int8]
Told = NDArray[np.object_]

HARDLY = "Hardly matters"

_RATIO, _SINCE, _GAP = "gap_ratio", "days_since_last_order", "mean_order_gap_days"
_COARSEST = (
    1.0  # values further apart are never written alike: days and amounts are written whole, all else finer
)
_COARSEST_SHARE = 0.011  # a hundredth, and room for the rounding of floats


class Wording:
    """The features of some accounts, and what they are compared with.

    `values` are accounts × features of the `contract`, in its order; the contract tells kinds and typical values
    (`registry.Model.features`), `words` what the model's sentences say.
    """

    def __init__(self, values: Array, contract: Sequence[Mapping[str, Any]], words: Words) -> None:
        self.values = values
        self.words = words
        self.names: list[str] = [feature["name"] for feature in contract]
        self.kinds: list[Kind] = [feature["kind"] for feature in contract]
        # What a pull up is compared with, and a pull down; None where no account had a value.
        self.typical: list[dict[int, float | None]] = [
            {1: feature["typical_not_happened"], -1: feature["typical_happened"]} for feature in contract
        ]

    def compares(self, place: int, way: Ways) -> Mask:
        """Whether the feature at a place differs from what it is compared with in the way (1, -1) it pulls."""
        values, name = self.values[:, place], self.names[place]
        unknown = np.isnan(values)
        if name == _RATIO:  # an account is compared with itself
            since, gap = self._rhythm()
            return ~unknown & (since != gap) & ((values - 1) * way * self.words.risk > 0)
        compares = unknown
        for one, other in self.typical[place].items():
            if other is not None:
                differs = (values - other) * one * PHRASES[name].more * self.words.risk > 0
                differs &= way == one
                compares = compares | (differs & ~_alike(values, differs, other, self.kinds[place]))
        return compares

    def sentences(self, speakers: Places, compares: Mask, way: Ways, matters: Mask) -> Told:
        """Return the sentences of the features at the places `speakers`, all arrays being accounts × sentences."""
        told: Told = np.empty(speakers.shape, dtype=object)
        for place in np.unique(speakers):
            rows, columns = np.nonzero(speakers == place)
            variants = 4 * compares[rows, columns] + 2 * (way[rows, columns] > 0) + matters[rows, columns]
            for variant in np.unique(variants):
                of = variants == variant
                compared, raises, does_matter = (bool(variant & bit) for bit in (4, 2, 1))
                head = (self.words.raises if raises else self.words.lowers) if does_matter else HARDLY
                told[rows[of], columns[of]] = self._of(int(place), rows[of], head, raises, compared)
        return told

    def _of(self, place: int, rows: Places, head: str, raises: bool, compared: bool) -> Told:
        """Return the sentence of a feature for each of the rows, which differ in its value alone."""
        name, kind, phrase = self.names[place], self.kinds[place], PHRASES[self.names[place]]
        after = ""
        other = self.typical[place][1 if raises else -1]
        if compared and name != _RATIO and other is not None:
            others = self.words.not_happened if raises else self.words.happened
            after = f" (typical of {others}: {written(other, kind)})"
        values = self.values[rows, place]
        if name == _RATIO:
            since, gap = (days[rows] for days in self._rhythm())
            different, which = np.unique(
                np.column_stack([since, gap, np.isnan(values)]), axis=0, return_inverse=True
            )
            facts = [
                phrase.without
                if unknown
                else phrase.words.format(**{_SINCE: written(since, "days"), _GAP: written(gap, "days")})
                for since, gap, unknown in different
            ]
        else:
            different, which = np.unique(values, return_inverse=True)
            facts = [
                phrase.without if np.isnan(value) else phrase.words.format(value=written(value, kind)) + after
                for value in different
            ]
        told: Told = np.array(
            [f"{head}: {fact}".replace(" 0 days ago", " today") for fact in facts], dtype=object
        )
        return told[which]

    def _rhythm(self) -> tuple[Array, Array]:
        """Return the days since the last order and between orders as they are written: whole."""
        since, gap = (np.floor(self.values[:, self.names.index(name)] + 0.5) for name in (_SINCE, _GAP))
        return since, gap


def _alike(values: Array, asked: Mask, other: float, kind: Kind) -> Mask:
    """Whether a value is written as `other` is, for the rows that are asked of."""
    near = asked & (np.abs(values - other) <= (_COARSEST_SHARE if kind == "share" else _COARSEST))
    alike = np.zeros(len(values), dtype=bool)
    different, which = np.unique(values[near], return_inverse=True)
    text = written(other, kind)
    alike[near] = np.array([written(value, kind) == text for value in different], dtype=bool)[which]
    return alike
