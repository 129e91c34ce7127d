with

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

membership_levels as (

    {{ policy_rows('membership_levels') }}

),

levels as (

    select
        *,
        lead(from_points) over (order by from_points) as below_points
    from membership_levels

),

points as (

    select
        account_id,
        cast(floor(greatest(net_revenue_365d, 0) / {{ threshold('spend_per_point') }}) as bigint) as points_earned_365d
    from account_features

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
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
            points.points_earned_365d >= levels.from_points
            and (points.points_earned_365d < levels.below_points or levels.below_points is null)

)

select * from final
