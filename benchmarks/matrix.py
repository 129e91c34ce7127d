"""A matrix of accounts for the models: the features of churn, and some of them again, from one seed."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.data import LAST_DAY
from ml.features import FEATURES, Feature, Kind
from ml.frames import LABEL
from ml.phrases import PHRASES
from ml.targets import CHURN, Target

WIDTH, AGAIN, SEED = 60, "_again", 1
_OWN = tuple(feature for feature in FEATURES if feature.name in CHURN.names)
WIDE = _OWN + tuple(replace(one, name=one.name + AGAIN) for one in _OWN[: WIDTH - len(_OWN)])
"""The contract of churn, and so many of its features once more that there are 60, each with its kind and direction."""
TYPICAL: dict[Kind, float] = {
    "days": 40.0,
    "count": 5.0,
    "amount": 2000.0,
    "share": 0.4,
    "score": 7.0,
    "flag": 0.5,
}
MISSING = 0.1  # share of the accounts without a value of a feature that not all have
Array = NDArray[np.float64]


@dataclass(frozen=True)
class WideTarget(Target):
    """Churn of 60 features."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, own and repeated."""
        return WIDE


WIDE_CHURN = WideTarget(
    **{
        name: getattr(CHURN, name)
        for name in ("model", "definition", "horizon", "label", "population", "words")
    },
    names=tuple(feature.name for feature in WIDE),
)


def say() -> None:
    """Give the repeated features words, each a group of its own: as many sentences to choose from as may be."""
    for feature in WIDE[len(_OWN) :]:
        own = feature.name.removesuffix(AGAIN)
        phrase = replace(PHRASES[own], group=feature.name)
        # The ratio's own words hold two other features.
        PHRASES[feature.name] = phrase if own != "gap_ratio" else replace(phrase, words="gap ratio: {value}")


def accounts(rows: int, dates: int = 1) -> pd.DataFrame:
    """Return as_of_date, account_id, the 60 features (float64) and LABEL, on so many month-ends up to LAST_DAY.

    How lively an account is moves its features, each its own way, and the outcome. The same rows every time.
    """
    random = np.random.default_rng(SEED)
    lively = random.normal(size=rows)
    columns = {}
    for feature in WIDE:
        more = (
            -feature.direction if feature.direction else 1
        )  # what raises the risk is less of a lively account
        level = 0.6 * more * lively + 0.8 * random.normal(size=rows)
        columns[feature.name] = _values(feature, level, random)
    frame = pd.DataFrame(columns)
    frame["gap_ratio"] = frame["days_since_last_order"] / frame["mean_order_gap_days"]
    odds = np.exp(-1.2 * lively - 0.5 * (frame["nps_latest"].fillna(TYPICAL["score"]) - TYPICAL["score"]))
    month_ends = pd.date_range(end=LAST_DAY, periods=dates, freq="ME")
    frame.insert(0, "as_of_date", month_ends.repeat(rows // dates).as_unit("us"))
    frame.insert(1, "account_id", [f"A{number % (rows // dates):07d}" for number in range(rows)])
    return frame.assign(**{LABEL: (random.random(rows) < odds / (1 + odds)).astype(np.int8)})


def _values(feature: Feature, level: Array, random: np.random.Generator) -> Array:
    """Return values of a feature's kind, the greater the higher the level (standard normal)."""
    typical = TYPICAL[feature.kind]
    if feature.kind == "flag":
        return (level > typical).astype(np.float64)
    if feature.kind == "score":
        values = np.clip(np.round(typical + 2 * level), 0, 10)
    elif feature.kind == "share":
        values = np.clip(typical + 0.2 * level, 0, 1)
    elif feature.kind == "amount":
        values = np.round(typical * np.exp(level), 2)
    else:
        values = 1 + np.floor(typical * np.exp(0.8 * level))
    if feature.kind != "days":
        values[random.random(len(values)) < MISSING] = np.nan
    return values
