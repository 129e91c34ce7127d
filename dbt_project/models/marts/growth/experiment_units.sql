{{ config(indexes=[{'columns': ['as_of_date', 'experiment', 'metric', 'account_id'], 'unique': true}]) }}

{%- set asked_by = {
    'order': ['orders', 'has_ordered', 'is_retained'],
    'login': ['is_retained'],
    'flow': ['flow_completed', 'stopped_at'],
} %}

-- depends_on: {{ ref('kpi_dates') }}

with

assignments as (

    select * from {{ ref('experiment_assignments') }}

),

-- The outcome lies in the days after that of the assignment, and is told when the last of them is over. Logins and
-- sessions are looked up for the metrics that ask for them alone: the hold-out group is all accounts, on every date.
{%- for what, measures in asked_by.items() %}
{{ what }}_windows as (

    select distinct
        as_of_date,
        account_id,
        assigned_date,
        window_days,
        {{ days_before('assigned_date', '-window_days') }} as last_date
    from assignments
    where
        {{ days_before('assigned_date', '-window_days') }} <= as_of_date
        and measure in ('{{ measures | join("', '") }}')

),
{% endfor %}
order_sums as (

    select
        order_windows.as_of_date,
        order_windows.account_id,
        order_windows.assigned_date,
        order_windows.window_days,
        sum(account_days.orders) as orders,
        max(case when account_days.orders > 0 then account_days.order_date end) as last_order_date
    from order_windows
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            order_windows.account_id = account_keys.account_id
            and account_keys.source_system = 'orders'
            and order_windows.as_of_date = account_keys.as_of_date
    inner join {{ ref('int_account_days') }} as account_days
        on
            account_keys.account_key = account_days.account_id
            and order_windows.assigned_date < account_days.order_date
            and order_windows.last_date >= account_days.order_date
    group by order_windows.as_of_date, order_windows.account_id, order_windows.assigned_date, order_windows.window_days

),

login_sums as (

    select
        login_windows.as_of_date,
        login_windows.account_id,
        login_windows.assigned_date,
        login_windows.window_days,
        max(case when usage_days.logins > 0 then usage_days.usage_date end) as last_login_date
    from login_windows
    inner join {{ ref('growth_account_keys') }} as tenants
        on
            login_windows.account_id = tenants.account_id
            and tenants.source_system = 'behavior'
            and login_windows.as_of_date = tenants.as_of_date
    inner join {{ ref('int_usage_days') }} as usage_days
        on
            tenants.source_account_id = usage_days.account_id
            and login_windows.assigned_date < usage_days.usage_date
            and login_windows.last_date >= usage_days.usage_date
    group by login_windows.as_of_date, login_windows.account_id, login_windows.assigned_date, login_windows.window_days

),

flow_sums as (

    select
        flow_windows.as_of_date,
        flow_windows.account_id,
        flow_windows.assigned_date,
        flow_windows.window_days,
        flow_sessions.flow,
        flow_sessions.furthest_position,
        flow_sessions.is_completed,
        count(*) as sessions
    from flow_windows
    inner join {{ ref('growth_account_keys') }} as tenants
        on
            flow_windows.account_id = tenants.account_id
            and tenants.source_system = 'behavior'
            and flow_windows.as_of_date = tenants.as_of_date
    inner join {{ ref('int_flow_sessions') }} as flow_sessions
        on
            tenants.source_account_id = flow_sessions.account_id
            and flow_windows.assigned_date < flow_sessions.usage_date
            and flow_windows.last_date >= flow_sessions.usage_date
    group by
        flow_windows.as_of_date, flow_windows.account_id, flow_windows.assigned_date, flow_windows.window_days,
        flow_sessions.flow, flow_sessions.furthest_position, flow_sessions.is_completed

),

flow_units as (

    select
        assignments.as_of_date,
        assignments.experiment,
        assignments.metric,
        assignments.account_id,
        sum(flow_sums.sessions) as sessions,
        sum(case when flow_sums.is_completed then flow_sums.sessions else 0 end) as completed,
        sum(
            case
                when flow_sums.furthest_position = assignments.step_position and not flow_sums.is_completed
                    then flow_sums.sessions
                else 0
            end
        ) as stopped
    from assignments
    inner join flow_sums
        on
            assignments.as_of_date = flow_sums.as_of_date
            and assignments.account_id = flow_sums.account_id
            and assignments.assigned_date = flow_sums.assigned_date
            and assignments.window_days = flow_sums.window_days
            and assignments.flow = flow_sums.flow
    group by assignments.as_of_date, assignments.experiment, assignments.metric, assignments.account_id

),

measured as (

    select
        assignments.*,
        case
            when
                {{ days_before('assignments.assigned_date', '-assignments.window_days') }} <= assignments.as_of_date
                then 1
            else 0
        end as is_window_over,
        case assignments.measure
            when 'flow_completed' then coalesce(flow_units.completed, 0)
            when 'stopped_at' then coalesce(flow_units.stopped, 0)
            when 'orders' then coalesce(order_sums.orders, 0)
            when 'has_ordered' then case when order_sums.orders > 0 then 1 else 0 end
            when 'is_retained'
                then case
                    when
                        {{ days_before('assignments.assigned_date', '30 - assignments.window_days') }}
                        < greatest(order_sums.last_order_date, login_sums.last_login_date)
                        then 1
                    else 0
                end
        end as conversions,
        case assignments.measure
            when 'flow_completed' then coalesce(flow_units.sessions, 0)
            when 'stopped_at' then coalesce(flow_units.sessions - flow_units.completed, 0)
            else 1
        end as tries
    from assignments
    left join order_sums
        on
            assignments.as_of_date = order_sums.as_of_date
            and assignments.account_id = order_sums.account_id
            and assignments.assigned_date = order_sums.assigned_date
            and assignments.window_days = order_sums.window_days
    left join login_sums
        on
            assignments.as_of_date = login_sums.as_of_date
            and assignments.account_id = login_sums.account_id
            and assignments.assigned_date = login_sums.assigned_date
            and assignments.window_days = login_sums.window_days
    left join flow_units
        on
            assignments.as_of_date = flow_units.as_of_date
            and assignments.experiment = flow_units.experiment
            and assignments.metric = flow_units.metric
            and assignments.account_id = flow_units.account_id

),

final as (

    select
        measured.as_of_date,
        measured.experiment,
        measured.metric,
        measured.measure,
        measured.account_id,
        coalesce(account_tiers.tier, 'none') as tier,
        measured.variant,
        measured.assigned_date,
        measured.window_days,
        case when measured.is_crossed then 1 else 0 end as is_crossed,
        measured.is_window_over,
        cast(case when measured.is_window_over = 1 then measured.conversions end as bigint) as conversions,
        cast(case when measured.is_window_over = 1 then measured.tries end as bigint) as tries
    from measured
    left join {{ ref('account_tiers') }} as account_tiers
        on
            {{ days_before(month_start('measured.assigned_date'), 1) }} = account_tiers.as_of_date
            and measured.account_id = account_tiers.account_id

)

select * from final
