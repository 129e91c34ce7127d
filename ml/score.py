"""Score every account that has ordered, with reasons, for one run."""

import logging
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd
import psycopg
from sklearn.pipeline import Pipeline

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import registry
from ml.estimators import one_thread, probabilities, selected
from ml.explain import contributions, reasons
from ml.frames import NAMES, check_columns, features_on
from ml.train import too_little

log = logging.getLogger(__name__)

DECIMALS = 6  # of a probability in ml.scores


@dataclass(frozen=True)
class ScoreResult:
    """What a run was scored with: `model_id`, or, where `status` is absent, the `reason` why with nothing."""

    status: Literal["scored", "absent"]
    accounts: int
    model_id: str | None
    reason: str | None


def score_accounts(model: str, as_of: date, run_id: str) -> ScoreResult:
    """Write the scores of a run: one row per account that has ordered by the date, or why there are none.

    The newest model trained as of the date or before scores it. Run again, a run's scores are replaced, all at
    once. Raises StratumError where the model's features are not those of this version, its artefact was
    changed, or the date's features are not there.
    """
    with connect("scorer") as connection:
        found = registry.newest(connection, model, as_of)
        if found is None:
            result = ScoreResult("absent", 0, None, _why_none(connection, model, as_of))
            scores = None
        else:
            check_columns(NAMES, (feature["name"] for feature in found.features), f"model {found.model_id}")
            frame = features_on(connection, [as_of])
            if frame.empty:
                raise StratumError(
                    f"marts.account_features holds nothing as of {as_of}: build the date first "
                    f"(`stratum run --as-of {as_of}`)."
                )
            scores = score_frame(registry.load(connection, found), found, frame)
            result = ScoreResult("scored", len(scores), found.model_id, None)
        _write(connection, model, as_of, run_id, result, scores)
    log.info(
        "Model %s as of %s: %s, %d accounts. %s",
        model,
        as_of,
        result.status,
        result.accounts,
        result.reason or result.model_id,
    )
    return result


def score_frame(pipeline: Pipeline, found: registry.Model, frame: pd.DataFrame) -> pd.DataFrame:
    """Return account_id, probability, score_rank and reason_1 to reason_3 of each row of a frame of one date.

    Rank 1 is the highest probability, equal ones by account_id.
    """
    with one_thread():
        rounded = np.round(probabilities(pipeline, frame), DECIMALS)
        told = reasons(frame, contributions(pipeline, selected(pipeline, frame)), found.features)
    scores = frame[["account_id"]].assign(probability=rounded)
    scores[["reason_1", "reason_2", "reason_3"]] = told
    ranked = scores.sort_values(["probability", "account_id"], ascending=[False, True], ignore_index=True)
    return ranked.assign(score_rank=np.arange(1, len(ranked) + 1))


def _why_none(connection: psycopg.Connection, model: str, as_of: date) -> str:
    short = too_little(connection, model, as_of)
    return short or f"no model is trained as of {as_of} or before: see the runs of train_models"


def _write(
    connection: psycopg.Connection,
    model: str,
    as_of: date,
    run_id: str,
    result: ScoreResult,
    scores: pd.DataFrame | None,
) -> None:
    for table in ("ml.scores", "ml.runs"):
        connection.execute(f"delete from {table} where run_id = %s and model = %s", [run_id, model])  # noqa: S608
    if scores is not None:
        columns = ["account_id", "probability", "score_rank", "reason_1", "reason_2", "reason_3"]
        with (
            connection.cursor() as cursor,
            cursor.copy(
                "copy ml.scores (run_id, model, as_of_date, model_id, account_id, probability, score_rank, reason_1, "
                "reason_2, reason_3) from stdin"
            ) as copy,
        ):
            for row in scores[columns].itertuples(index=False, name=None):
                copy.write_row((run_id, model, as_of, result.model_id, *row))
    connection.execute(
        "insert into ml.runs (run_id, model, as_of_date, status, model_id, reason, accounts) "
        "values (%s, %s, %s, %s, %s, %s, %s)",
        [run_id, model, as_of, result.status, result.model_id, result.reason, result.accounts],
    )
