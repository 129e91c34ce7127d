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
from numpy.typing import NDArray
from psycopg import sql
from scipy.special import expit
from sklearn.pipeline import Pipeline

from include.errors import StratumError
from include.warehouse.connect import connect
from include.warehouse.lock import code_version
from ml import drift, registry, value
from ml.choice import Chosen, choose, with_setting
from ml.estimators import (
    HeldOut,
    NothingLearned,
    fit,
    foretells,
    inputs,
    make_pipeline,
    margins,
    one_thread,
    out_of_time,
    selected,
    slope_of,
    told_later,
    used_features,
)
from ml.explain import contributions, importances
from ml.features import recency_of
from ml.figures import record
from ml.frames import LABEL, check_columns, fingerprint, label_of, later_revenue, training_frame
from ml.judge import MODEL, OBSERVED, RECENCY, populations
from ml.level import by_date, level_of, measure
from ml.metrics import auc, average_precision, brier, lift, once
from ml.params import Params, params_of
from ml.targets import Policy, Target, policy_on, target_on

log = logging.getLogger(__name__)

ESTIMATOR = "HistGradientBoosting, sigmoid-calibrated"
CHOICE = "choice of setting"
"""The population of the figures that the setting of the boosting was chosen by; their estimator is the setting."""


@dataclass(frozen=True)
class Fitted:
    """A fitted model before it is saved: the pipeline, its artefact, its books and its figures.

    `metrics` are rows of ml.metrics without model_id and kind: evaluated_as_of, population, estimator, metric,
    value, rows. `bins` is what its runs are compared with (ml/drift.py).
    """

    pipeline: Pipeline
    artefact: bytes
    model: registry.Model
    importances: dict[str, float]
    metrics: list[tuple[date, str, str, str, float, int]]
    predicted: list[HeldOut]
    bins: dict[str, drift.Bins]


def due_date(as_of: date, retrain_days: int) -> date:
    """Return the day whose model scores `as_of`: the newest one of every `retrain_days`, counted from a Monday.

    It depends on the date alone, so dates that run in any order are scored by the same models.
    """
    return as_of - timedelta(days=(as_of.toordinal() - 1) % retrain_days)


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
        target = target_on(connection, model, as_of)
        policy = policy_on(connection, target, as_of)
        frame = training_frame(connection, target, as_of, policy)
        revenue = None
        if target.has_value:
            dates = sorted(frame["as_of_date"].dt.date.unique())
            revenue = later_revenue(connection, target, dates, policy)["net_revenue"].to_numpy(np.float64)
        fitted = fit_model(target, as_of, frame, policy, params_of(model), revenue)
        registry.save(connection, fitted.model, fitted.artefact, ESTIMATOR, code_version())
        _save_figures(connection, fitted)
        found, pipeline = fitted.model, fitted.pipeline
        record(connection, target, found, pipeline, fitted.predicted, frame, fitted.importances, revenue)
    log.info(
        "Model %s: %d rows of %s to %s.",
        fitted.model.model_id,
        fitted.model.training_rows,
        fitted.model.window_from,
        fitted.model.window_to,
    )
    return fitted.model.model_id


def too_little(connection: psycopg.Connection, model: str, as_of: date) -> str | None:
    """Return why the history up to a date is too short to train on, in words; None where it suffices.

    Of each outcome different accounts are counted beside rows: windows of neighbouring month-ends overlap, so an account
    that has fallen silent is a row of each, and says the same in all of them. One that has had both counts for both.
    """
    enough = params_of(model).enough
    target = target_on(connection, model, as_of)
    policy = policy_on(connection, target, as_of)
    horizon = policy.horizon_days
    month_ends = _month_ends_with_outcomes(connection, target, as_of, horizon)
    if month_ends < enough.month_ends:
        return (
            f"too little history: {month_ends} month-ends with {horizon} days after them lie before {as_of}, "
            f"{enough.month_ends} are needed"
        )
    query = sql.SQL(
        "select coalesce(sum(rows), 0)::int, coalesce(sum(happened), 0)::int, "
        "count(*) filter (where happened > 0), count(*) filter (where happened < rows) from ("
        "select count(*) as rows, count(*) filter (where {}) as happened from marts.{} as features "
        "join marts.{} as outcomes on outcomes.as_of_date = features.as_of_date "
        "and outcomes.account_id = features.account_id and outcomes.horizon_days = {} "
        "where features.as_of_date <= {} and extract(day from features.as_of_date + 1) = 1 and {} "
        "group by features.account_id) as of_account"
    ).format(
        label_of(target, policy),
        sql.Identifier(target.features_mart),
        sql.Identifier(target.outcomes_mart),
        sql.Literal(horizon),
        sql.Literal(as_of - timedelta(days=horizon)),
        sql.SQL(target.population),
    )
    counted = connection.execute(query).fetchone()
    rows, happened, with_it, without = counted if counted is not None else (0, 0, 0, 0)
    if (
        rows < enough.rows
        or min(happened, rows - happened) < enough.of_each_outcome
        or min(with_it, without) < enough.accounts_of_each_outcome
    ):
        return (
            f"too little history: {rows} accounts × month-ends before {as_of}, of which {happened} with the outcome "
            f"({target.definition} in {horizon} days); {with_it} different accounts had it, {without} had not. "
            f"{enough.rows} are needed, {enough.of_each_outcome} of each outcome, and "
            f"{enough.accounts_of_each_outcome} different accounts of each"
        )
    return None


def _month_ends_with_outcomes(
    connection: psycopg.Connection, target: Target, as_of: date, horizon_days: int
) -> int:
    query = sql.SQL(
        "select count(distinct as_of_date) from marts.{} where as_of_date <= {} "
        "and extract(day from as_of_date + 1) = 1"
    ).format(sql.Identifier(target.features_mart), sql.Literal(as_of - timedelta(days=horizon_days)))
    row = connection.execute(query).fetchone()
    return row[0] if row is not None else 0


def fit_model(
    target: Target,
    as_of: date,
    frame: pd.DataFrame,
    policy: Policy,
    params: Params,
    revenue: NDArray[np.float64] | None = None,
) -> Fitted:
    """Return the model fitted on a labelled frame; the same frame, policy and knobs give the same bytes.

    `revenue` is what each row's account then bought in the window, where the target has a value. Raises StratumError
    where the columns are not the target's, there is no date to validate on, too few features vary, or what was learned
    does not hold later.
    """
    model = target.model
    check_columns(inputs(frame), target.names, f"the contract of {model} (ml/targets.py)")
    used = used_features(target, frame, params.varies_on_share)
    if not used:
        raise StratumError(
            f"No feature differs between accounts: marts.{target.features_mart} is not complete."
        )
    with one_thread():
        chosen = choose(target, frame, policy.horizon_days, params, used)
        params = with_setting(params, chosen.name)
        pipeline = make_pipeline(target, params, used)
        predicted = out_of_time(
            pipeline, frame, policy.horizon_days, params.validation_folds, params.validation_month_ends
        )
        if not predicted:
            raise NothingLearned(
                f"Model {model} cannot be validated as of {as_of}: no month-end is late enough, with both outcomes. "
                "Wait for more history, or lower `enough` and `validation_month_ends` in ml/params.yaml with care."
            )
        slope = slope_of(predicted)
        fit(pipeline, frame)
        known = frame[["as_of_date", LABEL]].assign(margin=margins(pipeline, frame))
        intercept = level_of(known["margin"].to_numpy(np.float64), slope, float(frame[LABEL].mean()))
        is_foretold, level_why = foretells(predicted, slope, policy.horizon_days, params.level_history_days)
        level = measure(known, slope, policy.horizon_days, params.level_history_days)
        pipeline.set_params(
            boosting__slope=slope,
            boosting__intercept=intercept,
            boosting__level=level if is_foretold else None,
        )
        newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
        weight = importances(
            contributions(pipeline, selected(pipeline, newest.drop(columns=LABEL))), target.names
        )
    parameters = {
        **params.model_dump(mode="json"),
        "definition": target.definition,
        "horizon_days": policy.horizon_days,
        "active_days": policy.active_days,
        "min_rise": policy.min_rise,
        "slope": slope,
        "intercept": intercept,
        "level": {"is_foretold": is_foretold, "why": level_why, "by_month_end": by_date(level)},
        "setting": chosen.name,
        "setting_why": chosen.why,
    }
    if revenue is not None:
        parameters["value"] = value.fit(
            frame[frame[LABEL] == 1], revenue[frame[LABEL] == 1], policy.horizon_days
        )
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
        training_positives=int(frame[LABEL].sum()),
        parameters=parameters,
        features=contract_of(target, newest, used),
        data_fingerprint=fingerprint(frame),
        artefact_sha256=digest,
    )
    told = expit(slope * np.concatenate([one.rows["margin"].to_numpy() for one in predicted]) + intercept)
    return Fitted(
        pipeline,
        artefact,
        books,
        weight,
        [*validation(target, predicted, policy, params), *_of_choice(chosen)],
        predicted,
        drift.training_bins(frame, used, told),
    )


def validation(
    target: Target, predicted: Sequence[HeldOut], policy: Policy, params: Params
) -> list[tuple[date, str, str, str, float, int]]:
    """Return the figures of out-of-time predictions per predicted date, on all accounts and on recent buyers.

    Brier's probabilities are calibrated on the predictions whose label windows had ended by the date; the first
    dates have none, nor has one before which nothing held yet. A population with one outcome alone has no figures.
    """
    figures = []
    told = {one.date: one for one in told_later(predicted, policy.horizon_days, params.level_history_days)}
    for one in predicted:
        for population, part in populations(told.get(one.date, one).rows, policy.active_days).items():
            if part[LABEL].nunique() == 2:
                figures += [
                    (one.date.date(), population, *figure, len(part))
                    for figure in _figures(target, part, params.evaluation.lift_share)
                ]
    return figures


def _of_choice(chosen: Chosen) -> list[tuple[date, str, str, str, float, int]]:
    """Return the mean log loss of each setting that was tried, as of the newest date that chose."""
    return [
        (chosen.dates[-1].date(), CHOICE, name, "log_loss", loss, chosen.rows)
        for name, loss in chosen.log_loss.items()
    ]


def _figures(target: Target, rows: pd.DataFrame, share: float) -> list[tuple[str, str, float]]:
    happened = rows[LABEL].to_numpy(np.float64)
    every = once(len(rows))
    figures = [(OBSERVED, f"{target.model}_rate", float(happened.mean()))]
    for estimator, column, sign in (
        (MODEL, "margin", 1),
        (RECENCY, recency_of(rows), target.words.risk),
    ):
        scores = sign * rows[column].to_numpy(np.float64)
        figures += [
            (estimator, name, float(metric(scores, happened, every)[0]))
            for name, metric in (("auc", auc), ("pr_auc", average_precision), ("lift", lift(share)))
        ]
    if "probability" in rows:
        figures.append((MODEL, "brier", float(brier(rows["probability"].to_numpy(), happened, every)[0])))
    return figures


def contract_of(target: Target, newest: pd.DataFrame, used: list[str]) -> list[dict[str, Any]]:
    """Return each feature with its kind, whether it is used, and its median among those it happened to and the others."""
    names = list(target.names)
    others, those = (newest.loc[newest[LABEL] == outcome, names].median() for outcome in (0, 1))
    return [
        {
            "name": feature.name,
            "kind": feature.kind,
            "used": feature.name in used,
            "typical_not_happened": _number(others[feature.name]),
            "typical_happened": _number(those[feature.name]),
        }
        for feature in target.features
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def is_of_this_version(found: registry.Model, target: Target) -> bool:
    """Whether a model has the definition and the contract that this version would give it."""
    written = [(one["name"], one["kind"], "typical_happened" in one) for one in found.features]
    return found.parameters.get("definition") == target.definition and written == [
        (one.name, one.kind, True) for one in target.features
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
    drift.save_bins(connection, model_id, fitted.bins)
