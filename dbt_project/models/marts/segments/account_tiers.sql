{{
    config(
        indexes=[
            {'columns': ['as_of_date', 'account_id'], 'unique': true},
            {'columns': ['as_of_date', 'tier_rank'], 'unique': true},
        ],
    )
}}

with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

thresholds as (

    {{ thresholds_on_dates(['dormant_days'], 'dates_due') }}

),

tier_policy as (

    {{ tier_policy('dates_due') }}

),

calibration_quarters as (

    {{ calibration_quarters() }}

),

calibrations as (

    select
        calibration_quarters.as_of_date,
        made.*
    from calibration_quarters
    inner join {{ ref('int_tier_calibrations') }} as made on calibration_quarters.quarter_start = made.quarter_start

),

accounts as (

    select
        account_features.as_of_date,
        account_features.account_id,
        account_features.days_since_last_order,
        account_features.orders_per_quarter,
        account_features.yearly_net_spend,
        account_features.days_since_last_order >= thresholds.dormant_days as is_dormant,
        coalesce(calibrations.scope, 'all') as scope
    from account_features
    inner join thresholds on account_features.as_of_date = thresholds.as_of_date
    left join account_profiles
        on
            account_features.as_of_date = account_profiles.as_of_date
            and account_features.account_id = account_profiles.account_id
    left join calibrations
        on
            account_profiles.as_of_date = calibrations.as_of_date
            and account_profiles.industry = calibrations.scope

),

active_accounts as (

    select * from accounts
    where not is_dormant

),

-- Without a calibration the accounts of the day are their own yardstick.
own_yardsticks as (

    select as_of_date from dates_due
    where as_of_date not in (select calibrations.as_of_date from calibrations)

),

yardstick as (

    select
        calibrations.as_of_date,
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
        active_accounts.as_of_date,
        active_accounts.scope,
        active_accounts.account_id,
        active_accounts.orders_per_quarter,
        active_accounts.yearly_net_spend
    from active_accounts
    inner join own_yardsticks on active_accounts.as_of_date = own_yardsticks.as_of_date

),

ranks as (

    {{ ranks_on_yardstick('active_accounts', 'yardstick') }}

),

weights as (

    select
        as_of_date,
        weight_frequency,
        weight_monetary
    from calibrations
    where scope = 'all'
    union all
    select
        tier_policy.as_of_date,
        tier_policy.weight_frequency,
        tier_policy.weight_monetary
    from tier_policy
    inner join own_yardsticks on tier_policy.as_of_date = own_yardsticks.as_of_date

),

ranked as (

    select
        active_accounts.*,
        ranks.frequency_rank * weights.weight_frequency + ranks.monetary_rank * weights.weight_monetary as rank_points
    from active_accounts
    inner join ranks
        on
            active_accounts.as_of_date = ranks.as_of_date
            and active_accounts.account_id = ranks.account_id
            and ranks.on_yardstick = 0
    inner join weights on active_accounts.as_of_date = weights.as_of_date

),

ranked_alone as (

    select ranked.*
    from ranked
    inner join own_yardsticks on ranked.as_of_date = own_yardsticks.as_of_date

),

cuts as (

    select
        as_of_date,
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
        todays_cuts.as_of_date,
        cast(null as date) as calibrated_for,
        todays_cuts.scope,
        todays_cuts.accounts,
        todays_cuts.last_s_rank_points,
        todays_cuts.last_s_yearly_net_spend,
        todays_cuts.last_s_days_since_last_order,
        todays_cuts.last_s_account_id,
        todays_cuts.last_a_rank_points,
        todays_cuts.last_a_yearly_net_spend,
        todays_cuts.last_a_days_since_last_order,
        todays_cuts.last_a_account_id
    from ({{ tier_cuts('ranked_alone', 'tier_policy') }}) as todays_cuts

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
    inner join cuts
        on
            ranked.as_of_date = cuts.as_of_date
            and ranked.scope = cuts.scope

),

tiered as (

    select
        accounts.as_of_date,
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
    left join cut
        on
            accounts.as_of_date = cut.as_of_date
            and accounts.account_id = cut.account_id

),

final as (

    select
        as_of_date,
        account_id,
        is_dormant,
        tier,
        row_number() over (
            partition by as_of_date
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
