"""What each model foretells: one row of data per definition. docs/contracts/models.md tells the same in prose.

Labels and populations are conditions in SQL over `outcomes` (marts.account_outcomes, the window after the row's date)
and `features` (marts.account_features, up to the date), or the marts that a definition names instead; `{min_rise}`
stands for the policy upsell_min_rise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import psycopg

from include.errors import StratumError
from ml.features import CATEGORY_NAMES, FEATURES, LAPSE_NAMES, NAMES, TRIAL_NAMES, Feature


@dataclass(frozen=True)
class Words:
    """What the reasons of a model say: the heads, and whose typical value an account is compared with.

    `happened` names the accounts the event came true of, `not_happened` the others. `risk` is 1 where what is read as a
    risk (`Phrase.more`) raises the probability, -1 where it lowers it.
    """

    raises: str
    lowers: str
    happened: str
    not_happened: str
    risk: Literal[1, -1]


@dataclass(frozen=True)
class Target:
    """One definition of what a model foretells.

    `horizon` names the policy of its length in days; `label` is true where the event came, for accounts of
    `population`, which `of_whom` says in words. `directed` names the features that may move the probability one way
    alone, that of their direction against the risk (`words.risk` turns it); the data decide on the others. `has_value`
    says that an expected net revenue stands beside the probability. `needs` is a condition that at least half of the
    accounts of the newest date must meet, else the next definition of the model holds; none for the last one.
    `features_mart` and `outcomes_mart` are the tables of marts that its frames are made of; `may_be_empty` says that a
    date may have no account of its population, or a handful. `told_by` are source and entity of the rows that say what came
    true, without which it is not judged; of several, those that the company has ever loaded.
    """

    model: str
    definition: str
    horizon: str
    label: str
    population: str
    words: Words
    of_whom: str = "accounts that had ordered by the date"
    names: tuple[str, ...] = NAMES
    directed: frozenset[str] = field(default_factory=lambda: frozenset(NAMES))
    has_value: bool = False
    has_next_best: bool = False
    needs: str | None = None
    features_mart: str = "account_features"
    outcomes_mart: str = "account_outcomes"
    may_be_empty: bool = False
    told_by: tuple[tuple[str, str], ...] = (("orders", "order_lines"),)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features of the model in the order of its names, each with the way it may move this probability."""
        known = {one.name: one for one in FEATURES}
        return tuple(
            Feature(
                name,
                known[name].kind,
                known[name].direction * self.words.risk if name in self.directed else 0,
            )
            for name in self.names
        )


@dataclass(frozen=True)
class Policy:
    """What counts on a date: the window's length, who is a recent buyer, and what a rise in spend is."""

    horizon_days: int
    active_days: int
    min_rise: float = 0.0


_OF_UPSELL = frozenset(
    {
        "days_since_last_order", "gap_ratio", "logins_30d", "logins_90d", "days_since_last_login",
        "core_feature_uses_30d", "core_feature_uses_90d", "active_days_30d", "sessions_90d", "nps_latest",
    }
)  # fmt: skip

CHURN = Target(
    model="churn",
    definition="no order",
    horizon="churn_horizon_days",
    label="not outcomes.has_ordered",
    # Who pays by a contract churns when that lapses: each account has the churn of its own form (docs/decisions/0034).
    population="not exists (select from marts.lapse_features as held "
    "where held.as_of_date = features.as_of_date and held.account_id = features.account_id)",
    words=Words(
        "Raises risk", "Lowers risk", "accounts that did not order again", "accounts that ordered again", 1
    ),
    of_whom="accounts that had ordered by the date and were under no contract",
)
LAPSE = Target(
    model="lapse",
    definition="contract lapse",
    horizon="lapse_horizon_days",
    label="outcomes.has_lapsed",
    population="features.is_due",
    words=Words(
        "Raises risk",
        "Lowers risk",
        "accounts whose contract lapsed",
        "accounts whose contract went on",
        1,
    ),
    of_whom="accounts under a contract that could lapse within the horizon, or that has no end",
    names=LAPSE_NAMES,
    directed=frozenset(LAPSE_NAMES),
    features_mart="lapse_features",
    outcomes_mart="lapse_outcomes",
    may_be_empty=True,
    told_by=(("records", "contracts"),),
)
REPURCHASE = Target(
    model="repurchase",
    definition="an order",
    horizon="repurchase_horizon_days",
    label="outcomes.has_ordered",
    population="true",
    words=Words(
        "Speaks for an order",
        "Speaks against an order",
        "accounts that ordered",
        "accounts that did not order",
        -1,
    ),
    has_value=True,
)
NEW_CATEGORY = Target(
    model="upsell",
    definition="new category",
    horizon="upsell_horizon_days",
    label="outcomes.has_new_category",
    population="features.categories_total > 0",
    of_whom="accounts that had bought in a category by the date",
    words=Words(
        "Speaks for a new category",
        "Speaks against a new category",
        "accounts that bought a new category",
        "accounts that did not",
        -1,
    ),
    names=(*NAMES, *CATEGORY_NAMES),
    directed=_OF_UPSELL,
    has_next_best=True,
    needs="categories_total is not null",
)
RISE = Target(
    model="upsell",
    definition="rise in spend",
    horizon="upsell_horizon_days",
    label="outcomes.net_revenue_before > 0 and "
    "outcomes.net_revenue >= (1 + {min_rise}) * outcomes.net_revenue_before",
    population="features.net_revenue_90d > 0",
    of_whom="accounts with net revenue in the 90 days up to the date",
    words=Words(
        "Speaks for a rise",
        "Speaks against a rise",
        "accounts whose spend rose",
        "accounts whose spend did not rise",
        -1,
    ),
    directed=_OF_UPSELL,
)
TRIAL = Target(
    model="trial",
    definition="first order or contract",
    horizon="trial_horizon_days",
    label="outcomes.has_converted",
    population="true",
    words=Words(
        "Speaks for a first order",
        "Speaks against a first order",
        "trials that became customers",
        "trials that did not",
        -1,
    ),
    of_whom="accounts in a standing trial: they use the product, and had not ordered or signed by the date",
    names=TRIAL_NAMES,
    directed=frozenset(TRIAL_NAMES),
    features_mart="trial_features",
    outcomes_mart="trial_outcomes",
    may_be_empty=True,
    told_by=(("orders", "order_lines"), ("records", "contracts")),
)

TARGETS: Mapping[str, tuple[Target, ...]] = {
    "churn": (CHURN,),
    "lapse": (LAPSE,),
    "repurchase": (REPURCHASE,),
    "upsell": (NEW_CATEGORY, RISE),
    "trial": (TRIAL,),
}
"""Each model's definitions: the first one that the data allow holds."""
MODELS = tuple(TARGETS)


def definitions_of(model: str) -> tuple[Target, ...]:
    """Return the definitions of a model. Raises StratumError where there is no such model."""
    if model not in TARGETS:
        raise StratumError(f"There is no model '{model}': there are {', '.join(MODELS)}.")
    return TARGETS[model]


def target_of(model: str, definition: str) -> Target:
    """Return a model's definition by its name. Raises StratumError where this version has none of that name."""
    for target in definitions_of(model):
        if target.definition == definition:
            return target
    raise StratumError(f"Model {model} has no definition '{definition}' in this version: train it anew.")


def target_on(connection: psycopg.Connection, model: str, as_of: date) -> Target:
    """Return the definition that holds as of a date: the first one whose `needs` half of the accounts meet.

    They are looked at on the newest date of account_features that is not later; of an empty one the last holds.
    """
    *preferred, last = definitions_of(model)
    for target in preferred:
        row = connection.execute(
            f"select avg(({target.needs})::int) >= 0.5 from marts.account_features where as_of_date = "  # noqa: S608
            "(select max(as_of_date) from marts.account_features where as_of_date <= %s)",
            [as_of],
        ).fetchone()
        if row is not None and row[0]:
            return target
    return last


def policy_on(connection: psycopg.Connection, target: Target, as_of: date) -> Policy:
    """Return the policy of a target in force on the date. Raises StratumError where there is none."""
    needed = (target.horizon, "churn_active_days", "upsell_min_rise")
    rows = connection.execute(
        "select distinct on (name) name, value::float8 from marts.thresholds "
        "where effective_from <= %s and name = any(%s) order by name, effective_from desc",
        [as_of, list(needed)],
    ).fetchall()
    values: dict[str, float] = dict(rows)
    if len(values) < len(needed):
        raise StratumError(
            f"No {target.model} policy is in force on {as_of}: {', '.join(needed)} are rows of "
            "dbt_project/seeds/policy/thresholds.csv, landed by the build (`stratum run --as-of DATE`)."
        )
    return Policy(int(values[target.horizon]), int(values["churn_active_days"]), values["upsell_min_rise"])
