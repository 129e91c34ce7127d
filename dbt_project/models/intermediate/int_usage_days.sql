{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[
            {'columns': ['account_id', 'usage_date'], 'unique': true},
            {'columns': ['usage_date']},
        ],
        pre_hook=[
            "{{ claim_all_queued_days(source('intermediate', 'usage_day_queue')) }}",
            "{{ remove_claimed_days(source('intermediate', 'usage_day_queue'), 'usage_date') }}",
            "{{ remove_claimed_whole_days(source('intermediate', 'usage_day_queue'), 'usage_date') }}",
        ],
        post_hook=[
            "{{ restate_from_claimed_days(source('intermediate', 'usage_day_queue'), 'usage_date') }}",
            "{{ restate_from_claimed_whole_days(source('intermediate', 'usage_day_queue'), 'usage_date') }}",
            "{{ settle_claim(source('intermediate', 'usage_day_queue')) }}",
            "{{ remember_definition(var('definition')) }}",
            "analyze {{ this }}",
        ],
    )
}}

with

{% if is_incremental() %}
claimed_days as (

    select distinct
        customer_id,
        usage_date
    from {{ source('intermediate', 'usage_day_queue') }}
    where claimed_by = '{{ var("run_id") }}'

),

-- The events of a day are found by time: each stretch of days is read once, whatever number of accounts it is for.
dates as (

    select
        usage_date,
        lag(usage_date) over (order by usage_date) as date_before
    from (select distinct usage_date from claimed_days) as distinct_dates

),

numbered_dates as (

    select
        usage_date,
        sum(case when {{ days_between('date_before', 'usage_date') }} <= 31 then 0 else 1 end)
            over (order by usage_date rows between unbounded preceding and current row) as stretch
    from dates

),

stretches as (

    select
        min(usage_date) as first_date,
        max(usage_date) as last_date
    from numbered_dates
    group by stretch

),

whole_days as (

    select usage_date
    from claimed_days
    where customer_id = ''

),
{% endif %}

core_features as (

    select
        feature,
        is_core,
        effective_from,
        lead(effective_from) over (partition by feature order by effective_from) as effective_until
    from {{ ref('core_features') }}

),

events as (

    select events_of_days.*
    from {{ ref('stg_events') }} as events_of_days
    {% if is_incremental() %}
    inner join stretches
        on
            events_of_days.event_at >= {{ day_start('stretches.first_date') }}
            and events_of_days.event_at < {{ day_start(days_before('stretches.last_date', -1)) }}
    left join whole_days
        on events_of_days.usage_date = whole_days.usage_date
    left join claimed_days
        on
            events_of_days.customer_id = claimed_days.customer_id
            and events_of_days.usage_date = claimed_days.usage_date
    {% endif %}
    where
        events_of_days.customer_id is not null
        {% if is_incremental() %}
        and (whole_days.usage_date is not null or claimed_days.usage_date is not null)
        {% endif %}

),

-- Sessions are counted by grouping twice: count(distinct) would sort every event.
sessions as (

    select
        events.customer_id as account_id,
        events.usage_date,
        events.session_id,
        count(*) as events,
        count(case when events.event_name = 'login' then 1 end) as logins,
        count(case when events.event_name = 'feature_use' then 1 end) as feature_uses,
        count(case when events.event_name = 'feature_use' and core_features.is_core then 1 end) as core_feature_uses,
        coalesce(sum(events.duration_s), 0) as duration_s
    from events
    left join core_features
        on
            events.feature = core_features.feature
            and events.usage_date >= core_features.effective_from
            and (events.usage_date < core_features.effective_until or core_features.effective_until is null)
    group by events.customer_id, events.usage_date, events.session_id

),

final as (

    select
        account_id,
        usage_date,
        cast(sum(events) as bigint) as events,
        cast(sum(logins) as bigint) as logins,
        count(session_id) as sessions,
        cast(sum(feature_uses) as bigint) as feature_uses,
        cast(sum(core_feature_uses) as bigint) as core_feature_uses,
        cast(sum(duration_s) / 60 as numeric(12, 2)) as active_minutes
    from sessions
    group by account_id, usage_date

)

select * from final
{{ closed_days(
    ['account_id', 'usage_date', 'events', 'logins', 'sessions', 'feature_uses', 'core_feature_uses', 'active_minutes'],
    'usage_date'
) }}
-- By account, as its readers look the days up.
order by account_id, usage_date
