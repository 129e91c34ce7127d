"""Writes who uses what the project makes, as exposures of dbt: published tables, what models learn, what gates check."""

from typing import Any

import yaml

from include.dbt import DBT_PROJECT
from include.settings import PROJECT_DIR

EXPOSURES = DBT_PROJECT / "models" / "exposures.yml"
HEADER = "# Written by `make generate` from models/published and expectations/: change those, or docs/generators.\n"


def generated() -> str:
    """Return the file EXPOSURES as the project stands."""
    exposures = [
        _exposure(
            "business_intelligence",
            "dashboard",
            "Reports and dashboards, which read the views of the schema published as bi_reader.",
            "Customer analytics",
            sorted(path.stem for path in (DBT_PROJECT / "models" / "published").rglob("*.sql")),
        ),
        _exposure(
            "crm_sync",
            "application",
            "The reverse sync, which tells the CRM what changed in published.customer_360 and keeps its answers.",
            "Customer operations",
            ["published_customer_360"],
        ),
        _exposure(
            "models",
            "ml",
            "Training and scoring of the models: they learn from features and later outcomes, their scores are published.",
            "Data science",
            [
                "account_categories",
                "account_features",
                "account_outcomes",
                "lapse_features",
                "lapse_outcomes",
                "thresholds",
                "trial_features",
                "trial_outcomes",
            ],
        ),
        _exposure(
            "quality_gates",
            "application",
            "The gates, which stop a run that breaks an expectation, and the data docs that show each result.",
            "Data engineering",
            _gated(),
        ),
    ]
    return HEADER + yaml.safe_dump({"version": 2, "exposures": exposures}, sort_keys=False, width=116)


def _gated() -> list[str]:
    """Return the models whose tables the gates check."""
    tables = [
        table["table"]
        for name in ("marts", "published")
        for table in yaml.safe_load((PROJECT_DIR / "expectations" / f"{name}.yml").read_text("utf-8"))[
            "tables"
        ]
    ]
    models = {path.stem for path in (DBT_PROJECT / "models").rglob("*.sql")}
    named = {table.replace("candidate.", "published_").rpartition(".")[2] for table in tables}
    return sorted(named & models)


def _exposure(name: str, kind: str, description: str, owner: str, models: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.replace("_", " ").capitalize().replace("Crm", "CRM"),
        "type": kind,
        "maturity": "high",
        "description": description,
        "owner": {"name": owner},
        "depends_on": [f"ref('{model}')" for model in models],
    }


if __name__ == "__main__":
    EXPOSURES.write_text(generated(), encoding="utf-8")
