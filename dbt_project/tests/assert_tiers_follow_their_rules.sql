-- A failure means that tiers do not fill up as the policy says: an account that is dormant and not C, or the
-- reverse, a better tier ranked behind a lower one, or an account with features and without a tier.
with

account_tiers as (

    select * from {{ ref('account_tiers') }}
    where as_of_date = {{ as_of_date() }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

tier_spans as (

    select
        min(case when tier = 'A' then tier_rank end) as first_a,
        max(case when tier = 'S' then tier_rank end) as last_s,
        min(case when tier = 'B' then tier_rank end) as first_b,
        max(case when tier in ('S', 'A') then tier_rank end) as last_a,
        min(case when tier = 'C' then tier_rank end) as first_c,
        max(case when tier in ('S', 'A', 'B') then tier_rank end) as last_b
    from account_tiers

),

final as (

    select
        account_features.account_id,
        account_tiers.tier
    from account_features
    left join account_tiers on account_features.account_id = account_tiers.account_id
    cross join tier_spans
    where
        account_tiers.tier is null
        or (account_tiers.tier = 'C') <> account_tiers.is_dormant
        or tier_spans.last_s > tier_spans.first_a
        or tier_spans.last_a > tier_spans.first_b
        or tier_spans.last_b > tier_spans.first_c

)

select * from final
