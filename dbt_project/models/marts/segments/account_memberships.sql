with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

thresholds as (

    {{ thresholds_on_dates(['spend_per_point'], 'dates_due') }}

),

membership_levels as (

    {{ policy_rows_on_dates('membership_levels', dates='dates_due') }}

),

levels as (

    select
        *,
        lead(from_points) over (partition by as_of_date order by from_points) as below_points
    from membership_levels

),

points as (

    select
        account_features.as_of_date,
        account_features.account_id,
        cast(floor(greatest(account_features.net_revenue_365d, 0) / thresholds.spend_per_point) as bigint)
            as points_earned_365d
    from account_features
    left join thresholds on account_features.as_of_date = thresholds.as_of_date

),

final as (

    select
        points.as_of_date,
        points.account_id,
        points.points_earned_365d,
        levels.level as membership_level,
        levels.level_rank,
        levels.payment_days,
        levels.discount,
        levels.support
    from points
    left join levels
        on
            points.as_of_date = levels.as_of_date
            and points.points_earned_365d >= levels.from_points
            and (points.points_earned_365d < levels.below_points or levels.below_points is null)

)

select * from final
