{{ config(alias='kpis', pre_hook="{{ join_by_hash() }}") }}

{#- Months told beside the date's own. -#}
{%- set months = 24 %}

with

published_dates as (

    select {{ as_of_date() }} as as_of_date
    union
    select months.month_end as as_of_date
    from {{ month_ends(months_after(as_of_date(), -months), as_of_date()) }} as months
    where months.month_end < {{ as_of_date() }}

),

kpi_definitions as (

    {{ policy_rows_on_dates('kpi_definitions', key='kpi', dates='published_dates') }}

),

kpi_targets as (

    {{ policy_rows_on_dates('kpi_targets', key=['kpi', 'dimension', 'dimension_value'], dates='published_dates') }}

),

kpi_benchmarks as (

    {{ policy_rows_on_dates('kpi_benchmarks', key=['benchmark_industry', 'kpi'], dates='published_dates') }}

),

benchmark_industries as (

    {{ policy_rows_on_dates('benchmark_industries', key='industry', dates='published_dates') }}

),

-- An industry is held against the one it is mapped to, the company against sites like it in general.
benchmark_groups as (

    select
        as_of_date,
        'industry' as dimension,
        industry as dimension_value,
        benchmark_industry
    from benchmark_industries
    union all
    select
        as_of_date,
        'company' as dimension,
        'all' as dimension_value,
        'B2B sites' as benchmark_industry
    from published_dates

),

benchmarks as (

    select
        benchmark_groups.as_of_date,
        benchmark_groups.dimension,
        benchmark_groups.dimension_value,
        kpi_benchmarks.kpi,
        kpi_benchmarks.benchmark_industry,
        kpi_benchmarks.benchmark,
        kpi_benchmarks.benchmark_to
    from benchmark_groups
    inner join kpi_benchmarks
        on
            benchmark_groups.as_of_date = kpi_benchmarks.as_of_date
            and benchmark_groups.benchmark_industry = kpi_benchmarks.benchmark_industry

),

valued as (

    select
        kpis.*,
        kpi_definitions.label,
        kpi_definitions.formula,
        kpi_definitions.better,
        kpi_targets.target,
        benchmarks.benchmark_industry,
        benchmarks.benchmark,
        benchmarks.benchmark_to,
        -- What the target asks of a rate that is held against its baseline: 1 is all there is.
        case when kpis.kpi = 'repurchase_change' then kpis.denominator * (1 + kpi_targets.target) end as target_rate
    from published_dates
    inner join {{ ref('kpis') }} as kpis on published_dates.as_of_date = kpis.as_of_date
    inner join kpi_definitions
        on
            kpis.as_of_date = kpi_definitions.as_of_date
            and kpis.kpi = kpi_definitions.kpi
    left join kpi_targets
        on
            kpis.as_of_date = kpi_targets.as_of_date
            and kpis.kpi = kpi_targets.kpi
            and kpis.dimension = kpi_targets.dimension
            and kpis.dimension_value = kpi_targets.dimension_value
    left join benchmarks
        on
            kpis.as_of_date = benchmarks.as_of_date
            and kpis.kpi = benchmarks.kpi
            and kpis.dimension = benchmarks.dimension
            and kpis.dimension_value = benchmarks.dimension_value

),

compared as (

    select
        *,
        case
            when target is null then null
            when value is null then 'no value'
            when target_rate > 1
                then
                    'cannot be reached: the baseline is ' || round(denominator, 2) || ', and it would take a rate of '
                    || round(target_rate, 2)
            when value * target < 0 then 'not a ratio that can be attained: value and target differ in sign'
            when value < 0 then 'not a ratio that can be attained: value and target are below 0'
            when better = 'lower' and value = 0 then 'not a ratio that can be attained: the value is 0'
            when better <> 'lower' and target = 0 then 'not a ratio that can be attained: the target is 0'
        end as no_attainment_reason
    from valued

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        month,
        as_of_date as kpi_date,
        {{ is_month_end('as_of_date') }} as is_month_complete,
        kpi,
        label,
        formula,
        dimension,
        dimension_value,
        numerator,
        denominator,
        value,
        unit,
        no_value_reason,
        better,
        target,
        cast(
            case
                when no_attainment_reason is not null then null
                when better = 'lower' then target / value
                else value / target
            end
            as numeric(18, 6)
        ) as attainment,
        no_attainment_reason,
        case
            when target_rate > 1 then null
            when better = 'lower' then value <= target
            else value >= target
        end as is_target_met,
        benchmark_industry,
        benchmark,
        benchmark_to,
        cast(
            case
                when value < benchmark then value - benchmark
                when value > coalesce(benchmark_to, benchmark) then value - coalesce(benchmark_to, benchmark)
                when benchmark is not null and value is not null then 0
            end
            as numeric(18, 6)
        ) as benchmark_difference
    from compared

)

select * from final
