"""Judge a frozen model on what came true since: its own artefact, the features of then, the orders or contracts of now."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import registry, value
from ml.acting import at_stake, costs_on, worth
from ml.baselines import expected_spend
from ml.beside import histories_of, of_features, of_orders, speaks_of_orders, why_no_orders
from ml.champion import champion_on
from ml.estimators import one_thread, probabilities
from ml.frames import (
    currency_of,
    features_on,
    fingerprint,
    histories_on,
    labelled_frame,
    later_revenue,
    training_frame,
)
from ml.judge import BG_NBD, GAMMA_GAMMA, MODEL, Figure, drawn_by_account, judge, judge_values
from ml.params import Params, params_of
from ml.rules import listed, of_rules
from ml.targets import Policy, Target, policy_on, target_of, target_on

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """The judgement of one model: features as of `cutoff`, outcomes in the `horizon_days` days up to `on`.

    `cutoffs` are all dates it was judged on, the oldest first, each by the `horizon_days` days after it: the cutoff alone,
    or, where a date has few accounts, month-ends before it too. `currency` is that of its amounts.
    """

    model: str
    model_id: str
    definition: str
    trained_as_of: date
    cutoff: date
    cutoffs: tuple[date, ...]
    on: date
    horizon_days: int
    currency: str
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

    It is the champion of the cutoff (`on` less the horizon), or the one that is named;
    its frozen artefact scores the accounts as they stood on the cutoff. Beside it stand recency alone, a
    logistic regression and BG/NBD, fitted on what was known when it was trained, and the rules (`ml/rules.py`). Contracts
    that are due and trials are few at a time: they are judged on the cutoff and on the month-ends since the training, and no
    BG/NBD stands beside. Raises StratumError where
    there is no such model, the cutoff's features are not kept, or what tells the outcomes is not loaded through the day.
    """
    params = params_of(model)
    with connect("scorer") as connection, _while_marts_stand():
        found, cutoff = _judged(connection, model, on, model_id)
        target = target_of(found.model, found.definition)
        _check_loaded(connection, target, on)
        policy = Policy(found.horizon_days, found.active_days, found.min_rise)
        cutoffs = _cutoffs(connection, found, target, cutoff, params.validation_folds)
        frame = labelled_frame(connection, target, cutoffs, policy)
        if cutoff not in cutoffs or (frame.empty and not target.may_be_empty):
            raise StratumError(
                f"The features of {cutoff}, the cutoff of an evaluation on {on}, are not kept: make them with "
                f"`stratum backfill --from {cutoff} --to {cutoff}`."
            )
        if frame.empty:
            raise StratumError(
                f"Model {found.model_id} cannot be judged on {on}: no account was of its population on {listed(cutoffs)}."
            )
        known, currency = (
            training_frame(connection, target, found.trained_as_of, policy),
            currency_of(connection),
        )
        with one_thread():
            scores = {MODEL: probabilities(registry.load(connection, found), frame)}
            scores |= _baselines(connection, found, target, known, frame, params)
            warned, notes = of_rules(connection, target, frame)
            scores |= warned
            figures = list(judge(target, frame, scores, found.active_days, params))
            if BG_NBD not in scores:
                notes.append(why_no_orders(target))
            notes += _restated(found, known)
            if target.words.risk > 0:  # what is foretold is a loss: a contact may keep the account
                of_acting, note = _acting(connection, found, frame, scores, currency, params)
                figures, notes = figures + of_acting, notes + note
            if target.has_value:
                of_value, note = _value(connection, found, target, policy, frame, scores, params)
                figures, notes = figures + of_value, notes + note
        report = Report(
            found.model,
            found.model_id,
            found.definition,
            found.trained_as_of,
            cutoff,
            tuple(stamp.date() for stamp in sorted(frame["as_of_date"].unique())),
            on,
            found.horizon_days,
            currency,
            tuple(figures),
            tuple(notes),
        )
        _save(connection, report)
    return report


@contextmanager
def _while_marts_stand() -> Iterator[None]:
    """Say it where a mart is not there: a build drops the views over a table that it makes anew, for a while."""
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise StratumError(
            f"The marts are not whole ({error.diag.message_primary}): nothing was built yet, or a build is at work "
            "(`stratum status`). Run a date, or wait for the build's end, and give the command again."
        ) from error


def _judged(
    connection: psycopg.Connection, model: str, on: date, model_id: str | None
) -> tuple[registry.Model, date]:
    """Return the model to judge and its cutoff."""
    if model_id is not None:
        found: registry.Model | None = registry.by_id(connection, model_id)
        horizon = found.horizon_days if found else 0
    else:
        horizon = policy_on(connection, target_on(connection, model, on), on).horizon_days
        found = champion_on(connection, model, on - timedelta(days=horizon))
    cutoff = on - timedelta(days=horizon)
    if found is None:
        raise StratumError(
            f"No model was trained as of {cutoff} or before, {horizon} days before {on}: "
            f"train one with `stratum backfill --from {cutoff} --to {cutoff}`, or see `stratum models list`."
        )
    if found.horizon_days != horizon:
        raise StratumError(
            f"Model {found.model_id} foretells {found.horizon_days} days, and the policy on {on} says {horizon}: "
            f"name it (`stratum models report {found.model_id} --evaluate DATE`) to judge it by its own horizon."
        )
    if found.trained_as_of > cutoff:
        raise StratumError(
            f"Model {found.model_id} was trained as of {found.trained_as_of} and would be judged on accounts of "
            f"{cutoff}, which it has seen: judge it on {found.trained_as_of + timedelta(days=horizon)} or later."
        )
    return found, cutoff


def _check_loaded(connection: psycopg.Connection, target: Target, on: date) -> None:
    """Raise StratumError where what tells the outcomes up to the day is not all loaded and built.

    Silence would look like an outcome: like an order that was not placed, a contract that was not renewed. Of rows that the
    company has never loaded there are none to wait for, where others tell of outcomes too.
    """
    newest: dict[str, date | None] = {}
    for source, entity in target.told_by:
        row = connection.execute(
            "select max(as_of_date) from audit.loads where source = %s and entity = %s and status = 'loaded'",
            [source, entity],
        ).fetchone()
        newest["Orders" if source == "orders" else entity.capitalize()] = row[0] if row is not None else None
    built = connection.execute("select max(as_of_date) from marts.built_dates").fetchone()
    ever = {rows: day for rows, day in newest.items() if day is not None} or newest
    for rows, loaded in ever.items():
        for what, through in (("loaded", loaded), ("built", built[0] if built is not None else None)):
            if through is None or through < on:
                raise StratumError(
                    f"{rows} are {what} through {through or 'no day'}, so what came true by {on} is not known: "
                    f"run `stratum run --as-of {on}`, or evaluate an earlier day."
                )


def _cutoffs(
    connection: psycopg.Connection, found: registry.Model, target: Target, cutoff: date, most: int
) -> list[date]:
    """Return the dates a model is judged on, of those that were built, the oldest first: the cutoff.

    Where a date may have a handful of accounts, the month-ends before it too, at most `most` dates; none that the model has
    seen.
    """
    rows = connection.execute(
        "select as_of_date from marts.built_dates where as_of_date between %s and %s "
        "and (as_of_date = %s or %s and extract(day from as_of_date + 1) = 1) order by as_of_date desc limit %s",
        [found.trained_as_of, cutoff, cutoff, target.may_be_empty, most],
    ).fetchall()
    return [day for (day,) in reversed(rows)]


def _baselines(
    connection: psycopg.Connection,
    found: registry.Model,
    target: Target,
    known: pd.DataFrame,
    frame: pd.DataFrame,
    params: Params,
) -> dict[str, Array]:
    """Return what recency, logistic regression and, of orders, BG/NBD tell of the frame, fitted as of the training."""
    used = [feature["name"] for feature in found.features if feature["used"]]
    scores = of_features(target, known, frame, used, params)
    if not speaks_of_orders(target):
        return scores
    then = histories_on(connection, _newest_kept(connection, found.trained_as_of))
    now = histories_of(connection, frame, frame["as_of_date"].iloc[0].date())
    return scores | of_orders(target, then, now, found.horizon_days, params)


def _acting(
    connection: psycopg.Connection,
    found: registry.Model,
    frame: pd.DataFrame,
    scores: Mapping[str, Array],
    currency: str,
    params: Params,
) -> tuple[list[Figure], list[str]]:
    """Return what contacting those at the top would have been worth on both populations, with the policy it assumes."""
    costs = costs_on(connection, frame["as_of_date"].max().date())
    if costs is None:
        return [], [
            "What acting would be worth is not told: marts.thresholds lacks offer_success_rate or contact_cost."
        ]
    stake = at_stake(frame, found.horizon_days)
    return list(worth(frame, scores, stake, costs, found.active_days, params)), [
        f"What acting is worth rests on an assumption: a contact costs {costs.contact_cost:,.2f} {currency} and keeps "
        f"{costs.success_rate:.0%} of those that would churn (policy)."
    ]


def _value(
    connection: psycopg.Connection,
    found: registry.Model,
    target: Target,
    policy: Policy,
    frame: pd.DataFrame,
    scores: Mapping[str, Array],
    params: Params,
) -> tuple[list[Figure], list[str]]:
    """Return how good expected values are, beside those of Gamma-Gamma."""
    day = frame["as_of_date"].iloc[0].date()
    true = later_revenue(connection, target, [day], policy)["net_revenue"].to_numpy(np.float64)
    told = {MODEL: value.expected(found.parameters["value"], frame, scores[MODEL], policy.horizon_days)}
    notes = []
    try:
        known = features_on(connection, target, [_newest_kept(connection, found.trained_as_of)])
        orders = -target.words.risk * scores[BG_NBD]
        told[GAMMA_GAMMA] = expected_spend(known, frame, orders, params.evaluation.bg_nbd_penalizers)
    except StratumError as error:
        notes.append(f"No value of Gamma-Gamma stands beside the model's: {error}")
    figures = list(judge_values("all", true, told, drawn_by_account(frame, params)))
    return figures, notes


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


def _restated(found: registry.Model, known: pd.DataFrame) -> list[str]:
    if fingerprint(known) == found.data_fingerprint:
        return []
    return [
        "The training frames have been restated since the model was trained (late or corrected rows): "
        "the baselines are fitted on them as they stand now."
    ]


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
