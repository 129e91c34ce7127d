{{ config(indexes=[{'columns': ['as_of_date', 'ticket_id'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

tickets as (

    select
        growth_dates.as_of_date,
        growth_dates.month as month_of_date,
        growth_dates.resolution_month,
        growth_dates.resolution_window_days,
        tickets.record_id as ticket_id,
        account_keys.account_id,
        tickets.priority,
        tickets.created_date,
        -- What is dated after the date is not known on it, whatever the version says.
        case when tickets.closed_date <= growth_dates.as_of_date then tickets.closed_date end as closed_date,
        tickets.opened_at,
        case when tickets.closed_date <= growth_dates.as_of_date then tickets.resolved_at end as resolved_at
    from growth_dates
    inner join {{ ref('int_crm_tickets') }} as tickets
        on
            {{ stands_on('tickets', 'growth_dates.as_of_date') }}
            and growth_dates.as_of_date >= tickets.created_date
            and (
                tickets.created_date >= growth_dates.resolution_month
                or tickets.closed_date >= growth_dates.month
            )
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            tickets.company_record_id = account_keys.account_key
            and growth_dates.as_of_date = account_keys.as_of_date

),

final as (

    select
        tickets.as_of_date,
        tickets.ticket_id,
        tickets.account_id,
        account_tiers.tier as tier_before,
        tickets.priority,
        {{ month_start('tickets.created_date') }} as month,
        tickets.created_date,
        tickets.closed_date,
        {{ hours_between('tickets.opened_at', 'tickets.resolved_at') }} as hours_to_resolve,
        case when {{ month_start('tickets.created_date') }} = tickets.resolution_month then 1 else 0 end
            as is_of_resolution_month,
        case
            when
                tickets.closed_date <= {{ days_before('tickets.created_date', '-tickets.resolution_window_days') }}
                then 1
            else 0
        end as is_resolved_in_window,
        case when tickets.closed_date >= tickets.month_of_date then 1 else 0 end as is_closed_in_month
    from tickets
    left join {{ ref('account_tiers') }} as account_tiers
        on
            {{ days_before(month_start('tickets.created_date'), 1) }} = account_tiers.as_of_date
            and tickets.account_id = account_tiers.account_id

)

select * from final
