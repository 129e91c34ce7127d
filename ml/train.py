"""Train a model as of a date: frames, validation in the order of time, calibration, the final fit, the books."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from scipy.special import expit
from sklearn.pipeline import Pipeline

from include.errors import StratumError
from include.warehouse.connect import connect
from include.warehouse.lock import code_version
from ml import registry
from ml.estimators import (
    HeldOut,
    fit,
    level_of,
    make_pipeline,
    margins,
    one_thread,
    out_of_time,
    selected,
    slope_of,
    used_features,
)
from ml.explain import contributions, importances
from ml.frames import CHURNED, FEATURES, NAMES, Policy, fingerprint, policy_on, training_frame
from ml.metrics import auc, average_precision, brier, lift, once
from ml.params import Params, params_of

log = logging.getLogger(__name__)

ESTIMATOR = "HistGradientBoosting, sigmoid-calibrated"
MODEL, RECENCY, OBSERVED = "model", "recency", "observed"


@dataclass(frozen=True)
class Fitted:
    """A fitted model before it is saved: the pipeline, its artefact, its books and its figures.

    `metrics` are rows of ml.metrics without model_id and kind: evaluated_as_of, population, estimator, metric,
    value, rows.
    """

    pipeline: Pipeline
    artefact: bytes
    model: registry.Model
    importances: dict[str, float]
    metrics: list[tuple[date, str, str, str, float, int]]


def due_date(as_of: date, retrain_days: int) -> date:
    """Return the day whose model scores `as_of`: the newest one of every `retrain_days`, counted from a Monday.

    It depends on the date alone, so dates that run in any order are scored by the same models.
    """
    return as_of - timedelta(days=(as_of.toordinal() - 1) % retrain_days)


def train_if_due(model: str, as_of: date) -> str | None:
    """Train the model that is to score a date, and return its id; None where it is there, or history is too short.

    It is trained as of `due_date`. One whose features are not those of this version of the code is trained anew.
    Raises StratumError as `train` does.
    """
    params = params_of(model)
    due = due_date(as_of, params.retrain_days)
    with connect("scorer") as connection:
        found = registry.newest(connection, model, as_of)
        if found is not None and found.trained_as_of >= due and _is_of_this_version(found):
            log.info("Model %s is not due as of %s: %s is there.", model, as_of, found.model_id)
            return None
        reason = too_little(connection, model, due)
    if reason is not None:
        log.info("Model %s is not trained as of %s: %s", model, due, reason)
        return None
    return train(model, due)


def train(model: str, as_of: date) -> str:
    """Fit a model on what had happened by the end of a date, save it with its figures, and return its id.

    The id follows from the data and the knobs: trained again on the same, it is the same model. Raises
    StratumError where the history is too short, no policy is in force, month-ends are missing, or what was
    learned did not hold later.
    """
    with connect("scorer") as connection:
        reason = too_little(connection, model, as_of)
        if reason is not None:
            raise StratumError(f"Model {model} cannot be trained as of {as_of}: {reason}.")
        policy = policy_on(connection, as_of)
        frame = training_frame(connection, as_of, policy.horizon_days)
        fitted = fit_model(model, as_of, frame, policy, params_of(model))
        registry.save(connection, fitted.model, fitted.artefact, ESTIMATOR, code_version())
        _save_figures(connection, fitted)
    log.info(
        "Model %s: %d rows of %s to %s.",
        fitted.model.model_id,
        fitted.model.training_rows,
        fitted.model.window_from,
        fitted.model.window_to,
    )
    return fitted.model.model_id


def too_little(connection: psycopg.Connection, model: str, as_of: date) -> str | None:
    """Return why the history up to a date is too short to train on, in words; None where it suffices."""
    enough = params_of(model).enough
    horizon = policy_on(connection, as_of).horizon_days
    row = connection.execute(
        "select count(distinct as_of_date), count(*), count(*) filter (where next_order_date <= as_of_date + %(days)s) "
        "from marts.account_next_orders where as_of_date + %(days)s <= %(as_of)s "
        "and extract(day from as_of_date + 1) = 1",
        {"days": horizon, "as_of": as_of},
    ).fetchone()
    month_ends, rows, stayed = row if row is not None else (0, 0, 0)
    if month_ends < enough.month_ends:
        return (
            f"too little history: {month_ends} month-ends with {horizon} days after them lie before {as_of}, "
            f"{enough.month_ends} are needed"
        )
    if rows < enough.rows or min(stayed, rows - stayed) < enough.of_each_outcome:
        return (
            f"too little history: {rows} accounts × month-ends before {as_of}, of which {rows - stayed} churned; "
            f"{enough.rows} are needed, and {enough.of_each_outcome} of each outcome"
        )
    return None


def fit_model(model: str, as_of: date, frame: pd.DataFrame, policy: Policy, params: Params) -> Fitted:
    """Return the model fitted on a labelled frame; the same frame, policy and knobs give the same bytes.

    Raises StratumError where there is no date to validate on, too few features vary, or what was learned does
    not hold later.
    """
    used = used_features(frame, params.varies_on_share)
    if not used:
        raise StratumError("No feature differs between accounts: marts.account_features is not complete.")
    with one_thread():
        pipeline = make_pipeline(params, used)
        predicted = out_of_time(
            pipeline, frame, policy.horizon_days, params.validation_folds, params.validation_month_ends
        )
        if not predicted:
            raise StratumError(
                f"Model {model} cannot be validated as of {as_of}: no month-end is late enough, with both outcomes. "
                "Wait for more history, or lower `enough` and `validation_month_ends` in ml/params.yaml with care."
            )
        slope = slope_of(predicted)
        fit(pipeline, frame)
        intercept = level_of(margins(pipeline, frame), slope, float(frame[CHURNED].mean()))
        pipeline.set_params(boosting__slope=slope, boosting__intercept=intercept)
        newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
        weight = importances(contributions(pipeline, selected(pipeline, newest.drop(columns=CHURNED))))
    artefact = registry.to_bytes(pipeline)
    digest = hashlib.sha256(artefact).hexdigest()
    books = registry.Model(
        model_id=f"{model}_{as_of:%Y%m%d}_{digest[:8]}",
        model=model,
        trained_as_of=as_of,
        horizon_days=policy.horizon_days,
        window_from=frame["as_of_date"].min().date(),
        window_to=frame["as_of_date"].max().date(),
        training_rows=len(frame),
        training_positives=int(frame[CHURNED].sum()),
        parameters={
            **params.model_dump(mode="json"),
            "horizon_days": policy.horizon_days,
            "active_days": policy.active_days,
            "slope": slope,
            "intercept": intercept,
        },
        features=_contract(newest, used),
        data_fingerprint=fingerprint(frame),
        artefact_sha256=digest,
    )
    return Fitted(pipeline, artefact, books, weight, validation(predicted, policy, params))


def validation(
    predicted: Sequence[HeldOut], policy: Policy, params: Params
) -> list[tuple[date, str, str, str, float, int]]:
    """Return the figures of out-of-time predictions per predicted date, on all accounts and on recent buyers.

    Brier's probabilities are calibrated on the predictions whose label windows had ended by the date; the first
    dates have none. A population with one outcome alone has no figures.
    """
    figures = []
    for one in predicted:
        earlier = [e for e in predicted if e.date + pd.Timedelta(days=policy.horizon_days) <= one.date]
        rows = one.rows
        if earlier:
            slope = slope_of(earlier)
            level = level_of(one.known_margin, slope, one.known_rate)
            rows = rows.assign(probability=expit(slope * rows["margin"] + level))
        for population, part in populations(rows, policy.active_days).items():
            if part[CHURNED].nunique() == 2:
                figures += [
                    (one.date.date(), population, *figure, len(part))
                    for figure in _figures(part, params.evaluation.lift_share)
                ]
    return figures


def populations(frame: pd.DataFrame, active_days: int) -> dict[str, pd.DataFrame]:
    """Return the two populations every figure is told for: all who had bought, and recent buyers."""
    return {"all": frame, f"active_{active_days}": frame[frame["days_since_last_order"] < active_days]}


def _figures(rows: pd.DataFrame, share: float) -> list[tuple[str, str, float]]:
    churned = rows[CHURNED].to_numpy(np.float64)
    every = once(len(rows))
    figures = [(OBSERVED, "churn_rate", float(churned.mean()))]
    for estimator, column in ((MODEL, "margin"), (RECENCY, "days_since_last_order")):
        scores = rows[column].to_numpy(np.float64)
        figures += [
            (estimator, name, float(metric(scores, churned, every)[0]))
            for name, metric in (("auc", auc), ("pr_auc", average_precision), ("lift", lift(share)))
        ]
    if "probability" in rows:
        figures.append((MODEL, "brier", float(brier(rows["probability"].to_numpy(), churned, every)[0])))
    return figures


def _contract(newest: pd.DataFrame, used: list[str]) -> list[dict[str, Any]]:
    """Return each feature with its kind, whether it is used, and its median among those that stayed and churned."""
    stayed, churned = (newest.loc[newest[CHURNED] == outcome, list(NAMES)].median() for outcome in (0, 1))
    return [
        {
            "name": feature.name,
            "kind": feature.kind,
            "used": feature.name in used,
            "typical_stayed": _number(stayed[feature.name]),
            "typical_churned": _number(churned[feature.name]),
        }
        for feature in FEATURES
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _is_of_this_version(found: registry.Model) -> bool:
    return [(feature["name"], feature["kind"]) for feature in found.features] == [
        (feature.name, feature.kind) for feature in FEATURES
    ]


def _save_figures(connection: psycopg.Connection, fitted: Fitted) -> None:
    model_id = fitted.model.model_id
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ml.metrics (model_id, evaluated_as_of, population, estimator, metric, value, rows, kind) "
            "values (%s, %s, %s, %s, %s, %s, %s, 'validation') on conflict do nothing",
            [(model_id, *figure) for figure in fitted.metrics],
        )
        cursor.executemany(
            "insert into ml.importances (model_id, feature, importance) values (%s, %s, %s) on conflict do nothing",
            [(model_id, name, value) for name, value in fitted.importances.items()],
        )
