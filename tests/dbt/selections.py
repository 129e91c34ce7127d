"""Which marts a test builds that speaks of a few of them: all of them take several times as long."""

FEATURES = (
    "+account_features",
    "account_next_orders",
    "account_outcomes",
    "account_categories",
    "+account_profiles",
)
TIERS = (*FEATURES, "path:models/marts/segments", "built_dates")
