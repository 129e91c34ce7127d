{{ config(indexes=[{'columns': ['as_of_date', 'measure', 'dimension', 'dimension_value'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select as_of_date from {{ ref('growth_dates') }}

),

-- Hours are null of what had not ended when its window was over: it lasted longer than all that had.
durations as (

    select
        as_of_date,
        'ticket_resolution' as measure,
        tier_before,
        hours_to_resolve as hours
    from {{ ref('ticket_resolutions') }}
    where is_closed_in_month = 1 and hours_to_resolve is not null
    union all
    select
        as_of_date,
        'contract_signing' as measure,
        tier_before,
        hours_to_sign as hours
    from {{ ref('contract_outcomes') }}
    where is_of_signing_month = 1

),

due as (

    select durations.*
    from durations
    inner join growth_dates on durations.as_of_date = growth_dates.as_of_date

),

by_dimension as (

    {{ rows_by_dimension('due', {'tier': 'tier_before'}) }}

),

placed as (

    select
        *,
        row_number() over (
            partition by as_of_date, measure, dimension, dimension_value order by hours asc nulls last
        ) as place,
        count(*) over (partition by as_of_date, measure, dimension, dimension_value) as all_of_them
    from by_dimension

),

-- The median is the middle one, or the mean of the two in the middle; unknown where one of them had not ended.
middles as (

    select
        *,
        case when 2 * place in (all_of_them, all_of_them + 1, all_of_them + 2) then 1 else 0 end as is_middle
    from placed

),

final as (

    select
        as_of_date,
        measure,
        dimension,
        dimension_value,
        count(*) as measured,
        count(hours) as ended,
        cast(avg(hours) as numeric(18, 4)) as mean_hours,
        case
            when count(case when is_middle = 1 and hours is null then 1 end) = 0
                then cast(avg(case when is_middle = 1 then hours end) as numeric(18, 4))
        end as median_hours
    from middles
    group by as_of_date, measure, dimension, dimension_value

)

select * from final
