"""Which dates are taken for a mistake: those before policy's earliest one."""

import csv
from dataclasses import replace
from datetime import date
from pathlib import Path

from include.errors import StratumError
from include.sources.mapping import Contract

LIMITS = Path(__file__).parent / "limits.csv"
IMPLAUSIBLE = "implausible_date"


def plausible(contract: Contract, as_of: date) -> Contract:
    """Return the contract with rows refused whose local day lies before the earliest one of policy."""
    floor = f"local_day < date '{earliest_date(as_of)}'"
    return replace(contract, refused=((IMPLAUSIBLE, floor), *contract.refused))


def earliest_date(as_of: date) -> date:
    """Return the day before which a row's date is taken for a mistake, as policy has it on a date."""
    with LIMITS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "earliest_date"]
    in_force = [row for row in rows if row["effective_from"] <= as_of.isoformat()]
    if not in_force:
        raise StratumError(f"{LIMITS} says nothing of earliest_date as of {as_of}.")
    return date.fromisoformat(max(in_force, key=lambda row: row["effective_from"])["value"])
