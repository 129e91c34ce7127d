{{ config(materialized='table', indexes=[{'columns': ['as_of_date', 'account_id']}]) }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

-- Parts of the month and of the day before it, on which a session of the month may have begun.
parts as (

    select
        growth_dates.as_of_date,
        growth_dates.month,
        flow_sessions.*,
        lag(flow_sessions.last_step_at) over (
            partition by
                growth_dates.as_of_date, flow_sessions.account_id, flow_sessions.flow, flow_sessions.session_key
            order by flow_sessions.usage_date
        ) as last_step_before,
        growth_dates.session_gap_minutes
    from growth_dates
    inner join {{ ref('int_flow_sessions') }} as flow_sessions
        on
            {{ days_before('growth_dates.month', 1) }} <= flow_sessions.usage_date
            and growth_dates.as_of_date >= flow_sessions.usage_date

),

-- A part of the next day belongs to the session where no longer gap lies between them.
numbered as (

    select
        *,
        sum(
            case
                when
                    60 * {{ hours_between('last_step_before', 'first_step_at') }} <= session_gap_minutes
                    then 0
                else 1
            end
        ) over (
            partition by as_of_date, account_id, flow, session_key
            order by usage_date rows between unbounded preceding and current row
        ) as session_number
    from parts

),

sessions as (

    select
        as_of_date,
        month,
        account_id as tenant_id,
        flow,
        session_key,
        session_number,
        min(usage_date) as session_date,
        max(furthest_position) as furthest_position,
        max(case when is_completed then 1 else 0 end) as is_completed,
        {{ joined_in_order('path', ' > ', 'usage_date') }} as path
    from numbered
    group by as_of_date, month, account_id, flow, session_key, session_number

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

final as (

    select
        sessions.as_of_date,
        sessions.month,
        tenants.account_id,
        coalesce(account_tiers.tier, 'none') as tier,
        sessions.flow,
        sessions.session_key,
        sessions.session_date,
        sessions.furthest_position,
        steps.step as furthest_step,
        sessions.is_completed,
        sessions.path
    from sessions
    inner join {{ ref('growth_account_keys') }} as tenants
        on
            'behavior:' || sessions.tenant_id = tenants.account_key
            and sessions.as_of_date = tenants.as_of_date
    left join steps
        on
            sessions.as_of_date = steps.as_of_date
            and sessions.flow = steps.flow
            and sessions.furthest_position = steps.position
    left join {{ ref('account_tiers') }} as account_tiers
        on
            {{ days_before('sessions.month', 1) }} = account_tiers.as_of_date
            and tenants.account_id = account_tiers.account_id
    where sessions.session_date >= sessions.month

)

select * from final
