"""Companies with a structure put in on purpose: three kinds of accounts, and products that are bought together."""

from datetime import date, timedelta

import numpy as np
import pandas as pd

from ml.cluster_names import MEASURES

KINDS = {
    # orders a quarter, yearly spend, days since the last order
    "frequent": (12.0, 50_000.0, 5.0),
    "middle": (3.0, 5_000.0, 30.0),
    "rare": (0.5, 300.0, 200.0),
}
BUNDLES, PER_BUNDLE = 6, 6


def three_kinds(accounts: int = 300, seed: int = 3, swell: float = 1.0) -> pd.DataFrame:
    """Return a frame of MEASURES in which account i is of kind i mod 3; `swell` multiplies what everybody buys."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"account_id": [f"A{number:04d}" for number in range(accounts)]})
    frame = frame.assign(**dict.fromkeys(MEASURES, 0.0))
    values = np.array(list(KINDS.values()))[np.arange(accounts) % 3] * random.lognormal(0, 0.2, (accounts, 3))
    frame[["orders_per_quarter", "yearly_net_spend", "days_since_last_order"]] = values * [swell, swell, 1]
    return frame


def purchases(last: date, accounts: int = 120, seed: int = 4, days: int = 200) -> pd.DataFrame:
    """Return purchases up to a day: each account buys, one after another, the products of one bundle.

    Everybody also buys the common product C0 again and again, which is therefore the most popular.
    """
    random = np.random.default_rng(seed)
    rows = []
    for number in range(accounts):
        bundle = number % BUNDLES
        bought = random.permutation(PER_BUNDLE)
        begins = int(random.integers(0, days // 2))
        gap = days // PER_BUNDLE
        for place, product in enumerate(bought):
            day = last - timedelta(days=days - begins - place * gap)
            if day <= last:
                rows.append((f"A{number:04d}", f"B{bundle}-{product}", day))
                rows.append((f"A{number:04d}", "C0", day))
    frame = pd.DataFrame(rows, columns=["account_id", "product_id", "order_date"])
    frame["order_date"] = pd.to_datetime(frame["order_date"])
    return frame.sort_values(list(frame.columns), ignore_index=True)
