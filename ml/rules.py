"""The rules that a person would go by without a model, as an order of accounts that stands beside the model's.

Of customers they are the warning rules (policy `warning_rules`), of trials the stated rule of a trial that converts (policy
`trial_rules`). Neither tells a probability.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ml.frames import KEYS
from ml.judge import RULES, TRIAL_RULE
from ml.targets import Target

Array = NDArray[np.float64]

SEVERITIES = {"none": 0, "low": 1, "medium": 2, "high": 3}
MOST_RULES = 1000
"""More rules than anybody would write: the number of warnings never outweighs a severity."""


def speaks_of_trials(target: Target) -> bool:
    """Whether the accounts of a target are trials, of which the trial rule speaks and no warning rule."""
    return target.features_mart == "trial_features"


def of_rules(
    connection: psycopg.Connection, target: Target, frame: pd.DataFrame
) -> tuple[dict[str, Array], list[str]]:
    """Return the score of the rules that speak of a target's accounts, row by row of the frame (KEYS), and notes.

    It is under RULES or TRIAL_RULE, higher where what the target foretells is likelier; none where a note says why.
    """
    told = _of_trials if speaks_of_trials(target) else _of_warnings
    return told(connection, target, frame)


def listed(days: Sequence[date]) -> str:
    """Return dates as a reader expects them in a sentence."""
    return ", ".join(map(str, days))


def _of_warnings(
    connection: psycopg.Connection, target: Target, frame: pd.DataFrame
) -> tuple[dict[str, Array], list[str]]:
    """Return the worst severity of each account's warnings on its date, then how many rules warn.

    An account of which no rule can tell anything stands with those without a warning; the note counts them. The rules
    speak of all who have ordered, so of those none may be missing; who pays by a contract need not have.
    """
    absent = "The warning rules do not stand beside the model"
    days = [stamp.date() for stamp in sorted(frame["as_of_date"].unique())]
    kept = connection.execute(
        "select as_of_date, account_id, severity, rules_warning from marts.account_warnings "
        "where as_of_date = any(%s) and account_id = any(%s)",
        [days, sorted(frame["account_id"].unique())],
    ).fetchall() if _is_there(connection, "account_warnings") else []  # fmt: skip
    silent = sorted(set(days) - {day for day, *_ in kept})
    if silent:
        return {}, [f"{absent}: warnings of {listed(silent)} are kept of no account."]
    found = _beside(frame, pd.DataFrame(kept, columns=[*KEYS, "severity", "rules_warning"]))
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


def _of_trials(
    connection: psycopg.Connection, target: Target, frame: pd.DataFrame
) -> tuple[dict[str, Array], list[str]]:
    """Return how many conditions of the trial rule each trial meets on its date, then how near it is to the others.

    A trial that meets them all stands highest. How near is the mean share reached of each from_value, 1 at most and only
    where all are met: it never outweighs a condition. A measure that no trial of a date has any of puts none above another.
    """
    absent = "The trial rule does not stand beside the model"
    days = [stamp.date() for stamp in sorted(frame["as_of_date"].unique())]
    parts = []
    for day in days:
        rules = connection.execute(
            "select distinct on (rule) measure, from_value::float8 from marts.trial_rules where effective_from <= %s "
            "order by rule, effective_from desc",
            [day],
        ).fetchall() if _is_there(connection, "trial_rules") else []  # fmt: skip
        if not rules:
            return {}, [f"{absent}: the policy trial_rules has none in force on {day}."]
        measures = sql.SQL(", ").join(sql.SQL("{}::float8").format(sql.Identifier(name)) for name, _ in rules)
        query = sql.SQL("select account_id, {} from marts.trial_features where as_of_date = %s").format(
            measures
        )
        kept = connection.execute(query, [day]).fetchall()
        reached = np.array([values for _, *values in kept], dtype=np.float64).reshape(len(kept), len(rules))
        reached, needed = np.nan_to_num(reached), np.array([from_value for _, from_value in rules])
        is_met = reached >= needed
        near = np.divide(reached, needed, out=np.ones_like(reached), where=~is_met)
        score = is_met.sum(axis=1) + near.mean(axis=1)
        parts.append(
            pd.DataFrame({"as_of_date": day, "account_id": [account for account, *_ in kept], "score": score})
        )
    score = _beside(frame, pd.concat(parts, ignore_index=True))["score"]
    if not (score > 0).any():
        return {}, [f"{absent}: no trial of {listed(days)} has anything that it counts."]
    return {TRIAL_RULE: score.fillna(0).to_numpy(np.float64)}, []


def _is_there(connection: psycopg.Connection, mart: str) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", [f"marts.{mart}"]).fetchone()
    return row is not None and bool(row[0])


def _beside(frame: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Return what is kept of each row of the frame, row by row; `_merge` says of which nothing is."""
    dated = kept.assign(as_of_date=pd.to_datetime(kept["as_of_date"]).astype(frame["as_of_date"].dtype))
    return frame[KEYS].merge(dated, on=KEYS, how="left", validate="one_to_one", indicator=True)
