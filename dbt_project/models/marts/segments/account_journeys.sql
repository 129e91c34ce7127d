with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_relationships as (

    select * from {{ ref('account_relationships') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

thresholds as (

    {{ thresholds_on_dates(['newcomer_orders', 'newcomer_core_uses', 'lost_days'], 'dates_due') }}

),

journey_actions as (

    {{ policy_rows_on_dates('journey_actions', key='stage', dates='dates_due') }}

),

account_keys as (

    select
        mappings.account_id,
        mappings.valid_from_date,
        mappings.valid_until_date,
        {{ account_key('mappings') }} as account_key
    from {{ ref('int_account_crosswalk') }} as mappings
    where
        mappings.source_system <> 'behavior'
        and not mappings.is_internal

),

signatures as (

    select
        dates_due.as_of_date,
        account_keys.account_id,
        min({{ local_date('contracts.signed_at') }}) as first_signed_date,
        max({{ local_date('contracts.signed_at') }}) as last_signed_date
    from {{ ref('stg_contracts') }} as contracts
    inner join account_keys on contracts.account_key = account_keys.account_key
    inner join dates_due
        on
            {{ stands_on('contracts', 'dates_due.as_of_date') }}
            and {{ holds_on('account_keys', 'dates_due.as_of_date') }}
    where {{ local_date('contracts.signed_at') }} <= dates_due.as_of_date
    group by dates_due.as_of_date, account_keys.account_id

),

tenants as (

    select
        account_id,
        source_account_id as tenant_id,
        valid_from_date,
        valid_until_date
    from {{ ref('int_account_crosswalk') }}
    where
        source_system = 'behavior'
        and not is_internal

),

-- One look into the index for each tenant, not a read of all its days.
tenant_logins as (

    select
        tenants.*,
        logins.first_login_date
    from tenants
    cross join lateral (
        select min(usage_days.usage_date) as first_login_date
        from {{ ref('int_usage_days') }} as usage_days
        where
            usage_days.account_id = tenants.tenant_id
            and usage_days.logins > 0
    ) as logins

),

first_logins as (

    select
        dates_due.as_of_date,
        tenant_logins.account_id,
        min(tenant_logins.first_login_date) as first_login_date
    from dates_due
    inner join tenant_logins
        on
            dates_due.as_of_date >= tenant_logins.first_login_date
            and {{ holds_on('tenant_logins', 'dates_due.as_of_date') }}
    group by dates_due.as_of_date, tenant_logins.account_id

),

accounts as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        signatures.first_signed_date,
        signatures.last_signed_date,
        first_logins.first_login_date,
        account_features.first_order_date,
        account_features.last_order_date,
        account_features.orders_total,
        {{ days_before('account_profiles.as_of_date', 'account_features.days_since_last_login') }} as last_login_date,
        coalesce(account_features.orders_total >= thresholds.newcomer_orders, false) as has_orders,
        thresholds.newcomer_core_uses,
        thresholds.lost_days
    from account_profiles
    left join account_features
        on
            account_profiles.as_of_date = account_features.as_of_date
            and account_profiles.account_id = account_features.account_id
    left join signatures
        on
            account_profiles.as_of_date = signatures.as_of_date
            and account_profiles.account_id = signatures.account_id
    left join first_logins
        on
            account_profiles.as_of_date = first_logins.as_of_date
            and account_profiles.account_id = first_logins.account_id
    left join thresholds on account_profiles.as_of_date = thresholds.as_of_date

),

newcomer_tenants as (

    select
        accounts.as_of_date,
        accounts.account_id,
        tenants.tenant_id
    from accounts
    inner join tenants
        on
            accounts.account_id = tenants.account_id
            and {{ holds_on('tenants', 'accounts.as_of_date') }}
    where not accounts.has_orders

),

-- What accounts without the orders have used, all their days: they are few.
tenant_uses as (

    select
        newcomer_tenants.as_of_date,
        newcomer_tenants.account_id,
        sums.*
    from newcomer_tenants
    cross join lateral (
        select
            max(case when usage_days.logins > 0 then usage_days.usage_date end) as last_login_date,
            sum(usage_days.core_feature_uses) as core_feature_uses
        from {{ ref('int_usage_days') }} as usage_days
        where
            usage_days.account_id = newcomer_tenants.tenant_id
            and usage_days.usage_date <= newcomer_tenants.as_of_date
    ) as sums

),

uses as (

    select
        as_of_date,
        account_id,
        max(last_login_date) as last_login_date,
        sum(core_feature_uses) as core_feature_uses
    from tenant_uses
    group by as_of_date, account_id

),

dated as (

    select
        accounts.as_of_date,
        accounts.account_id,
        accounts.first_signed_date,
        least(accounts.first_login_date, accounts.first_order_date) as live_date,
        accounts.first_order_date,
        least(accounts.first_signed_date, accounts.first_login_date) as joined_date,
        accounts.has_orders,
        coalesce(uses.core_feature_uses >= accounts.newcomer_core_uses, false) as has_core_uses,
        accounts.lost_days,
        greatest(
            accounts.last_signed_date, accounts.last_login_date, uses.last_login_date, accounts.last_order_date
        ) as last_sign_date,
        coalesce(account_relationships.relationship_stage = 'lapsed', false) as is_lapsed
    from accounts
    left join uses
        on
            accounts.as_of_date = uses.as_of_date
            and accounts.account_id = uses.account_id
    left join account_relationships
        on
            accounts.as_of_date = account_relationships.as_of_date
            and accounts.account_id = account_relationships.account_id

),

staged as (

    select
        *,
        -- Who never became active and whose contract has run out is not on the way in any more.
        case
            when last_sign_date is null then null
            when {{ days_between('last_sign_date', 'as_of_date') }} >= lost_days then 'lost'
            when live_date is not null and (has_orders or has_core_uses) then 'active'
            when is_lapsed then 'lost'
            when live_date is null then 'onboarding'
            else 'newcomer'
        end as journey_stage
    from dated

),

final as (

    select
        staged.as_of_date,
        staged.account_id,
        staged.journey_stage,
        journey_actions.action as journey_action,
        case
            when staged.journey_stage is null then 'no customer yet: nothing signed, no login, no order known'
            when
                staged.journey_stage = 'lost'
                and {{ days_between('staged.last_sign_date', 'staged.as_of_date') }} < staged.lost_days
                then 'no longer paying, and the orders that would have made it active never came'
            when staged.journey_stage = 'lost'
                then
                    'no order, login or signature for '
                    || {{ as_text(days_between('staged.last_sign_date', 'staged.as_of_date')) }} || ' days'
            when staged.journey_stage = 'onboarding' then 'signed; neither logged in nor ordered yet'
            when staged.journey_stage = 'newcomer' then 'live; the orders that make it active are still to come'
            else
                case when staged.has_orders then 'has ordered' else 'uses core features; has not ordered' end
                || case
                    when staged.is_lapsed
                        then
                            '; no longer paying, but its last order, login or signature is '
                            || {{ as_text(days_between('staged.last_sign_date', 'staged.as_of_date')) }} || ' days ago'
                    else ''
                end
        end as journey_reason,
        staged.first_signed_date,
        staged.live_date,
        case
            when staged.live_date < staged.first_signed_date then 0
            else {{ days_between('staged.first_signed_date', 'staged.live_date') }}
        end as days_to_go_live,
        case
            when staged.first_order_date >= staged.joined_date
                then {{ days_between('staged.joined_date', 'staged.first_order_date') }}
        end as days_to_first_order
    from staged
    left join journey_actions
        on
            staged.as_of_date = journey_actions.as_of_date
            and staged.journey_stage = journey_actions.stage

)

select * from final
