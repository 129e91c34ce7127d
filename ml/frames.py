"""Frames: what a model sees of each account as of a date, and whether what it foretells then happened.

One definition for training and for scoring: both read the target's features mart, whose rows are made of nothing
after their date, and both pass through `features_on`. Labels join them for training alone, and only where the
whole label window had passed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql

from include.errors import StratumError
from ml.copies import read_rows
from ml.features import Feature
from ml.targets import Policy, Target

KEYS = ["as_of_date", "account_id"]
LABEL = "happened"
"""The column that is 1 where what the model foretells came true in the window, else 0."""
CHUNK = 20_000
"""Accounts that are held at a time when all of a date are scored: of features, contributions and words some 100 MB."""


def training_dates(connection: psycopg.Connection, as_of: date, horizon_days: int) -> list[date]:
    """Return the month-ends a model may be trained on as of a date, oldest first.

    They begin with the first one built and end with the newest whose label window, the `horizon_days` days
    after it, ended on `as_of` or before. A date without an account of the model's population is one of them: a company may
    have contracts and no order, and a month without either. Raises StratumError where one in between was not built.
    """
    newest = as_of - timedelta(days=horizon_days)
    rows = connection.execute(
        "select as_of_date from marts.built_dates where as_of_date <= %s "
        "and extract(day from as_of_date + 1) = 1 order by as_of_date",
        [newest],
    ).fetchall()
    kept = [day for (day,) in rows]
    missing = [day for day in _month_ends(kept[0], newest) if day not in set(kept)] if kept else []
    if missing:
        raise StratumError(
            f"The month-end {missing[0]} was not built ({len(missing)} in all): "
            f"make it with `stratum backfill --from {missing[0]} --to {missing[-1]}`."
        )
    return kept


def was_built(connection: psycopg.Connection, day: date) -> bool:
    """Return whether the marts of a date were built, so that an account that is in none of them was not there."""
    return (
        connection.execute("select from marts.built_dates where as_of_date = %s", [day]).fetchone()
        is not None
    )


def training_frame(
    connection: psycopg.Connection, target: Target, as_of: date, policy: Policy
) -> pd.DataFrame:
    """Return the frame a model is trained on as of a date: keys, features and LABEL, one row per account and month-end.

    The accounts are those of the target's population; LABEL looks at the policy's `horizon_days` days after the row's
    date. Rows are ordered by date and account. Empty where no label window has ended yet.
    """
    dates = training_dates(connection, as_of, policy.horizon_days)
    return labelled_frame(connection, target, dates, policy)


def labelled_frame(
    connection: psycopg.Connection, target: Target, dates: Sequence[date], policy: Policy
) -> pd.DataFrame:
    """Return features and labels of the given dates.

    Raises StratumError where rows have no label: their window has not ended yet, or the outcomes lack them.
    """
    frame = features_on(connection, target, dates)
    label = sql.SQL("({})::int as {}").format(label_of(target, policy), sql.Identifier(LABEL))
    labels = _read(connection, _outcomes(target, policy, label, dates))
    joined = frame.merge(labels, on=KEYS, how="left", validate="one_to_one")
    if len(labels) < len(frame):
        raise StratumError(
            f"marts.{target.outcomes_mart} lacks rows of marts.{target.features_mart}: build the marts anew."
        )
    open_windows = joined.loc[joined[LABEL].isna(), "as_of_date"]
    if not open_windows.empty:
        day = open_windows.min().date()
        end = day + timedelta(days=policy.horizon_days)
        raise StratumError(
            f"What comes true in the {policy.horizon_days} days after {day} is not known yet: they end on {end}, and no "
            f"build has reached that day. Run it (`stratum run --as-of {end}`), or choose an earlier date."
        )
    return joined.astype({LABEL: np.int8})


def later_revenue(
    connection: psycopg.Connection, target: Target, dates: Sequence[date], policy: Policy
) -> pd.DataFrame:
    """Return keys and net_revenue (reporting currency) of the window after each date, ordered as the frame."""
    return _read(connection, _outcomes(target, policy, sql.SQL("outcomes.net_revenue"), dates))


def currency_of(connection: psycopg.Connection) -> str:
    """Return the currency that every amount of a frame and of a figure is in: the company's, as an ISO 4217 code."""
    row = connection.execute("select currency from audit.company").fetchone()
    return row[0] if row is not None else "reporting currency"


def label_of(target: Target, policy: Policy) -> sql.Composed:
    """Return the condition that is true where what the target foretells came true."""
    return sql.SQL(target.label).format(min_rise=sql.Literal(policy.min_rise))


def features_on(connection: psycopg.Connection, target: Target, dates: Sequence[date]) -> pd.DataFrame:
    """Return keys and features of each account of the target's population on the dates, ordered by date and account.

    All features are float64, unknown ones NaN, flags 0 and 1. Raises StratumError where the target's features mart
    lacks a column.
    """
    with _fits(target):
        frame = _read(connection, _features(target, dates))
    return frame[[*KEYS, *target.names]]


def features_in_chunks(
    connection: psycopg.Connection, target: Target, day: date, rows: int = CHUNK
) -> Iterator[pd.DataFrame]:
    """Yield what `features_on` returns of one date, so many accounts at a time, all as of the moment of the first.

    In between the connection may write. The accounts come in the order of the server's collation. Raises StratumError
    as `features_on` does.
    """
    sent = np.dtype(
        [("of_array", "V20"), ("values", [("of_value", "V4"), ("value", ">f8")], len(target.names))]
    )
    with connection.cursor(name="features", binary=True) as cursor:
        with _fits(target):
            cursor.execute(_features_sent(target, day))
        while found := cursor.fetchmany(rows):
            accounts, arrays = zip(*found, strict=True)
            values = np.frombuffer(b"".join(arrays), sent)["values"]["value"].astype(np.float64)
            frame = pd.DataFrame(values, columns=list(target.names))
            frame.insert(0, "as_of_date", pd.Timestamp(day).as_unit("us"))  # as features_on reads it
            frame.insert(1, "account_id", accounts)
            yield frame


def _features_sent(target: Target, day: date) -> sql.Composed:
    """Return the query of account_id and all features of one date as the bytes PostgreSQL sends an array in.

    A header of 20 bytes, then of each value its length and the float8, unknown ones NaN: read at once, where a Python
    number for each of them takes longer than to predict.
    """
    known = (sql.SQL("coalesce({}, 'NaN')").format(_number(feature)) for feature in target.features)
    return sql.SQL(
        "select features.account_id, array_send(array[{}]) from marts.{} as features where {} and {} "
        "order by features.account_id"
    ).format(
        sql.SQL(", ").join(known),
        sql.Identifier(target.features_mart),
        _on([day]),
        sql.SQL(target.population),
    )


def _features(target: Target, dates: Sequence[date]) -> sql.Composed:
    """Return the query of keys and features, in their order, all features float8."""
    return sql.SQL(
        "select features.as_of_date, features.account_id, {} from marts.{} as features where {} and {}"
    ).format(
        sql.SQL(", ").join(map(_as_number, target.features)),
        sql.Identifier(target.features_mart),
        _on(dates),
        sql.SQL(target.population),
    )


@contextmanager
def _fits(target: Target) -> Iterator[None]:
    """Say what to do where the target's features mart lacks a feature."""
    try:
        yield
    except psycopg.errors.UndefinedColumn as error:
        raise StratumError(
            f"marts.{target.features_mart} does not fit the model's features: {str(error).splitlines()[0]}. "
            "Build the marts with this version (`stratum run --as-of DATE`)."
        ) from error


def histories_on(connection: psycopg.Connection, day: date) -> pd.DataFrame:
    """Return account_id, order_days_total, days_since_last_order and tenure_days of each account on a date."""
    query = sql.SQL(
        "select as_of_date, account_id, order_days_total, days_since_last_order, tenure_days "
        "from marts.account_features as features where {}"
    )
    return _read(connection, query.format(_on([day])))


def check_columns(found: Iterable[str], expected: Iterable[str], who: str) -> None:
    """Raise StratumError where the columns are not the expected ones, in any order."""
    has, needs = set(found), set(expected)
    missing, new = sorted(needs - has), sorted(has - needs)
    if missing or new:
        raise StratumError(
            f"The features do not fit {who}: missing {', '.join(missing) or 'none'}; new {', '.join(new) or 'none'}. "
            "Train a model with this version (`stratum run --as-of DATE`)."
        )


def of_some_accounts(rows: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Return the rows of so many accounts, drawn at random, that they are about `most`; all where they are not more.

    Accounts are drawn in the order of their ids: whatever order the rows have, the same ones are.
    """
    if len(rows) <= most:
        return rows
    accounts = rows["account_id"].drop_duplicates().sort_values()
    drawn = accounts.sample(frac=most / len(rows), random_state=seed)
    return rows[rows["account_id"].isin(drawn)].reset_index(drop=True)


def fingerprint(frame: pd.DataFrame) -> str:
    """Return the sha256 (hex) of a frame's keys, features and labels; the rows must be ordered."""
    digest = hashlib.sha256("\n".join(frame.columns).encode())
    digest.update("\n".join(frame["account_id"]).encode())
    digest.update(frame["as_of_date"].to_numpy("datetime64[D]").tobytes())
    values = frame.drop(columns=KEYS)
    for start in range(0, len(values), CHUNK):  # all at once would be twice the frame
        digest.update(values[start : start + CHUNK].to_numpy(np.float64).tobytes())
    return digest.hexdigest()


def _as_number(feature: Feature) -> sql.Composed:
    return sql.SQL("{} as {}").format(_number(feature), sql.Identifier(feature.name))


def _number(feature: Feature) -> sql.Composed:
    number = "features.{}::int::float8" if feature.kind == "flag" else "features.{}::float8"
    return sql.SQL(number).format(sql.Identifier(feature.name))


def _on(dates: Sequence[date]) -> sql.Composable:
    return sql.SQL("features.as_of_date = any({}::date[])").format(sql.Literal(list(dates)))


def _outcomes(target: Target, policy: Policy, column: sql.Composable, dates: Sequence[date]) -> sql.Composed:
    """Return the query of keys and a column over `outcomes` and `features`, for the population on the dates."""
    return sql.SQL(
        "select features.as_of_date, features.account_id, {} from marts.{} as features "
        "join marts.{} as outcomes on outcomes.as_of_date = features.as_of_date "
        "and outcomes.account_id = features.account_id and outcomes.horizon_days = {} where {} and {}"
    ).format(
        column,
        sql.Identifier(target.features_mart),
        sql.Identifier(target.outcomes_mart),
        sql.Literal(policy.horizon_days),
        _on(dates),
        sql.SQL(target.population),
    )


def _read(connection: psycopg.Connection, query: sql.Composed) -> pd.DataFrame:
    """Return the rows of a query, ordered by KEYS; all other columns are float64."""
    frame = read_rows(connection, query, dict.fromkeys(KEYS, "str"))
    frame["as_of_date"] = pd.to_datetime(frame["as_of_date"])
    # Not in SQL, where the order of texts depends on the server's collation.
    return frame.sort_values(KEYS, ignore_index=True)


def _month_ends(first: date, last: date) -> list[date]:
    return [stamp.date() for stamp in pd.date_range(first, last, freq="ME")]
