"""The simpler ways to tell that stand beside a model: recency alone, logistic regression, BG/NBD, the warning rules.

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
from ml import registry
from ml.acting import at_stake
from ml.baselines import bg_nbd, logistic
from ml.estimators import HeldOut, one_thread
from ml.features import recency_of
from ml.frames import KEYS, histories_on, of_some_accounts
from ml.judge import BG_NBD, LOGISTIC, MODEL, RECENCY, RULES, TOLD_AS, WAYS
from ml.params import Params
from ml.targets import CHURN, REPURCHASE, Target

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

SEVERITIES = {"none": 0, "low": 1, "medium": 2, "high": 3}
MOST_RULES = 1000
"""More rules than anybody would write: the number of warnings never outweighs a severity."""
STAKE = "stake"
"""The column of `on_held_out` with what was at stake then (`ml/acting.py`)."""
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


def of_rules(
    connection: psycopg.Connection, target: Target, frame: pd.DataFrame
) -> tuple[dict[str, Array], list[str]]:
    """Return the score of the warning rules on the dates, row by row of the frame, or a note why there is none.

    It is an order, not a probability: the worst severity of an account's warnings, then how many rules warn. An account
    of which no rule can tell anything stands with those without a warning; the note counts them. The rules speak of all
    who have ordered, so of those none may be missing; who pays by a contract need not have.
    """
    absent = "The warning rules do not stand beside the model"
    if target.features_mart == "trial_features":
        return {}, [
            f"{absent}: they speak of accounts that have ordered or pay by a contract, and a trial does neither."
        ]
    days = [stamp.date() for stamp in sorted(frame["as_of_date"].unique())]
    row = connection.execute("select to_regclass('marts.account_warnings') is not null").fetchone()
    kept = connection.execute(
        "select as_of_date, account_id, severity, rules_warning from marts.account_warnings "
        "where as_of_date = any(%s) and account_id = any(%s)",
        [days, sorted(frame["account_id"].unique())],
    ).fetchall() if row is not None and row[0] else []  # fmt: skip
    silent = sorted(set(days) - {day for day, *_ in kept})
    if silent:
        return {}, [f"{absent}: warnings of {listed(silent)} are kept of no account."]
    warnings = pd.DataFrame(kept, columns=[*KEYS, "severity", "rules_warning"])
    warnings["as_of_date"] = pd.to_datetime(warnings["as_of_date"]).astype(frame["as_of_date"].dtype)
    found = frame[KEYS].merge(warnings, on=KEYS, how="left", validate="one_to_one", indicator=True)
    without = int((found["_merge"] == "left_only").sum())
    if without and target.features_mart == "account_features":
        told = f"not of {without:,} of {len(found):,} accounts"
        return {}, [f"{absent}: warnings of {listed(days)} are kept {told}."]
    unknown = int(found["severity"].isna().sum())
    if unknown == len(found):
        return {}, [f"{absent}: none could tell anything on {listed(days)}."]
    worst = found["severity"].map(SEVERITIES).fillna(0).to_numpy(np.float64)
    number = found["rules_warning"].fillna(0).to_numpy(np.float64)
    rows = "accounts" if len(days) == 1 else "rows"
    notes = [f"Of {unknown:,} {rows} no warning rule could tell anything: they count as without a warning."]
    return {RULES: target.words.risk * (MOST_RULES * worst + number)}, notes if unknown else []


def listed(days: Sequence[date]) -> str:
    """Return dates as a reader expects them in a sentence."""
    return ", ".join(map(str, days))


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
    """Return the held-out rows with what BG/NBD and the warning rules told of them, where those are known of every date.

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
