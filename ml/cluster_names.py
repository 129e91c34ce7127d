"""Plain names of clusters, made of the features that set a cluster apart from the company's typical account."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MEASURES: dict[str, tuple[str, str]] = {
    "orders_per_quarter": ("frequent buyers", "rare buyers"),
    "yearly_net_spend": ("high spend", "low spend"),
    "days_since_last_order": ("long without an order", "ordered lately"),
    "average_order_value": ("large orders", "small orders"),
    "categories_365d": ("many categories", "few categories"),
    "return_rate_365d": ("many returns", "few returns"),
    "logins_90d": ("many logins", "few logins"),
    "core_feature_uses_90d": ("much use of core features", "little use of core features"),
    "tickets_90d": ("many tickets", "few tickets"),
}
"""Columns of marts.account_features that clusters are made of, and how more and less of each is called.

What an account buys and how it uses the product; not its age, industry or tier, which are columns of their own.
"""

APART = 0.5  # spreads from the company's median from which a feature is told; our default
MOST = 3  # features in a name


def describe(features: Sequence[str], centroid: NDArray[np.float64]) -> list[str]:
    """Return what sets a centroid (scaled units, one per feature) apart, the strongest first; at least one phrase."""
    order = sorted(range(len(features)), key=lambda place: (-abs(round(float(centroid[place]), 6)), place))
    told = [
        MEASURES[features[place]][0 if centroid[place] > 0 else 1]
        for place in order
        if abs(centroid[place]) >= APART
    ]
    return told or ["typical accounts"]


def unique_names(descriptions: Sequence[Sequence[str]], taken: Sequence[str]) -> list[str]:
    """Return a name for each description: its first MOST phrases; where that is taken, more of them, then a number."""
    names: list[str] = []
    for words in descriptions:
        choices = [", ".join(words[:most]) for most in range(min(MOST, len(words)), len(words) + 1)]
        choices += [f"{choices[0]} ({number})" for number in range(2, len(descriptions) + len(taken) + 2)]
        names.append(next(name for name in choices if name not in names and name not in taken))
    return names
