{{ config(materialized='view') }}

{%- set horizon_end = days_before('next_orders.as_of_date', '-horizons.horizon_days') %}
{%- set series_id = 'coalesce(later_series.series_id, next_orders.account_id)' %}

with

horizons as (

    select distinct cast(value as integer) as horizon_days
    from {{ ref('thresholds') }}
    where name in ('churn_horizon_days', 'repurchase_horizon_days', 'upsell_horizon_days')

),

next_orders as (

    select * from {{ ref('account_next_orders') }}

),

spans as (

    select distinct account_id from {{ ref('int_account_spans') }}

),

customers as (

    select
        account_id,
        source_account_id as customer_id,
        valid_from_date,
        valid_until_date
    from {{ ref('int_account_crosswalk') }}
    where source_system = 'orders'

),

-- Of an account that is more, or less, than the customer of its own id the days of the account that it is today; of one
-- that is several today those of its own id, or of the lowest.
later_series as (

    select
        next_orders.as_of_date,
        next_orders.account_id,
        coalesce(
            min(
                case
                    when members_today.account_id = next_orders.account_id
                        then coalesce(spans_today.order_series_id, members_today.account_id)
                end
            ),
            min(coalesce(spans_today.order_series_id, members_today.account_id))
        ) as series_id
    from next_orders
    inner join spans on next_orders.account_id = spans.account_id
    inner join customers as members
        on
            next_orders.account_id = members.account_id
            and {{ holds_on('members', 'next_orders.as_of_date') }}
    inner join customers as members_today
        on members.customer_id = members_today.customer_id and members_today.valid_until_date is null
    left join {{ ref('int_account_spans') }} as spans_today
        on members_today.account_id = spans_today.account_id and spans_today.valid_until_date is null
    group by next_orders.as_of_date, next_orders.account_id

),

-- Scalar subqueries: a reader asks for one or two of the columns, and what it does not ask for is then not looked up.
final as (

    select
        next_orders.as_of_date,
        next_orders.account_id,
        horizons.horizon_days,
        coalesce(next_orders.next_order_date <= {{ horizon_end }}, false) as has_ordered,
        (
            select count(*) > 0
            from {{ series_categories() }} as categories
            where
                categories.series_id = {{ series_id }}
                and categories.first_order_date > next_orders.as_of_date
                and categories.first_order_date <= {{ horizon_end }}
        ) as has_new_category,
        (
            select cast(coalesce(sum(days_after.net_revenue), 0) as numeric(18, 2))
            from {{ order_series() }} as days_after
            where
                days_after.series_id = {{ series_id }}
                and days_after.order_date > next_orders.as_of_date
                and days_after.order_date <= {{ horizon_end }}
        ) as net_revenue,
        (
            select cast(coalesce(sum(days_until.net_revenue), 0) as numeric(18, 2))
            from {{ order_series() }} as days_until
            where
                days_until.series_id = {{ series_id }}
                and days_until.order_date <= next_orders.as_of_date
                and days_until.order_date > {{ days_before('next_orders.as_of_date', 'horizons.horizon_days') }}
        ) as net_revenue_before
    from next_orders
    cross join horizons
    left join later_series
        on
            next_orders.as_of_date = later_series.as_of_date
            and next_orders.account_id = later_series.account_id

)

select * from final
