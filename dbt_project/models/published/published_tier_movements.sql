{{ config(alias='tier_movements') }}

with

account_tier_movements as (

    select * from {{ ref('account_tier_movements') }}
    where as_of_date = {{ as_of_date() }}

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        as_of_date,
        account_id,
        date_before,
        tier_before,
        tier,
        direction
    from account_tier_movements
    where direction <> 'same'

)

select * from final
