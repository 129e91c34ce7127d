"""The same work bare: hand-written SQL on the same rows, without versions, checks, tests, contracts or books."""

ORDER_COLUMNS = (
    "order_no text, customer_no text, sku text, product text, category text, country text, "
    "quantity numeric, unit_price numeric, ordered_at timestamptz"
)
EVENT_COLUMNS = (
    "event_no text, account_no text, user_no text, session_no text, event text, feature text, "
    "seconds numeric, occurred_at timestamptz"
)

# Of the rows as landed: what each account ordered and did on each day.
DAYS = """
create table floor.order_days as
select customer_id, (ordered_at at time zone 'UTC')::date as day,
    count(distinct order_id) filter (where line_type = 'sale') as orders,
    sum(amount) filter (where amount > 0) as sales, sum(-amount) filter (where amount < 0) as returns,
    sum(amount) as net
from raw_files.order_lines where {orders} group by 1, 2;
create table floor.category_days as
select customer_id, (ordered_at at time zone 'UTC')::date as day, product_category,
    count(distinct order_id) filter (where line_type = 'sale') as orders, sum(amount) as net
from raw_files.order_lines where {orders} group by 1, 2, 3;
create table floor.usage_days as
select customer_id, (event_at at time zone 'UTC')::date as day, count(*) as events,
    count(*) filter (where event_name = 'login') as logins,
    count(*) filter (where event_name = 'feature_use') as feature_uses,
    count(distinct session_id) as sessions, sum(duration_s) / 60 as minutes,
    bit_or(case feature when 'quick_order' then 1 when 'reorder_template' then 2 when 'approval_flow' then 4 end)
        as core_features
from raw_files.events where {events} group by 1, 2;
"""

# Per account and date: the windows that features, tiers and the model are made from.
WINDOWS = """
create table floor.features_{name} as
with dates as (select unnest(%(dates)s::date[]) as as_of),
ordered as (
    select as_of, customer_id, min(day) as first_day, max(day) filter (where orders > 0) as last_day,
        sum(orders) as orders_total, sum(net) as net_total,
        {order_windows}
    from dates join floor.order_days on day <= as_of group by 1, 2
),
category_firsts as (
    select customer_id, product_category, min(day) as first_day, min(min(day)) over (partition by customer_id) as begun
    from floor.category_days where orders > 0 group by 1, 2
),
bought as (
    select as_of, customer_id, count(*) as categories,
        count(*) filter (where first_day > begun and first_day > as_of - 365) as new_categories_365,
        count(*) filter (where first_day > begun and first_day >= date_trunc('month', as_of)) as new_categories_mtd,
        max(first_day) filter (where first_day > begun) as last_new_category
    from dates join category_firsts on first_day <= as_of group by 1, 2
),
bought_365 as (
    select as_of, customer_id, count(distinct product_category) as categories_365
    from dates join floor.category_days on day <= as_of and day > as_of - 365 where orders > 0 group by 1, 2
),
used as (
    select as_of, customer_id, max(day) filter (where logins > 0) as last_login,
        {usage_windows}
    from dates join floor.usage_days on day <= as_of group by 1, 2
)
select ordered.*, used.last_login, {usage_names},
    categories, new_categories_365, new_categories_mtd, last_new_category, categories_365
from ordered left join used using (as_of, customer_id) left join bought using (as_of, customer_id)
left join bought_365 using (as_of, customer_id)
"""
OF_MONTH = "filter (where day >= date_trunc('month', as_of))"
ORDER_WINDOWS = ",\n        ".join(
    [
        f"sum({what}) filter (where day > as_of - {days}) as {what}_{days}"
        for days in (30, 90, 180, 365)
        for what in ("orders", "sales", "returns", "net")
    ]
    + [f"sum(orders) filter (where day > as_of - {days}) as orders_{days}" for days in (60, 730)]
    + ["sum(net) filter (where day > as_of - 730) as net_730"]
    + [f"sum({what}) {OF_MONTH} as {what}_mtd" for what in ("orders", "net")]
)
USAGE = [(what, days) for days in (30, 90) for what in ("logins", "feature_uses", "sessions", "minutes")]
USAGE_WINDOWS = ",\n        ".join(
    [f"sum({what}) filter (where day > as_of - {days}) as {what}_{days}" for what, days in USAGE]
    + [
        f"bit_count(bit_or(core_features) filter (where day > as_of - {days})::bit(32)) as core_features_{days}"
        for days in (30, 90)
    ]
    + [f"sum({what}) {OF_MONTH} as {what}_mtd" for what in ("logins", "minutes")]
    + [f"count(*) {OF_MONTH} as active_days_mtd"]
)
USAGE_NAMES = ", ".join(
    [f"{what}_{days}" for what, days in USAGE]
    + [f"core_features_{days}" for days in (30, 90)]
    + [f"{what}_mtd" for what in ("logins", "minutes", "active_days")]
)


def days(orders: str = "true", events: str = "true") -> str:
    """Return the SQL of the daily rollups, of all rows or of those that fit the conditions."""
    return DAYS.format(orders=orders, events=events)


def windows(name: str) -> str:
    """Return the SQL of the windows, into floor.features_<name>; it takes the parameter `dates`."""
    return WINDOWS.format(
        name=name, order_windows=ORDER_WINDOWS, usage_windows=USAGE_WINDOWS, usage_names=USAGE_NAMES
    )
