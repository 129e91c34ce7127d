with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

thresholds as (

    {{ thresholds_on_dates(['declining_ratio'], 'dates_due') }}

),

lifecycle_stages as (

    {{ policy_rows_on_dates('lifecycle_stages', key='stage', dates='dates_due') }}

),

age_actions as (

    {{ policy_rows_on_dates('age_actions', key='stage', dates='dates_due') }}

),

-- An activity keeps up when it is there and is not a stated part below that of the 90 days before.
activity as (

    select
        account_features.as_of_date,
        account_features.account_id,
        account_features.first_order_date,
        account_features.orders_90d,
        account_features.orders_prior_90d,
        account_features.logins_90d,
        account_features.logins_prior_90d,
        thresholds.declining_ratio,
        account_features.orders_90d > 0
        and account_features.orders_90d >= account_features.orders_prior_90d * thresholds.declining_ratio
            as keeps_ordering,
        account_features.logins_90d > 0
        and account_features.logins_90d >= account_features.logins_prior_90d * thresholds.declining_ratio
            as keeps_logging_in
    from account_features
    left join thresholds on account_features.as_of_date = thresholds.as_of_date

),

staged as (

    select
        activity.*,
        case
            when activity.keeps_ordering or activity.keeps_logging_in then lifecycle_stages.stage
            else 'declining'
        end as age_stage
    from activity
    left join lifecycle_stages
        on
            activity.as_of_date = lifecycle_stages.as_of_date
            and {{ months_after('activity.first_order_date', 'lifecycle_stages.from_months') }} <= activity.as_of_date
            and (
                {{ months_after('activity.first_order_date', 'lifecycle_stages.below_months') }} > activity.as_of_date
                or lifecycle_stages.below_months is null
            )

),

final as (

    select
        staged.as_of_date,
        staged.account_id,
        staged.age_stage,
        age_actions.action as age_action,
        case
            when staged.age_stage = 'declining' then
                'fewer than ' || round(100 * staged.declining_ratio)
                || ' % of the 90 days before, or none: orders '
                || staged.orders_90d
                || ' after '
                || staged.orders_prior_90d
                || case
                    when staged.logins_90d is null then '; no login is known'
                    else '; logins ' || staged.logins_90d || ' after ' || coalesce(staged.logins_prior_90d, 0)
                end
        end as age_reason
    from staged
    left join age_actions
        on
            staged.as_of_date = age_actions.as_of_date
            and staged.age_stage = age_actions.stage

)

select * from final
