{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[
            {'columns': ['account_id', 'usage_date', 'flow', 'session_key'], 'unique': true},
            {'columns': ['usage_date']},
        ],
        pre_hook=[
            "{{ remove_claimed_days(source('intermediate', 'usage_day_queue'), 'usage_date') }}",
            "{{ remove_claimed_whole_days(source('intermediate', 'usage_day_queue'), 'usage_date') }}",
        ],
        post_hook=[
            "{{ settle_claim(source('intermediate', 'usage_day_queue')) }}",
            "{{ remember_definition(var('definition')) }}",
            "analyze {{ this }}",
        ],
    )
}}

-- The claim is that of int_usage_days, which this follows, and settles (macros/day_queue.sql).
-- depends_on: {{ ref('int_usage_days') }}
with

{{ events_to_roll_up() }},

flow_changes as (

    select
        flow,
        effective_from,
        lead(effective_from) over (partition by flow order by effective_from) as effective_until
    from (
        select distinct
            flow,
            effective_from
        from {{ ref('flow_steps') }}
    ) as changes

),

-- What an event may be called to be a step: by its own flow_step, or by its name.
step_names as (

    select
        flow_steps.flow,
        flow_steps.position,
        flow_steps.step,
        flow_steps.step as event_step,
        flow_changes.effective_from,
        flow_changes.effective_until
    from {{ ref('flow_steps') }} as flow_steps
    inner join flow_changes
        on flow_steps.flow = flow_changes.flow and flow_steps.effective_from = flow_changes.effective_from
    union
    select
        flow_steps.flow,
        flow_steps.position,
        flow_steps.step,
        'event:' || flow_steps.event_name as event_step,
        flow_changes.effective_from,
        flow_changes.effective_until
    from {{ ref('flow_steps') }} as flow_steps
    inner join flow_changes
        on flow_steps.flow = flow_changes.flow and flow_steps.effective_from = flow_changes.effective_from

),

flow_ends as (

    select
        flow,
        effective_from,
        max(position) as last_position
    from step_names
    group by flow, effective_from

),

steps as (

    select
        events.customer_id,
        events.usage_date,
        events.event_at,
        step_names.flow,
        step_names.position,
        step_names.step,
        step_names.effective_from,
        -- Where the source names no session, what a user (else the account) does on a day is taken for one.
        coalesce('session ' || events.session_id, 'user ' || events.user_id, 'account') as session_key
    from events
    inner join step_names
        on
            coalesce(events.flow_step, 'event:' || events.event_name) = step_names.event_step
            and events.usage_date >= step_names.effective_from
            and (events.usage_date < step_names.effective_until or step_names.effective_until is null)

),

followed as (

    select
        *,
        lag(step) over (
            partition by customer_id, usage_date, flow, session_key order by event_at asc, position asc
        ) as step_before
    from steps

),

parts as (

    select
        customer_id as account_id,
        usage_date,
        flow,
        session_key,
        effective_from,
        min(event_at) as first_step_at,
        max(event_at) as last_step_at,
        max(position) as furthest_position,
        -- A step that is repeated at once is told once.
        {{ joined_in_order(
            "case when step_before is null or step_before <> step then step end", ' > ', 'event_at, position'
        ) }} as path
    from followed
    group by customer_id, usage_date, flow, session_key, effective_from

),

final as (

    select
        parts.account_id,
        parts.usage_date,
        parts.flow,
        parts.session_key,
        parts.first_step_at,
        parts.last_step_at,
        parts.furthest_position,
        parts.furthest_position = flow_ends.last_position as is_completed,
        parts.path
    from parts
    inner join flow_ends
        on parts.flow = flow_ends.flow and parts.effective_from = flow_ends.effective_from

)

select * from final
{{ closed_days(
    [
        'account_id', 'usage_date', 'flow', 'session_key', 'first_step_at', 'last_step_at', 'furthest_position',
        'is_completed', 'path',
    ],
    'usage_date'
) }}
order by account_id, usage_date
