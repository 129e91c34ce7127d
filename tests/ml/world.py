"""A small company whose accounts order in a rhythm and sometimes stop, and its marts, filled by hand.

The marts hold what the models read, computed here in pandas from the order days; tests/ml/test_chain.py takes
the same company through dbt.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from functools import lru_cache
from io import StringIO

import numpy as np
import pandas as pd

from include.warehouse.connect import connect
from ml.features import FEATURES, LAPSE_NAMES, NAMES, TRIAL_NAMES

FIRST = date(2025, 1, 1)
LAST = date(2026, 6, 30)
HORIZON = 90
POLICY = [
    ("churn_horizon_days", HORIZON),
    ("churn_active_days", 90),
    ("repurchase_horizon_days", 30),
    ("upsell_horizon_days", 90),
    ("upsell_min_rise", 0.3),
    ("offer_success_rate", 0.1),
    ("contact_cost", 2),
    ("trial_horizon_days", 90),
    ("lapse_horizon_days", 120),
]
HORIZONS = (30, 60, 90)


@lru_cache(maxsize=4)
def order_days(accounts: int = 150, seed: int = 7) -> pd.DataFrame:
    """Return account_id, order_date and amount of every order day: each account has its own gap, a third stop."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(accounts):
        gap, size = 15 + 90 * random.random() ** 2, 20 + 500 * random.random() ** 3
        day = int(150 * random.random())
        stops = 120 + int(400 * random.random()) if random.random() < 0.35 else 10_000
        while day < (LAST - FIRST).days and day < stops:
            rows.append(
                (f"A{number:04d}", FIRST + timedelta(days=day), round(size * (0.5 + random.random()), 2))
            )
            day += 1 + int(gap * random.exponential())
    return pd.DataFrame(rows, columns=["account_id", "order_date", "amount"])


def features(days: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Return keys and NAMES of each account on a date, from the order days up to it; no use, no CRM."""
    known = days[days["order_date"] <= as_of]
    ago = known["order_date"].map(lambda day: (as_of - day).days)
    known = known.assign(ago=ago)
    grouped = known.groupby("account_id")
    frame = pd.DataFrame({"days_since_last_order": grouped["ago"].min(), "order_days_total": grouped.size()})
    tenure = grouped["ago"].max() + 1
    gaps = (frame["order_days_total"] - 1).where(frame["order_days_total"] > 1)
    frame["mean_order_gap_days"] = ((tenure - 1 - frame["days_since_last_order"]) / gaps).round(4)
    frame["gap_ratio"] = (frame["days_since_last_order"] / frame["mean_order_gap_days"]).round(4)
    frame["orders_total"] = frame["order_days_total"]
    for window in (90, 180, 365):
        recent = known[known["ago"] < window].groupby("account_id")
        frame[f"orders_{window}d"] = recent.size()
        frame[f"net_revenue_{window}d"] = recent["amount"].sum()
    before = known[(known["ago"] >= 90) & (known["ago"] < 180)].groupby("account_id")
    frame["net_revenue_prior_90d"] = before["amount"].sum()
    frame = frame.fillna({name: 0 for name in frame if name not in ("mean_order_gap_days", "gap_ratio")})
    frame["orders_per_quarter"] = (frame["orders_365d"] * 91.25 / tenure.clip(91.25, 365)).round(4)
    frame["average_order_value"] = grouped["amount"].mean().round(2)
    frame["yearly_net_spend"] = (grouped["amount"].sum() * 365 / tenure.clip(365)).round(2)
    frame["tenure_days"] = tenure
    for name in NAMES:
        if name not in frame:
            frame[name] = np.nan if name in ("nps_latest", "nps_previous", "days_since_last_login") else 0
    frame = frame.rename_axis("account_id").reset_index().assign(as_of_date=pd.Timestamp(as_of))
    return frame[["as_of_date", "account_id", "tenure_days", *NAMES]]


def next_orders(days: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Return as_of_date, account_id and next_order_date of each account that had ordered."""
    accounts = days.loc[days["order_date"] <= as_of, "account_id"].drop_duplicates().sort_values()
    later = days[days["order_date"] > as_of].groupby("account_id")["order_date"].min()
    return pd.DataFrame(
        {"as_of_date": as_of, "account_id": accounts, "next_order_date": accounts.map(later).to_numpy()}
    )


def outcomes(days: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Return what each account that had ordered did in the days after a date, a row per account and horizon."""
    accounts = days.loc[days["order_date"] <= as_of, "account_id"].drop_duplicates().sort_values()
    ahead = days["order_date"].map(lambda day: (day - as_of).days)
    rows = []
    for horizon in HORIZONS:
        after = days[(ahead > 0) & (ahead <= horizon)].groupby("account_id")["amount"].sum()
        before = days[(ahead <= 0) & (ahead > -horizon)].groupby("account_id")["amount"].sum()
        rows.append(
            pd.DataFrame(
                {
                    "as_of_date": as_of,
                    "account_id": accounts,
                    "horizon_days": horizon,
                    "has_ordered": accounts.isin(after.index),
                    "has_new_category": False,
                    "net_revenue": accounts.map(after).fillna(0).to_numpy(),
                    "net_revenue_before": accounts.map(before).fillna(0).to_numpy(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def month_ends(first: date = FIRST, last: date = LAST) -> list[date]:
    return [stamp.date() for stamp in pd.date_range(first, last, freq="ME")]


def labelled(days: pd.DataFrame, dates: Iterable[date]) -> pd.DataFrame:
    """Return the frame that ml.frames reads from the marts of the dates, without a database."""
    parts = []
    for day in dates:
        frame = features(days, day).drop(columns="tenure_days").astype(dict.fromkeys(NAMES, "float64"))
        following = pd.to_datetime(next_orders(days, day).set_index("account_id")["next_order_date"])
        stayed = frame["account_id"].map(following) <= pd.Timestamp(day) + pd.Timedelta(days=HORIZON)
        parts.append(frame.assign(happened=(~stayed).astype(np.int8)))
    return pd.concat(parts, ignore_index=True)


def make_marts(days: pd.DataFrame, dates: Iterable[date]) -> None:
    """Make the marts the models read, holding the given dates, as the transformer."""
    columns = ", ".join(
        f"{one.name} {'boolean' if one.kind == 'flag' else 'numeric(18,4)'}" for one in FEATURES
    )
    with connect("transformer") as connection:
        connection.execute("drop view if exists marts.account_outcomes")
        tables = ("account_features", "thresholds", "outcomes", "built_dates")
        for table in (*tables, "trial_features", "trial_outcomes", "lapse_features", "lapse_outcomes"):
            connection.execute(f"drop table if exists marts.{table}")
        connection.execute(
            "create table marts.account_features (as_of_date date, account_id text, tenure_days integer, "
            f"{columns}, primary key (as_of_date, account_id))"
        )
        connection.execute(
            "create table marts.trial_features (as_of_date date, account_id text, "
            f"{', '.join(f'{name} numeric' for name in TRIAL_NAMES)})"
        )
        connection.execute(
            "create table marts.trial_outcomes (as_of_date date, account_id text, horizon_days integer, "
            "has_converted boolean)"
        )
        flags = {one.name for one in FEATURES if one.kind == "flag"}
        kinds = (f"{name} {'boolean' if name in flags else 'numeric'}" for name in LAPSE_NAMES)
        connection.execute(
            f"create table marts.lapse_features (as_of_date date, account_id text, is_due boolean, {', '.join(kinds)})"
        )
        connection.execute(
            "create table marts.lapse_outcomes (as_of_date date, account_id text, horizon_days integer, "
            "has_lapsed boolean)"
        )
        connection.execute("create table marts.built_dates (as_of_date date primary key)")
        connection.execute("create table marts.thresholds (name text, value numeric, effective_from date)")
        connection.execute(
            "create table marts.outcomes (as_of_date date, account_id text, horizon_days integer, has_ordered boolean, "
            "has_new_category boolean, net_revenue numeric(18,2), net_revenue_before numeric(18,2))"
        )
        connection.execute("create view marts.account_outcomes as select * from marts.outcomes")
        with connection.cursor() as cursor:
            cursor.executemany("insert into marts.thresholds values (%s, %s, '2000-01-01')", POLICY)
    for day in dates:
        add_date(days, day)


def add_date(days: pd.DataFrame, day: date) -> None:
    """Add one date to the marts."""
    frame = features(days, day)
    frame["has_decision_maker"] = frame["has_decision_maker"].astype(bool)
    with connect("transformer") as connection:
        connection.execute("insert into marts.built_dates values (%s)", [day])
        for table, rows in (("account_features", frame), ("outcomes", outcomes(days, day))):
            text = StringIO()
            rows.to_csv(text, index=False, header=False)
            statement = f"copy marts.{table} ({', '.join(rows.columns)}) from stdin (format csv)"
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(text.getvalue())
