"""The knobs of the models, read from params.yaml and checked."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from include.errors import StratumError

PARAMS = Path(__file__).with_name("params.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Enough(_Strict):
    """The least history a model is trained on."""

    month_ends: int = Field(ge=1)
    rows: int = Field(ge=1)
    of_each_outcome: int = Field(ge=1)
    accounts_of_each_outcome: int = Field(ge=1)


class Boosting(_Strict):
    """Arguments of scikit-learn's HistGradientBoostingClassifier."""

    max_iter: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    max_leaf_nodes: int = Field(ge=2, le=64)  # a tree's splits are the bits of a number (ml/explain.py)
    min_samples_leaf: int = Field(ge=1)
    l2_regularization: float = Field(ge=0)


class Choice(_Strict):
    """How the setting of the boosting is chosen, and the settings besides `boosting` that may be."""

    others: dict[str, Boosting]
    folds: int = Field(ge=1)
    rows: int = Field(ge=100)
    budget_s: float = Field(gt=0)
    s_per_billion: float = Field(gt=0)
    margin: float = Field(ge=0)


class Champion(_Strict):
    """When a newly trained model replaces the one that scores."""

    stands_days: int = Field(ge=1)
    metric: Literal["brier", "log_loss", "auc"]
    margin: float = Field(ge=0)


class Evaluation(_Strict):
    """How a frozen model is judged."""

    bootstrap: int = Field(ge=100)
    reliability_bins: int = Field(ge=2)
    lift_share: float = Field(gt=0, lt=1)
    logistic_c: float = Field(gt=0)
    bg_nbd_penalizers: tuple[float, ...] = Field(min_length=1)


class Params(_Strict):
    """Every knob of one model; params.yaml says what each does."""

    retrain_days: int = Field(ge=1)
    champion: Champion
    seed: int
    enough: Enough
    varies_on_share: float = Field(gt=0, le=1)
    boosting: Boosting
    choice: Choice
    validation_folds: int = Field(ge=1)
    validation_month_ends: int = Field(ge=1)
    level_history_days: int = Field(ge=0)
    next_best_weight: float = Field(default=0.0, ge=0)
    next_best_min_buyers: int = Field(default=1, ge=1)
    evaluation: Evaluation

    @model_validator(mode="after")
    def _a_period_begins_on_a_training_day(self) -> Self:
        if self.champion.stands_days % self.retrain_days:
            raise ValueError("champion.stands_days is no multiple of retrain_days")
        return self


Section = TypeVar("Section", bound=_Strict)


class ClusterParams(_Strict):
    """The knobs of the clusters; params.yaml says what each does."""

    seed: int
    min_accounts: int = Field(ge=10)
    k_from: int = Field(ge=2)
    k_to: int = Field(ge=2)
    min_share: float = Field(ge=0, lt=1)
    min_stability: float = Field(ge=0, le=1)
    keep_k: float = Field(ge=0)
    resamples: int = Field(ge=1)
    starts: int = Field(ge=1)
    fit_accounts: int = Field(ge=10)
    silhouette_accounts: int = Field(ge=10)
    varies_on_share: float = Field(ge=0, lt=1)
    clip: float = Field(gt=0)
    max_move: float = Field(gt=0)


class RecommendationParams(_Strict):
    """The knobs of the recommendations; params.yaml says what each does."""

    retrain_days: int = Field(ge=1)
    seed: int
    history_days: int = Field(ge=1)
    half_life_days: int = Field(ge=1)
    popular_days: int = Field(ge=1)
    sold_within_days: int = Field(ge=1)
    neighbours: int = Field(ge=1)
    min_accounts: int = Field(ge=2)
    min_products: int = Field(ge=2)
    industry_min_accounts: int = Field(ge=1)
    window_days: int = Field(ge=1)
    windows: int = Field(ge=2)
    evaluated_accounts: int = Field(ge=10)
    min_evaluated: int = Field(ge=2)
    bootstrap: int = Field(ge=100)
    kept: int = Field(ge=10)


def section_of(name: str, kind: type[Section], path: Path = PARAMS) -> Section:
    """Return a section of the knobs that is no model's. Raises StratumError where one is missing, unknown or wrong."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()).get(name))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise StratumError(f"{path}: {where}: {first['msg']}") from error


@lru_cache(maxsize=8)
def params_of(model: str, path: Path = PARAMS) -> Params:
    """Return the knobs of a model. Raises StratumError where it has none, or one is missing, unknown or wrong."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    if model not in document:
        raise StratumError(f"There is no model '{model}': {path} knows {', '.join(document)}.")
    try:
        return Params.model_validate(document[model])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (model, *first["loc"])))
        raise StratumError(f"{path}: {where}: {first['msg']}") from error
