with

account_days as (

    select * from {{ ref('int_account_days') }}
    where order_date <= {{ as_of_date() }}

),

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

order_spans as (

    select
        account_id,
        min(order_date) as first_order_date,
        max(order_date) as last_order_date
    from account_days
    where orders > 0
    group by account_id

),

dated_days as (

    select
        account_days.*,
        order_spans.first_order_date,
        order_spans.last_order_date,
        {{ days_between('account_days.order_date', as_of_date()) }} as days_ago
    from order_spans
    inner join account_days on order_spans.account_id = account_days.account_id

),

sums as (

    select
        account_id,
        first_order_date,
        last_order_date,
        {{ days_between('last_order_date', as_of_date()) }} as days_since_last_order,
        {{ days_between('first_order_date', as_of_date()) }} + 1 as tenure_days,
        sum(orders) as orders_total,
        sum(gross_sales) as gross_sales_total,
        sum(net_revenue) as net_revenue_total,
        sum(case when order_date >= first_order_date then net_revenue else 0 end) as net_revenue_since_first_order,
        {%- for days in [30, 90, 365] %}
        sum(case when days_ago < {{ days }} then orders else 0 end) as orders_{{ days }}d,
        sum(case when days_ago < {{ days }} then gross_sales else 0 end) as gross_sales_{{ days }}d,
        sum(case when days_ago < {{ days }} then returns_amount else 0 end) as returns_amount_{{ days }}d,
        sum(case when days_ago < {{ days }} then net_revenue else 0 end) as net_revenue_{{ days }}d,
        {%- endfor %}
        sum(case when days_ago < {{ threshold('frequency_window_days') }} then orders else 0 end)
            as orders_in_frequency_window
    from dated_days
    group by account_id, first_order_date, last_order_date

),

newest_countries as (

    select
        account_id,
        country,
        row_number() over (partition by account_id order by order_date desc) as newness
    from account_days
    where country is not null

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        sums.account_id,
        sums.first_order_date,
        sums.last_order_date,
        sums.days_since_last_order,
        sums.tenure_days,
        newest_countries.country as order_country,
        cast(sums.orders_total as bigint) as orders_total,
        {%- for days in [30, 90, 365] %}
        cast(sums.orders_{{ days }}d as bigint) as orders_{{ days }}d,
        cast(sums.gross_sales_{{ days }}d as numeric(18, 2)) as gross_sales_{{ days }}d,
        cast(sums.returns_amount_{{ days }}d as numeric(18, 2)) as returns_amount_{{ days }}d,
        cast(sums.net_revenue_{{ days }}d as numeric(18, 2)) as net_revenue_{{ days }}d,
        {%- endfor %}
        cast(sums.net_revenue_total as numeric(18, 2)) as net_revenue_total,
        cast(
            sums.orders_in_frequency_window * {{ days_per_quarter() }}
            / greatest(
                least(sums.tenure_days, {{ threshold('frequency_window_days') }}), {{ days_per_quarter() }}
            )
            as numeric(12, 4)
        ) as orders_per_quarter,
        cast(
            sums.net_revenue_since_first_order * {{ days_per_year() }}
            / greatest(sums.tenure_days, {{ days_per_year() }})
            as numeric(18, 2)
        ) as yearly_net_spend,
        cast(sums.gross_sales_total / sums.orders_total as numeric(18, 2)) as average_order_value,
        -- Returns of older purchases can exceed the window's sales many times; the limit is the column's.
        cast(
            least(sums.returns_amount_365d / nullif(sums.gross_sales_365d, 0), 99999.9999) as numeric(9, 4)
        ) as return_rate_365d
    from sums
    left join newest_countries
        on
            sums.account_id = newest_countries.account_id
            and newest_countries.newness = 1

)

select * from final
