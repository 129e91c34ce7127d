"""Score every account of each model's population, with reasons, for one run."""

import logging
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from sklearn.pipeline import Pipeline

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import drift, realised, registry, value
from ml.champion import champion_on
from ml.copies import write_frame
from ml.estimators import level_on, one_thread, probabilities, selected
from ml.explain import contributions, reasons
from ml.frames import check_columns, features_in_chunks, was_built
from ml.next_best import next_best
from ml.params import params_of
from ml.targets import MODELS, Target, target_of, target_on
from ml.train import due_date, too_little

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

DECIMALS = 6  # of a probability in ml.scores
_COLUMNS = [
    "account_id", "probability", "expected_value", "next_best", "next_best_probability", "reason_1", "reason_2",
    "reason_3",
]  # fmt: skip


@dataclass(frozen=True)
class ScoreResult:
    """What a run was scored with: `model_id`, or, where `status` is absent, the `reason` why with nothing."""

    model: str
    status: Literal["scored", "absent"]
    accounts: int
    model_id: str | None
    reason: str | None


def score_all(as_of: date, run_id: str) -> list[ScoreResult]:
    """Write the scores of a run by every model. Raises StratumError as `score_accounts` does."""
    return [score_accounts(model, as_of, run_id) for model in MODELS]


def score_accounts(model: str, as_of: date, run_id: str) -> ScoreResult:
    """Write the scores of a run by a model: one row per account of its population, or why there are none.

    The champion of the date scores it (`ml/champion.py`). Run again, a run's scores are replaced, all at
    once. Raises StratumError where the model's features are not those of this version, its artefact was
    changed, or the date's features are not there.
    """
    with connect("scorer") as connection:
        _forget(connection, run_id, model)
        found = champion_on(connection, model, as_of)
        if found is None:
            definition = target_on(connection, model, as_of).definition
            result = ScoreResult(model, "absent", 0, None, _why_none(connection, model, as_of))
        else:
            definition = found.definition
            target = target_of(model, definition)
            named = (feature["name"] for feature in found.features)
            check_columns(target.names, named, f"model {found.model_id}")
            pipeline = registry.load(connection, found)
            seen = drift.Seen(found, drift.bins_of_model(connection, found.model_id))
            probability = _write_scores(connection, as_of, run_id, found, pipeline, target, seen)
            if len(probability) == 0:
                found = None
                result = ScoreResult(model, "absent", 0, None, f"no account is of its population on {as_of}")
            else:
                result = ScoreResult(model, "scored", len(probability), found.model_id, None)
                level = level_on(pipeline, pd.Timestamp(as_of))
                rows = drift.watch(connection, run_id, as_of, found, seen, probability, level)
                if told := drift.told(rows):
                    log.warning("Model %s as of %s: %s", model, as_of, told)
        _write_run(connection, as_of, run_id, result, found, definition)
        realised.measure(connection, model, as_of)
    log.info(
        "Model %s as of %s: %s, %d accounts. %s",
        model,
        as_of,
        result.status,
        result.accounts,
        result.reason or result.model_id,
    )
    return result


def score_frame(
    pipeline: Pipeline, found: registry.Model, frame: pd.DataFrame, target: Target
) -> pd.DataFrame:
    """Return account_id, probability and reason_1 to reason_3 of each row of a frame of one date.

    Where the target has a value, expected_value is the net revenue expected in the window.
    """
    with one_thread():
        rounded = np.round(probabilities(pipeline, frame), DECIMALS)
        told = reasons(
            frame, contributions(pipeline, selected(pipeline, frame)), found.features, target.words
        )
    scores = frame[["account_id"]].assign(probability=rounded)
    if target.has_value:
        line = found.parameters["value"]
        scores["expected_value"] = np.round(value.expected(line, frame, rounded, found.horizon_days), 2)
    scores[["reason_1", "reason_2", "reason_3"]] = told
    return scores


def _forget(connection: psycopg.Connection, run_id: str, model: str) -> None:
    """Take away what a run was scored with by a model, and what was measured of it: it is scored anew."""
    for table in ("ml.scores", "ml.runs"):
        connection.execute(f"delete from {table} where run_id = %s and model = %s", [run_id, model])  # noqa: S608
    drift.forget(connection, run_id, model)


def _write_scores(
    connection: psycopg.Connection,
    as_of: date,
    run_id: str,
    found: registry.Model,
    pipeline: Pipeline,
    target: Target,
    seen: drift.Seen,
) -> Array:
    """Score the accounts chunk by chunk, rank them, and return their probabilities; `seen` is told their features.

    A rank needs all probabilities, so the scores wait in a table of the transaction. Rank 1 is the highest probability,
    equal ones by account_id. Raises StratumError where there is no account, unless the target may be empty or the date was
    built (all that have ordered may be under contracts).
    """
    likeliest = next_best(connection, as_of, found.horizon_days) if target.has_next_best else None
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
    connection.execute(
        sql.SQL(
            "create temporary table scored on commit drop as select {} from ml.scores with no data"
        ).format(columns)
    )
    told = []
    for chunk in features_in_chunks(connection, target, as_of):
        scores = score_frame(pipeline, found, chunk, target)
        if likeliest is not None:
            scores = scores.merge(likeliest, on="account_id", how="left")
            scores["next_best_probability"] = np.round(scores["probability"] * scores.pop("chance"), DECIMALS)
        write_frame(connection, "scored", scores)
        seen.add(chunk)
        told.append(scores["probability"].to_numpy(np.float64))
    if not told and (target.may_be_empty or was_built(connection, as_of)):
        return np.array([])
    if not told:
        raise StratumError(
            f"marts.{target.features_mart} holds nothing as of {as_of}: build the date first "
            f"(`stratum run --as-of {as_of}`)."
        )
    connection.execute(
        sql.SQL(
            "insert into ml.scores (run_id, model, as_of_date, model_id, score_rank, {0}) "
            'select %s, %s, %s, %s, row_number() over (order by probability desc, account_id collate "C"), {0} from scored'
        ).format(columns),
        [run_id, found.model, as_of, found.model_id],
    )
    return np.concatenate(told)


def _why_none(connection: psycopg.Connection, model: str, as_of: date) -> str:
    due = due_date(as_of, params_of(model).retrain_days)
    short = registry.refusal(connection, model, due) or too_little(connection, model, as_of)
    return short or f"no model is trained as of {as_of} or before: see the runs of train_models"


def _write_run(
    connection: psycopg.Connection,
    as_of: date,
    run_id: str,
    result: ScoreResult,
    found: registry.Model | None,
    definition: str,
) -> None:
    connection.execute(
        "insert into ml.runs (run_id, model, as_of_date, status, model_id, reason, accounts, definition, horizon_days, "
        "trained_as_of, base_rate, auc) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            run_id,
            result.model,
            as_of,
            result.status,
            result.model_id,
            result.reason,
            result.accounts,
            definition,
            found.horizon_days if found else None,
            found.trained_as_of if found else None,
            round(found.training_positives / found.training_rows, 6) if found else None,
            registry.validated_auc(connection, found.model_id) if found else None,
        ],
    )
