"""Policy of the sources: dated rows of limits.csv."""

import csv
from datetime import date
from pathlib import Path

from include.errors import StratumError

LIMITS = Path(__file__).parent / "limits.csv"


def limit(name: str, as_of: date) -> str:
    """Return the value of a limit as policy has it on a date. Raises StratumError where it says nothing."""
    with LIMITS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == name]
    in_force = [row for row in rows if row["effective_from"] <= as_of.isoformat()]
    if not in_force:
        raise StratumError(f"{LIMITS} says nothing of {name} as of {as_of}.")
    return max(in_force, key=lambda row: row["effective_from"])["value"]
