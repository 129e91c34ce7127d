{{ config(pre_hook="{{ remove_tier_changes() }}") }}

-- depends_on: {{ ref('int_dates_due') }}

with

tier_dates as (

    select * from {{ ref('int_tier_dates') }}

),

compared as (

    {{ tiers_compared('tier_dates', 'date_before') }}

),

final as (

    select
        as_of_date,
        account_id,
        tier_before,
        tier
    from compared
    where
        tier <> tier_before
        or tier is null
        or tier_before is null

)

select * from final
