{{
    config(
        materialized='table',
        indexes=[{'columns': ['as_of_date', 'account_id', 'experiment', 'metric'], 'unique': true}],
    )
}}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

-- A version that another of its day replaced was a correction and assigned nobody.
assignments as (

    select
        growth_dates.as_of_date,
        growth_dates.experiment_kept_days,
        assignments.experiment,
        account_keys.account_id,
        assignments.variant,
        {{ local_date('assignments.assigned_at') }} as assigned_date
    from growth_dates
    inner join {{ ref('stg_experiment_assignments') }} as assignments
        on
            growth_dates.as_of_date >= assignments.valid_from_date
            and (assignments.valid_until_date > assignments.valid_from_date or assignments.valid_until_date is null)
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            assignments.account_key = account_keys.account_key
            and growth_dates.as_of_date = account_keys.as_of_date
    where assignments.experiment <> 'holdout'

),

-- By account: who has seen two variants tells nothing of either.
assigned as (

    select
        as_of_date,
        experiment,
        account_id,
        experiment_kept_days,
        min(assigned_date) as assigned_date,
        min(variant) as variant,
        min(variant) <> max(variant) as is_crossed,
        max(max(assigned_date)) over (partition by as_of_date, experiment) as last_assigned_date
    from assignments
    group by as_of_date, experiment, account_id, experiment_kept_days

),

experiment_metrics as (

    {{ policy_rows_on_dates('experiment_metrics', key='experiment', dates='growth_dates') }}

),

flow_steps as (

    {{ policy_rows_on_dates('flow_steps', key='flow', dates='growth_dates') }}

),

metric_rows as (

    select distinct
        experiment_metrics.as_of_date,
        experiment_metrics.experiment,
        experiment_metrics.metric,
        experiment_metrics.measure,
        experiment_metrics.flow,
        experiment_metrics.window_days,
        flow_steps.position as step_position
    from experiment_metrics
    left join flow_steps
        on
            experiment_metrics.as_of_date = flow_steps.as_of_date
            and experiment_metrics.flow = flow_steps.flow
            and experiment_metrics.step = flow_steps.step

),

final as (

    select
        assigned.as_of_date,
        assigned.experiment,
        metric_rows.metric,
        metric_rows.measure,
        metric_rows.flow,
        metric_rows.step_position,
        metric_rows.window_days,
        assigned.account_id,
        assigned.variant,
        assigned.assigned_date,
        assigned.is_crossed
    from assigned
    inner join metric_rows
        on
            assigned.as_of_date = metric_rows.as_of_date
            and (
                assigned.experiment = metric_rows.experiment
                or (
                    metric_rows.experiment = '*'
                    and not exists (
                        select 1
                        from experiment_metrics as own
                        where
                            own.as_of_date = assigned.as_of_date
                            and own.experiment = assigned.experiment
                    )
                )
            )
    where {{ days_between('assigned.last_assigned_date', 'assigned.as_of_date') }} <= assigned.experiment_kept_days
    union all
    -- The hold-out group stands: its outcome is that of the last days, of the accounts that had ordered before them.
    select
        account_holdouts.as_of_date,
        'holdout' as experiment,
        metric_rows.metric,
        metric_rows.measure,
        metric_rows.flow,
        metric_rows.step_position,
        metric_rows.window_days,
        account_holdouts.account_id,
        case when account_holdouts.is_held_out then 'held out' else 'acted on' end as variant,
        {{ days_before('account_holdouts.as_of_date', 'metric_rows.window_days') }} as assigned_date,
        false as is_crossed
    from {{ ref('account_holdouts') }} as account_holdouts
    inner join metric_rows
        on
            account_holdouts.as_of_date = metric_rows.as_of_date
            and metric_rows.experiment = 'holdout'
    inner join {{ ref('account_features') }} as account_features
        on
            account_holdouts.as_of_date = account_features.as_of_date
            and account_holdouts.account_id = account_features.account_id
            and {{ days_before('account_holdouts.as_of_date', 'metric_rows.window_days') }}
            >= account_features.first_order_date
    where
        account_holdouts.as_of_date in (select growth_dates.as_of_date from growth_dates)
        and (
            account_holdouts.since <= {{ days_before('account_holdouts.as_of_date', 'metric_rows.window_days') }}
            or account_holdouts.since is null
        )

)

select * from final
