with

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date = {{ as_of_date() }}

),

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

tier_shares as (

    {{ policy_rows('tier_shares', key='tier') }}

),

todays_policy as (

    {{ tier_policy() }}

),

calibrations as (

    select * from {{ ref('int_tier_calibrations') }}
    where quarter_start = {{ calibration_quarter() }}

),

accounts as (

    select
        account_features.account_id,
        account_features.days_since_last_order,
        account_features.orders_per_quarter,
        account_features.yearly_net_spend,
        account_features.days_since_last_order >= {{ threshold('dormant_days') }} as is_dormant,
        coalesce(calibrations.scope, 'all') as scope
    from account_features
    left join account_profiles on account_features.account_id = account_profiles.account_id
    left join calibrations on account_profiles.industry = calibrations.scope

),

active_accounts as (

    select * from accounts
    where not is_dormant

),

-- Without a calibration the accounts of the day are their own yardstick.
yardstick as (

    select
        calibration_accounts.scope,
        calibration_accounts.account_id,
        calibration_accounts.orders_per_quarter,
        calibration_accounts.yearly_net_spend
    from {{ ref('int_tier_calibration_accounts') }} as calibration_accounts
    inner join calibrations
        on
            calibration_accounts.quarter_start = calibrations.quarter_start
            and calibration_accounts.scope = calibrations.scope
    union all
    select
        scope,
        account_id,
        orders_per_quarter,
        yearly_net_spend
    from active_accounts
    where not exists (select 1 from calibrations)

),

ranks as (

    {{ ranks_on_yardstick('active_accounts', 'yardstick') }}

),

weights as (

    select
        weight_frequency,
        weight_monetary
    from calibrations
    where scope = 'all'
    union all
    select
        weight_frequency,
        weight_monetary
    from todays_policy
    where not exists (select 1 from calibrations)

),

ranked as (

    select
        active_accounts.*,
        ranks.frequency_rank * weights.weight_frequency + ranks.monetary_rank * weights.weight_monetary as rank_points
    from active_accounts
    inner join ranks
        on
            active_accounts.account_id = ranks.account_id
            and ranks.on_yardstick = 0
    cross join weights

),

cuts as (

    select
        quarter_start as calibrated_for,
        scope,
        accounts,
        last_s_rank_points,
        last_s_yearly_net_spend,
        last_s_days_since_last_order,
        last_s_account_id,
        last_a_rank_points,
        last_a_yearly_net_spend,
        last_a_days_since_last_order,
        last_a_account_id
    from calibrations
    union all
    select
        cast(null as date) as calibrated_for,
        todays_cuts.*
    from ({{ tier_cuts('ranked', 'todays_policy') }}) as todays_cuts
    where not exists (select 1 from calibrations)

),

cut as (

    select
        ranked.*,
        cuts.calibrated_for,
        cast(
            least(ranked.rank_points / greatest(cuts.accounts - 1, 1), 1) as numeric(12, 6)
        ) as ranking_score,
        case
            when {{ reaches('s', 'ranked', 'cuts') }} then 'S'
            when {{ reaches('a', 'ranked', 'cuts') }} then 'A'
            else 'B'
        end as tier
    from ranked
    inner join cuts on ranked.scope = cuts.scope

),

tiered as (

    select
        accounts.account_id,
        accounts.is_dormant,
        accounts.scope,
        accounts.yearly_net_spend,
        accounts.days_since_last_order,
        coalesce(cut.tier, 'C') as tier,
        cut.rank_points,
        cut.ranking_score,
        cut.calibrated_for
    from accounts
    left join cut on accounts.account_id = cut.account_id

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        account_id,
        is_dormant,
        tier,
        row_number() over (
            order by
                case tier when 'S' then 1 when 'A' then 2 when 'B' then 3 else 4 end asc,
                ranking_score desc nulls last,
                rank_points desc nulls last,
                yearly_net_spend desc,
                days_since_last_order asc,
                account_id asc
        ) as tier_rank,
        ranking_score,
        scope as tier_scope,
        calibrated_for
    from tiered

)

select * from final
