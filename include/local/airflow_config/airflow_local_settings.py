"""Read by Airflow at start: import in the scheduler what tasks need, so that forked tasks inherit it.

Measured on two cores: a task that imports Great Expectations or dbt by itself spends 3–5 s on it; a fork of
a scheduler that holds them spends none.
"""

import importlib
import sys

PRELOADED = (
    "dbt.cli.main",
    "dbt.adapters.postgres.impl",
    "duckdb",
    "great_expectations",
    "hubspot",
    "include.dbt",
    "include.quality.gate",
    "include.sources.orders",
    "include.sources.hubspot",
    "include.sync.run",
    "include.warehouse.publish",
    "psycopg",
)

if "scheduler" in sys.argv:
    for name in PRELOADED:
        importlib.import_module(name)
