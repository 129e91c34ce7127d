"""Features, bands, scores and tiers computed a second time, in pandas and plain Python, to hold dbt's to.

It reads the current order lines and the rules as docs/contracts/marts.md writes them, and shares no code with
the models. Ratios are exact fractions, rounded once, half away from zero, as the database rounds numerics.
"""

from bisect import bisect_left
from collections import defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pandas as pd

from tests.conftest import Warehouse

DORMANT_DAYS = 365
WINDOW_DAYS = 365
QUARTER_DAYS = Fraction(365, 4)
YEAR_DAYS = 365


def current_lines(warehouse: Warehouse, as_of: date) -> pd.DataFrame:
    """Return the current attributed lines dated up to the as-of date: customer, order, day, type, amount, category."""
    timezone = str(warehouse.value("select timezone from audit.company"))
    columns = ["row_key", "load_seq", "customer_id", "order_id", "ordered_at", "line_type", "amount"]
    columns += ["currency", "product_id", "product_category"]
    rows = warehouse.rows(f"select {', '.join(columns)} from raw_files.order_lines")
    lines = pd.DataFrame(rows, columns=columns)
    lines = lines.sort_values("load_seq").drop_duplicates("row_key", keep="last")
    local = pd.to_datetime(lines["ordered_at"], utc=True).dt.tz_convert(timezone)
    lines["day"] = local.dt.date
    lines = lines[lines["customer_id"].notna() & (lines["day"] <= as_of)].copy()
    lines["amount"] = _converted(warehouse, lines)
    lines["category"] = _categories_of(warehouse, lines, ZoneInfo(timezone))
    return lines


def _converted(warehouse: Warehouse, lines: pd.DataFrame) -> list[Decimal]:
    """Return the amounts in the reporting currency, each by the newest rate up to its day."""
    own = warehouse.value("select currency from audit.company")
    rates: dict[str, list[tuple[date, Decimal]]] = defaultdict(list)
    for currency, since, rate in warehouse.rows(
        "select currency, effective_from, rate from marts.exchange_rates where reporting_currency = %s order by 2",
        own,
    ):
        rates[currency].append((since, rate))
    return [
        amount
        if currency == own
        else _round(Fraction(amount * [rate for since, rate in rates[currency] if since <= day][-1]), 2)
        for amount, currency, day in zip(lines["amount"], lines["currency"], lines["day"], strict=True)
    ]


def _categories_of(warehouse: Warehouse, lines: pd.DataFrame, timezone: ZoneInfo) -> list[str | None]:
    """Return each line's own category, else what the catalogue said of its product at the end of the day."""
    said: dict[str, list[tuple[date, str | None]]] = defaultdict(list)
    for product, since, category in warehouse.rows(
        "select record_id, valid_from, properties ->> 'category' from raw_files.products order by valid_from, load_seq"
    ):
        said[product].append((since.astimezone(timezone).date(), category))

    def looked_up(product: str, day: date) -> str | None:
        known = [category for since, category in said[product] if since <= day]
        return known[-1] if known else None

    return [
        own or looked_up(product, day)
        for own, product, day in zip(
            lines["product_category"], lines["product_id"], lines["day"], strict=True
        )
    ]


def features(lines: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Return one row per account that has ordered, indexed by account_id."""
    sales = lines[lines["line_type"] == "sale"]
    orders = sales.groupby(["customer_id", "order_id"], as_index=False)["day"].min()
    product = lines[lines["line_type"] != "non_product"]
    accounts = []
    revenue_of = dict(list(product.groupby("customer_id")))
    for account, of_account in orders.groupby("customer_id"):
        ages = [(as_of - day).days for day in of_account["day"]]
        tenure = max(ages) + 1
        first = min(of_account["day"])
        moved = [
            ((as_of - day).days, day, amount)
            for day, amount in zip(revenue_of[account]["day"], revenue_of[account]["amount"], strict=True)
        ]
        quarters = max(Fraction(min(tenure, WINDOW_DAYS)), QUARTER_DAYS) / QUARTER_DAYS
        years = Fraction(max(tenure, YEAR_DAYS), YEAR_DAYS)
        spend = sum((amount for _, day, amount in moved if day >= first), Decimal(0))
        accounts.append(
            {
                "account_id": account,
                "days_since_last_order": min(ages),
                "tenure_days": tenure,
                "orders_total": len(ages),
                "orders_30d": sum(age < 30 for age in ages),
                "orders_90d": sum(age < 90 for age in ages),
                "orders_365d": sum(age < 365 for age in ages),
                "net_revenue_30d": sum((a for age, _, a in moved if age < 30), Decimal(0)),
                "net_revenue_90d": sum((a for age, _, a in moved if age < 90), Decimal(0)),
                "net_revenue_365d": sum((a for age, _, a in moved if age < 365), Decimal(0)),
                "net_revenue_total": sum((a for _, _, a in moved), Decimal(0)),
                "orders_per_quarter": _round(sum(age < WINDOW_DAYS for age in ages) / quarters, 4),
                "yearly_net_spend": _round(Fraction(spend) / years, 2),
                "orders_180d": sum(age < 180 for age in ages),
                "orders_prior_90d": sum(90 <= age < 180 for age in ages),
                "net_revenue_prior_90d": sum((a for age, _, a in moved if 90 <= age < 180), Decimal(0)),
                "orders_prior_30d": sum(30 <= age < 60 for age in ages),
                "orders_prior_365d": sum(365 <= age < 730 for age in ages),
                "net_revenue_prior_365d": sum((a for age, _, a in moved if 365 <= age < 730), Decimal(0)),
                "orders_mtd": sum(age < as_of.day for age in ages),
                "net_revenue_mtd": sum((a for age, _, a in moved if age < as_of.day), Decimal(0)),
                **_bought_categories(revenue_of[account], as_of),
                **_rhythm(sorted(set(ages), reverse=True)),
            }
        )
    return pd.DataFrame(accounts).set_index("account_id")


def _rhythm(ages: list[int]) -> dict[str, object]:
    """Return the order-rhythm columns from the distinct ages of the days with an order, the oldest first."""
    gaps = [older - newer for older, newer in pairwise(ages)]
    mean = Fraction(sum(gaps), len(gaps)) if gaps else None
    return {
        "order_days_365d": sum(age < 365 for age in ages),
        "order_days_total": len(ages),
        "mean_order_gap_days": _round(mean, 4) if mean else None,
        "last_gap_days": gaps[-1] if gaps else None,
        "gap_ratio": _round(Fraction(ages[-1]) / mean, 4) if mean else None,
    }


def _bought_categories(lines: pd.DataFrame, as_of: date) -> dict[str, object]:
    """Return the category columns from an account's product lines."""
    lines = lines[lines["category"].notna()]
    sales = lines[lines["line_type"] == "sale"]
    # An order counts for a category on the first day on which it sells of it.
    days = sales.groupby(["category", "order_id"])["day"].min().groupby("category").agg(list)
    first = {category: min(found) for category, found in days.items()}
    later = [day for day in first.values() if day > min(first.values())]
    recent = as_of - timedelta(days=364)
    counted: dict[str, object] = {
        "categories_total": len(first),
        "categories_365d": sum(max(found) >= recent for found in days),
        "new_categories_mtd": sum((day.year, day.month) == (as_of.year, as_of.month) for day in later),
        "new_categories_365d": sum(day >= recent for day in later),
        "last_new_category_date": max(later, default=None),
    }
    return counted if len(lines) else dict.fromkeys(counted)


def usage(
    warehouse: Warehouse, accounts: pd.Index, as_of: date, merged: dict[str, str] | None = None
) -> pd.DataFrame:
    """Return the usage columns of the accounts, from the current events; `merged` says whose a merged tenant's are."""
    timezone = ZoneInfo(str(warehouse.value("select timezone from audit.company")))
    policy = warehouse.rows("select feature, effective_from, is_core from marts.core_features order by 2")
    current = warehouse.rows(
        "select customer_id, session_id, event_name, feature, event_at, duration_s from raw_files.events as event "
        "where (file_id, source_row) not in (select file_id, source_row from raw_files.superseded_events)"
    )

    def is_core(feature: str, day: date) -> bool:
        return [core for name, since, core in policy if name == feature and since <= day][-1:] == [True]

    events = [
        (
            (merged or {}).get(account, account),
            (as_of - at.astimezone(timezone).date()).days,
            (account, session) if session else None,
            name,
            feature,
            seconds or Decimal(0),
        )
        for account, session, name, feature, at, seconds in current
    ]
    in_force = sum(is_core(feature, as_of) for feature in {feature for feature, *_ in policy})
    rows = []
    for account in accounts:
        own = [event[1:] for event in events if event[0] == account and event[1] >= 0]
        logins = [age for age, _, name, *_ in own if name == "login"]
        used = [
            (age, feature)
            for age, _, name, feature, _ in own
            if name == "feature_use" and is_core(feature, as_of - timedelta(days=age))
        ]
        uses = [age for age, _ in used]
        seconds: dict[int, Decimal] = defaultdict(Decimal)
        for age, *_, lasted in own:
            seconds[age] += lasted
        minutes = {age: _round(Fraction(lasted) / 60, 2) for age, lasted in seconds.items()}
        rows.append(
            {
                "logins_30d": sum(age < 30 for age in logins),
                "logins_prior_30d": sum(30 <= age < 60 for age in logins),
                "logins_90d": sum(age < 90 for age in logins),
                "logins_prior_90d": sum(90 <= age < 180 for age in logins),
                "core_feature_uses_30d": sum(age < 30 for age in uses),
                "core_feature_uses_90d": sum(age < 90 for age in uses),
                "active_days_30d": len({age for age, *_ in own if age < 30}),
                "sessions_90d": len({(age, session) for age, session, *_ in own if age < 90 and session}),
                "days_since_last_login": min(logins, default=None),
                "core_features_used_30d": len({feature for age, feature in used if age < 30}),
                "core_features_used_90d": len({feature for age, feature in used if age < 90}),
                "core_features_in_force": in_force,
                "active_minutes_30d": sum((m for age, m in minutes.items() if age < 30), Decimal(0)),
                "active_days_mtd": sum(age < as_of.day for age in minutes),
                "active_minutes_mtd": sum((m for age, m in minutes.items() if age < as_of.day), Decimal(0)),
                "logins_mtd": sum(age < as_of.day for age in logins),
            }
        )
    return pd.DataFrame(rows, index=accounts)


def crm(warehouse: Warehouse, accounts: pd.Index, as_of: date) -> pd.DataFrame:
    """Return the CRM columns of the accounts, from the versions that stood at the end of the date."""
    timezone = ZoneInfo(str(warehouse.value("select timezone from audit.company")))
    end = datetime(as_of.year, as_of.month, as_of.day, tzinfo=timezone) + timedelta(days=1)

    def standing(entity: str, owner: str, with_archived: bool = False) -> list[tuple[str | None, dict]]:
        newest: dict[str, tuple] = {}
        for row in warehouse.rows(
            f"select record_id, {owner}, properties, is_archived, valid_from from raw_hubspot.{entity} "
            "order by valid_from, load_seq"
        ):
            if row[4] < end:
                newest[row[0]] = row
        return [
            (row[1], {**row[2], "record_id": row[0]})
            for row in newest.values()
            if with_archived or not row[3]
        ]

    def day(text: str | None) -> date | None:
        return datetime.fromisoformat(text).astimezone(timezone).date() if text else None

    # Which company stands for which account is what was known by the end of the date, archived companies included.
    account_of = {
        company["record_id"]: number or f"hubspot:{company['record_id']}"
        for number, company in standing("companies", "account_number", with_archived=True)
    }
    found: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for entity in ("contacts", "deals", "tickets", "feedback_submissions"):
        for company, record in standing(entity, "company_record_id"):
            if company in account_of:
                found[account_of[company]][entity].append(record)
    rows = []
    for account in accounts:
        own = found[account]
        ages = [((as_of - day(t["createdate"])).days, t) for t in own["tickets"]]
        answers = sorted(
            own["feedback_submissions"], key=lambda a: (a["hs_submission_timestamp"], a["record_id"])
        )
        values = [int(answer["hs_value"]) for answer in answers][::-1]
        won = [deal for deal in own["deals"] if deal["hs_is_closed_won"] == "true"]
        still_open = [deal for deal in own["deals"] if deal["dealstage"] not in ("closedwon", "closedlost")]
        roles = [contact.get("hs_buying_role") or "" for contact in own["contacts"]]
        rows.append(
            {
                "tickets_90d": sum(age < 90 for age, _ in ages),
                "open_tickets": sum(not t["closed_date"] for _, t in ages),
                "urgent_tickets_90d": sum(
                    age < 90 and t["hs_ticket_priority"] == "URGENT" for age, t in ages
                ),
                "nps_latest": values[0] if values else None,
                "nps_previous": values[1] if len(values) > 1 else None,
                "open_deals": len(still_open),
                "open_deal_amount": sum((Decimal(deal["amount"]) for deal in still_open), Decimal(0)),
                "won_deals_365d": sum((as_of - day(deal["closedate"])).days < 365 for deal in won),
                "days_since_won_deal": min(
                    ((as_of - day(deal["closedate"])).days for deal in won), default=None
                ),
                "contacts": len(own["contacts"]),
                "has_decision_maker": any("DECISION_MAKER" in role.split(";") for role in roles),
            }
        )
    return pd.DataFrame(rows, index=accounts)


def rfm(features: pd.DataFrame) -> pd.DataFrame:
    """Return bands and scores, indexed by account_id."""
    result = pd.DataFrame(index=features.index)
    result["recency_band"] = [
        "<30 days" if days < 30 else "30-90 days" if days <= 90 else ">90 days"
        for days in features["days_since_last_order"]
    ]
    result["frequency_band"] = [
        "low" if value < 1 else "middle" if value < 3 else "high" for value in features["orders_per_quarter"]
    ]
    result["monetary_band"] = [
        "low" if value < 50_000 else "middle" if value <= 100_000 else "high"
        for value in features["yearly_net_spend"]
    ]
    keyed = features.reset_index()
    keyed["recency"] = -keyed["days_since_last_order"]
    measures = ["recency", "orders_per_quarter", "yearly_net_spend"]
    for name, measure in zip(["recency_score", "frequency_score", "monetary_score"], measures, strict=True):
        others = {
            "recency": ["orders_per_quarter", "yearly_net_spend"],
            "orders_per_quarter": ["yearly_net_spend", "recency"],
            "yearly_net_spend": ["orders_per_quarter", "recency"],
        }[measure]
        order = keyed.sort_values([measure, *others, "account_id"])["account_id"]
        result.loc[order, name] = _fifths(len(order))
    result[["recency_score", "frequency_score", "monetary_score"]] = result[
        ["recency_score", "frequency_score", "monetary_score"]
    ].astype(int)
    return result


def tiers(features: pd.DataFrame) -> pd.DataFrame:
    """Return tier and place, indexed by account_id."""
    active = features[features["days_since_last_order"] < DORMANT_DAYS].reset_index()
    dormant = features[features["days_since_last_order"] >= DORMANT_DAYS].reset_index()
    active["points"] = active["orders_per_quarter"].astype(float).rank(method="min") + active[
        "yearly_net_spend"
    ].astype(float).rank(method="min")
    dormant["points"] = 0.0
    ranked = []
    for accounts in (active, dormant):
        accounts["spend"] = accounts["yearly_net_spend"].astype(float)
        ranked.append(
            accounts.sort_values(
                ["points", "spend", "days_since_last_order", "account_id"],
                ascending=[False, False, True, True],
            )
        )
    n = len(active)
    last_s = int(_round(Fraction(n * 15, 80), 0))
    last_a = int(_round(Fraction(n * 40, 80), 0))
    names = ["S"] * last_s + ["A"] * (last_a - last_s) + ["B"] * (n - last_a) + ["C"] * len(dormant)
    result = pd.concat(ranked)[["account_id"]]
    result["tier"] = names
    result["tier_rank"] = range(1, len(result) + 1)
    return result.set_index("account_id")


def calibrated_tiers(yardstick: pd.DataFrame, features: pd.DataFrame) -> pd.Series:
    """Return the tiers of the accounts of `features` on the yardstick, which is features of the calibration's day."""
    active = yardstick[yardstick["days_since_last_order"] < DORMANT_DAYS]
    orders = sorted(active["orders_per_quarter"])
    spends = sorted(active["yearly_net_spend"])

    def place(account_id: str, row: pd.Series) -> tuple:
        points = bisect_left(orders, row["orders_per_quarter"]) + bisect_left(spends, row["yearly_net_spend"])
        return (-points, -row["yearly_net_spend"], row["days_since_last_order"], account_id)

    filled = sorted(place(str(account_id), row) for account_id, row in active.iterrows())
    last_s = filled[int(_round(Fraction(len(filled) * 15, 80), 0)) - 1]
    last_a = filled[int(_round(Fraction(len(filled) * 40, 80), 0)) - 1]

    def tier(account_id: str, row: pd.Series) -> str:
        if row["days_since_last_order"] >= DORMANT_DAYS:
            return "C"
        reached = place(account_id, row)
        return "S" if reached <= last_s else "A" if reached <= last_a else "B"

    found = {str(account_id): tier(str(account_id), row) for account_id, row in features.iterrows()}
    return pd.Series(found, name="tier").sort_index()


def _fifths(count: int) -> list[int]:
    """Return 1 to 5 for `count` rows in order, the first fifths one row larger where it does not divide."""
    whole, rest = divmod(count, 5)
    return [fifth + 1 for fifth in range(5) for _ in range(whole + (fifth < rest))]


def _round(value: Fraction, places: int) -> Decimal:
    scaled = int(abs(value) * 10**places + Fraction(1, 2))
    return Decimal(scaled if value >= 0 else -scaled).scaleb(-places)
