"""The features that models read: columns of the feature marts with their kinds, and which way each moves the risk."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["days", "count", "amount", "share", "score", "flag"]


@dataclass(frozen=True)
class Feature:
    """One input of the model: its name, kind, and which way it may move the risk.

    `direction` is 1 where more of it can only raise the risk of churn, -1 where it can only lower it, 0 where the data
    decide. It is a constraint on the fit, so that no reason contradicts common sense.
    """

    name: str
    kind: Kind
    direction: int = 0


_OF_ACCOUNTS: tuple[Feature, ...] = (
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
_OF_CATEGORIES: tuple[Feature, ...] = (
    Feature("categories_total", "count"),
    Feature("categories_365d", "count"),
    Feature("new_categories_365d", "count"),
    Feature("days_since_won_deal", "days"),
    Feature("won_deals_beyond_categories", "count"),
)
_OF_TRIALS: tuple[Feature, ...] = (
    Feature("days_since_first_use", "days"),
    Feature("days_since_last_use", "days", 1),
    Feature("login_days_90d", "count", -1),
    Feature("login_days_in_a_row_90d", "count", -1),
    Feature("core_features_used_90d", "count", -1),
)
_OF_CONTRACTS: tuple[Feature, ...] = (
    Feature("days_to_contract_end", "days"),
    Feature("days_past_contract_end", "days"),
    Feature("days_under_contract", "days"),
    Feature("contract_term_days", "days"),
    Feature("contracts_signed", "count"),
    Feature("yearly_contract_value", "amount"),
    Feature("has_renewal_sent", "flag"),
    Feature("days_since_last_activity", "days", 1),
)
FEATURES = (*_OF_ACCOUNTS, *_OF_CATEGORIES, *_OF_TRIALS, *_OF_CONTRACTS)
NAMES = tuple(feature.name for feature in _OF_ACCOUNTS)
"""Those that every model reads."""
CATEGORY_NAMES = tuple(feature.name for feature in _OF_CATEGORIES)
"""Those that only what speaks of categories reads."""
TRIAL_NAMES = (
    *(feature.name for feature in _OF_TRIALS),
    "days_since_last_login", "logins_30d", "logins_90d", "core_feature_uses_30d", "core_feature_uses_90d", "active_days_30d",
    "sessions_90d",
)  # fmt: skip
"""Those of accounts that have not ordered yet: columns of marts.trial_features."""

LAPSE_NAMES = (*(feature.name for feature in _OF_CONTRACTS), *NAMES)
"""Those of accounts that pay by a contract: columns of marts.lapse_features."""
RECENCIES = ("days_since_last_activity", "days_since_last_order", "days_since_last_use")


def recency_of(columns: Iterable[Hashable]) -> str:
    """Return which column is the recency that a model is set beside: one that is never unknown.

    Of accounts that pay by a contract, and need not order, it is that of anything they did; of others that of the last
    order, else of the last use.
    """
    known = set(columns)
    return next(name for name in RECENCIES if name in known)
