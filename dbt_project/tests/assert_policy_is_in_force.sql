-- A failure means that no policy is in force on the as-of date for the name told, that the shares of the tiers in
-- force do not sum to 1, or that ages from 0 months or probabilities from 0 on have no band: add or mend the rows in
-- seeds/policy.
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

lifecycle_stages as (

    {{ policy_rows('lifecycle_stages', key='stage') }}

),

risk_bands as (

    {{ policy_rows('risk_bands') }}

),

segments as (

    {{ policy_rows('segments', key=['recency_band', 'frequency_band', 'monetary_band']) }}

),

segment_actions as (

    {{ policy_rows('segment_actions', key='segment') }}

),

membership_levels as (

    {{ policy_rows('membership_levels') }}

),

found as (

    select
        (select count(*) from thresholds) as thresholds,
        (select count(*) from tier_shares) as tier_shares,
        (select sum(target_share) from tier_shares) as total_share,
        (select count(*) from tier_actions) as tier_actions,
        (select count(distinct metric) from rfm_bands) as band_metrics,
        (select min(from_months) from lifecycle_stages) as first_stage_from,
        (select count(*) - count(below_months) from lifecycle_stages) as endless_stages,
        (select count(*) from segments) as segments,
        (select count(case when metric = 'recency' then 1 end) from rfm_bands)
        * (select count(case when metric = 'frequency' then 1 end) from rfm_bands)
        * (select count(case when metric = 'monetary' then 1 end) from rfm_bands) as band_triples,
        (select count(*) from segment_actions) as segment_actions,
        (select min(from_points) from membership_levels) as first_level_from,
        (select min(from_probability) from risk_bands) as first_band_from,
        (select count(*) - count(below_probability) from risk_bands) as endless_bands

),

final as (

    select * from found
    where
        thresholds <> 11
        or tier_shares <> 4
        or total_share <> 1
        or tier_actions <> 4
        or band_metrics <> 3
        or segments <> band_triples
        or segment_actions <> 4
        or first_level_from is distinct from 0
        or first_stage_from is distinct from 0
        or endless_stages <> 1
        or first_band_from is distinct from 0
        or endless_bands <> 1

)

select * from final
