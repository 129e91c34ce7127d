{{ config(materialized='view') }}

{%- set horizon_end = days_before('trials.as_of_date', '-horizons.horizon_days') %}

with

horizons as (

    select distinct cast(value as integer) as horizon_days
    from {{ ref('thresholds') }}
    where name = 'trial_horizon_days'

),

trials as (

    select
        as_of_date,
        account_id
    from {{ ref('trial_features') }}

),

crosswalk as (

    select * from {{ ref('int_account_crosswalk') }}

),

-- An account counts as what its tenants are today, so that one merged since does not look lost.
accounts_today as (

    select distinct
        trials.as_of_date,
        trials.account_id,
        tenants_today.account_id as account_today
    from trials
    inner join crosswalk as tenants
        on
            trials.account_id = tenants.account_id
            and tenants.source_system = 'behavior'
            and {{ holds_on('tenants', 'trials.as_of_date') }}
    inner join crosswalk as tenants_today
        on
            tenants.source_account_id = tenants_today.source_account_id
            and tenants_today.source_system = 'behavior'
            and tenants_today.valid_until_date is null

),

conversions as (

    select
        accounts_today.as_of_date,
        accounts_today.account_id,
        order_days.order_date as converted_on
    from accounts_today
    inner join crosswalk as customers
        on
            accounts_today.account_today = customers.account_id
            and customers.source_system = 'orders'
            and customers.valid_until_date is null
    inner join {{ ref('int_account_days') }} as order_days
        on
            customers.source_account_id = order_days.account_id
            and accounts_today.as_of_date < order_days.order_date
    where order_days.orders > 0
    union all
    select
        accounts_today.as_of_date,
        accounts_today.account_id,
        {{ local_date('contracts.signed_at') }} as converted_on
    from accounts_today
    inner join crosswalk as mappings
        on
            accounts_today.account_today = mappings.account_id
            and mappings.source_system <> 'behavior'
            and mappings.valid_until_date is null
    inner join {{ ref('stg_contracts') }} as contracts
        on
            {{ account_key('mappings') }} = contracts.account_key
            and accounts_today.as_of_date < {{ local_date('contracts.signed_at') }}
    where
        contracts.is_latest
        and not contracts.is_archived

),

first_conversions as (

    select
        as_of_date,
        account_id,
        min(converted_on) as converted_on
    from conversions
    group by as_of_date, account_id

),

final as (

    select
        trials.as_of_date,
        trials.account_id,
        horizons.horizon_days,
        coalesce(first_conversions.converted_on <= {{ horizon_end }}, false) as has_converted
    from trials
    cross join horizons
    left join first_conversions
        on
            trials.as_of_date = first_conversions.as_of_date
            and trials.account_id = first_conversions.account_id

)

select * from final
