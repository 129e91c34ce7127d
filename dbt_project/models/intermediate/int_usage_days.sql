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
            "{{ remember_definition(var('definition')) }}",
            "analyze {{ this }}",
        ],
    )
}}

with

{{ events_to_roll_up() }},

core_features as (

    select
        feature,
        is_core,
        case when is_core then {{ bit_mask('feature_bit') }} end as core_mask,
        effective_from,
        lead(effective_from) over (partition by feature order by effective_from) as effective_until
    from {{ ref('core_features') }}

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
        {{ bit_union("case when events.event_name = 'feature_use' then core_features.core_mask end") }}
            as core_feature_mask,
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
        coalesce({{ bit_union('core_feature_mask') }}, 0) as core_feature_mask,
        cast(sum(duration_s) / 60 as numeric(12, 2)) as active_minutes
    from sessions
    group by account_id, usage_date

)

select * from final
{{ closed_days(
    [
        'account_id', 'usage_date', 'events', 'logins', 'sessions', 'feature_uses', 'core_feature_uses',
        'core_feature_mask', 'active_minutes',
    ],
    'usage_date'
) }}
-- By account, as its readers look the days up.
order by account_id, usage_date
