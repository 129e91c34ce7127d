"""A company of a given size, written by one query per file: the same rows every time, from no random numbers."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

FIRST_DAY = date(2024, 1, 1)
DAYS = 730
LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)


@dataclass(frozen=True)
class Size:
    """How much data: accounts, orders (of one to three lines), events; and rows of the cases that scale alone."""

    name: str
    accounts: int
    orders: int
    events: int
    scaled: int
    """Accounts of score_1m and sync_plan_1m."""
    sent: int
    """Records of sync_send."""


SIZES = {
    "S": Size("S", 2_000, 100_000, 1_000_000, 100_000, 20_000),
    "M": Size("M", 20_000, 1_000_000, 10_000_000, 1_000_000, 40_000),
}
TINY = Size("tiny", 50, 2_000, 5_000, 0, 0)
"""The company of chain_overhead, whose work is to be next to nothing."""

# A number from 0 to 1 that only depends on what it is asked for.
UNIT = "(hash({salt}, {of}) % 1000003) / 1000003.0"

ACCOUNTS = """
create table accounts as
select
    n,
    printf('C%07d', n) as customer,
    first_day,
    case when {stays} < 0.55 then {days} - 1
        else least({days} - 1, first_day + 40 + floor({lasts} * 500)::int) end as last_day
from (select n, floor({joins} * {joins} * {days} * 0.8)::int as first_day from range({accounts}) as numbers(n))
"""

# An order falls on a day on which its account was a customer; few accounts place most of them.
ORDERS = """
copy (
    select
        if(is_return, 'R', 'O') || printf('%09d', o) as order_no,
        customer as customer_no,
        printf('P%04d', (o * 7 + line * 131) % 1000) as sku,
        printf('Product %d', (o * 7 + line * 131) % 1000) as product,
        printf('Category %d', (o * 7 + line * 131) % 12) as category,
        ['CN', 'SG', 'DE', 'FR'][1 + (n % 4)] as country,
        if(is_return, -1, 1) * (1 + floor({amount} * 8)::int) as quantity,
        round(5 + {price} * 400, 2)::decimal(12, 2) as unit_price,
        (date '{first}' + (first_day + floor({day} * (last_day - first_day + 1))::int))::timestamp
            + to_seconds(28800 + floor({hour} * 36000)::int) as ordered_at
    from (select o, floor({accounts} * {whose} * {whose})::int as n, {returned} < 0.02 as is_return
        from range({orders}) as numbers(o))
    join accounts using (n)
    cross join range(1 + (hash('lines', o) % 3)::int) as lines(line)
    order by o, line
) to '{file}' (format parquet)
"""

EVENTS = """
copy (
    select
        printf('E%010d', e) as event_no,
        customer as account_no,
        customer || '-' || (e % 5) as user_no,
        customer || '-' || day || '-' || (e % 3) as session_no,
        name as event,
        if(name = 'feature_use', ['quick_order', 'reorder_template', 'price_list', 'stock'][1 + (e % 4)], null) as feature,
        round({lasts} * 300, 3)::decimal(12, 3) as seconds,
        (date '{first}' + day)::timestamp + to_seconds(28800 + floor({hour} * 36000)::int) as occurred_at
    from (
        select e, customer, first_day + floor({day} * (last_day - first_day + 1))::int as day,
            ['login', 'page_view', 'page_view', 'feature_use', 'flow_search', 'flow_cart'][1 + (e % 6)] as name
        from (select e, floor({accounts} * {whose} * {whose})::int as n from range({events}) as numbers(e))
        join accounts using (n)
    )
    order by e
) to '{file}' (format parquet)
"""

SOURCES = """company: {name: Benchmark, timezone: UTC, currency: CNY}
orders:
  file: FOLDER/orders.parquet
  columns:
    order_id: order_no
    customer_id: customer_no
    product_id: sku
    product_name: product
    product_category: category
    country: country
    quantity: quantity
    unit_price: unit_price
    currency: "'CNY'"
    ordered_at: ordered_at
  return_when: starts_with(order_no, 'R')
  key: [order_id, product_id]
  repeated_rows: first
behavior:
  file: FOLDER/events.parquet
  columns:
    event_id: event_no
    customer_id: account_no
    user_id: user_no
    session_id: session_no
    event_name: event
    feature: feature
    duration_s: seconds
    event_at: occurred_at
"""


def write(size: Size, folder: Path) -> Path:
    """Write the company's files into a folder and return its sources.yml; nothing is done where they stand."""
    sources = folder / "sources.yml"
    if sources.exists():
        return sources
    folder.mkdir(parents=True, exist_ok=True)
    engine = duckdb.connect()
    engine.execute("set enable_progress_bar = false")
    counts = {"accounts": size.accounts, "orders": size.orders, "events": size.events}
    engine.execute(
        ACCOUNTS.format(
            **counts,
            days=DAYS,
            joins=_unit("joins", "n"),
            stays=_unit("stays", "n"),
            lasts=_unit("lasts", "n"),
        )
    )
    of_order = {key: _unit(key, "o") for key in ("amount", "price", "day", "hour", "whose", "returned")}
    of_event = {key: _unit("event " + key, "e") for key in ("lasts", "day", "hour", "whose")}
    engine.execute(ORDERS.format(**counts, **of_order, first=FIRST_DAY, file=folder / "orders.parquet"))
    engine.execute(EVENTS.format(**counts, **of_event, first=FIRST_DAY, file=folder / "events.parquet"))
    sources.write_text(SOURCES.replace("FOLDER", str(folder)))
    return sources


def _unit(salt: str, of: str) -> str:
    return UNIT.format(salt=f"'{salt}'", of=of)
