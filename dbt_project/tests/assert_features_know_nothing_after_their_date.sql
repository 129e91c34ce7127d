-- A failure means that a row of account_features tells of an order dated after its as-of date, or that its parts
-- contradict each other (a window larger than the one around it, an order before the first).
with

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

final as (

    select
        account_id,
        first_order_date,
        last_order_date,
        orders_30d,
        orders_90d,
        orders_365d,
        orders_total
    from account_features
    where
        last_order_date > as_of_date
        or first_order_date > last_order_date
        or days_since_last_order < 0
        or orders_total < 1
        or orders_30d > orders_90d
        or orders_90d > orders_365d
        or orders_365d > orders_total

)

select * from final
