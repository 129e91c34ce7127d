"""The dated limits of the gates and of drift: expectations/limits.csv."""

import csv
from datetime import date
from pathlib import Path

from include.settings import PROJECT_DIR

LIMITS = PROJECT_DIR / "expectations" / "limits.csv"


def limits(as_of: date, path: Path = LIMITS) -> dict[str, float]:
    """Return each limit in force on the date: its newest row that is not later."""
    in_force: dict[str, tuple[date, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            since = date.fromisoformat(row["effective_from"])
            if since <= as_of and since >= in_force.get(row["name"], (since, 0.0))[0]:
                in_force[row["name"]] = (since, float(row["value"]))
    return {name: value for name, (_, value) in in_force.items()}
