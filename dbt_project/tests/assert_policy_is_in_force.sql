-- A failure means that no policy is in force on the as-of date for the name told, or that the shares of the
-- tiers in force do not sum to 1: add or mend the rows in seeds/policy.
with

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

tier_shares as (

    {{ policy_rows('tier_shares', key='tier') }}

),

tier_actions as (

    {{ policy_rows('tier_actions', key='tier') }}

),

rfm_bands as (

    {{ policy_rows('rfm_bands', key='metric') }}

),

found as (

    select
        (select count(*) from thresholds) as thresholds,
        (select count(*) from tier_shares) as tier_shares,
        (select sum(target_share) from tier_shares) as total_share,
        (select count(*) from tier_actions) as tier_actions,
        (select count(distinct metric) from rfm_bands) as band_metrics

),

final as (

    select * from found
    where
        thresholds <> 4
        or tier_shares <> 4
        or total_share <> 1
        or tier_actions <> 4
        or band_metrics <> 3

)

select * from final
