{{ config(alias='account_tiers') }}

with

account_tiers as (

    select * from {{ ref('account_tiers') }}
    where as_of_date = {{ as_of_date() }}

),

account_rfm as (

    select * from {{ ref('account_rfm') }}
    where as_of_date = {{ as_of_date() }}

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        account_tiers.as_of_date,
        account_tiers.account_id,
        account_tiers.tier,
        account_tiers.tier_rank,
        account_tiers.tier_scope,
        account_tiers.calibrated_for,
        account_rfm.rfm_score,
        account_rfm.recency_band,
        account_rfm.frequency_band,
        account_rfm.monetary_band
    from account_tiers
    inner join account_rfm on account_tiers.account_id = account_rfm.account_id

)

select * from final
