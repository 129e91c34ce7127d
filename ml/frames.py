"""Frames: what a model sees of each account as of a date, and whether the account then churned.

One definition for training and for scoring: both read marts.account_features, whose rows are made of nothing
after their date, and both pass through `features_on`. Labels join them for training alone, and only where the
whole label window had passed.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO
from typing import Literal

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql

from include.errors import StratumError

Kind = Literal["days", "count", "amount", "share", "score", "flag"]


@dataclass(frozen=True)
class Feature:
    """One input of the model: its name, kind, and which way it may move the risk.

    `direction` is 1 where more of it can only raise the risk, -1 where it can only lower it, 0 where the data
    decide. It is a constraint on the fit, so that no reason contradicts common sense.
    """

    name: str
    kind: Kind
    direction: int = 0


FEATURES: tuple[Feature, ...] = (
    Feature("days_since_last_order", "days", 1),
    Feature("gap_ratio", "share", 1),
    Feature("mean_order_gap_days", "days"),
    Feature("orders_total", "count", -1),
    Feature("order_days_total", "count", -1),
    Feature("orders_90d", "count", -1),
    Feature("orders_180d", "count", -1),
    Feature("orders_365d", "count", -1),
    Feature("orders_per_quarter", "count", -1),
    Feature("net_revenue_90d", "amount", -1),
    Feature("net_revenue_prior_90d", "amount", -1),
    Feature("net_revenue_365d", "amount", -1),
    Feature("yearly_net_spend", "amount", -1),
    Feature("average_order_value", "amount"),
    Feature("return_rate_365d", "share"),
    Feature("logins_30d", "count", -1),
    Feature("logins_prior_30d", "count"),
    Feature("logins_90d", "count", -1),
    Feature("days_since_last_login", "days", 1),
    Feature("core_feature_uses_30d", "count", -1),
    Feature("core_feature_uses_90d", "count", -1),
    Feature("active_days_30d", "count", -1),
    Feature("sessions_90d", "count", -1),
    Feature("tickets_90d", "count"),
    Feature("open_tickets", "count"),
    Feature("urgent_tickets_90d", "count"),
    Feature("nps_latest", "score", -1),
    Feature("nps_previous", "score"),
    Feature("open_deals", "count"),
    Feature("open_deal_amount", "amount"),
    Feature("won_deals_365d", "count"),
    Feature("contacts", "count"),
    Feature("has_decision_maker", "flag"),
)
NAMES = tuple(feature.name for feature in FEATURES)
KEYS = ["as_of_date", "account_id"]
CHURNED = "churned"


@dataclass(frozen=True)
class Policy:
    """What counts as churn on a date: no order in `horizon_days`, and who is a recent buyer."""

    horizon_days: int
    active_days: int


def policy_on(connection: psycopg.Connection, as_of: date) -> Policy:
    """Return the churn policy in force on the date. Raises StratumError where there is none."""
    rows = connection.execute(
        "select distinct on (name) name, value::float8 from marts.thresholds "
        "where effective_from <= %s and name in ('churn_horizon_days', 'churn_active_days') "
        "order by name, effective_from desc",
        [as_of],
    ).fetchall()
    values = {name: int(value) for name, value in rows}
    if len(values) < 2:
        raise StratumError(
            f"No churn policy is in force on {as_of}: churn_horizon_days and churn_active_days are rows of "
            "dbt_project/seeds/policy/thresholds.csv, landed by the build (`stratum run --as-of DATE`)."
        )
    return Policy(values["churn_horizon_days"], values["churn_active_days"])


def training_dates(connection: psycopg.Connection, as_of: date, horizon_days: int) -> list[date]:
    """Return the month-ends a model may be trained on as of a date, oldest first.

    They begin with the first one kept and end with the newest whose label window, the `horizon_days` days
    after it, ended on `as_of` or before. Raises StratumError where one in between is not kept.
    """
    newest = as_of - timedelta(days=horizon_days)
    rows = connection.execute(
        "select distinct as_of_date from marts.account_features where as_of_date <= %s "
        "and extract(day from as_of_date + 1) = 1 order by as_of_date",
        [newest],
    ).fetchall()
    kept = [day for (day,) in rows]
    missing = [day for day in _month_ends(kept[0], newest) if day not in set(kept)] if kept else []
    if missing:
        raise StratumError(
            f"marts.account_features lacks the month-end {missing[0]} ({len(missing)} in all): "
            f"make it with `stratum backfill --from {missing[0]} --to {missing[-1]}`."
        )
    return kept


def training_frame(connection: psycopg.Connection, as_of: date, horizon_days: int) -> pd.DataFrame:
    """Return the frame a model is trained on as of a date: keys, NAMES and CHURNED, one row per account and month-end.

    CHURNED is 1 where the account placed no order in the `horizon_days` days after the row's date. Rows are
    ordered by date and account. Empty where no label window has ended yet.
    """
    dates = training_dates(connection, as_of, horizon_days)
    return labelled_frame(connection, dates, horizon_days)


def labelled_frame(connection: psycopg.Connection, dates: Sequence[date], horizon_days: int) -> pd.DataFrame:
    """Return features and labels of the given dates; whoever asks has seen to it that their windows have ended."""
    frame = features_on(connection, dates)
    query = sql.SQL("select as_of_date, account_id, next_order_date from marts.account_next_orders where {}")
    next_orders = _read(connection, query.format(_on(dates)), ["next_order_date"])
    joined = frame.merge(next_orders, on=KEYS, how="left", validate="one_to_one")
    window_end = joined["as_of_date"] + pd.Timedelta(days=horizon_days)
    # A later order, or none, is the same: what lies behind the window is not looked at.
    ordered_in_window = pd.to_datetime(joined.pop("next_order_date")) <= window_end
    return joined.assign(**{CHURNED: (~ordered_in_window).astype(np.int8)})


def features_on(connection: psycopg.Connection, dates: Sequence[date]) -> pd.DataFrame:
    """Return keys and NAMES of every account that had ordered by each of the dates, ordered by date and account.

    All features are float64, unknown ones NaN, flags 0 and 1. Raises StratumError where marts.account_features
    lacks a column.
    """
    columns = sql.SQL(", ").join(_as_number(feature) for feature in FEATURES)
    query = sql.SQL("select as_of_date, account_id, {} from marts.account_features where {}")
    try:
        frame = _read(connection, query.format(columns, _on(dates)), [])
    except psycopg.errors.UndefinedColumn as error:
        raise StratumError(
            f"marts.account_features does not fit the model's features: {str(error).splitlines()[0]}. "
            "Build the marts with this version (`stratum run --as-of DATE`)."
        ) from error
    return frame[[*KEYS, *NAMES]]


def histories_on(connection: psycopg.Connection, day: date) -> pd.DataFrame:
    """Return account_id, order_days_total, days_since_last_order and tenure_days of each account on a date."""
    query = sql.SQL(
        "select as_of_date, account_id, order_days_total, days_since_last_order, tenure_days "
        "from marts.account_features where {}"
    )
    return _read(connection, query.format(_on([day])), [])


def check_columns(found: Iterable[str], expected: Iterable[str], who: str) -> None:
    """Raise StratumError where the columns are not the expected ones, in any order."""
    has, needs = set(found), set(expected)
    missing, new = sorted(needs - has), sorted(has - needs)
    if missing or new:
        raise StratumError(
            f"The features do not fit {who}: missing {', '.join(missing) or 'none'}; new {', '.join(new) or 'none'}. "
            "Train a model with this version (`stratum run --as-of DATE`)."
        )


def fingerprint(frame: pd.DataFrame) -> str:
    """Return the sha256 (hex) of a frame's keys, features and labels; the rows must be ordered."""
    digest = hashlib.sha256("\n".join(frame.columns).encode())
    digest.update("\n".join(frame["account_id"]).encode())
    digest.update(frame["as_of_date"].to_numpy("datetime64[D]").tobytes())
    digest.update(np.ascontiguousarray(frame.drop(columns=KEYS).to_numpy(np.float64)).tobytes())
    return digest.hexdigest()


def _as_number(feature: Feature) -> sql.Composable:
    name = sql.Identifier(feature.name)
    return sql.SQL("{0}::int as {0}" if feature.kind == "flag" else "{}").format(name)


def _on(dates: Sequence[date]) -> sql.Composable:
    return sql.SQL("as_of_date = any({}::date[])").format(sql.Literal(list(dates)))


def _read(connection: psycopg.Connection, query: sql.Composed, others: list[str]) -> pd.DataFrame:
    """Return the rows of a query by COPY, many times faster than by row; all columns but keys and `others` are float64."""
    data = BytesIO()
    statement = sql.SQL("copy ({}) to stdout (format csv, header)").format(query)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in copy:
            data.write(block)
    data.seek(0)
    header = data.readline().decode().strip().split(",")
    types = dict.fromkeys(header, "float64") | dict.fromkeys(("as_of_date", "account_id", *others), "str")
    frame = pd.read_csv(
        data,
        names=header,
        dtype=types,
        keep_default_na=False,
        na_values={name: [""] for name in header},
    )
    frame["as_of_date"] = pd.to_datetime(frame["as_of_date"])
    # Not in SQL, where the order of texts depends on the server's collation.
    return frame.sort_values(KEYS, ignore_index=True)


def _month_ends(first: date, last: date) -> list[date]:
    return [stamp.date() for stamp in pd.date_range(first, last, freq="ME")]
