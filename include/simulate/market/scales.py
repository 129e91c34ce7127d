"""How large a simulated company is, and the calendar that all of them share."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from include.errors import StratumError

FIRST_DAY = date(2024, 1, 1)
"""A Monday: weeks of the simulation are weeks of the calendar."""
WEEKS = 105
DAYS = 7 * WEEKS
LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
EPOCH_DAY = (FIRST_DAY - date(1970, 1, 1)).days
DAY_US = 86_400_000_000
"""Microseconds of a day: instants are int64 microseconds since 1970, in the company's local time."""


@dataclass(frozen=True)
class Scale:
    """How many accounts, and about how many orders and events all of them make in two years."""

    name: str
    accounts: int
    orders: int
    events: int


SCALES = {
    "XS": Scale("XS", 600, 30_000, 300_000),
    "S": Scale("S", 2_000, 100_000, 1_000_000),
    "M": Scale("M", 20_000, 1_000_000, 10_000_000),
    "L": Scale("L", 200_000, 10_000_000, 100_000_000),
}

DEMO, DEMO_SEED = SCALES["XS"], 3
"""The company of the demo, and of every command without sources of its own."""

BLOCK = 20_000
"""Accounts made at a time, which bounds the memory of the largest scale."""


def scale_of(name: str) -> Scale:
    """Return the scale of a name. Raises StratumError where there is none."""
    if name not in SCALES:
        raise StratumError(f"There is no scale {name!r}. Choose one of {', '.join(SCALES)}.")
    return SCALES[name]


def stream(seed: int, *path: int) -> np.random.Generator:
    """Return the random numbers of one part of one block: no part changes when another draws more."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *path])))


def month_ends() -> list[date]:
    """Return the last days of the months of the calendar, the first half year left out: too little has happened."""
    days = (FIRST_DAY + timedelta(days=day) for day in range(181, DAYS))
    return [day for day in days if (day + timedelta(days=1)).day == 1]
