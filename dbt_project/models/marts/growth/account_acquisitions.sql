-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

new_accounts as (

    select
        growth_dates.as_of_date,
        growth_dates.roi_window_days,
        account_features.account_id,
        account_features.first_order_date,
        {{ month_start('account_features.first_order_date') }} as month
    from growth_dates
    inner join {{ ref('account_features') }} as account_features
        on growth_dates.as_of_date = account_features.as_of_date
    where account_features.first_order_date >= growth_dates.first_cohort_month

),

deal_stages as (

    {{ policy_rows_on_dates('deal_stages', key='deal_stage', dates='growth_dates') }}

),

channel_names as (

    {{ policy_rows_on_dates('channels', key='told_as', dates='growth_dates') }}

),

won_deals as (

    select
        new_accounts.as_of_date,
        new_accounts.account_id,
        deals.channel,
        row_number() over (
            partition by new_accounts.as_of_date, new_accounts.account_id
            order by deals.close_date asc, deals.record_id asc
        ) as place
    from new_accounts
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            new_accounts.account_id = account_keys.account_id
            and new_accounts.as_of_date = account_keys.as_of_date
    inner join {{ ref('int_opportunities') }} as deals
        on
            account_keys.account_key = deals.company_record_id
            and {{ holds_on('deals', 'new_accounts.as_of_date') }}
    left join deal_stages
        on
            new_accounts.as_of_date = deal_stages.as_of_date
            and deals.deal_stage = deal_stages.deal_stage
    where
        deals.close_date <= new_accounts.as_of_date
        and {{ is_won('deals', 'deal_stages') }}

),

company_versions as (

    select
        new_accounts.as_of_date,
        new_accounts.account_id,
        companies.record_id,
        companies.channel,
        companies.is_archived,
        row_number() over (
            partition by new_accounts.as_of_date, new_accounts.account_id, companies.record_id
            order by companies.valid_from desc, companies.load_seq desc
        ) as newness
    from new_accounts
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            new_accounts.account_id = account_keys.account_id
            and new_accounts.as_of_date = account_keys.as_of_date
    inner join {{ ref('int_crm_companies') }} as companies
        on
            account_keys.account_key = companies.record_id
            and companies.valid_from < {{ day_start(days_before('new_accounts.as_of_date', -1)) }}

),

account_channels as (

    select
        as_of_date,
        account_id,
        channel,
        row_number() over (
            partition by as_of_date, account_id
            order by case when is_archived then 1 else 0 end asc, record_id asc
        ) as place
    from company_versions
    where newness = 1 and channel is not null

),

revenues as (

    select
        new_accounts.as_of_date,
        new_accounts.account_id,
        sum(account_days.net_revenue) as revenue_in_window
    from new_accounts
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            new_accounts.account_id = account_keys.account_id
            and account_keys.source_system = 'orders'
            and new_accounts.as_of_date = account_keys.as_of_date
    inner join {{ ref('int_account_days') }} as account_days
        on
            account_keys.account_key = account_days.account_id
            and new_accounts.first_order_date <= account_days.order_date
            and {{ days_before('new_accounts.first_order_date', '1 - new_accounts.roi_window_days') }}
            >= account_days.order_date
            and new_accounts.as_of_date >= account_days.order_date
    group by new_accounts.as_of_date, new_accounts.account_id

),

referrals as (

    select
        new_accounts.as_of_date,
        new_accounts.account_id,
        referrers.account_id as referrer_account_id,
        referrals.referred_date,
        row_number() over (
            partition by new_accounts.as_of_date, new_accounts.account_id
            order by referrals.referred_date asc, referrals.referral_id asc
        ) as place
    from new_accounts
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            new_accounts.account_id = account_keys.account_id
            and new_accounts.as_of_date = account_keys.as_of_date
    inner join {{ ref('stg_referrals') }} as referrals
        on
            account_keys.account_key = referrals.referred_account_key
            and {{ stands_on('referrals', 'new_accounts.as_of_date') }}
            and new_accounts.first_order_date >= referrals.referred_date
    left join {{ ref('growth_account_keys') }} as referrers
        on
            referrals.account_key = referrers.account_key
            and new_accounts.as_of_date = referrers.as_of_date

),

-- A referrer is loyal by what stood at the end of the month before it referred.
loyal_referrers as (

    select
        referrals.as_of_date,
        referrals.account_id,
        case when account_relationships.relationship_stage = 'loyal' then 1 else 0 end as is_loyal
    from referrals
    left join {{ ref('account_relationships') }} as account_relationships
        on
            referrals.referrer_account_id = account_relationships.account_id
            and {{ days_before(month_start('referrals.referred_date'), 1) }} = account_relationships.as_of_date
    where referrals.place = 1

),

final as (

    select
        new_accounts.as_of_date,
        new_accounts.account_id,
        new_accounts.month,
        new_accounts.first_order_date,
        coalesce({{ channel_of('coalesce(won_deals.channel, account_channels.channel)') }}, 'not told') as channel,
        case
            when won_deals.channel is not null then 'first won opportunity'
            when account_channels.channel is not null then 'account'
        end as channel_of,
        cast(coalesce(revenues.revenue_in_window, 0) as numeric(18, 2)) as revenue_in_window,
        case
            when
                {{ days_before('new_accounts.first_order_date', '1 - new_accounts.roi_window_days') }}
                <= new_accounts.as_of_date
                then 1
            else 0
        end as is_window_over,
        case when referrals.account_id is not null then 1 else 0 end as is_referred,
        referrals.referrer_account_id,
        coalesce(loyal_referrers.is_loyal, 0) as is_referred_by_loyal
    from new_accounts
    left join won_deals
        on
            new_accounts.as_of_date = won_deals.as_of_date
            and new_accounts.account_id = won_deals.account_id
            and won_deals.place = 1
    left join account_channels
        on
            new_accounts.as_of_date = account_channels.as_of_date
            and new_accounts.account_id = account_channels.account_id
            and account_channels.place = 1
    {{ join_channel_names('new_accounts', 'coalesce(won_deals.channel, account_channels.channel)') }}
    left join revenues
        on
            new_accounts.as_of_date = revenues.as_of_date
            and new_accounts.account_id = revenues.account_id
    left join referrals
        on
            new_accounts.as_of_date = referrals.as_of_date
            and new_accounts.account_id = referrals.account_id
            and referrals.place = 1
    left join loyal_referrers
        on
            new_accounts.as_of_date = loyal_referrers.as_of_date
            and new_accounts.account_id = loyal_referrers.account_id

)

select * from final
