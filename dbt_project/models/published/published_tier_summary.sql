{{ config(alias='tier_summary') }}

with

customers as (

    select * from {{ ref('published_customer_360') }}
    where has_ordered

),

tier_shares as (

    {{ policy_rows('tier_shares', key='tier') }}

),

tier_actions as (

    {{ policy_rows('tier_actions', key='tier') }}

),

tier_sums as (

    select
        tier_shares.tier,
        tier_shares.target_share,
        count(customers.account_id) as accounts,
        coalesce(sum(customers.net_revenue_365d), 0) as net_revenue_365d
    from tier_shares
    left join customers on tier_shares.tier = customers.tier
    group by tier_shares.tier, tier_shares.target_share

),

totals as (

    select
        sum(accounts) as accounts,
        sum(net_revenue_365d) as net_revenue_365d,
        min(net_revenue_365d) as least_net_revenue_365d
    from tier_sums

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        tier_sums.tier,
        tier_sums.accounts,
        cast(cast(tier_sums.accounts as numeric) / nullif(totals.accounts, 0) as numeric(9, 4)) as actual_share,
        tier_sums.target_share,
        cast(tier_sums.net_revenue_365d as numeric(18, 2)) as net_revenue_365d,
        -- A share says nothing where some tier, or the total, is below 0 (returns exceed sales).
        case
            when totals.least_net_revenue_365d >= 0 and totals.net_revenue_365d > 0
                then cast(tier_sums.net_revenue_365d / totals.net_revenue_365d as numeric(9, 4))
        end as revenue_share,
        tier_actions.action
    from tier_sums
    cross join totals
    left join tier_actions on tier_sums.tier = tier_actions.tier

)

select * from final
