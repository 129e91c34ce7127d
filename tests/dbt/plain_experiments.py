"""Read-outs of experiments and the hold-out group, computed anew: scipy's Wilson interval, numpy's ratio of sums."""

import hashlib
from collections import defaultdict
from datetime import date, timedelta
from math import sqrt

import numpy as np
from scipy.stats import binomtest, chisquare, norm

from tests.dbt.plain_growth import day_of
from tests.fixtures.growth_company import STEPS, Company

WINDOWS = {
    "purchase flow completed": 90,
    "left at comparison": 90,
    "ordered within 30 days": 30,
    "orders in 90 days": 90,
    "retained after 30 days": 60,
}
SHARES = ("ordered within 30 days", "retained after 30 days")


def units(company: Company, as_of: date) -> dict[str, tuple[str, date]]:
    """Return account → (variant, day assigned) of those that have seen one variant by `as_of`."""
    seen = defaultdict(list)
    for _, account, variant, assigned in company.assignments:
        if day_of(assigned) <= as_of:
            seen[account.account_id].append((day_of(assigned), variant))
    return {
        account: (rows[0][1], min(rows)[0])
        for account, rows in seen.items()
        if len({variant for _, variant in rows}) == 1
    }


def outcome(company: Company, account: str, metric: str, begin: date, end: date) -> tuple[int, int]:
    """Return (what counts, what it is divided by) of an account from the day after `begin` to `end`."""
    days = [day for customer, day, _ in company.orders if customer == account and begin < day <= end]
    if metric == "ordered within 30 days":
        return int(bool(days)), 1
    if metric == "orders in 90 days":
        return len(days), 1
    if metric == "retained after 30 days":
        return int(any(day > end - timedelta(days=30) for day in days)), 1
    furthest: dict[tuple[date, str | None], int] = {}
    for step in company.steps:
        if step.customer == account and begin < day_of(step.at) <= end:
            key = (day_of(step.at), step.session)
            furthest[key] = max(furthest.get(key, 0), STEPS.index(step.name))
    done = sum(step == len(STEPS) - 1 for step in furthest.values())
    if metric == "purchase flow completed":
        return done, len(furthest)
    return sum(step == STEPS.index("flow_compare") for step in furthest.values()), len(furthest) - done


def readout(company: Company, as_of: date, metric: str) -> dict[str, tuple[int, int, int]]:
    """Return variant → (units whose window is over, what counts, what it is divided by)."""
    sums = {}
    for variant, rows in outcomes(company, as_of, metric).items():
        sums[variant] = (len(rows), sum(row[0] for row in rows), sum(row[1] for row in rows))
    return sums


def outcomes(company: Company, as_of: date, metric: str) -> dict[str, list[tuple[int, int]]]:
    found = defaultdict(list)
    for account, (variant, assigned) in units(company, as_of).items():
        end = assigned + timedelta(days=WINDOWS[metric])
        if end <= as_of:
            found[variant].append(outcome(company, account, metric, assigned, end))
    return found


def interval(company: Company, as_of: date, metric: str) -> tuple[float, float]:
    """Return the 95 % interval of treatment less control."""
    rows = outcomes(company, as_of, metric)
    treated, control = np.asarray(rows["treatment"], dtype=float), np.asarray(rows["control"], dtype=float)
    if metric in SHARES:
        p, q = treated[:, 0].mean(), control[:, 0].mean()
        of_p = binomtest(int(treated[:, 0].sum()), len(treated)).proportion_ci(0.95, "wilson")
        of_q = binomtest(int(control[:, 0].sum()), len(control)).proportion_ci(0.95, "wilson")
        return (
            p - q - sqrt((p - of_p.low) ** 2 + (of_q.high - q) ** 2),
            p - q + sqrt((of_p.high - p) ** 2 + (q - of_q.low) ** 2),
        )
    rates, variances = [], []
    for each in (treated, control):
        rate = each[:, 0].sum() / each[:, 1].sum()
        rates.append(rate)
        rest = each[:, 0] - rate * each[:, 1]
        variances.append(rest.var(ddof=1) * len(each) / each[:, 1].sum() ** 2)
    reach = norm.ppf(0.975) * sqrt(sum(variances))
    return rates[0] - rates[1] - reach, rates[0] - rates[1] + reach


def split(company: Company, as_of: date) -> float:
    """Return the chi-square of an even split."""
    variants = [variant for variant, _ in units(company, as_of).values()]
    return float(chisquare([variants.count("control"), variants.count("treatment")]).statistic)


def is_held_out(account: str, share: float = 0.05, salt: str = "standing hold-out") -> bool:
    return int(hashlib.md5(f"{salt}{account}".encode()).hexdigest()[:8], 16) / 2**32 < share  # noqa: S324
