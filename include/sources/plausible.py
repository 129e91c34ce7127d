"""Which dates are taken for a mistake: those before policy's earliest one."""

from dataclasses import replace
from datetime import date

from include.sources.limits import limit
from include.sources.mapping import Contract

IMPLAUSIBLE = "implausible_date"


def plausible(contract: Contract, as_of: date) -> Contract:
    """Return the contract with rows refused whose local day lies before the earliest one of policy."""
    floor = f"local_day < date '{earliest_date(as_of)}'"
    return replace(contract, refused=((IMPLAUSIBLE, floor), *contract.refused))


def earliest_date(as_of: date) -> date:
    """Return the day before which a row's date is taken for a mistake, as policy has it on a date."""
    return date.fromisoformat(limit("earliest_date", as_of))
