{{ config(materialized='view') }}

with

account_tier_changes as (

    select * from {{ ref('account_tier_changes') }}

),

spans as (

    select
        account_id,
        tier,
        as_of_date as valid_from_date,
        lead(as_of_date) over (partition by account_id order by as_of_date) as valid_until_date
    from account_tier_changes

),

final as (

    select * from spans
    where tier is not null

)

select * from final
