"""The knobs of the models, read from params.yaml and checked."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.errors import StratumError

PARAMS = Path(__file__).with_name("params.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Enough(_Strict):
    """The least history a model is trained on."""

    month_ends: int = Field(ge=1)
    rows: int = Field(ge=1)
    of_each_outcome: int = Field(ge=1)


class Boosting(_Strict):
    """Arguments of scikit-learn's HistGradientBoostingClassifier."""

    max_iter: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    max_leaf_nodes: int = Field(ge=2)
    min_samples_leaf: int = Field(ge=1)
    l2_regularization: float = Field(ge=0)


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
    seed: int
    enough: Enough
    varies_on_share: float = Field(gt=0, le=1)
    boosting: Boosting
    validation_folds: int = Field(ge=1)
    validation_month_ends: int = Field(ge=1)
    evaluation: Evaluation


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
