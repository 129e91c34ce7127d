{{ config(indexes=[{'columns': ['as_of_date', 'month', 'channel'], 'unique': true}]) }}

{%- set conversions = {
    'lead_to_trial': ('leads', 'leads_converted', 'lead_to_trial_rate', 'a lead'),
    'trial_to_paying': ('trials', 'trials_converted', 'trial_to_paying_rate', 'a trial'),
} %}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

months as (

    select
        growth_dates.as_of_date,
        growth_dates.conversion_window_days,
        growth_dates.roi_window_days,
        {{ month_start('months.month_end') }} as month,
        months.month_end
    from growth_dates
    cross join lateral {{ month_ends('growth_dates.first_cohort_month', 'growth_dates.as_of_date') }} as months

),

channel_names as (

    {{ policy_rows_on_dates('channels', key='told_as', dates='growth_dates') }}

),

spend_rows as (

    select
        growth_dates.as_of_date,
        {{ month_start('spend.spent_on') }} as month,
        {{ channel_of('spend.channel') }} as channel,
        spend.is_online,
        spend.amount * case
            when spend.currency = '{{ var("reporting_currency") }}' then 1
            else exchange_rates.rate
        end as amount
    from growth_dates
    inner join {{ ref('stg_campaign_spend') }} as spend
        on
            growth_dates.as_of_date >= spend.valid_from_date
            and (growth_dates.as_of_date < spend.valid_until_date or spend.valid_until_date is null)
            and growth_dates.as_of_date >= spend.spent_on
            and growth_dates.first_cohort_month <= spend.spent_on
    left join {{ ref('stg_exchange_rates') }} as exchange_rates
        on
            spend.currency = exchange_rates.currency
            and spend.spent_on >= exchange_rates.effective_from
            and (spend.spent_on < exchange_rates.effective_until or exchange_rates.effective_until is null)
    {{ join_channel_names('growth_dates', 'spend.channel') }}

),

acquisitions as (

    select * from {{ ref('account_acquisitions') }}
    where as_of_date in (select growth_dates.as_of_date from growth_dates)

),

conversions as (

    select * from {{ ref('account_conversions') }}
    where as_of_date in (select growth_dates.as_of_date from growth_dates)

),

channels as (

    select
        as_of_date,
        channel
    from spend_rows
    union
    select
        as_of_date,
        channel
    from acquisitions
    union
    select
        as_of_date,
        channel
    from conversions
    where conversion <> 'referral_to_paying'
    union
    select
        as_of_date,
        'all' as channel
    from growth_dates

),

-- Each sum is made by channel and, under the name all, of every channel.
spend as (

    {%- for channel in ['channel', "'all'"] %}
    {% if not loop.first %}union all{% endif %}
    select
        as_of_date,
        month,
        {{ channel }} as channel,
        case when count(amount) = count(*) then sum(amount) end as spend,
        min(case when is_online then 1 else 0 end) = 1 as is_online,
        count(is_online) as told_online
    from spend_rows
    group by as_of_date, month{% if loop.first %}, channel{% endif %}
    {%- endfor %}

),

won as (

    {%- for channel in ['channel', "'all'"] %}
    {% if not loop.first %}union all{% endif %}
    select
        as_of_date,
        month,
        {{ channel }} as channel,
        count(*) as new_accounts,
        sum(revenue_in_window) as revenue_in_window
    from acquisitions
    group by as_of_date, month{% if loop.first %}, channel{% endif %}
    {%- endfor %}

),

-- A channel that no account is told to have come by says nothing of its spend: who came by it goes by another name.
told_channels as (

    select distinct
        as_of_date,
        channel
    from won

),

converted as (

    {%- for channel in ['channel', "'all'"] %}
    {% if not loop.first %}union all{% endif %}
    select
        as_of_date,
        month,
        {{ channel }} as channel,
        count(case when conversion = 'lead_to_trial' then 1 end) as leads,
        count(case when conversion = 'lead_to_trial' and is_converted = 1 then 1 end) as leads_converted,
        count(case when conversion = 'trial_to_paying' then 1 end) as trials,
        count(case when conversion = 'trial_to_paying' and is_converted = 1 then 1 end) as trials_converted
    from conversions
    where conversion <> 'referral_to_paying'
    group by as_of_date, month{% if loop.first %}, channel{% endif %}
    {%- endfor %}

),

counted as (

    select
        months.as_of_date,
        months.month,
        channels.channel,
        case when spend.told_online > 0 and channels.channel <> 'all' then spend.is_online end as is_online,
        cast(spend.spend as numeric(18, 2)) as spend,
        spend.as_of_date is not null as has_spend,
        coalesce(won.new_accounts, 0) as new_accounts,
        cast(coalesce(won.revenue_in_window, 0) as numeric(18, 2)) as revenue_in_window,
        told_channels.channel is not null as is_channel_told,
        coalesce(converted.leads, 0) as leads,
        coalesce(converted.leads_converted, 0) as leads_converted,
        coalesce(converted.trials, 0) as trials,
        coalesce(converted.trials_converted, 0) as trials_converted,
        months.month_end <= months.as_of_date as is_month_over,
        {{ days_before('months.month_end', '1 - months.roi_window_days') }} <= months.as_of_date as is_roi_window_over,
        {{ days_before('months.month_end', '-months.conversion_window_days') }} <= months.as_of_date
            as is_conversion_window_over
    from months
    inner join channels on months.as_of_date = channels.as_of_date
    left join spend
        on
            months.as_of_date = spend.as_of_date
            and months.month = spend.month
            and channels.channel = spend.channel
    left join won
        on
            months.as_of_date = won.as_of_date
            and months.month = won.month
            and channels.channel = won.channel
    left join told_channels
        on
            months.as_of_date = told_channels.as_of_date
            and channels.channel = told_channels.channel
    left join converted
        on
            months.as_of_date = converted.as_of_date
            and months.month = converted.month
            and channels.channel = converted.channel

),

reasoned as (

    select
        *,
        case
            when not has_spend then 'no spend is known of the month'
            when spend is null then 'a part of the spend has no exchange rate'
            when not is_channel_told then 'no account is told to have come by this channel'
            when new_accounts = 0 then 'no account paid for the first time'
        end as cac_reason,
        case
            when not is_roi_window_over then 'the window of the last new accounts is not over'
            when not has_spend then 'no spend is known of the month'
            when spend is null then 'a part of the spend has no exchange rate'
            when spend = 0 then 'nothing was spent'
            when not is_channel_told then 'no account is told to have come by this channel'
        end as roi_reason,
        {%- for conversion, names in conversions.items() %}
        case
            when {{ names[0] }} = 0 then 'no account became {{ names[3] }} in the month'
            when not is_conversion_window_over then 'the window of the last ones is not over'
        end as {{ names[2] }}_reason{% if not loop.last %},{% endif %}
        {%- endfor %}
    from counted

),

final as (

    select
        as_of_date,
        month,
        channel,
        is_online,
        is_channel_told,
        is_month_over,
        is_roi_window_over,
        is_conversion_window_over,
        spend,
        new_accounts,
        revenue_in_window,
        case when cac_reason is null then cast(spend / new_accounts as numeric(18, 2)) end as cac,
        cac_reason,
        case when roi_reason is null then cast((revenue_in_window - spend) / spend as numeric(18, 4)) end as roi,
        roi_reason,
        {%- for conversion, names in conversions.items() %}
        {{ names[0] }},
        {{ names[1] }},
        case
            when {{ names[2] }}_reason is null
                then cast(cast({{ names[1] }} as numeric) / {{ names[0] }} as numeric(9, 4))
        end as {{ names[2] }},
        {{ names[2] }}_reason{% if not loop.last %},{% endif %}
        {%- endfor %}
    from reasoned

)

select * from final
