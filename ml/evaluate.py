"""Judge a frozen model on what came true since: its own artefact, the features of then, the orders of now."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import registry
from ml.baselines import expected_orders, logistic
from ml.estimators import one_thread, probabilities
from ml.frames import (
    CHURNED,
    KEYS,
    fingerprint,
    histories_on,
    labelled_frame,
    policy_on,
    training_frame,
)
from ml.metrics import Metric, auc, average_precision, brier, interval, lift, once, resamples
from ml.params import Evaluation, Params, params_of
from ml.train import MODEL, OBSERVED, RECENCY, populations

Array = NDArray[np.float64]

LOGISTIC, BG_NBD = "logistic", "bg_nbd"
BASELINES = (RECENCY, LOGISTIC, BG_NBD)


@dataclass(frozen=True)
class Figure:
    """One figure of one estimator, or of the model less a baseline (`model-recency`), on one population.

    `low` and `high` are the ends of the 95 % bootstrap interval over accounts; None where none was drawn.
    """

    population: str
    estimator: str
    metric: str
    value: float
    low: float | None
    high: float | None
    rows: int


@dataclass(frozen=True)
class Report:
    """The judgement of one model: features as of `cutoff`, outcomes in the `horizon_days` days up to `on`."""

    model_id: str
    trained_as_of: date
    cutoff: date
    on: date
    horizon_days: int
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]

    def figure(self, population: str, estimator: str, metric: str) -> Figure:
        """Return one figure; raises KeyError where there is none."""
        for figure in self.figures:
            if (figure.population, figure.estimator, figure.metric) == (population, estimator, metric):
                return figure
        raise KeyError((population, estimator, metric))


def evaluate(model: str, on: date, model_id: str | None = None) -> Report:
    """Judge a model on the outcomes that came true by the end of the day `on`, and keep the figures in ml.metrics.

    It is the newest model trained as of the cutoff (`on` less the horizon) or before, or the one that is named;
    its frozen artefact scores the accounts as they stood on the cutoff. Beside it stand recency alone, a
    logistic regression and BG/NBD, fitted on what was known when it was trained. Raises StratumError where
    there is no such model, the cutoff's features are not kept, or orders are not loaded through the day.
    """
    params = params_of(model)
    with connect("scorer") as connection:
        found, cutoff = _judged(connection, model, on, model_id)
        _check_loaded(connection, on)
        frame = labelled_frame(connection, [cutoff], found.horizon_days)
        if frame.empty:
            raise StratumError(
                f"The features of {cutoff}, the cutoff of an evaluation on {on}, are not kept: make them with "
                f"`stratum backfill --from {cutoff} --to {cutoff}`."
            )
        known = training_frame(connection, found.trained_as_of, found.horizon_days)
        with one_thread():
            scores = {MODEL: probabilities(registry.load(connection, found), frame)}
            scores |= _baselines(connection, found, known, frame, params)
        figures = tuple(judge(frame, scores, found.active_days, params))
        report = Report(
            found.model_id,
            found.trained_as_of,
            cutoff,
            on,
            found.horizon_days,
            figures,
            _notes(found, known),
        )
        _save(connection, report)
    return report


def judge(
    frame: pd.DataFrame, scores: Mapping[str, Array], active_days: int, params: Params
) -> Iterator[Figure]:
    """Yield every figure of scores (row by row of a labelled frame of one date) on both populations.

    `scores` holds MODEL and the BASELINES; MODEL, LOGISTIC and `recency_probability` are probabilities. Every
    estimator is drawn on the same resamples, so that the differences are paired.
    """
    frame = frame.reset_index(drop=True)
    for population, part in populations(frame, active_days).items():
        churned = part[CHURNED].to_numpy(np.float64)
        if len(set(churned)) < 2:
            continue
        of_part = {name: values[part.index] for name, values in scores.items()}
        yield from _of_population(population, churned, of_part, params)


def _of_population(
    population: str, churned: Array, scores: Mapping[str, Array], params: Params
) -> Iterator[Figure]:
    accounts, settings = len(churned), params.evaluation
    every, drawn = once(accounts), resamples(accounts, settings.bootstrap, params.seed)
    rate = drawn @ churned / accounts
    yield Figure(population, OBSERVED, "churn_rate", float(churned.mean()), *interval(rate), accounts)
    ranked = {name: scores[name] for name in (MODEL, *BASELINES)}
    probable = {MODEL: scores[MODEL], LOGISTIC: scores[LOGISTIC], RECENCY: scores["recency_probability"]}
    measures: list[tuple[str, Metric, Mapping[str, Array]]] = [
        ("auc", auc, ranked),
        ("pr_auc", average_precision, ranked),
        ("lift", lift(settings.lift_share), ranked),
        ("brier", brier, probable),
    ]
    for name, metric, of in measures:
        values = {estimator: float(metric(score, churned, every)[0]) for estimator, score in of.items()}
        draws = {estimator: metric(score, churned, drawn) for estimator, score in of.items()}
        for estimator in of:
            yield Figure(
                population, estimator, name, values[estimator], *interval(draws[estimator]), accounts
            )
        for estimator in of:
            if estimator != MODEL:
                ends = interval(draws[MODEL] - draws[estimator])
                difference = values[MODEL] - values[estimator]
                yield Figure(population, f"{MODEL}-{estimator}", name, difference, *ends, accounts)
    yield from _reliability(population, churned, scores[MODEL], settings)


def _reliability(
    population: str, churned: Array, probability: Array, settings: Evaluation
) -> Iterator[Figure]:
    """Yield mean probability and churn of each of equally many accounts, from the lowest probability up."""
    order = np.argsort(probability, kind="stable")
    yield Figure(population, MODEL, "mean_probability", float(probability.mean()), None, None, len(churned))
    for number, part in enumerate(np.array_split(order, settings.reliability_bins), start=1):
        if len(part):
            for what, values in (("predicted", probability), ("observed", churned)):
                mean = float(values[part].mean())
                yield Figure(
                    population, MODEL, f"reliability_{number:02d}_{what}", mean, None, None, len(part)
                )


def _judged(
    connection: psycopg.Connection, model: str, on: date, model_id: str | None
) -> tuple[registry.Model, date]:
    """Return the model to judge and its cutoff."""
    if model_id is not None:
        found: registry.Model | None = registry.by_id(connection, model_id)
        horizon = found.horizon_days if found else 0
    else:
        horizon = policy_on(connection, on).horizon_days
        found = registry.newest(connection, model, on - timedelta(days=horizon))
    cutoff = on - timedelta(days=horizon)
    if found is None:
        raise StratumError(
            f"No model was trained as of {cutoff} or before, {horizon} days before {on}: "
            f"train one with `stratum backfill --from {cutoff} --to {cutoff}`, or see `stratum models list`."
        )
    if found.horizon_days != horizon:
        raise StratumError(
            f"Model {found.model_id} foretells {found.horizon_days} days, and the policy on {on} says {horizon}: "
            f"name it with --model {found.model_id} to judge it by its own horizon."
        )
    if found.trained_as_of > cutoff:
        raise StratumError(
            f"Model {found.model_id} was trained as of {found.trained_as_of} and would be judged on accounts of "
            f"{cutoff}, which it has seen: judge it on {found.trained_as_of + timedelta(days=horizon)} or later."
        )
    return found, cutoff


def _check_loaded(connection: psycopg.Connection, on: date) -> None:
    """Raise StratumError where orders up to the day are not all loaded and built: silence would look like churn."""
    loaded = connection.execute(
        "select max(as_of_date) from audit.loads where source = 'orders' and entity = 'order_lines' and status = 'loaded'"
    ).fetchone()
    built = connection.execute("select max(as_of_date) from marts.account_features").fetchone()
    for what, row in (("loaded", loaded), ("built", built)):
        newest = row[0] if row is not None else None
        if newest is None or newest < on:
            raise StratumError(
                f"Orders are {what} through {newest or 'no day'}, so what came true by {on} is not known: "
                f"run `stratum run --as-of {on}`, or evaluate an earlier day."
            )


def _baselines(
    connection: psycopg.Connection,
    found: registry.Model,
    known: pd.DataFrame,
    frame: pd.DataFrame,
    params: Params,
) -> dict[str, Array]:
    settings = params.evaluation
    used = [feature["name"] for feature in found.features if feature["used"]]
    scores = {RECENCY: frame["days_since_last_order"].to_numpy(np.float64)}
    for name, features in ((LOGISTIC, used), ("recency_probability", ["days_since_last_order"])):
        fitted = logistic(known, features, settings.logistic_c, params.seed)
        scores[name] = np.asarray(fitted.predict_proba(frame[features])[:, 1])
    histories = frame[KEYS].merge(
        histories_on(connection, frame["as_of_date"].iloc[0].date()), on=KEYS, validate="one_to_one"
    )
    expected = expected_orders(
        histories_on(connection, _newest_kept(connection, found.trained_as_of)),
        histories,
        found.horizon_days,
        settings.bg_nbd_penalizers,
    )
    return {**scores, BG_NBD: -expected}


def _newest_kept(connection: psycopg.Connection, day: date) -> date:
    """Return the newest date of account_features up to a day: the last month-end at the latest."""
    row = connection.execute(
        "select max(as_of_date) from marts.account_features where as_of_date <= %s", [day]
    ).fetchone()
    if row is None or row[0] is None:
        raise StratumError(
            f"marts.account_features keeps no date up to {day}: `stratum run --as-of {day}` makes it."
        )
    return row[0]


def _notes(found: registry.Model, known: pd.DataFrame) -> tuple[str, ...]:
    if fingerprint(known) == found.data_fingerprint:
        return ()
    return (
        "The training frames have been restated since the model was trained (late or corrected rows): "
        "the baselines are fitted on them as they stand now.",
    )


def _save(connection: psycopg.Connection, report: Report) -> None:
    connection.execute(
        "delete from ml.metrics where model_id = %s and evaluated_as_of = %s and kind = 'evaluation'",
        [report.model_id, report.on],
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ml.metrics (model_id, evaluated_as_of, kind, population, estimator, metric, value, low, high, "
            "rows) values (%s, %s, 'evaluation', %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    report.model_id,
                    report.on,
                    f.population,
                    f.estimator,
                    f.metric,
                    f.value,
                    f.low,
                    f.high,
                    f.rows,
                )
                for f in report.figures
            ],
        )
