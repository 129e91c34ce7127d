with

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

lifecycle_stages as (

    {{ policy_rows('lifecycle_stages', key='stage') }}

),

-- An activity keeps up when it is there and is not a stated part below that of the 90 days before.
activity as (

    select
        account_id,
        first_order_date,
        orders_90d > 0 and orders_90d >= orders_prior_90d * {{ threshold('declining_ratio') }} as keeps_ordering,
        logins_90d > 0 and logins_90d >= logins_prior_90d * {{ threshold('declining_ratio') }} as keeps_logging_in
    from account_features

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        activity.account_id,
        case
            when activity.keeps_ordering or activity.keeps_logging_in then lifecycle_stages.stage
            else 'declining'
        end as age_stage
    from activity
    left join lifecycle_stages
        on
            {{ months_after('activity.first_order_date', 'lifecycle_stages.from_months') }} <= {{ as_of_date() }}
            and (
                {{ months_after('activity.first_order_date', 'lifecycle_stages.below_months') }} > {{ as_of_date() }}
                or lifecycle_stages.below_months is null
            )

)

select * from final
