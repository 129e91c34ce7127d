{{ config(materialized='view') }}

with

order_days as (

    select
        account_id as customer_id,
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

-- Accounts of more, or less, than the customer of their own id.
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

-- Of those the next order of any customer that is the same account today, or one merged since would look lost.
next_orders_of_spans as (

    select
        account_features.as_of_date,
        account_features.account_id,
        min(account_days.order_date) as next_order_date
    from account_features
    inner join spans on account_features.account_id = spans.account_id
    inner join customers as members
        on
            account_features.account_id = members.account_id
            and {{ holds_on('members', 'account_features.as_of_date') }}
    inner join customers as members_today
        on members.customer_id = members_today.customer_id and members_today.valid_until_date is null
    inner join customers as peers
        on members_today.account_id = peers.account_id and peers.valid_until_date is null
    inner join {{ ref('int_account_days') }} as account_days
        on
            peers.customer_id = account_days.account_id
            and account_features.as_of_date < account_days.order_date
    where account_days.orders > 0
    group by account_features.as_of_date, account_features.account_id

),

final as (

    select
        account_features.as_of_date,
        account_features.account_id,
        case
            when spans.account_id is null then order_days.next_order_date
            else next_orders_of_spans.next_order_date
        end as next_order_date
    from account_features
    left join spans on account_features.account_id = spans.account_id
    left join order_days
        on
            account_features.account_id = order_days.customer_id
            and account_features.last_order_date = order_days.order_date
    left join next_orders_of_spans
        on
            account_features.as_of_date = next_orders_of_spans.as_of_date
            and account_features.account_id = next_orders_of_spans.account_id

)

select * from final
