"""The assets of the chain: each stage announces one, for one as-of date, and the next stage waits for it."""

from airflow.sdk import Asset

RAW_ORDERS = Asset(name="raw_orders", uri="stratum://warehouse/raw_orders", group="stratum")
RAW_CRM = Asset(name="raw_crm", uri="stratum://warehouse/raw_crm", group="stratum")
RAW_BEHAVIOR = Asset(name="raw_behavior", uri="stratum://warehouse/raw_behavior", group="stratum")
MARTS = Asset(name="marts", uri="stratum://warehouse/marts", group="stratum")
MODELS = Asset(name="models", uri="stratum://warehouse/models", group="stratum")
SCORES = Asset(name="scores", uri="stratum://warehouse/scores", group="stratum")
PUBLISHED_NEWEST = Asset(name="published_newest", uri="stratum://warehouse/published_newest", group="stratum")
