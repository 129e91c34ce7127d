"""The simpler ways to tell that stand beside a model: recency alone, logistic regression, BG/NBD, rules (`ml/rules.py`).

What is fitted is fitted on what was known on the day the model was, be it the model itself (`ml/evaluate.py`) or the copy
of it that a held-out date was predicted by (`on_held_out`).
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import date

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray

from include.errors import StratumError
from ml import registry, value
from ml.acting import at_stake
from ml.baselines import bg_nbd, expected_spend, logistic
from ml.estimators import HeldOut, one_thread
from ml.features import recency_of
from ml.frames import KEYS, LABEL, histories_on, of_some_accounts
from ml.judge import BG_NBD, GAMMA_GAMMA, LOGISTIC, MODEL, RECENCY, TOLD_AS, VALUED, WAYS
from ml.params import Params
from ml.rules import of_rules
from ml.targets import CHURN, REPURCHASE, Target

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

STAKE = "stake"
"""The column of `on_held_out` with what was at stake then (`ml/acting.py`)."""
CAME = "came"
"""The column of `values_on_held_out` with the net revenue of the window after the date."""
VALUE_AS = {way: f"{way}_value" for way in VALUED}
"""Its columns with what each way expected that to be."""
LEARNED_ROWS = 15_000
"""Rows, of accounts drawn at random, that the logistic regression of a held-out date learns from at most."""
LEARNED_ACCOUNTS = 5_000
"""Accounts, drawn at random, that BG/NBD's four parameters of a held-out date are fitted on at most."""

_WITHOUT_ORDERS = {
    "lapse": "it foretells orders, and what lapses is a contract, whose account need not order",
    "trial": "it foretells orders from those before, and a trial has none",
}


def speaks_of_orders(target: Target) -> bool:
    """Whether the accounts of a target have ordered, so that BG/NBD has something to say of them."""
    return recency_of(target.names) == "days_since_last_order"


def why_no_orders(target: Target) -> str:
    """Return why BG/NBD does not stand beside a model whose target does not speak of orders."""
    return f"BG/NBD does not stand beside the model: {_WITHOUT_ORDERS[target.model]}."


def of_features(
    target: Target, known: pd.DataFrame, now: pd.DataFrame, used: Sequence[str], params: Params
) -> dict[str, Array]:
    """Return what recency alone and a logistic regression over the features `used` tell of the rows of `now`.

    Recency as a probability is a logistic regression over it alone. Both are fitted on `known`, a labelled frame.
    """
    recency = recency_of(target.names)
    told = {RECENCY: target.words.risk * now[recency].to_numpy(np.float64)}
    for name, features in ((LOGISTIC, list(used)), (TOLD_AS[RECENCY], [recency])):
        fitted = logistic(known, features, params.evaluation.logistic_c, params.seed)
        told[name] = np.asarray(fitted.predict_proba(now[features])[:, 1])
    return told


def of_orders(
    target: Target, known: pd.DataFrame, now: pd.DataFrame, horizon_days: int, params: Params
) -> dict[str, Array]:
    """Return what BG/NBD tells of the histories `now`, with parameters of the histories `known`.

    It ranks by expected orders; a probability it has where an order is what the target is about. Raises StratumError where
    no fit converges.
    """
    foretold = bg_nbd(known, now, horizon_days, params.evaluation.bg_nbd_penalizers)
    told = {BG_NBD: -target.words.risk * foretold.orders}
    if target.model == CHURN.model:
        told[TOLD_AS[BG_NBD]] = 1 - foretold.probability
    elif target.model == REPURCHASE.model:
        told[TOLD_AS[BG_NBD]] = foretold.probability
    return told


def histories_of(connection: psycopg.Connection, rows: pd.DataFrame, day: date) -> pd.DataFrame:
    """Return the order histories on a day of the accounts of the rows, row by row."""
    return rows[KEYS].merge(histories_on(connection, day), on=KEYS, how="left", validate="one_to_one")


def on_held_out(
    target: Target,
    found: registry.Model,
    predicted: Sequence[HeldOut],
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    params: Params,
) -> pd.DataFrame:
    """Return the held-out rows with what recency alone and a logistic regression told of them, and STAKE of a loss.

    Of each date they are fitted on the rows of the training frame that the copy of the model which predicted it was
    fitted on (at most LEARNED_ROWS): those whose label windows had ended by then. `rows` are those of `held_out_rows`.
    """
    used = [feature["name"] for feature in found.features if feature["used"]]
    learned = {one.date: one.known["as_of_date"].unique() for one in predicted}
    parts = []
    for day, part in by_date(rows):
        was_learned = frame["as_of_date"].isin(learned[day])
        drawn = of_some_accounts(frame.loc[was_learned, KEYS], LEARNED_ROWS, params.seed)["account_id"]
        known = frame[was_learned & frame["account_id"].isin(drawn)]  # no other row is copied
        of_day = frame[frame["as_of_date"] == day]
        now = part[KEYS].merge(of_day, on=KEYS, how="left", validate="one_to_one")
        with one_thread():
            told = of_features(target, known, now, used, params)
        if target.words.risk > 0:
            told[STAKE] = at_stake(now, found.horizon_days)
        parts.append(part.assign(**told))
    return pd.concat(parts, ignore_index=True)


def known_on_held_out(
    connection: psycopg.Connection, target: Target, horizon_days: int, rows: pd.DataFrame, params: Params
) -> pd.DataFrame:
    """Return the held-out rows with what BG/NBD and the rules told of them, where those are known of every date.

    BG/NBD needs no labels: its parameters are those of the histories on the date itself. What cannot be told is left out,
    and the log says why.
    """
    told, notes = of_rules(connection, target, rows)
    if speaks_of_orders(target):
        try:
            told |= _orders_on_held_out(connection, target, horizon_days, rows, params)
        except StratumError as error:  # a yardstick that cannot be had keeps no model from being trained
            notes.append(f"BG/NBD does not stand beside the model: {error}")
    for note in notes:
        log.info("Held-out dates of %s: %s", target.model, note)
    return rows.assign(**told)


def _orders_on_held_out(
    connection: psycopg.Connection, target: Target, horizon_days: int, rows: pd.DataFrame, params: Params
) -> dict[str, Array]:
    """Return what BG/NBD tells of the held-out rows, row by row."""
    parts = []
    for day, part in by_date(rows):
        histories = histories_on(connection, day.date())
        known = of_some_accounts(histories, LEARNED_ACCOUNTS, params.seed)
        now = part[KEYS].merge(histories, on=KEYS, how="left", validate="one_to_one")
        with one_thread():
            parts.append(of_orders(target, known, now, horizon_days, params))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def values_on_held_out(
    target: Target,
    found: registry.Model,
    predicted: Sequence[HeldOut],
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    revenue: Array,
    params: Params,
) -> pd.DataFrame:
    """Return the held-out rows with CAME, and what the model and BG/NBD × Gamma-Gamma expected of each, VALUE_AS.

    `rows` have what `known_on_held_out` adds, `revenue` is CAME of each row of the training frame. The model's line is
    fitted on the rows that its copy was fitted on which predicted the date, Gamma-Gamma on the accounts of the date itself:
    it needs no outcome. Where BG/NBD told nothing or a fit does not converge, it is left out, and the log says why.
    """
    learned = {one.date: one.known["as_of_date"].unique() for one in predicted}
    ordered = frame[LABEL].to_numpy() == 1
    parts, why = [], None if BG_NBD in rows else "BG/NBD told no orders"
    for day, part in by_date(rows):
        known = ordered & frame["as_of_date"].isin(learned[day]).to_numpy()
        line = value.fit(frame.loc[known, list(value.DAYS)], revenue[known], found.horizon_days)
        is_of_day = (frame["as_of_date"] == day).to_numpy()
        of_day = frame.loc[is_of_day, [*KEYS, "order_days_total", *value.DAYS]]
        now = part[KEYS].merge(
            of_day.assign(**{CAME: revenue[is_of_day]}), on=KEYS, how="left", validate="one_to_one"
        )
        told = {CAME: now[CAME].to_numpy()}
        probability = part["probability"].to_numpy(np.float64)
        told[VALUE_AS[MODEL]] = value.expected(line, now, probability, found.horizon_days)
        if why is None:
            try:
                drawn = of_some_accounts(of_day, LEARNED_ACCOUNTS, params.seed)
                orders = -target.words.risk * part[BG_NBD].to_numpy(np.float64)
                spend = expected_spend(drawn, now, orders, params.evaluation.bg_nbd_penalizers)
                told[VALUE_AS[GAMMA_GAMMA]] = spend
            except StratumError as error:  # a yardstick that cannot be had keeps no model from being trained
                why = str(error)
        parts.append(part.assign(**told))
    joined = pd.concat(parts, ignore_index=True)
    if why is not None:
        log.info(
            "Held-out dates of %s: no value of Gamma-Gamma stands beside the model's: %s", target.model, why
        )
        joined = joined.drop(columns=VALUE_AS[GAMMA_GAMMA], errors="ignore")
    return joined


def by_date(rows: pd.DataFrame) -> Iterator[tuple[pd.Timestamp, pd.DataFrame]]:
    """Yield each date and its rows, the oldest first: the order that held-out rows have."""
    for day in sorted(map(pd.Timestamp, rows["as_of_date"].unique())):
        yield day, rows[rows["as_of_date"] == day]


def scores_of(target: Target, rows: pd.DataFrame) -> dict[str, Array]:
    """Return the ways to tell that held-out rows have columns of, and the probabilities that stand beside: for `judge`.

    The model's are in the column `probability`, and recency is always known.
    """
    recency = target.words.risk * rows[recency_of(rows)].to_numpy(np.float64)
    names = [*WAYS, *TOLD_AS.values()]
    beside = {name: rows[name].to_numpy(np.float64) for name in names if name in rows}
    return {MODEL: rows["probability"].to_numpy(np.float64), RECENCY: recency, **beside}


def values_of(rows: pd.DataFrame) -> dict[str, Array]:
    """Return the expected values that held-out rows have columns of, by way: for `judge_values`."""
    return {way: rows[name].to_numpy(np.float64) for way, name in VALUE_AS.items() if name in rows}
