"""What a model card tells beside the monthly figures: all held-out dates together, slices of accounts, feature effects.

Held-out dates are told by copies of the model that knew nothing of them (`estimators.out_of_time`), with the
probabilities that could be told then (`told_later`). Intervals are a bootstrap over accounts: an account's dates are
drawn together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from ml import registry
from ml.acting import costs_on, worth
from ml.beside import (
    CAME,
    STAKE,
    by_date,
    known_on_held_out,
    on_held_out,
    scores_of,
    values_of,
    values_on_held_out,
)
from ml.estimators import HeldOut, one_thread, probabilities, told_later
from ml.frames import KEYS, LABEL, of_some_accounts
from ml.judge import (
    MODEL,
    OBSERVED,
    ON_DATE,
    SHARES,
    Figure,
    drawn_by_account,
    figure,
    judge,
    judge_date,
    judge_values,
    percent,
)
from ml.metrics import auc, brier, lift, mean, once, share_interval
from ml.params import Params, params_of
from ml.targets import Target

Array = NDArray[np.float64]

POOLED = "held out"
"""The population of all held-out dates together; of them alone who had bought lately: `held out, active_90`."""
SLICES = {"tier": "tier", "industry": "industry", "company_size": "size"}
"""Columns of `segments_on`, and how a slice of each is named: `tier: A`."""
UNKNOWN, OTHERS = "unknown", "others"
MOST_VALUES = 12
"""Values of a slice that are told one by one, those of most rows; the rest are OTHERS."""
CURVE = tuple(round(step / 20, 2) for step in range(1, 21))
"""Shares of the accounts the gain curve is told at."""
EFFECTS, EFFECT_POINTS, EFFECT_ROWS = 6, 20, 500
"""Features whose effect is told, quantiles of each, and accounts it is averaged over."""
MOST_ROWS = 20_000
"""Held-out rows that are looked at, of accounts drawn at random: an AUC is then sure to 0.01, and 500 resamples take 20
megabytes."""


def record(
    connection: psycopg.Connection,
    target: Target,
    found: registry.Model,
    pipeline: Pipeline,
    predicted: Sequence[HeldOut],
    frame: pd.DataFrame,
    importances: Mapping[str, float],
    revenue: Array | None = None,
) -> None:
    """Keep the figures of a model that was just trained: ml.metrics (validation, as of its newest date) and ml.effects.

    Those of a held-out date alone are kept as of that date. `revenue` is what each row's account of the frame then bought,
    where the target has a value.
    """
    params = params_of(found.model)
    rows = held_out_rows(found, predicted, params)
    if len(rows):
        rows = on_held_out(target, found, predicted, rows, frame, params)
        rows = known_on_held_out(connection, target, found.horizon_days, rows, params)
        if revenue is not None:
            rows = values_on_held_out(target, found, predicted, rows, frame, revenue, params)
        segments = segments_on(connection, sorted(map(pd.Timestamp, rows["as_of_date"].unique())))
        together = [
            *pooled(target, rows, found.active_days, params),
            *worth_held_out(connection, target, rows, found.active_days, params),
            *sliced(target, rows, segments, params),
        ]
        figures = [(found.window_to, one) for one in together] + list(dated(target, rows, params))
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into ml.metrics (model_id, evaluated_as_of, kind, population, estimator, metric, value, low, "
                "high, rows) values (%s, %s, 'validation', %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
                [
                    (found.model_id, day, f.population, f.estimator, f.metric, f.value, f.low, f.high, f.rows)
                    for day, f in figures
                ],
            )  # fmt: skip
    newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ml.effects (model_id, feature, value, mean_probability) values (%s, %s, %s, %s) "
            "on conflict do nothing",
            [(found.model_id, *point) for point in effects(pipeline, newest, importances, params.seed)],
        )


def held_out_rows(found: registry.Model, predicted: Sequence[HeldOut], params: Params) -> pd.DataFrame:
    """Return the held-out rows that are looked at, with as_of_date and the `probability` that could be told then.

    At most about MOST_ROWS, of accounts drawn at random; none where none could be told.
    """
    told = told_later(predicted, found.horizon_days, params.level_history_days)
    if not told:
        return pd.DataFrame()
    rows = pd.concat([one.rows.assign(as_of_date=one.date) for one in told], ignore_index=True)
    return of_some_accounts(rows, MOST_ROWS, params.seed)


def segments_on(connection: psycopg.Connection, dates: Sequence[pd.Timestamp]) -> pd.DataFrame | None:
    """Return keys, tier, industry and company_size of each account on the dates; None where the marts do not hold them."""
    row = connection.execute(
        "select bool_and(to_regclass('marts.' || name) is not null) "
        "from unnest(array['account_tiers', 'account_kinds', 'account_profiles']) as tables (name)"
    ).fetchone()
    if row is None or not row[0]:
        return None
    rows = connection.execute(
        "select account_id, as_of_date, tiers.tier, profiles.industry, kinds.company_size "
        "from marts.account_tiers as tiers full join marts.account_kinds as kinds using (as_of_date, account_id) "
        "full join marts.account_profiles as profiles using (as_of_date, account_id) where as_of_date = any(%s)",
        [[stamp.date() for stamp in dates]],
    ).fetchall()
    frame = pd.DataFrame(rows, columns=["account_id", "as_of_date", *SLICES])
    return frame.assign(as_of_date=pd.to_datetime(frame["as_of_date"]))


def held_out(population: str) -> str:
    """Return under which name the figures of a population's held-out rows are kept: POOLED, or `held out, active_90`."""
    return POOLED if population == "all" else f"{POOLED}, {population}"


def pooled(target: Target, rows: pd.DataFrame, active_days: int, params: Params) -> Iterator[Figure]:
    """Yield the figures of all held-out rows together, of the model and of what stands beside it, and its gain curve.

    `rows` hold account_id, as_of_date, their recency, LABEL, `probability`, and the columns of `on_held_out`,
    `known_on_held_out` and `values_on_held_out` that are known.
    """
    if rows[LABEL].nunique() < 2:
        return
    for one in judge(target, rows, scores_of(target, rows), active_days, params):
        yield replace(one, population=held_out(one.population))
    if CAME in rows:
        came = rows[CAME].to_numpy(np.float64)
        yield from judge_values(POOLED, came, values_of(rows), drawn_by_account(rows, params))
    probability, happened = (rows[name].to_numpy(np.float64) for name in ("probability", LABEL))
    for share in CURVE:
        if share not in SHARES:
            found = float(lift(share)(probability, happened, once(len(rows)))[0]) * share
            yield Figure(POOLED, MODEL, f"gain_{percent(share)}", found, None, None, len(rows))


def dated(target: Target, rows: pd.DataFrame, params: Params) -> Iterator[tuple[date, Figure]]:
    """Yield each held-out date and the figures of its rows alone, of the model and of what stands beside it.

    `rows` are those of `pooled`: together they say how good the model is, one by one whether it is so on each date.
    """
    for day, part in by_date(rows):
        of_day = part.reset_index(drop=True)
        for one in judge_date(target, of_day, scores_of(target, of_day), params):
            yield day.date(), one
        if CAME in of_day:
            came, drawn = of_day[CAME].to_numpy(np.float64), drawn_by_account(of_day, params)
            for one in judge_values(ON_DATE, came, values_of(of_day), drawn):
                yield day.date(), one


def worth_held_out(
    connection: psycopg.Connection, target: Target, rows: pd.DataFrame, active_days: int, params: Params
) -> Iterator[Figure]:
    """Yield what contacting those at the top would have been worth on the held-out dates (`ml/acting.py`).

    None where no loss is foretold, which a contact could keep off, or the policy is not known on the newest of them.
    """
    costs = costs_on(connection, rows["as_of_date"].max().date()) if target.words.risk > 0 else None
    if costs is None:
        return
    stake = rows[STAKE].to_numpy(np.float64)
    for one in worth(rows, scores_of(target, rows), stake, costs, active_days, params):
        yield replace(one, population=held_out(one.population))


def sliced(
    target: Target, rows: pd.DataFrame, segments: pd.DataFrame | None, params: Params
) -> Iterator[Figure]:
    """Yield rate, mean probability, Brier and AUC of each slice of the held-out rows; none where there are no segments.

    A slice is told however small it is, with its rows and intervals; AUC only where both outcomes are in it.
    """
    if segments is None:
        return
    joined = rows.merge(segments, on=KEYS, how="left", validate="one_to_one")
    for column, name in SLICES.items():
        values = joined[column].fillna(UNKNOWN).astype(str)
        most = values.value_counts(sort=True).index[:MOST_VALUES]
        values = values.where(values.isin(most), OTHERS)
        for value in sorted(values.unique()):
            part = joined[values == value].reset_index(drop=True)
            yield from _of_slice(target, f"{name}: {value}", part, params)


def _of_slice(target: Target, population: str, part: pd.DataFrame, params: Params) -> Iterator[Figure]:
    happened, probability = (part[column].to_numpy(np.float64) for column in (LABEL, "probability"))
    every, drawn = once(len(part)), drawn_by_account(part, params)
    low, high = share_interval(mean(happened, happened, drawn), happened)
    rate = float(happened.mean())
    yield Figure(population, OBSERVED, f"{target.model}_rate", rate, low, high, len(part))
    yield figure(population, MODEL, "mean_probability", mean, probability, probability, every, drawn)
    yield figure(population, MODEL, "brier", brier, probability, happened, every, drawn)
    if len(set(happened)) == 2:
        yield figure(population, MODEL, "auc", auc, probability, happened, every, drawn)


def effects(
    pipeline: Pipeline, newest: pd.DataFrame, importances: Mapping[str, float], seed: int
) -> list[tuple[str, float, float]]:
    """Return feature, value and mean probability if all accounts had that value (partial dependence, Friedman 2001).

    Of the features that weigh most, at quantiles of their known values on the newest training date, over a sample of
    its accounts. What moves together in life is moved alone here: a value may be one that no account has with the rest.
    """
    rows = newest.drop(columns=LABEL).sample(min(len(newest), EFFECT_ROWS), random_state=seed)
    told: list[tuple[str, float, float]] = []
    with one_thread():
        for name in [name for name, weight in importances.items() if weight > 0][:EFFECTS]:
            known = newest[name].dropna().to_numpy(np.float64)
            values = np.unique(np.quantile(known, np.linspace(0.02, 0.98, EFFECT_POINTS)))
            moved = rows.loc[np.tile(rows.index, len(values))].assign(**{name: np.repeat(values, len(rows))})
            means = probabilities(pipeline, moved).reshape(len(values), len(rows)).mean(axis=1)
            told += [(name, float(value), float(mean)) for value, mean in zip(values, means, strict=True)]
    return told
