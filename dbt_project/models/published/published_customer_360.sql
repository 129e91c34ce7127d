{{ config(alias='customer_360') }}

with

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date = {{ as_of_date() }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

account_rfm as (

    select * from {{ ref('account_rfm') }}
    where as_of_date = {{ as_of_date() }}

),

account_tiers as (

    select * from {{ ref('account_tiers') }}
    where as_of_date = {{ as_of_date() }}

),

account_segments as (

    select * from {{ ref('account_segments') }}
    where as_of_date = {{ as_of_date() }}

),

account_memberships as (

    select * from {{ ref('account_memberships') }}
    where as_of_date = {{ as_of_date() }}

),

account_lifecycle as (

    select * from {{ ref('account_lifecycle') }}
    where as_of_date = {{ as_of_date() }}

),

churn_scores as (

    select * from {{ source('ml', 'scores') }}
    where run_id = '{{ var("run_id") }}' and model = 'churn'

),

risk_bands as (

    {{ policy_rows('risk_bands') }}

),

next_actions as (

    {{ policy_rows('next_actions', key=['tier', 'churn_risk']) }}

),

tier_actions as (

    {{ policy_rows('tier_actions', key='tier') }}

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        account_profiles.as_of_date,
        account_profiles.account_id,
        account_profiles.account_name,
        account_profiles.crm_system,
        account_profiles.crm_record_id,
        account_profiles.parent_account_id,
        account_profiles.industry,
        account_profiles.country,
        account_profiles.has_ordered,
        account_features.first_order_date,
        account_features.last_order_date,
        account_features.days_since_last_order,
        coalesce(account_features.orders_total, 0) as orders_total,
        coalesce(account_features.orders_365d, 0) as orders_365d,
        account_features.orders_per_quarter,
        coalesce(account_features.net_revenue_total, 0) as net_revenue_total,
        coalesce(account_features.net_revenue_365d, 0) as net_revenue_365d,
        account_features.yearly_net_spend,
        account_features.average_order_value,
        account_features.return_rate_365d,
        account_rfm.recency_band,
        account_rfm.frequency_band,
        account_rfm.monetary_band,
        account_rfm.recency_score,
        account_rfm.frequency_score,
        account_rfm.monetary_score,
        account_rfm.rfm_score,
        account_tiers.is_dormant,
        account_tiers.tier,
        account_tiers.tier_rank,
        coalesce(next_actions.action, tier_actions.action) as next_action,
        account_segments.segment,
        account_segments.segment_action,
        account_memberships.membership_level,
        account_lifecycle.age_stage,
        account_features.logins_30d,
        account_features.days_since_last_login,
        account_features.open_tickets,
        account_features.nps_latest,
        account_features.open_deal_amount,
        account_features.contacts,
        account_features.has_decision_maker,
        churn_scores.probability as churn_probability,
        churn_scores.score_rank as churn_rank,
        risk_bands.risk as churn_risk,
        churn_scores.reason_1 as churn_reason_1,
        churn_scores.reason_2 as churn_reason_2,
        churn_scores.reason_3 as churn_reason_3,
        churn_scores.model_id as churn_model_id,
        '{{ var("reporting_currency") }}' as currency
    from account_profiles
    left join account_features on account_profiles.account_id = account_features.account_id
    left join account_rfm on account_profiles.account_id = account_rfm.account_id
    left join account_tiers on account_profiles.account_id = account_tiers.account_id
    left join account_segments on account_profiles.account_id = account_segments.account_id
    left join account_memberships on account_profiles.account_id = account_memberships.account_id
    left join account_lifecycle on account_profiles.account_id = account_lifecycle.account_id
    left join churn_scores on account_profiles.account_id = churn_scores.account_id
    left join risk_bands
        on
            churn_scores.probability >= risk_bands.from_probability
            and (churn_scores.probability < risk_bands.below_probability or risk_bands.below_probability is null)
    left join next_actions
        on
            account_tiers.tier = next_actions.tier
            and risk_bands.risk = next_actions.churn_risk
    left join tier_actions on account_tiers.tier = tier_actions.tier

)

select * from final
