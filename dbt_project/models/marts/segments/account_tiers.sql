with

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

tier_shares as (

    {{ policy_rows('tier_shares', key='tier') }}

),

shares as (

    select
        sum(case when tier = 'S' then target_share else 0 end) as share_s,
        sum(case when tier in ('S', 'A') then target_share else 0 end) as share_s_a,
        sum(case when tier in ('S', 'A', 'B') then target_share else 0 end) as share_s_a_b
    from tier_shares

),

accounts as (

    select
        account_id,
        days_since_last_order,
        orders_per_quarter,
        yearly_net_spend,
        days_since_last_order >= {{ threshold('dormant_days') }} as is_dormant
    from account_features

),

-- Ranks count from 0 among the accounts of the same kind, so a percent rank is the rank over their number less one.
ranked as (

    select
        *,
        rank() over (partition by is_dormant order by orders_per_quarter) - 1 as frequency_rank,
        rank() over (partition by is_dormant order by yearly_net_spend) - 1 as monetary_rank,
        count(*) over (partition by is_dormant) as accounts_of_kind
    from accounts

),

weighted as (

    select
        *,
        frequency_rank * {{ threshold('tier_weight_frequency') }}
        + monetary_rank * {{ threshold('tier_weight_monetary') }} as rank_points
    from ranked

),

placed as (

    select
        *,
        row_number() over (
            order by
                case when is_dormant then 1 else 0 end asc,
                case when is_dormant then 0 else rank_points end desc,
                yearly_net_spend desc,
                days_since_last_order asc,
                account_id asc
        ) as tier_rank
    from weighted

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        placed.account_id,
        placed.is_dormant,
        case
            when placed.is_dormant then 'C'
            when placed.tier_rank <= round(placed.accounts_of_kind * shares.share_s / shares.share_s_a_b) then 'S'
            when placed.tier_rank <= round(placed.accounts_of_kind * shares.share_s_a / shares.share_s_a_b) then 'A'
            else 'B'
        end as tier,
        cast(placed.tier_rank as bigint) as tier_rank,
        case
            when not placed.is_dormant
                then cast(placed.rank_points / greatest(placed.accounts_of_kind - 1, 1) as numeric(12, 6))
        end as ranking_score
    from placed
    cross join shares

)

select * from final
