"""The built-in simulated company; none of it is real, and nothing outside demo and tests depends on it."""

from include.simulate.company import LAST_DAY, accounts, write_company

__all__ = ["LAST_DAY", "accounts", "write_company"]
