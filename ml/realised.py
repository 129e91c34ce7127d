"""Calibration drift: the scores that were published on a month-end against what had happened once their window passed.

A month-end is measured once, by the first run whose date lies past its window, so that the cost of a run does not grow.
The labels are those of that day: rows that arrive later change nothing that was measured.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from datetime import date

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ml import registry
from ml.frames import label_of
from ml.metrics import auc, brier, ece, once, wilson
from ml.targets import Policy, target_of

Array = NDArray[np.float64]

PARTS = 10


@dataclass(frozen=True)
class Part:
    """What was told of a part of the accounts, and what came true: part 0 is all of them, 1 the least probable tenth.

    `auc`, `brier` and `calibration_error` (the mean distance of told and true over the tenths) are of part 0 alone.
    """

    part: int
    accounts: int
    mean_probability: float
    observed_rate: float
    low: float
    high: float
    auc: float | None = None
    brier: float | None = None
    calibration_error: float | None = None


def parts_of(probability: Array, happened: Array) -> Iterator[Part]:
    """Yield the whole, with AUC (unless all or none came true), Brier score and calibration error, and its tenths.

    The tenths are by probability, the lowest first; equal probabilities are parted in the order of the rows. Fewer accounts
    than tenths leave tenths out.
    """
    every = once(len(probability))
    area = float(auc(probability, happened, every)[0]) if 0 < happened.sum() < len(happened) else None
    score, error = (float(metric(probability, happened, every)[0]) for metric in (brier, ece(PARTS)))
    yield replace(_part(0, probability, happened), auc=area, brier=score, calibration_error=error)
    order = np.argsort(probability, kind="stable")
    for number, rows in enumerate(np.array_split(order, PARTS), start=1):
        if len(rows):
            yield _part(number, probability[rows], happened[rows])


def measure(connection: psycopg.Connection, model: str, as_of: date) -> list[date]:
    """Measure the published month-ends of a model whose window ended by the date, and return which were new.

    What came true is told as of the run's date, by the definition and the horizon that the scores had.
    """
    due = connection.execute(
        "select run.run_id, run.as_of_date, run.model_id, run.horizon_days "
        "from published.history_run as history join ml.runs as run using (run_id) "
        "where run.model = %s and run.status = 'scored' and run.horizon_days is not null "
        "and extract(day from run.as_of_date + 1) = 1 and run.as_of_date + run.horizon_days <= %s "
        "and not exists (select from ml.calibration_drift as known "
        "where known.run_id = run.run_id and known.model = run.model) "
        "and exists (select from ml.scores as kept where kept.run_id = run.run_id and kept.model = run.model) "
        "order by run.as_of_date",
        [model, as_of],
    ).fetchall()
    measured = []
    for run_id, day, model_id, horizon_days in due:
        found = registry.by_id(connection, model_id)
        told, happened = _told_and_true(connection, found, run_id, day)
        if not len(told):  # the outcomes of the date are not kept
            continue
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into ml.calibration_drift (run_id, model, as_of_date, model_id, definition, horizon_days, "
                "measured_as_of, part, accounts, mean_probability, observed_rate, low, high, auc, brier, calibration_error) "
                "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (run_id, model, day, model_id, found.definition, horizon_days, as_of, *astuple(one))
                    for one in parts_of(told, happened)
                ],
            )
        measured.append(day)
    return measured


def _told_and_true(
    connection: psycopg.Connection, found: registry.Model, run_id: str, day: date
) -> tuple[Array, Array]:
    """Return probability and outcome (1: it came true) of a run's accounts, by account, but for those since gone."""
    target = target_of(found.model, found.definition)
    policy = Policy(found.horizon_days, found.active_days, found.min_rise)
    query = sql.SQL(
        "select scores.probability::float8, ({})::int::float8 from ml.scores as scores "
        "join marts.{} as outcomes on outcomes.account_id = scores.account_id "
        "and outcomes.as_of_date = {} and outcomes.horizon_days = {} "
        "where scores.run_id = {} and scores.model = {} order by scores.account_id"
    ).format(
        label_of(target, policy),
        sql.Identifier(target.outcomes_mart),
        sql.Literal(day),
        sql.Literal(found.horizon_days),
        sql.Literal(run_id),
        sql.Literal(found.model),
    )
    rows = np.array(connection.execute(query).fetchall(), dtype=np.float64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _part(number: int, probability: Array, happened: Array) -> Part:
    ends = wilson(float(happened.sum()), len(happened))
    return Part(number, len(happened), float(probability.mean()), float(happened.mean()), *ends)
