"""Judge a frozen model on what came true since: its own artefact, the features of then, the orders or contracts of now."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import registry, value
from ml.acting import acted_on, at_stake, costs_on
from ml.baselines import bg_nbd, expected_spend, logistic
from ml.champion import champion_on
from ml.estimators import one_thread, probabilities
from ml.features import recency_of
from ml.figures import Figure, drawn_by_account, lifts, reliability
from ml.frames import (
    KEYS,
    LABEL,
    features_on,
    fingerprint,
    histories_on,
    labelled_frame,
    later_revenue,
    training_frame,
)
from ml.metrics import Metric, auc, average_precision, brier, ece, interval, lift, log_loss, once
from ml.params import Params, params_of
from ml.targets import CHURN, REPURCHASE, Policy, Target, policy_on, target_of, target_on
from ml.train import MODEL, OBSERVED, RECENCY, populations

Array = NDArray[np.float64]

LOGISTIC, BG_NBD, GAMMA_GAMMA, RULES = "logistic", "bg_nbd", "gamma_gamma", "rules"
BASELINES = (RECENCY, LOGISTIC, BG_NBD)
"""What stands beside the model, BG/NBD where orders are foretold; RULES do where the warnings of the cutoff are kept."""
SEVERITIES = {"none": 0, "low": 1, "medium": 2, "high": 3}
MOST_RULES = 1000
"""More rules than anybody would write: the number of warnings never outweighs a severity."""


@dataclass(frozen=True)
class Report:
    """The judgement of one model: features as of `cutoff`, outcomes in the `horizon_days` days up to `on`.

    `cutoffs` are all dates it was judged on, the oldest first, each by the `horizon_days` days after it: the cutoff alone,
    or, where a date has few accounts, month-ends before it too.
    """

    model: str
    model_id: str
    definition: str
    trained_as_of: date
    cutoff: date
    cutoffs: tuple[date, ...]
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

    It is the champion of the cutoff (`on` less the horizon), or the one that is named;
    its frozen artefact scores the accounts as they stood on the cutoff. Beside it stand recency alone, a
    logistic regression and BG/NBD, fitted on what was known when it was trained. Of contracts few are due at a time: they
    are judged on the cutoff and on the month-ends since the training, and no BG/NBD stands beside. Raises StratumError where
    there is no such model, the cutoff's features are not kept, or what tells the outcomes is not loaded through the day.
    """
    params = params_of(model)
    with connect("scorer") as connection:
        found, cutoff = _judged(connection, model, on, model_id)
        target = target_of(found.model, found.definition)
        _check_loaded(connection, found, target, on)
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
                f"Model {found.model_id} cannot be judged on {on}: no account was of its population on {_listed(cutoffs)}."
            )
        known = training_frame(connection, target, found.trained_as_of, policy)
        with one_thread():
            scores = {MODEL: probabilities(registry.load(connection, found), frame)}
            scores |= _baselines(connection, found, target, known, frame, params)
            warned, notes = _rules(connection, target, frame)
            scores |= warned
            figures = list(judge(target, frame, scores, found.active_days, params))
            if BG_NBD not in scores:
                notes.append(
                    "BG/NBD does not stand beside the model: it foretells orders, and what lapses is a contract, whose "
                    "account need not order."
                )
            notes += _restated(found, known)
            if target.words.risk > 0:  # what is foretold is a loss: a contact may keep the account
                of_acting, note = _acting(connection, found, frame, scores, params)
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
            tuple(figures),
            tuple(notes),
        )
        _save(connection, report)
    return report


def judge(
    target: Target, frame: pd.DataFrame, scores: Mapping[str, Array], active_days: int, params: Params
) -> Iterator[Figure]:
    """Yield every figure of scores (row by row of a labelled frame) on both populations.

    `scores` holds MODEL and the BASELINES, but for BG/NBD and RULES where they are not known; MODEL, LOGISTIC,
    `recency_probability` and, where the target speaks of orders, `bg_nbd_probability` are probabilities. Every estimator
    is drawn on the same resamples of accounts, all dates of an account together, so that the differences are paired.
    """
    frame = frame.reset_index(drop=True)
    for population, part in populations(frame, active_days).items():
        if part[LABEL].nunique() < 2:
            continue
        of_part = {name: values[part.index] for name, values in scores.items()}
        yield from _of_population(population, f"{target.model}_rate", part, of_part, params)


def _of_population(
    population: str, rate_name: str, part: pd.DataFrame, scores: Mapping[str, Array], params: Params
) -> Iterator[Figure]:
    happened, settings = part[LABEL].to_numpy(np.float64), params.evaluation
    accounts = len(happened)
    every, drawn = once(accounts), drawn_by_account(part, params)
    rate = drawn @ happened / drawn.sum(axis=1)
    yield Figure(population, OBSERVED, rate_name, float(happened.mean()), *interval(rate), accounts)
    ranked = {name: scores[name] for name in (MODEL, *BASELINES, RULES) if name in scores}
    probable = {MODEL: scores[MODEL], LOGISTIC: scores[LOGISTIC], RECENCY: scores["recency_probability"]}
    if "bg_nbd_probability" in scores:
        probable[BG_NBD] = scores["bg_nbd_probability"]
    measures: list[tuple[str, Metric, Mapping[str, Array]]] = [
        ("auc", auc, ranked),
        ("pr_auc", average_precision, ranked),
        ("lift", lift(settings.lift_share), ranked),
        ("brier", brier, probable),
        ("log_loss", log_loss, probable),
        ("ece", ece(settings.reliability_bins), probable),
    ]
    for name, metric, of in measures:
        values = {estimator: float(metric(score, happened, every)[0]) for estimator, score in of.items()}
        draws = {estimator: metric(score, happened, drawn) for estimator, score in of.items()}
        for estimator in of:
            yield Figure(
                population, estimator, name, values[estimator], *interval(draws[estimator]), accounts
            )
        for estimator in of:
            if estimator != MODEL:
                ends = interval(draws[MODEL] - draws[estimator])
                difference = values[MODEL] - values[estimator]
                yield Figure(population, f"{MODEL}-{estimator}", name, difference, *ends, accounts)
    for estimator, score in ranked.items():
        yield from lifts(population, estimator, score, happened, every, drawn)
    told = scores[MODEL]
    yield Figure(population, MODEL, "mean_probability", float(told.mean()), None, None, accounts)
    yield from reliability(population, told, happened, drawn, settings.reliability_bins)


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


def _check_loaded(connection: psycopg.Connection, found: registry.Model, target: Target, on: date) -> None:
    """Raise StratumError where what tells the outcomes up to the day is not all loaded and built.

    Silence would look like an outcome: like an order that was not placed, a contract that was not renewed.
    """
    if target.told_by is None:
        raise StratumError(
            f"Model {found.model} is not judged beside recency of orders and BG/NBD: its accounts have none. What it "
            f"told on later dates is in its card (`stratum models report {found.model_id}`)."
        )
    source, entity = target.told_by
    loaded = connection.execute(
        "select max(as_of_date) from audit.loads where source = %s and entity = %s and status = 'loaded'",
        [source, entity],
    ).fetchone()
    built = connection.execute("select max(as_of_date) from marts.built_dates").fetchone()
    rows = "Orders" if source == "orders" else entity.capitalize()
    for what, row in (("loaded", loaded), ("built", built)):
        newest = row[0] if row is not None else None
        if newest is None or newest < on:
            raise StratumError(
                f"{rows} are {what} through {newest or 'no day'}, so what came true by {on} is not known: "
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
    settings = params.evaluation
    used = [feature["name"] for feature in found.features if feature["used"]]
    recency = recency_of(target.names)
    scores = {RECENCY: target.words.risk * frame[recency].to_numpy(np.float64)}
    for name, features in ((LOGISTIC, used), ("recency_probability", [recency])):
        fitted = logistic(known, features, settings.logistic_c, params.seed)
        scores[name] = np.asarray(fitted.predict_proba(frame[features])[:, 1])
    if recency != "days_since_last_order":
        return scores
    histories = frame[KEYS].merge(
        histories_on(connection, frame["as_of_date"].iloc[0].date()), on=KEYS, validate="one_to_one"
    )
    foretold = bg_nbd(
        histories_on(connection, _newest_kept(connection, found.trained_as_of)),
        histories,
        found.horizon_days,
        settings.bg_nbd_penalizers,
    )
    if target is CHURN:
        scores["bg_nbd_probability"] = 1 - foretold.probability
    elif target is REPURCHASE:
        scores["bg_nbd_probability"] = foretold.probability
    return {**scores, BG_NBD: -target.words.risk * foretold.orders}


def _rules(
    connection: psycopg.Connection, target: Target, frame: pd.DataFrame
) -> tuple[dict[str, Array], list[str]]:
    """Return the score of the warning rules on the dates, row by row of the frame, or a note why there is none.

    It is an order, not a probability: the worst severity of an account's warnings, then how many rules warn. An account
    of which no rule can tell anything stands with those without a warning; the note counts them. The rules speak of all
    who have ordered, so of those none may be missing; who pays by a contract need not have.
    """
    days = [stamp.date() for stamp in sorted(frame["as_of_date"].unique())]
    row = connection.execute("select to_regclass('marts.account_warnings') is not null").fetchone()
    kept = connection.execute(
        "select as_of_date, account_id, severity, rules_warning from marts.account_warnings "
        "where as_of_date = any(%s)", [days]
    ).fetchall() if row is not None and row[0] else []  # fmt: skip
    absent = "The warning rules do not stand beside the model"
    silent = sorted(set(days) - {day for day, *_ in kept})
    if silent:
        return {}, [f"{absent}: warnings of {_listed(silent)} are kept of no account."]
    warnings = pd.DataFrame(kept, columns=[*KEYS, "severity", "rules_warning"])
    warnings["as_of_date"] = pd.to_datetime(warnings["as_of_date"]).astype(frame["as_of_date"].dtype)
    found = frame[KEYS].merge(warnings, on=KEYS, how="left", validate="one_to_one", indicator=True)
    without = int((found["_merge"] == "left_only").sum())
    if without and target.features_mart == "account_features":
        told = f"not of {without:,} of {len(found):,} accounts"
        return {}, [f"{absent}: warnings of {_listed(days)} are kept {told}."]
    unknown = int(found["severity"].isna().sum())
    if unknown == len(found):
        return {}, [f"{absent}: none could tell anything on {_listed(days)}."]
    worst = found["severity"].map(SEVERITIES).fillna(0).to_numpy(np.float64)
    number = found["rules_warning"].fillna(0).to_numpy(np.float64)
    rows = "accounts" if len(days) == 1 else "rows"
    notes = [f"Of {unknown:,} {rows} no warning rule could tell anything: they count as without a warning."]
    return {RULES: target.words.risk * (MOST_RULES * worst + number)}, notes if unknown else []


def _listed(days: Sequence[date]) -> str:
    return ", ".join(map(str, days))


def _acting(
    connection: psycopg.Connection,
    found: registry.Model,
    frame: pd.DataFrame,
    scores: Mapping[str, Array],
    params: Params,
) -> tuple[list[Figure], list[str]]:
    """Return what contacting those at the top would have been worth on both populations, with the policy it assumes."""
    costs = costs_on(connection, frame["as_of_date"].max().date())
    if costs is None:
        return [], [
            "What acting would be worth is not told: marts.thresholds lacks offer_success_rate or contact_cost."
        ]
    figures: list[Figure] = []
    for population, part in populations(frame.reset_index(drop=True), found.active_days).items():
        if part[LABEL].nunique() < 2:
            continue
        ranked = {name: scores[name][part.index] for name in (MODEL, RECENCY, RULES) if name in scores}
        happened = part[LABEL].to_numpy(np.float64)
        stake, drawn = at_stake(part, found.horizon_days), drawn_by_account(part, params)
        figures += acted_on(population, happened, stake, ranked, costs, drawn)
    return figures, [
        f"What acting is worth rests on an assumption: a contact costs {costs.contact_cost:,.2f} and keeps "
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
    """Return what expected values came to: their mean, the true one, the root mean square between; Gamma-Gamma too."""
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
    rows = len(frame)
    figures = [Figure("all", OBSERVED, "value", float(true.mean()), None, None, rows)]
    for estimator, values in told.items():
        figures += [
            Figure("all", estimator, "value", float(values.mean()), None, None, rows),
            Figure(
                "all",
                estimator,
                "value_error",
                float(np.sqrt(((values - true) ** 2).mean())),
                None,
                None,
                rows,
            ),
        ]
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
