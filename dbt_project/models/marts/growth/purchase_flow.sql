{{ config(indexes=[{'columns': ['as_of_date', 'flow', 'tier', 'position'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

flow_steps as (

    {{ policy_rows_on_dates('flow_steps', key='flow', dates='growth_dates') }}

),

steps as (

    select distinct
        as_of_date,
        flow,
        position,
        step
    from flow_steps

),

sessions as (

    select
        as_of_date,
        flow,
        tier,
        furthest_position,
        count(*) as sessions
    from {{ ref('purchase_sessions') }}
    group by as_of_date, flow, tier, furthest_position
    union all
    select
        as_of_date,
        flow,
        'all' as tier,
        furthest_position,
        count(*) as sessions
    from {{ ref('purchase_sessions') }}
    group by as_of_date, flow, furthest_position

),

-- A session has reached every step up to its furthest one.
counted as (

    select
        steps.as_of_date,
        steps.flow,
        sessions.tier,
        steps.position,
        steps.step,
        max(steps.position) over (partition by steps.as_of_date, steps.flow) as last_position,
        sum(sessions.sessions) as sessions_started,
        sum(case when sessions.furthest_position >= steps.position then sessions.sessions else 0 end)
            as sessions_reached,
        sum(case when sessions.furthest_position = steps.position then sessions.sessions else 0 end) as sessions_stopped
    from steps
    inner join sessions on steps.as_of_date = sessions.as_of_date and steps.flow = sessions.flow
    group by steps.as_of_date, steps.flow, sessions.tier, steps.position, steps.step

),

lost as (

    select
        *,
        case when position = last_position then 0 else sessions_stopped end as sessions_lost
    from counted

),

placed as (

    select
        *,
        row_number() over (partition by as_of_date, flow, tier order by sessions_lost desc, position asc) as place,
        sum(sessions_lost) over (partition by as_of_date, flow, tier) as all_lost
    from lost

),

final as (

    select
        as_of_date,
        {{ month_start('as_of_date') }} as month,
        flow,
        tier,
        position,
        step,
        cast(sessions_started as bigint) as sessions_started,
        cast(sessions_reached as bigint) as sessions_reached,
        cast(sessions_lost as bigint) as sessions_lost,
        cast(cast(sessions_reached as numeric) / sessions_started as numeric(9, 4)) as reached_share,
        cast(cast(sessions_lost as numeric) / nullif(sessions_reached, 0) as numeric(9, 4)) as lost_share,
        cast(cast(sessions_lost as numeric) / nullif(all_lost, 0) as numeric(9, 4)) as share_of_losses,
        place = 1 and sessions_lost > 0 as is_drop_off_stage
    from placed

)

select * from final
