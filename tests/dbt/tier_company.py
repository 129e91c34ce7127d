"""Companies by chance, and what every kept date says of their tiers: for the tests of tiers and of their history."""

import random
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pandas as pd

from include.dbt import build
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Line, at
from tests.dbt.selections import TIERS

FIRST_DAY = date(2024, 7, 1)
INPUT_DATE = date(2026, 3, 31)
QUARTER = date(2026, 4, 1)
IN_FORCE = date(2026, 4, 5)
"""Five days of grace after the quarter's end."""
LAST_IN_FORCE = date(2026, 7, 4)
LAST_DAY = date(2026, 7, 5)
MEASURES = ["orders_per_quarter", "yearly_net_spend", "days_since_last_order"]
TWINS = 40
"""Accounts of which a twin t… does what they do and more."""


def order_lines(accounts: int, seed: int | None = None) -> list[Line]:
    """Orders of accounts of every kind, each known on its own day."""
    chance = random.Random(accounts if seed is None else seed)
    lines = []
    for account in range(accounts):
        day = FIRST_DAY + timedelta(days=chance.randrange(500))
        gap, size = chance.choice([9, 30, 30, 80, 200]), chance.choice([80, 80, 900, 7000])
        while day <= LAST_DAY and chance.random() > 0.05:
            key = f"{account}-{day}"
            amount = Decimal(size * chance.choice([1, 1, 2]))
            lines.append(Line(key, f"o{key}", f"c{account:03}", at(day), amount, known_on=day))
            day += timedelta(days=chance.randrange(1, 2 * gap))
    return lines


def twins_of(lines: list[Line], seed: int) -> list[Line]:
    """Orders of twins of the first accounts: theirs, dearer by chance, and some more, none before their first."""
    chance = random.Random(seed)
    twins = []
    for account in sorted({str(line.customer_id) for line in lines})[:TWINS]:
        twin, own = f"t{account[1:]}", [line for line in lines if line.customer_id == account]
        more = [chance.choice(own) for _ in range(chance.randrange(3))]
        for n, line in enumerate([*own, *more]):
            twins.append(
                replace(
                    line,
                    row_key=f"{twin}-{n}",
                    order_id=f"{twin}-{n}",
                    customer_id=twin,
                    amount=line.amount * chance.choice([1, 1, 1, 3]),
                )
            )
    return twins


def refunds_of_the_last(lines: list[Line]) -> list[Line]:
    """Refunds of the last account, larger than all it ordered."""
    last = max(lines, key=lambda line: (str(line.customer_id), line.day))
    return [
        replace(last, row_key="refund", order_id="refund", amount=Decimal(-9_000_000), line_type="return")
    ]


def build_date(as_of: date, run_id: str) -> None:
    """Build the staging layer and the marts of a date."""
    build("staging", as_of, run_id)
    build("marts", as_of, run_id, only=TIERS)


def tiers_on(warehouse: Warehouse, as_of: date) -> pd.DataFrame:
    """Return tier, place and measures of every account on a date, by account."""
    columns = ["tier", "tier_rank", "ranking_score", "tier_scope", "calibrated_for", *MEASURES]
    rows = warehouse.rows(
        f"select account_id, {', '.join(columns)} from marts.account_tiers join marts.account_features "
        "using (as_of_date, account_id) where as_of_date = %s",
        as_of,
    )
    return pd.DataFrame(rows, columns=["account_id", *columns]).set_index("account_id").sort_index()


def assert_twins_stand_no_lower(tiers: pd.DataFrame) -> None:
    """Hold every twin to a tier and a place no lower than the account it is a twin of."""
    both = [(account, f"t{account[1:]}") for account in tiers.index if f"t{account[1:]}" in tiers.index]
    pairs = [(account, twin) for account, twin in both if account.startswith("c")]
    assert len(pairs) > TWINS / 2
    lower = [
        (account, twin)
        for account, twin in pairs
        if "SABC".index(str(tiers.loc[twin, "tier"])) > "SABC".index(str(tiers.loc[account, "tier"]))
        or tiers.loc[twin, "tier_rank"] > tiers.loc[account, "tier_rank"] + 1
    ]
    assert lower == []
    assert any(tiers.loc[twin, "tier"] != tiers.loc[account, "tier"] for account, twin in pairs)


def kept_tiers(warehouse: Warehouse) -> dict[date, dict[str, str]]:
    """Return the tiers of every kept date, by date and account."""
    kept: dict[date, dict[str, str]] = {
        day: {} for (day,) in warehouse.rows("select as_of_date from marts.built_dates order by 1")
    }
    for day, account, tier in warehouse.rows("select as_of_date, account_id, tier from marts.account_tiers"):
        kept[day][account] = tier
    return kept


def assert_history_is_that_of_the_kept_dates(warehouse: Warehouse) -> list[tuple]:
    """Hold the history to the periods that the tiers of the kept dates make, and return it."""
    kept = kept_tiers(warehouse)
    spans: dict[tuple[str, date], list] = {}
    open_spans: dict[str, tuple[str, date]] = {}
    before: dict[str, str] = {}
    for day, tiers in kept.items():
        for account in before.keys() | tiers.keys():
            if before.get(account) == tiers.get(account):
                continue
            if account in before:
                spans[open_spans[account]][1] = day
            if account in tiers:
                open_spans[account] = (account, day)
                spans[account, day] = [tiers[account], None]
        before = tiers
    expected = [(account, tier, since, until) for (account, since), (tier, until) in spans.items()]
    found = warehouse.rows(
        "select account_id, tier, valid_from_date, valid_until_date from marts.account_tier_history"
    )
    assert sorted(found, key=str) == sorted(expected, key=str)
    return found


def direction(before: str | None, now: str | None) -> str:
    """Return the word for a movement between two tiers, None where the account is not there."""
    if before is None or now is None:
        return "new" if before is None else "gone"
    moved = "SABC".index(before) - "SABC".index(now)
    return "up" if moved > 0 else "down" if moved < 0 else "same"
