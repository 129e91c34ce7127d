{{ config(indexes=[{'columns': ['as_of_date', 'conversion', 'account_id'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

opportunity_kinds as (

    {{ policy_rows_on_dates('opportunity_kinds', key='opportunity_type', dates='growth_dates') }}

),

channel_names as (

    {{ policy_rows_on_dates('channels', key='told_as', dates='growth_dates') }}

),

first_orders as (

    select
        growth_dates.as_of_date,
        account_features.account_id,
        account_features.first_order_date
    from growth_dates
    inner join {{ ref('account_features') }} as account_features
        on growth_dates.as_of_date = account_features.as_of_date

),

opportunities as (

    select
        growth_dates.as_of_date,
        account_keys.account_id,
        opportunity_kinds.kind,
        deals.record_id,
        deals.created_date,
        deals.channel
    from growth_dates
    inner join {{ ref('int_opportunities') }} as deals
        on
            {{ holds_on('deals', 'growth_dates.as_of_date') }}
            and growth_dates.as_of_date >= deals.created_date
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            deals.company_record_id = account_keys.account_key
            and growth_dates.as_of_date = account_keys.as_of_date
    inner join opportunity_kinds
        on
            growth_dates.as_of_date = opportunity_kinds.as_of_date
            and lower(deals.opportunity_type) = opportunity_kinds.opportunity_type
    where opportunity_kinds.kind in ('lead', 'trial', 'new_business')

),

-- An account is a lead since its first opportunity that is no expansion.
placed as (

    select
        *,
        row_number() over (partition by as_of_date, account_id order by created_date asc, record_id asc) as place,
        row_number() over (partition by as_of_date, account_id, kind order by created_date asc, record_id asc)
            as place_of_kind
    from opportunities

),

leads as (

    select
        as_of_date,
        account_id,
        created_date as start_date,
        channel
    from placed
    where place = 1

),

trial_deals as (

    select
        as_of_date,
        account_id,
        created_date as start_date,
        channel
    from placed
    where place_of_kind = 1 and kind = 'trial'

),

-- Tenants of who has not ordered, or not before the months told: of each the first day is looked up, not all days.
first_uses as (

    select
        growth_dates.as_of_date,
        tenants.account_id,
        min(usage_begins.first_used_on) as start_date
    from growth_dates
    inner join {{ ref('growth_account_keys') }} as tenants
        on
            growth_dates.as_of_date = tenants.as_of_date
            and tenants.source_system = 'behavior'
    left join first_orders
        on
            tenants.as_of_date = first_orders.as_of_date
            and tenants.account_id = first_orders.account_id
    inner join lateral (
        select min(usage_days.usage_date) as first_used_on
        from {{ ref('int_usage_days') }} as usage_days
        where
            usage_days.account_id = tenants.source_account_id
            and usage_days.usage_date <= growth_dates.as_of_date
    ) as usage_begins on true
    where
        (first_orders.first_order_date >= growth_dates.first_cohort_month or first_orders.first_order_date is null)
        and (usage_begins.first_used_on < first_orders.first_order_date or first_orders.first_order_date is null)
        and usage_begins.first_used_on is not null
    group by growth_dates.as_of_date, tenants.account_id

),

trial_begins as (

    select
        as_of_date,
        account_id,
        min(start_date) as start_date
    from (
        select
            as_of_date,
            account_id,
            start_date
        from trial_deals
        union all
        select
            as_of_date,
            account_id,
            start_date
        from first_uses
    ) as begun
    group by as_of_date, account_id

),

-- A trial by use has the channel of the account's first opportunity.
trials as (

    select
        trial_begins.as_of_date,
        trial_begins.account_id,
        trial_begins.start_date,
        coalesce(trial_deals.channel, leads.channel) as channel
    from trial_begins
    left join trial_deals
        on trial_begins.as_of_date = trial_deals.as_of_date and trial_begins.account_id = trial_deals.account_id
    left join leads
        on trial_begins.as_of_date = leads.as_of_date and trial_begins.account_id = leads.account_id

),

referred as (

    select
        growth_dates.as_of_date,
        account_keys.account_id,
        min(referrals.referred_date) as start_date
    from growth_dates
    inner join {{ ref('stg_referrals') }} as referrals
        on
            {{ stands_on('referrals', 'growth_dates.as_of_date') }}
            and growth_dates.as_of_date >= referrals.referred_date
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            referrals.referred_account_key = account_keys.account_key
            and growth_dates.as_of_date = account_keys.as_of_date
    group by growth_dates.as_of_date, account_keys.account_id

),

started as (

    select
        'lead_to_trial' as conversion,
        leads.as_of_date,
        leads.account_id,
        leads.start_date,
        leads.channel,
        trials.start_date as reached_date
    from leads
    left join trials on leads.as_of_date = trials.as_of_date and leads.account_id = trials.account_id
    union all
    select
        'trial_to_paying' as conversion,
        trials.as_of_date,
        trials.account_id,
        trials.start_date,
        trials.channel,
        first_orders.first_order_date as reached_date
    from trials
    left join first_orders
        on trials.as_of_date = first_orders.as_of_date and trials.account_id = first_orders.account_id
    union all
    select
        'referral_to_paying' as conversion,
        referred.as_of_date,
        referred.account_id,
        referred.start_date,
        cast(null as text) as channel,
        first_orders.first_order_date as reached_date
    from referred
    left join first_orders
        on referred.as_of_date = first_orders.as_of_date and referred.account_id = first_orders.account_id

),

windowed as (

    select
        started.*,
        {{ days_before('started.start_date', '-growth_dates.conversion_window_days') }} as window_ends_on
    from started
    inner join growth_dates on started.as_of_date = growth_dates.as_of_date
    left join first_orders
        on started.as_of_date = first_orders.as_of_date and started.account_id = first_orders.account_id
    where
        started.start_date >= growth_dates.first_cohort_month
        -- Who buys already is no lead, no trial and not brought by a referral.
        and (first_orders.first_order_date >= started.start_date or first_orders.first_order_date is null)

),

final as (

    select
        windowed.as_of_date,
        windowed.conversion,
        windowed.account_id,
        {{ month_start('windowed.start_date') }} as month,
        coalesce({{ channel_of('windowed.channel') }}, 'not told') as channel,
        windowed.start_date,
        windowed.reached_date,
        windowed.window_ends_on,
        case when windowed.window_ends_on <= windowed.as_of_date then 1 else 0 end as is_window_over,
        case
            when windowed.reached_date <= windowed.window_ends_on then 1
            when windowed.window_ends_on <= windowed.as_of_date then 0
        end as is_converted
    from windowed
    {{ join_channel_names('windowed', 'windowed.channel') }}

)

select * from final
