-- A failure means that lines of that day are in a currency without a rate to the reporting currency: their
-- amounts would be left out of every sum. Add the rate to seeds/policy/exchange_rates.csv.
with

account_days as (

    select
        order_date,
        unpriced_lines
    from {{ ref('int_account_days') }}

),

unattributed_days as (

    select
        order_date,
        unpriced_lines
    from {{ ref('int_unattributed_days') }}

),

final as (

    select * from account_days
    where unpriced_lines > 0
    union all
    select * from unattributed_days
    where unpriced_lines > 0

)

select * from final
