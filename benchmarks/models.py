"""The estimator and the reasons without the warehouse, beside bare scikit-learn on the same matrix of 60 features."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from benchmarks import matrix
from benchmarks.data import LAST_DAY, Size
from benchmarks.meter import MEGABYTE, Meter, held_mb
from benchmarks.place import Row
from ml.acting import Costs, worth
from ml.beside import STAKE, on_held_out, scores_of
from ml.choice import choose
from ml.estimators import fit, make_pipeline, one_thread, selected, used_features
from ml.figures import dated, effects, held_out_rows, pooled
from ml.frames import CHUNK, LABEL
from ml.params import Params, params_of
from ml.registry import Model
from ml.score import score_frame
from ml.targets import Policy
from ml.train import Fitted, fit_model

MONTH_ENDS = 10
MOST_MEMORY = 3.0
"""Times the matrix that a whole training may hold above it."""
SMALL_MB = 50
"""A matrix up to so large is smaller than what the bootstrap holds whatever the size: nothing is said of it."""
POLICY = Policy(horizon_days=90, active_days=90)


def models(size: Size) -> list[Row]:
    """Train on a fifth of the rows of the cases that scale, and score all of them; each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, max_tasks_per_child=1, mp_context=context) as pool:
        trained, pipeline, found = pool.submit(train_60, size).result()
        return [trained, pool.submit(score_60, size, pipeline, found).result()]


def train_60(size: Size) -> tuple[Row, Pipeline, Model]:
    """Fit the chosen configuration; the floor fits the bare estimator of the same knobs. Returns what was fitted, too.

    Raises RuntimeError where the whole training holds more than MOST_MEMORY times a matrix that is not small.
    """
    frame = matrix.accounts(size.scaled // 5, MONTH_ENDS)
    params = params_of("churn")
    matrix.say()
    used = used_features(matrix.WIDE_CHURN, frame, params.varies_on_share)
    pipeline = make_pipeline(matrix.WIDE_CHURN, params, used)
    with one_thread():
        fit(clone(pipeline), frame[::50])  # what is loaded at first use is not measured
        before = held_mb()
        with Meter() as meter:
            fit(pipeline, frame)
        bare, features = clone(pipeline[-1].base), frame[list(matrix.WIDE_CHURN.names)]
        with Meter() as floor:
            bare.fit(features, frame[LABEL].to_numpy())
        with Meter() as choosing:
            chosen = choose(matrix.WIDE_CHURN, frame, POLICY.horizon_days, _that_chooses(params), used)
    with Meter() as every_core:
        clone(bare).fit(features, frame[LABEL].to_numpy())
    del features
    before_whole = held_mb()
    with Meter() as whole:
        fitted = _whole_training(frame, params)
    above = (whole.own_peak_mb - before_whole) / _matrix_mb(len(frame))
    told = (
        f"bare fit of the same matrix, one thread as ours; on all {os.cpu_count()} cores {every_core.wall_s:.2f} s, ratio "
        f"{meter.wall_s / every_core.wall_s:.1f}; choosing among {len(chosen.log_loss)} settings on {chosen.rows:,} rows "
        f"{choosing.cpu_s:.1f} s of processor time; with validation, calibration, books and figures {whole.wall_s:.1f} s, "
        f"at its peak {above:.2f} x the matrix above it (allowed: {MOST_MEMORY:g})"
    )
    if above > MOST_MEMORY and _matrix_mb(len(frame)) > SMALL_MB:
        raise RuntimeError(f"train_60: {told}")
    return _row("train_60", size, len(frame), meter, floor, before, told), fitted.pipeline, fitted.model


def _that_chooses(params: Params) -> Params:
    """Return knobs that validate on two month-ends, so that of MONTH_ENDS some lie before them, which may choose."""
    return params.model_copy(update={"validation_folds": 2})


def _whole_training(frame: pd.DataFrame, params: Params) -> Fitted:
    """Do what a training does but for what it asks the warehouse (BG/NBD and rules of held-out dates among it).

    All fits, the artefact, what stands beside it, the bootstrap of its figures, the effects.
    """
    as_of = LAST_DAY + timedelta(days=POLICY.horizon_days)
    fitted = fit_model(matrix.WIDE_CHURN, as_of, frame, POLICY, params)
    rows = held_out_rows(fitted.model, fitted.predicted, params)
    rows = on_held_out(matrix.WIDE_CHURN, fitted.model, fitted.predicted, rows, frame, params)
    list(pooled(matrix.WIDE_CHURN, rows, POLICY.active_days, params))
    list(dated(matrix.WIDE_CHURN, rows, params))
    scores, stake = scores_of(matrix.WIDE_CHURN, rows), rows[STAKE].to_numpy(np.float64)
    list(worth(rows, scores, stake, Costs(0.1, 50.0), POLICY.active_days, params))
    newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
    effects(fitted.pipeline, newest, fitted.importances, params.seed)
    return fitted


def score_60(size: Size, pipeline: Pipeline, found: Model) -> Row:
    """Tell probability and three reasons of all accounts, chunk by chunk; the floor is predict_proba of all of them."""
    frame = matrix.accounts(size.scaled).drop(columns=LABEL)
    matrix.say()
    score_frame(pipeline, found, frame[:1000], matrix.WIDE_CHURN)
    before = held_mb()
    with Meter() as meter:
        for start in range(0, len(frame), CHUNK):
            score_frame(pipeline, found, frame[start : start + CHUNK], matrix.WIDE_CHURN)
    used = selected(pipeline, frame)
    with one_thread(), Meter() as floor:
        pipeline[-1].base_.predict_proba(used)
    return _row(
        "score_60",
        size,
        len(frame),
        meter,
        floor,
        before,
        "bare predict_proba of the same matrix, one thread as ours",
    )


def _matrix_mb(rows: int) -> float:
    return rows * matrix.WIDTH * np.dtype(np.float64).itemsize / MEGABYTE


def _row(name: str, size: Size, rows: int, meter: Meter, floor: Meter, before: float, told: str) -> Row:
    matrix_mb = _matrix_mb(rows)
    above = meter.own_peak_mb - before
    told += (
        f"; of processor time {meter.cpu_s / floor.cpu_s:.2f} x; at its peak {above:.0f} MB above the matrix of "
        f"{matrix_mb:.0f} MB, {above / matrix_mb:.2f} x"
    )
    ratio = meter.wall_s / floor.wall_s
    return Row(name, size.name, rows, meter.wall_s, meter.cpu_s, meter.peak_mb, told, floor.wall_s, ratio)
