"""Direction of the reasons, feature by feature, of every model: who differs in one feature has another score, and hears so.

Each model is fitted on accounts whose features are drawn independently and all move what happens, each the way people
read it: more of what is read as a risk makes churn likelier and an order less so. Then one feature at a time of an account
that is like most is turned from one end to the other, and its score and its sentence must turn with it. What is expected
is written out here: none of it is taken from what the code under test says of its targets.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from ml.estimators import make_pipeline, margins, one_thread, selected
from ml.explain import contributions, reasons
from ml.frames import LABEL
from ml.params import params_of
from ml.phrases import PHRASES
from ml.targets import CHURN, LAPSE, NEW_CATEGORY, REPURCHASE, RISE, TRIAL, Target
from ml.train import contract_of

ROWS, STRENGTH = 4_000, 0.9
LOW, HIGH = 0.02, 0.98
"""Between these quantiles a feature is turned."""


@dataclass(frozen=True)
class Said:
    """A model and what its sentences must be: whether risk makes it likelier, the heads, and who is compared with."""

    target: Target
    with_risk: int
    raises: str
    lowers: str
    happened: str
    not_happened: str


SAID = {
    "churn": Said(
        CHURN, 1, "Raises risk", "Lowers risk", "accounts that did not order again", "accounts that ordered again",
    ),
    "lapse": Said(
        LAPSE, 1, "Raises risk", "Lowers risk", "accounts whose contract lapsed", "accounts whose contract went on",
    ),
    "repurchase": Said(
        REPURCHASE, -1, "Speaks for an order", "Speaks against an order",
        "accounts that ordered", "accounts that did not order",
    ),
    "new category": Said(
        NEW_CATEGORY, -1, "Speaks for a new category", "Speaks against a new category",
        "accounts that bought a new category", "accounts that did not",
    ),
    "rise in spend": Said(
        RISE, -1, "Speaks for a rise", "Speaks against a rise",
        "accounts whose spend rose", "accounts whose spend did not rise",
    ),
    "trial": Said(
        TRIAL, -1, "Speaks for a first order", "Speaks against a first order",
        "trials that became customers", "trials that did not",
    ),
}  # fmt: skip
RISKS = {
    "days_since_last_order", "gap_ratio", "mean_order_gap_days", "return_rate_365d", "days_since_last_login", "tickets_90d",
    "open_tickets", "urgent_tickets_90d", "days_since_first_use", "days_since_last_use", "days_past_contract_end",
    "days_since_last_activity", "days_since_won_deal",
}  # fmt: skip
"""Features of which more is read as a risk; more of all others is read as a good sign."""
CASES = [(name, feature) for name, said in SAID.items() for feature in said.target.names]


@dataclass(frozen=True)
class Turned:
    """One feature of an account at its low and its high end: log-odds and sentence of each."""

    low: float
    high: float
    of_low: str
    of_high: str


@lru_cache(maxsize=len(SAID))
def turned(name: str) -> dict[str, Turned]:
    """Every feature of a model, turned alone."""
    said = SAID[name]
    names, frame, params = list(said.target.names), planted(said), params_of(said.target.model)
    setting = params.boosting.model_copy(update={"learning_rate": 0.2, "min_samples_leaf": 50})
    pipeline = make_pipeline(said.target, params.model_copy(update={"boosting": setting}), names)
    ends = frame[names].quantile([LOW, HIGH], interpolation="nearest")
    asked = pd.DataFrame([frame[names].median()] * 2 * len(names), index=range(2 * len(names)))
    for at, feature in enumerate(names):
        asked.loc[[2 * at, 2 * at + 1], feature] = ends[feature].to_numpy()
    with one_thread():
        pipeline.fit(frame[names], frame[LABEL])
        odds, adds = margins(pipeline, asked), contributions(pipeline, selected(pipeline, asked))
    # Of what the model adds for each, the turned feature's part alone is put into words: nothing speaks before it.
    of_turned = adds.where(np.eye(len(names), dtype=bool).repeat(2, axis=0), 0.0)
    told = reasons(asked, of_turned, contract_of(said.target, frame, names), said.target.words)
    return {
        feature: Turned(odds[2 * at], odds[2 * at + 1], told[2 * at][0], told[2 * at + 1][0])
        for at, feature in enumerate(names)
    }


def planted(said: Said) -> pd.DataFrame:
    """Accounts of a model's population, every feature of which moves what happens by as much as the others do."""
    random = np.random.default_rng(17)
    level = random.normal(size=(ROWS, len(said.target.names)))
    ways = np.array([said.with_risk * (1 if name in RISKS else -1) for name in said.target.names])
    happened = random.random(ROWS) < expit(STRENGTH * level @ ways)
    values = {
        one.name: level[:, at] > 0 if one.kind == "flag" else np.round(20 * np.exp(level[:, at] / 2), 2)
        for at, one in enumerate(said.target.features)
    }
    return pd.DataFrame(values, dtype=np.float64).assign(**{LABEL: happened.astype(np.int8)})


def test_what_is_read_as_a_risk_is_what_people_read_as_one() -> None:
    assert {name for name, phrase in PHRASES.items() if phrase.more == 1} == RISKS


@pytest.mark.parametrize(("name", "feature"), CASES)
def test_a_feature_that_is_turned_turns_score_and_sentence_together(name: str, feature: str) -> None:
    said, found = SAID[name], turned(name)[feature]
    is_likelier_high = (feature in RISKS) == (said.with_risk == 1)
    (more, of_more), (less, of_less) = (found.high, found.of_high), (found.low, found.of_low)
    if not is_likelier_high:
        (more, of_more), (less, of_less) = (less, of_less), (more, of_more)
    assert more > less + 0.1
    fact = "last order " if feature == "gap_ratio" else PHRASES[feature].words.split("{")[0]
    assert of_more.startswith(f"{said.raises}: {fact}")
    assert of_less.startswith(f"{said.lowers}: {fact}")
    if feature != "gap_ratio":  # an account's rhythm is compared with its own
        assert f" (typical of {said.not_happened}: " in of_more
        assert f" (typical of {said.happened}: " in of_less
