"""Which model scores a date: one champion per model, replaced by rule or by hand, each decision kept with its figures.

docs/decisions/0030 tells the rule and why. In short: a period of `champion.stands_days` begins with the model trained as
of its first day; on each training day of the period a challenger is trained on what is known by then, and scores the
week if it is better by the margin on dates that neither was fitted on. Nothing but the date, the data up to it and what
people decided is asked, so dates may run in any order.
"""

import logging
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg.rows import class_row

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import registry
from ml.estimators import NothingLearned, make_pipeline, one_thread, out_of_time, probabilities, told_later
from ml.frames import LABEL, training_dates, training_frame
from ml.metrics import Metric, auc, brier, interval, log_loss, once, resamples
from ml.params import Boosting, Params, params_of
from ml.targets import MODELS, Policy, Target, definitions_of, policy_on, target_on
from ml.train import due_date, is_of_this_version, too_little, train

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
_METRICS: dict[str, tuple[Metric, int]] = {"brier": (brier, -1), "log_loss": (log_loss, -1), "auc": (auc, 1)}
"""Each metric, and 1 where more of it is better, -1 where less is."""


@dataclass(frozen=True)
class Comparison:
    """A champion and a challenger on the same rows.

    `difference_*` is the paired 95 % bootstrap interval over accounts of challenger less champion.
    """

    metric: str
    champion_value: float
    challenger_value: float
    margin: float
    difference_low: float
    difference_high: float
    compared_from: date
    compared_to: date
    compared_rows: int

    @property
    def is_better(self) -> bool:
        """Whether the challenger is better by the margin."""
        way = _METRICS[self.metric][1]
        return way * (self.challenger_value - self.champion_value) >= self.margin


@dataclass(frozen=True)
class Promotion:
    """One row of ml.promotions, without its number and clock."""

    model: str
    as_of_date: date
    decided_by: str
    decision: str
    champion_before: str | None
    challenger: str | None
    champion: str
    reason: str
    metric: str | None = None
    champion_value: float | None = None
    challenger_value: float | None = None
    margin: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    compared_from: date | None = None
    compared_to: date | None = None
    compared_rows: int | None = None


_COLUMNS = tuple(Promotion.__dataclass_fields__)


def settle_all(as_of: date) -> list[str]:
    """Decide which model scores a date, for each model, training what that takes; return the ids of those trained.

    One that fails keeps no other from being settled. Raises StratumError, after all were tried, where one failed.
    """
    trained, failed = [], []
    for model in MODELS:
        try:
            trained += settle(model, as_of)
        except StratumError as error:
            log.warning("Model %s was not trained: %s", model, error)
            failed.append(f"{model}: {error}")
    if failed:
        raise StratumError(" ".join(failed))
    return trained


def settle(model: str, as_of: date) -> list[str]:
    """Decide which model scores a date, and keep the decision; return the ids of the models trained for it.

    Nothing is done where a person's choice stands, it was decided before, or history is too short; nor where what is
    learned does not hold later, which is written down: it is not tried again for that day. Raises StratumError as `train`
    does.
    """
    params = params_of(model)
    day = due_date(as_of, params.retrain_days)
    with connect("scorer") as connection:
        target = target_on(connection, model, day)
        policy = policy_on(connection, target, day)
        known = (_by_hand(connection, model, as_of), _by_rule(connection, model, day))
        for row in known:
            if (
                row is not None
                and (row.decided_by == "person" or row.as_of_date == day)
                and can_score(registry.by_id(connection, row.champion), target, policy)
            ):
                log.info("Model %s as of %s: %s stands (%s).", model, as_of, row.champion, row.decision)
                return []
        short = registry.refusal(connection, model, day) or too_little(connection, model, day)
        before = {found.model_id for found in registry.all_models(connection)}
    if short is not None:
        log.info("Model %s is not trained as of %s: %s", model, day, short)
        return []
    try:
        decided = _decide(model, day, target, policy, params)
    except NothingLearned as error:
        _refuse(model, day, error)
        return []
    with connect("scorer") as connection:
        _save(connection, decided)
        after = [found.model_id for found in registry.all_models(connection) if found.model == model]
    log.info(
        "Model %s from %s on: %s (%s: %s)", model, day, decided.champion, decided.decision, decided.reason
    )
    return [model_id for model_id in after if model_id not in before]


def _decide(model: str, day: date, target: Target, policy: Policy, params: Params) -> Promotion:
    """Return the rule's decision for a training day; it trains what it compares."""
    began = due_date(day, params.champion.stands_days)
    if began == day:
        found = _trained(model, day, target, policy)
        reason = f"a period of {params.champion.stands_days} days begins: no champion stands longer"
        return Promotion(model, day, "rule", "began", None, found.model_id, found.model_id, reason)
    champion, why_none = _of_period(model, began, target, policy)
    if champion is None:
        found = _trained(model, day, target, policy)
        return Promotion(model, day, "rule", "began", None, found.model_id, found.model_id, why_none)
    with connect("scorer") as connection:
        dates = comparable(training_dates(connection, day, policy.horizon_days), champion)
    if not dates:
        reason = (
            f"no month-end since it was trained has its outcomes: {policy.horizon_days} days must pass after one "
            "before a challenger can be compared"
        )
        return Promotion(model, day, "rule", "kept", champion.model_id, None, champion.model_id, reason)
    challenger = _trained(model, day, target, policy)
    with connect("scorer") as connection:
        frame = training_frame(connection, target, day, policy)
        pipeline = registry.load(connection, champion)
    with one_thread():
        told = {
            stamp: probabilities(pipeline, frame[frame["as_of_date"] == stamp])
            for stamp in map(pd.Timestamp, dates)
        }
        figures = compared(told, challenged(target, frame, challenger, policy, params), params)
    if figures is None:
        chosen, decision = champion, "kept"
        reason = (
            "the challenger's probabilities of those dates cannot be calibrated: nothing held before them"
        )
    else:
        chosen, decision = (challenger, "promoted") if figures.is_better else (champion, "kept")
        reason = (
            f"{figures.metric} {figures.challenger_value:.5f} of the challenger, {figures.champion_value:.5f} of the "
            f"champion on {figures.compared_rows} rows of {figures.compared_from} to {figures.compared_to}: "
            f"{'' if figures.is_better else 'not '}better by the margin of {figures.margin:g}"
        )
    written = vars(figures) if figures is not None else {}
    return Promotion(
        model,
        day,
        "rule",
        decision,
        champion.model_id,
        challenger.model_id,
        chosen.model_id,
        reason,
        **written,
    )


def comparable(dates: list[date], champion: registry.Model) -> list[date]:
    """Return the dates a champion can be compared on: those on or after its training, of which it knew no outcome.

    The label windows it was fitted on had ended by then; those of earlier dates overlap with them.
    """
    return [day for day in dates if day >= champion.trained_as_of]


def challenged(
    target: Target, frame: pd.DataFrame, challenger: registry.Model, policy: Policy, params: Params
) -> dict[pd.Timestamp, pd.DataFrame]:
    """Return account_id, LABEL and `probability` of each date, told by a challenger that knew nothing of it.

    It is the challenger's recipe fitted on the dates whose label windows had ended by the date: the challenger itself
    has learned from all of them.
    """
    used = [feature["name"] for feature in challenger.features if feature["used"]]
    boosting = Boosting.model_validate(challenger.parameters["boosting"])
    predicted = out_of_time(
        make_pipeline(target, params.model_copy(update={"boosting": boosting}), used),
        frame,
        policy.horizon_days,
        params.validation_folds,
        params.validation_month_ends,
    )
    return {
        one.date: one.rows for one in told_later(predicted, policy.horizon_days, params.level_history_days)
    }


def compared(
    champion: dict[pd.Timestamp, Array], challenger: dict[pd.Timestamp, pd.DataFrame], params: Params
) -> Comparison | None:
    """Return how both did on the dates both have probabilities for; None where there is none, or one outcome alone.

    `champion` holds the probabilities of the challenger's rows, date by date, in their order.
    """
    dates = sorted(set(champion) & set(challenger))
    rows = [challenger[day].assign(champion=champion[day]) for day in dates]
    if not rows or (both := pd.concat(rows, ignore_index=True))[LABEL].nunique() < 2:
        return None
    metric = _METRICS[params.champion.metric][0]
    happened = both[LABEL].to_numpy(np.float64)
    accounts, names = pd.factorize(both["account_id"])
    drawn = resamples(len(names), params.evaluation.bootstrap, params.seed)[:, accounts]
    scores = [both[column].to_numpy(np.float64) for column in ("champion", "probability")]
    old, new = (float(metric(score, happened, once(len(both)))[0]) for score in scores)
    low, high = interval(metric(scores[1], happened, drawn) - metric(scores[0], happened, drawn))
    return Comparison(
        params.champion.metric, old, new, params.champion.margin, low, high, dates[0].date(), dates[-1].date(), len(both)
    )  # fmt: skip


def can_score(found: registry.Model, target: Target, policy: Policy) -> bool:
    """Whether a model foretells what this version and the policy ask for, from the features there are."""
    asked = _asked(target, Policy(found.horizon_days, found.active_days, found.min_rise))
    return is_of_this_version(found, target) and asked == _asked(target, policy)


def _asked(target: Target, policy: Policy) -> tuple[int, float | None]:
    """Return what of a policy the labels of a target depend on."""
    return policy.horizon_days, policy.min_rise if "{min_rise}" in target.label else None


def champion_on(connection: psycopg.Connection, model: str, as_of: date) -> registry.Model | None:
    """Return the model that scores a date; None where there is none.

    A person's choice comes first, then the rule's newest decision for the date or before. Where nothing was decided yet
    (a model trained by hand), it is the newest one trained as of the date or before.
    """
    by_hand = _by_hand(connection, model, as_of)
    if by_hand is not None:
        found = registry.by_id(connection, by_hand.champion)
        target = target_on(connection, model, as_of)
        if can_score(found, target, policy_on(connection, target, as_of)):
            return found
    by_rule = _by_rule(connection, model, as_of)
    if by_rule is not None:
        return registry.by_id(connection, by_rule.champion)
    return registry.newest(connection, model, as_of)


def promote(model_id: str, reason: str, as_of: date | None = None) -> Promotion:
    """Make a model champion from a date on (the newest one scored, if none is given), until the next period begins.

    Raises StratumError where there is no such model, it was trained after the date, or it cannot score then.
    """
    with connect("scorer") as connection:
        found = registry.by_id(connection, model_id)
        day = as_of or _newest_scored(connection, found.model)
        _check_can_score(connection, found, day)
        before = champion_on(connection, found.model, day)
        row = Promotion(
            found.model,
            day,
            "person",
            "promoted",
            before.model_id if before else None,
            model_id,
            model_id,
            reason,
        )
        _save(connection, row)
    return row


def rollback(model: str, reason: str, as_of: date | None = None) -> Promotion:
    """Go back, from a date on, to the champion before the one of that date, until the next period begins.

    One that was itself rolled back since it was champion is passed over, so that going back twice does not return to the
    first. Raises StratumError where there is none before, or it cannot score.
    """
    definitions_of(model)  # of what is no model, a model's id for one, it says so
    with connect("scorer") as connection:
        day = as_of or _newest_scored(connection, model)
        now = champion_on(connection, model, day)
        rows = [row for row in promotions(connection, model) if row.as_of_date <= day]
        other = _before(rows, now.model_id) if now is not None else None
        if now is None or other is None:
            raise StratumError(
                f"Model {model} had no champion before the one of {day}: `stratum models list` shows its models, "
                "`stratum models promote` makes one of them champion."
            )
        _check_can_score(connection, registry.by_id(connection, other), day)
        row = Promotion(model, day, "person", "rolled back", now.model_id, None, other, reason)
        _save(connection, row)
    return row


def _before(rows: list[Promotion], model_id: str) -> str | None:
    """Return who was champion before a model, from the decisions up to a date, the newest first; None where nobody was."""
    passed_over: set[str | None] = {model_id}
    for row in rows:
        if row.decision == "rolled back":
            passed_over.add(row.champion_before)
        for one in (row.champion, row.champion_before):
            if one is not None and one not in passed_over:
                return one
    return None


def promotions(connection: psycopg.Connection, model: str) -> list[Promotion]:
    """Return every decision on a model, that of the newest date first; a person's before the rule's of the same date."""
    return _rows(connection, "true", [model])


def _by_hand(connection: psycopg.Connection, model: str, as_of: date) -> Promotion | None:
    """Return the person's choice that stands on a date: the newest one of its period."""
    began = due_date(as_of, params_of(model).champion.stands_days)
    found = _rows(connection, "as_of_date between %s and %s and decided_by = 'person'", [model, began, as_of])
    return found[0] if found else None


def _by_rule(connection: psycopg.Connection, model: str, as_of: date) -> Promotion | None:
    found = _rows(connection, "as_of_date <= %s and decided_by = 'rule'", [model, as_of])
    return found[0] if found else None


def _rows(connection: psycopg.Connection, condition: str, values: list[object]) -> list[Promotion]:
    with connection.cursor(row_factory=class_row(Promotion)) as cursor:
        return cursor.execute(
            f"select {', '.join(_COLUMNS)} from ml.promotions where model = %s and {condition} "  # noqa: S608 - constants
            "order by as_of_date desc, decided_by, promotion_id desc",
            values,
        ).fetchall()


def _save(connection: psycopg.Connection, row: Promotion) -> None:
    connection.execute(
        f"insert into ml.promotions ({', '.join(_COLUMNS)}) values ({', '.join(['%s'] * len(_COLUMNS))})",  # noqa: S608
        [getattr(row, name) for name in _COLUMNS],
    )


def _trained(model: str, day: date, target: Target, policy: Policy) -> registry.Model:
    """Return the model trained as of a day that can score under this target and policy; train it where it is not there."""
    with connect("scorer") as connection:
        for found in registry.trained_on(connection, model, day):
            if can_score(found, target, policy):
                return found
    model_id = train(model, day)
    with connect("scorer") as connection:
        return registry.by_id(connection, model_id)


def _of_period(model: str, began: date, target: Target, policy: Policy) -> tuple[registry.Model | None, str]:
    """Return the champion a period began with, or why it has none."""
    with connect("scorer") as connection:
        then = target_on(connection, model, began)
        if (then, _asked(then, policy_on(connection, then, began))) != (target, _asked(target, policy)):
            return None, f"what the model foretells has changed since the period began on {began}"
        short = registry.refusal(connection, model, began) or too_little(connection, model, began)
    if short is not None:
        return None, f"no champion of the period that began on {began}: {short}"
    try:
        return _trained(model, began, target, policy), ""
    except NothingLearned as error:
        _refuse(model, began, error)
        return None, f"no champion of the period that began on {began}: {error}"
    except StratumError as error:
        log.warning("No champion of the period that began on %s: %s", began, error)
        return None, f"no champion of the period that began on {began}: {error}"


def _refuse(model: str, day: date, error: NothingLearned) -> None:
    """Write down that a training found nothing to keep, so that it is not tried again for that day."""
    log.warning("Model %s as of %s is refused: %s", model, day, error)
    with connect("scorer") as connection:
        registry.refuse(connection, model, day, str(error))


def _check_can_score(connection: psycopg.Connection, found: registry.Model, day: date) -> None:
    if found.trained_as_of > day:
        raise StratumError(
            f"Model {found.model_id} was trained as of {found.trained_as_of} and knows what {day} could not: "
            f"promote it from {found.trained_as_of} on (--as-of)."
        )
    target = target_on(connection, found.model, day)
    if not can_score(found, target, policy_on(connection, target, day)):
        raise StratumError(
            f"Model {found.model_id} has other features, or foretells something else, than this version asks for on "
            f"{day}: it cannot score. `stratum models list` shows the others."
        )


def _newest_scored(connection: psycopg.Connection, model: str) -> date:
    row = connection.execute("select max(as_of_date) from ml.runs where model = %s", [model]).fetchone()
    if row is None or row[0] is None:
        raise StratumError(f"Model {model} has scored no date yet: say from which one on with --as-of DATE.")
    return row[0]
