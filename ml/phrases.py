"""The words of the features: what the reasons say of each, how it is called, and how a value is written."""

from dataclasses import dataclass

import numpy as np

from ml.features import Kind


@dataclass(frozen=True)
class Phrase:
    """How a feature is told.

    `group`: features of one group say the same thing, and one of them speaks for it. `more` is how more of it is
    commonly read, 1 as a risk and -1 as a good sign: a value that pulls the other way is told without comparing
    it. `words` hold `{value}`; `without` stands where the value is unknown. `called` is the plain name of a feature whose
    words do not begin with it.
    """

    group: str
    more: int
    words: str
    without: str
    called: str = ""


PHRASES: dict[str, Phrase] = {
    "days_since_last_order": Phrase(
        "recency", 1, "last order {value} ago", "no last order is known", "days since the last order"
    ),
    "gap_ratio": Phrase(
        "recency",
        1,
        "last order {days_since_last_order} ago, and it orders every {mean_order_gap_days} on average",
        "ordered on one day only, so its rhythm is not known",
        "time since the last order, as a share of its mean time between orders",
    ),
    "mean_order_gap_days": Phrase(
        "recency",
        1,
        "orders every {value} on average",
        "ordered on one day only, so its rhythm is not known",
        "mean days between orders",
    ),
    "orders_per_quarter": Phrase("year", -1, "orders per quarter: {value}", "orders per quarter: unknown"),
    "orders_90d": Phrase(
        "recent orders", -1, "orders in the last 90 days: {value}", "recent orders: unknown"
    ),
    "orders_180d": Phrase(
        "recent orders", -1, "orders in the last 180 days: {value}", "recent orders: unknown"
    ),
    "orders_365d": Phrase("year", -1, "orders in the last 365 days: {value}", "orders of the year: unknown"),
    "orders_total": Phrase("history", -1, "orders so far: {value}", "orders so far: unknown"),
    "order_days_total": Phrase(
        "history", -1, "days with an order so far: {value}", "days with an order: unknown"
    ),
    "net_revenue_90d": Phrase(
        "recent revenue", -1, "net revenue of the last 90 days: {value}", "recent net revenue: unknown"
    ),
    "net_revenue_prior_90d": Phrase(
        "recent revenue",
        -1,
        "net revenue of the 90 days before the last 90: {value}",
        "earlier net revenue: unknown",
    ),
    "net_revenue_365d": Phrase(
        "spend", -1, "net revenue of the last 365 days: {value}", "net revenue of the year: unknown"
    ),
    "yearly_net_spend": Phrase("spend", -1, "net revenue per year: {value}", "net revenue per year: unknown"),
    "average_order_value": Phrase("order size", -1, "average order: {value}", "average order: unknown"),
    "return_rate_365d": Phrase(
        "returns", 1, "returned of the last 365 days' purchases: {value}", "no purchase in the last 365 days"
    ),
    "logins_30d": Phrase("use", -1, "logins in the last 30 days: {value}", "logins: unknown"),
    "logins_prior_30d": Phrase(
        "use", -1, "logins in the 30 days before the last 30: {value}", "logins: unknown"
    ),
    "logins_90d": Phrase("use", -1, "logins in the last 90 days: {value}", "logins: unknown"),
    "days_since_last_login": Phrase(
        "use", 1, "last login {value} ago", "no login is known", "days since the last login"
    ),
    "active_days_30d": Phrase("use", -1, "days of use in the last 30 days: {value}", "days of use: unknown"),
    "sessions_90d": Phrase("use", -1, "sessions in the last 90 days: {value}", "sessions: unknown"),
    "core_feature_uses_30d": Phrase(
        "core features",
        -1,
        "uses of core features in the last 30 days: {value}",
        "uses of core features: unknown",
    ),
    "core_feature_uses_90d": Phrase(
        "core features",
        -1,
        "uses of core features in the last 90 days: {value}",
        "uses of core features: unknown",
    ),
    "tickets_90d": Phrase("tickets", 1, "tickets in the last 90 days: {value}", "tickets: unknown"),
    "open_tickets": Phrase("tickets", 1, "open tickets: {value}", "open tickets: unknown"),
    "urgent_tickets_90d": Phrase(
        "tickets", 1, "urgent tickets in the last 90 days: {value}", "urgent tickets: unknown"
    ),
    "nps_latest": Phrase("satisfaction", -1, "newest NPS answer: {value} of 10", "no NPS answer is known"),
    "nps_previous": Phrase(
        "satisfaction", -1, "NPS answer before the newest: {value} of 10", "no earlier NPS answer is known"
    ),
    "open_deals": Phrase("deals", -1, "open deals: {value}", "open deals: unknown"),
    "open_deal_amount": Phrase("deals", -1, "worth of open deals: {value}", "worth of open deals: unknown"),
    "won_deals_365d": Phrase("deals", -1, "deals won in the last 365 days: {value}", "deals won: unknown"),
    "contacts": Phrase("contacts", -1, "contacts known: {value}", "contacts: unknown"),
    "categories_total": Phrase(
        "categories", -1, "product categories bought so far: {value}", "product categories: unknown"
    ),
    "categories_365d": Phrase(
        "categories",
        -1,
        "product categories bought in the last 365 days: {value}",
        "product categories: unknown",
    ),
    "new_categories_365d": Phrase(
        "categories",
        -1,
        "new product categories of the last 365 days: {value}",
        "product categories: unknown",
    ),
    "days_since_won_deal": Phrase(
        "won deals",
        1,
        "last deal won {value} ago",
        "no deal is known to be won",
        "days since the last deal won",
    ),
    "won_deals_beyond_categories": Phrase(
        "won deals", -1, "deals won beyond the product categories it buys: {value}", "no deal is known"
    ),
    "days_since_first_use": Phrase(
        "age", 1, "first use {value} ago", "no first use is known", "days since the first use"
    ),
    "days_since_last_use": Phrase(
        "use", 1, "last use {value} ago", "no use is known", "days since the last use"
    ),
    "login_days_90d": Phrase(
        "login days", -1, "days with a login in the last 90: {value}", "login days: unknown"
    ),
    "login_days_in_a_row_90d": Phrase(
        "login days", -1, "longest run of login days in the last 90: {value}", "login days: unknown"
    ),
    "core_features_used_90d": Phrase(
        "core features", -1, "core features used in the last 90 days: {value}", "core features used: unknown"
    ),
    "days_to_contract_end": Phrase(
        "contract end",
        -1,
        "its contract ends in {value}",
        "its contract has no end",
        "days until its contract ends",
    ),
    "days_past_contract_end": Phrase(
        "contract end",
        1,
        "past the end of its contract by {value}",
        "its contract has no end",
        "days past the end of its contract",
    ),
    "days_under_contract": Phrase(
        "contract age",
        -1,
        "first contract began {value} ago",
        "the start of its contract is unknown",
        "days since its first contract began",
    ),
    "contract_term_days": Phrase(
        "contract term", -1, "term of its contract: {value}", "the term of its contract is unknown"
    ),
    "contracts_signed": Phrase("contract age", -1, "contracts signed so far: {value}", "contracts: unknown"),
    "yearly_contract_value": Phrase(
        "contract value", -1, "worth of its contract per year: {value}", "its contract's worth is unknown"
    ),
    "has_renewal_sent": Phrase(
        "renewal", -1, "a renewal waits for its signature: {value}", "renewals sent: unknown"
    ),
    "days_since_last_activity": Phrase(
        "activity",
        1,
        "last order, login or signature {value} ago",
        "no activity is known",
        "days since the last order, login or signature",
    ),
    "has_decision_maker": Phrase(
        "contacts", -1, "a decision maker among its contacts: {value}", "decision maker: unknown"
    ),
}


def plain_name(feature: str) -> str:
    """Return what a feature is called in plain words; of one that this version does not know, its column."""
    phrase = PHRASES.get(feature)
    if phrase is None:
        return feature
    return phrase.called or phrase.words.partition(": {value}")[0]


def written(value: float, kind: Kind) -> str:
    """Return a known value as a reader expects it: `84 days`, `1,250`, `2.5`, `12 %`, `yes`."""
    if kind == "flag":
        return "yes" if value >= 0.5 else "no"
    if kind == "share":
        return f"{value:.0%}".replace("%", " %")
    if kind == "days":
        days = int(np.floor(value + 0.5))
        return f"{days:,} day" if days == 1 else f"{days:,} days"
    decimals = 0 if kind == "amount" and abs(value) >= 10 else 1
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".removesuffix(".0")  # + 0.0 makes of -0 a plain 0
