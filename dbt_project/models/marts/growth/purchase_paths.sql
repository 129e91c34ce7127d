{{ config(indexes=[{'columns': ['as_of_date', 'flow', 'tier', 'outcome', 'place'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

sessions as (

    select
        as_of_date,
        flow,
        tier,
        path,
        case when is_completed = 1 then 'purchase' else 'abandonment' end as outcome
    from {{ ref('purchase_sessions') }}

),

counted as (

    select
        as_of_date,
        flow,
        tier,
        outcome,
        path,
        count(*) as sessions
    from sessions
    group by as_of_date, flow, tier, outcome, path
    union all
    select
        as_of_date,
        flow,
        'all' as tier,
        outcome,
        path,
        count(*) as sessions
    from sessions
    group by as_of_date, flow, outcome, path

),

placed as (

    select
        *,
        sum(sessions) over (partition by as_of_date, flow, tier, outcome) as all_sessions,
        row_number() over (
            partition by as_of_date, flow, tier, outcome order by sessions desc, path asc
        ) as place
    from counted

),

final as (

    select
        placed.as_of_date,
        growth_dates.month,
        placed.flow,
        placed.tier,
        placed.outcome,
        placed.place,
        placed.path,
        placed.sessions,
        cast(cast(placed.sessions as numeric) / placed.all_sessions as numeric(9, 4)) as share_of_outcome
    from placed
    inner join growth_dates on placed.as_of_date = growth_dates.as_of_date
    where placed.place <= growth_dates.flow_paths_kept

)

select * from final
