"""Read by Airflow at start: import what tasks need in the process that forks them, so that they inherit it.

Measured on two cores: a task that imports Great Expectations or dbt by itself spends 3–5 s on it; a fork of
a process that holds them spends none. Tasks are forked by the scheduler, or by a Celery worker where one runs.
"""

import importlib
import os
import sys

PRELOADED = (
    "dbt.cli.main",
    "dbt.adapters.postgres.impl",
    "duckdb",
    "great_expectations",
    "hubspot",
    "include.dbt",
    "include.quality.gate",
    "include.sources.behavior",
    "include.sources.orders",
    "include.sources.hubspot",
    "include.sources.salesforce",
    "include.sources.bottlecrm",
    "include.sources.crm",
    "include.sync.run",
    "include.warehouse.publish",
    "ml.score",
    "ml.train",
    "psycopg",
)

FORKS_TASKS = "worker" if os.environ.get("AIRFLOW__CORE__EXECUTOR") == "CeleryExecutor" else "scheduler"

if FORKS_TASKS in sys.argv:
    for name in PRELOADED:
        importlib.import_module(name)
