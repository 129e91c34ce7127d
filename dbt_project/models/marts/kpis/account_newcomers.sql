{{ config(indexes=[{'columns': ['as_of_date', 'account_id'], 'unique': true}]) }}

with

kpi_dates as (

    select
        as_of_date,
        {{ month_start('as_of_date') }} as month
    from {{ ref('kpi_dates') }}

),

thresholds as (

    {{ thresholds_on_dates(['newcomer_window_days', 'newcomer_selling_days'], 'kpi_dates', seed='kpi_thresholds') }}

),

usage_begin as (

    select min(usage_date) as first_usage_date from {{ ref('int_usage_days') }}

),

-- A CRM's record begins when it was created there: its first version.
companies as (

    select
        crm_system,
        source_record_id,
        {{ local_date('min(valid_from)') }} as created_date
    from {{ ref('int_crm_companies') }}
    group by crm_system, source_record_id

),

accounts_created as (

    select
        kpi_dates.as_of_date,
        account_crosswalk.account_id,
        min(companies.created_date) as created_date
    from kpi_dates
    inner join companies on kpi_dates.as_of_date >= companies.created_date
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            companies.crm_system = account_crosswalk.source_system
            and companies.source_record_id = account_crosswalk.source_account_id
            and not account_crosswalk.is_internal
            and {{ holds_on('account_crosswalk', 'kpi_dates.as_of_date') }}
    group by kpi_dates.as_of_date, account_crosswalk.account_id

),

recent_accounts as (

    select
        accounts_created.as_of_date,
        accounts_created.account_id,
        accounts_created.created_date,
        {{ month_start('accounts_created.created_date') }} as cohort_month,
        cast(thresholds.newcomer_window_days as integer) as window_days,
        {{ days_before('accounts_created.created_date', '1 - cast(thresholds.newcomer_window_days as integer)') }}
            as window_end_date,
        {{ days_before(
            'accounts_created.created_date',
            'cast(thresholds.newcomer_selling_days - thresholds.newcomer_window_days as integer) + 1',
        ) }} as selling_after_date
    from accounts_created
    inner join kpi_dates on accounts_created.as_of_date = kpi_dates.as_of_date
    inner join thresholds on accounts_created.as_of_date = thresholds.as_of_date
    where accounts_created.created_date >= {{ months_after('kpi_dates.month', -12) }}

),

-- Their customers and tenants, as of the date: few, so that their days are looked up one by one.
own_ids as (

    select
        recent_accounts.as_of_date,
        recent_accounts.account_id,
        recent_accounts.window_end_date,
        recent_accounts.selling_after_date,
        account_crosswalk.source_system,
        account_crosswalk.source_account_id
    from recent_accounts
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            recent_accounts.account_id = account_crosswalk.account_id
            and account_crosswalk.source_system in ('orders', 'behavior')
            and {{ holds_on('account_crosswalk', 'recent_accounts.as_of_date') }}

),

first_orders as (

    select
        own_ids.as_of_date,
        own_ids.account_id,
        min(order_days.first_order_date) as first_order_date,
        sum(order_days.selling_days) as selling_days
    from own_ids
    inner join lateral (
        select
            min(account_days.order_date) as first_order_date,
            count(
                case
                    when
                        account_days.order_date <= own_ids.window_end_date
                        and account_days.order_date > own_ids.selling_after_date
                        then 1
                end
            ) as selling_days
        from {{ ref('int_account_days') }} as account_days
        where
            account_days.account_id = own_ids.source_account_id
            and account_days.orders > 0
            and account_days.order_date <= own_ids.as_of_date
    ) as order_days on true
    where own_ids.source_system = 'orders'
    group by own_ids.as_of_date, own_ids.account_id

),

first_events as (

    select
        own_ids.as_of_date,
        own_ids.account_id,
        min(used_days.first_usage_date) as first_usage_date
    from own_ids
    inner join lateral (
        select min(usage_days.usage_date) as first_usage_date
        from {{ ref('int_usage_days') }} as usage_days
        where
            usage_days.account_id = own_ids.source_account_id
            and usage_days.usage_date <= own_ids.as_of_date
    ) as used_days on true
    where own_ids.source_system = 'behavior'
    group by own_ids.as_of_date, own_ids.account_id

),

final as (

    select
        recent_accounts.as_of_date,
        recent_accounts.account_id,
        recent_accounts.cohort_month,
        recent_accounts.created_date,
        recent_accounts.window_end_date,
        {{ days_before(months_after('recent_accounts.cohort_month', 1), '2 - recent_accounts.window_days') }}
            as cohort_window_end_date,
        account_profiles.industry,
        first_events.first_usage_date as go_live_date,
        first_orders.first_order_date,
        case when recent_accounts.window_end_date <= recent_accounts.as_of_date then 1 else 0 end as is_window_over,
        case
            when first_events.first_usage_date <= recent_accounts.window_end_date then 1
            when usage_begin.first_usage_date <= recent_accounts.as_of_date then 0
        end as went_live,
        case
            when first_events.first_usage_date < recent_accounts.created_date then 0
            else {{ days_between('recent_accounts.created_date', 'first_events.first_usage_date') }}
        end as days_to_go_live,
        case when first_orders.first_order_date <= recent_accounts.window_end_date then 1 else 0 end as made_first_sale,
        {{ days_between('recent_accounts.created_date', 'first_orders.first_order_date') }} as days_to_first_sale,
        case when first_orders.selling_days > 0 then 1 else 0 end as is_selling
    from recent_accounts
    cross join usage_begin
    left join first_orders
        on
            recent_accounts.as_of_date = first_orders.as_of_date
            and recent_accounts.account_id = first_orders.account_id
    left join first_events
        on
            recent_accounts.as_of_date = first_events.as_of_date
            and recent_accounts.account_id = first_events.account_id
    left join {{ ref('account_profiles') }} as account_profiles
        on
            recent_accounts.as_of_date = account_profiles.as_of_date
            and recent_accounts.account_id = account_profiles.account_id
    -- Who was a customer before it came into the CRM is no newcomer.
    where first_orders.first_order_date >= recent_accounts.created_date or first_orders.first_order_date is null

)

select * from final
