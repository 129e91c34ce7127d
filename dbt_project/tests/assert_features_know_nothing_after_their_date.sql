-- A failure means that a row of account_features that this build made, of whatever date, tells of something dated after
-- its as-of date, or that its parts contradict each other (a window larger than the one around it, an order before the
-- first).
with

account_features as (

    select features.*
    from {{ ref('account_features') }} as features
    inner join {{ ref('account_features_due') }} as due
        on
            features.as_of_date = due.as_of_date
            and features.account_id = due.account_id

),

final as (

    select
        as_of_date,
        account_id,
        first_order_date,
        last_order_date,
        orders_30d,
        orders_90d,
        orders_180d,
        orders_365d,
        orders_total,
        days_since_last_login
    from account_features
    where
        last_order_date > as_of_date
        or first_order_date > last_order_date
        or days_since_last_order < 0
        or days_since_last_login < 0
        or orders_total < 1
        or orders_30d > orders_90d
        or orders_90d > orders_180d
        or orders_180d > orders_365d
        or orders_365d > orders_total
        or orders_prior_90d <> orders_180d - orders_90d
        or order_days_365d > orders_365d
        or (mean_order_gap_days is null) <> (last_gap_days is null)
        or logins_30d + logins_prior_30d > logins_90d
        or core_feature_uses_30d > core_feature_uses_90d
        or (logins_90d > 0 and (days_since_last_login >= 90 or days_since_last_login is null))
        or urgent_tickets_90d > tickets_90d
        or (nps_latest is null and nps_previous is not null)
        or (has_decision_maker and contacts = 0)

)

select * from final
