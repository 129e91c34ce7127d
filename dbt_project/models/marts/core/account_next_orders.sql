{{ config(materialized='view') }}

with

order_days as (

    select
        account_id,
        order_date,
        lead(order_date) over (partition by account_id order by order_date) as next_order_date
    from {{ ref('int_account_days') }}
    where orders > 0

),

account_features as (

    select
        as_of_date,
        account_id,
        last_order_date
    from {{ ref('account_features') }}

),

final as (

    select
        account_features.as_of_date,
        account_features.account_id,
        order_days.next_order_date
    from account_features
    left join order_days
        on
            account_features.account_id = order_days.account_id
            and account_features.last_order_date = order_days.order_date

)

select * from final
