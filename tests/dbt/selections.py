"""Which marts a test builds that speaks of a few of them: all of them take several times as long."""

FEATURES = (
    "+account_features",
    "account_next_orders",
    "account_outcomes",
    "account_categories",
    "account_profiles",
)
OF_CONTRACTS = ("kpi_dates", "growth_dates", "growth_account_keys", "lapse_features")
TIERS = (*FEATURES, *OF_CONTRACTS, "path:models/marts/segments", "built_dates")
