"""Write a simulated company: what its systems recorded into files, and its hidden truth into a folder apart.

<folder>/orders.parquet            order lines, by block of accounts and time
<folder>/events/<YYYY-MM>.parquet  events by the month they were delivered in
<folder>/crm/<entity>.parquet      accounts, contacts, opportunities, stages, contracts, tickets, answers, referrals
<folder>/reference/…               customers, products, campaign spend, experiment assignments, industries
<folder>/truth/…                   what nobody may load
<folder>/sources.yml               what `stratum run` reads
<folder>/manifest.json             scale, seed, versions, rows of each file
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.errors import StratumError
from include.simulate.market import behavior, crm, orders, population, truth
from include.simulate.market.scales import BLOCK, DAYS, FIRST_DAY, Scale, month_ends, stream

MANIFEST = "manifest.json"
SOURCES = Path(__file__).with_name("sources.yml")
SPEND_PER_ACCOUNT = 1_500_000
"""Yearly spend on campaigns, in fen per hundred accounts and channel."""
ONLINE = ("organic_search", "paid_search", "e_mail")


class Files:
    """Parquet files that grow by tables of one schema, closed together."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """`stack` closes them."""
        self.folder, self.stack = folder, stack
        self.writers: dict[str, pq.ParquetWriter] = {}
        self.rows: Counter[str] = Counter()

    def add(self, name: str, table: pa.Table) -> None:
        """Append a table to <name>.parquet."""
        if name not in self.writers:
            path = self.folder / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writers[name] = self.stack.enter_context(pq.ParquetWriter(path, table.schema))
        self.writers[name].write_table(table)
        self.rows[f"{name}.parquet"] += table.num_rows


def write_market(folder: Path, scale: Scale, seed: int, tell: Callable[[str], None] = lambda _: None) -> None:
    """Write the company of a scale and a seed into a new folder; `tell` hears of the progress.

    The folder appears when it is whole. Raises StratumError where it holds another company already; the same one
    is left as it stands.
    """
    wanted = {"scale": scale.name, "seed": seed, "numpy": np.__version__, "pyarrow": pa.__version__}
    if folder.exists():
        if _made(folder) == wanted:
            return
        raise StratumError(
            f"{folder} is there already and holds something else. Choose a new folder, or remove it."
        )
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with ExitStack() as stack:
        files = Files(part, stack)
        _references(files, scale, seed)
        order_number = event_number = 1
        for block, first in enumerate(range(0, scale.accounts, BLOCK), start=1):
            count = min(BLOCK, scale.accounts - first)
            made = population.populate(scale, seed, block, first, count)
            order_number, event_number = _block(files, made, seed, block, order_number, event_number)
            tell(f"{first + count:,} of {scale.accounts:,} accounts, {event_number - 1:,} events")
        rows = dict(sorted(files.rows.items()))
    (part / "truth" / "effects.json").write_text(json.dumps(_effects(), indent=1), encoding="utf-8")
    shutil.copyfile(SOURCES, part / SOURCES.name)
    (part / MANIFEST).write_text(json.dumps({"made": wanted, "rows": rows}, indent=1), encoding="utf-8")
    os.replace(part, folder)


def _made(folder: Path) -> object:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("made")
    except (OSError, ValueError):
        return None


def _block(
    files: Files, made: population.Population, seed: int, block: int, order_number: int, event_number: int
) -> tuple[int, int]:
    """Write all of a block of accounts; return the numbers of the next order and the next event."""
    codes = orders.labels("C", made.number, 7)
    lines, placed = orders.order_lines(made, codes, seed, block, order_number)
    files.add("orders", lines)
    happened, delivered = behavior.events(made, placed, codes, seed, block, event_number)
    for name, begin, end in _months(delivered):
        files.add(f"events/{name}", happened.slice(begin, end - begin))
    opportunities, stages = crm.opportunities(made, seed, block)
    for name, table in {
        "accounts": crm.accounts_table(made, codes, seed, block),
        "contacts": crm.contacts(made, seed, block),
        "opportunities": opportunities,
        "opportunity_stages": stages,
        "contracts": crm.contracts(made, seed, block),
        "tickets": crm.tickets(made, seed, block),
        "survey_answers": crm.survey_answers(made, seed, block),
        "referrals": crm.referrals(made, seed, block),
    }.items():
        files.add(f"crm/{name}", table)
    files.add("reference/customers", crm.customers(made, codes, seed, block))
    files.add("reference/experiment_assignments", crm.assignments(made, codes))
    bought = orders.first_purchases(lines, len(codes))
    _truth(files, made, codes, crm.contract_weeks(made, seed, block), bought)
    return order_number + len(placed.account), event_number + happened.num_rows


def _months(delivered: population.Ints) -> list[tuple[str, int, int]]:
    """Return (YYYY-MM, first row, row after the last) of days of the calendar in ascending order."""
    found = []
    month = FIRST_DAY
    while (month - FIRST_DAY).days < DAYS:
        following = (month.replace(day=1) + timedelta(days=32)).replace(day=1)
        begin, end = np.searchsorted(delivered, [(month - FIRST_DAY).days, (following - FIRST_DAY).days])
        if end > begin:
            found.append((f"{month:%Y-%m}", int(begin), int(end)))
        month = following
    return found


def _truth(
    files: Files,
    made: population.Population,
    codes: pa.Array,
    contract_weeks: population.Ints,
    bought: population.Ints,
) -> None:
    """Write the truth of a block; `bought` is the day of the first line of each account in each category."""
    for as_of in month_ends():
        silent = truth.no_order_probability(made, as_of)
        week = truth.week_of(as_of)
        day = pa.array(np.full(len(codes), np.datetime64(as_of, "D")))
        files.add(
            "truth/churn",
            pa.table(
                {
                    "account_no": codes,
                    "as_of_date": day,
                    "no_order_90d": silent,
                    "engagement": made.engagement[:, week],
                    "has_turned_away": made.turns <= week,
                }
            ),
        )
        lapses = truth.lapse_probability(made, contract_weeks, as_of)
        due = pa.array(np.flatnonzero(~np.isnan(lapses)))
        files.add(
            "truth/lapse",
            pa.table(
                {
                    "account_no": codes.take(due),
                    "as_of_date": day.take(due),
                    "lapse_120d": pa.array(lapses).take(due),
                }
            ),
        )
        if as_of.month % 3:
            continue
        wish, in_any = truth.new_category_probability(made, bought <= (as_of - FIRST_DAY).days, as_of)
        files.add(
            "truth/new_category",
            pa.table({"account_no": codes, "as_of_date": day, "new_category_90d": in_any}),
        )
        account, category = np.nonzero(wish > 0)
        files.add(
            "truth/upsell",
            pa.table(
                {
                    "account_no": codes.take(pa.array(account)),
                    "as_of_date": day.take(pa.array(account)),
                    "category": orders.named(category, orders.CATEGORY_NAMES),
                    "first_purchase_90d": wish[account, category],
                }
            ),
        )


def _references(files: Files, scale: Scale, seed: int) -> None:
    files.add("reference/products", orders.products(seed))
    random = stream(seed, 2)
    months = sorted({(FIRST_DAY + timedelta(days=day)).replace(day=1) for day in range(DAYS)})
    cells = [(month, channel) for month in months for channel in population.CHANNELS]
    amount = SPEND_PER_ACCOUNT * scale.accounts / 100 / 12 * np.exp(0.3 * random.standard_normal(len(cells)))
    files.add(
        "reference/campaign_spend",
        pa.table(
            {
                "month": pa.array([month for month, _ in cells], pa.date32()),
                "channel": [channel for _, channel in cells],
                "is_online": [channel in ONLINE for _, channel in cells],
                "amount": orders.money(amount),
            }
        ),
    )
    industries = [(year, place) for year in (2024, 2025, 2026) for place in range(len(population.INDUSTRIES))]
    files.add(
        "reference/industries",
        pa.table(
            {
                "industry": [population.INDUSTRIES[place] for _, place in industries],
                "effective_from": pa.array([date(year, 1, 1) for year, _ in industries], pa.date32()),
                "yearly_growth": [population.GROWTH[place] for _, place in industries],
            }
        ),
    )


def _effects() -> dict[str, object]:
    return {
        "experiment": "price_comparison_page",
        "from_day": str(FIRST_DAY + timedelta(days=7 * population.EXPERIMENT_WEEK)),
        "relative_lift_of_orders": population.EXPERIMENT_ORDERS,
        "share_kept_of_those_leaving_at_comparison": population.EXPERIMENT_STAYS,
    }
