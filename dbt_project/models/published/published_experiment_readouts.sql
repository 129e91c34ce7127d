{{ config(alias='experiment_readouts') }}

with

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        cast(kept.experiment as text) as experiment,
        cast(kept.metric as text) as metric,
        cast(kept.tier as text) as tier,
        cast(kept.variant as text) as variant,
        cast(kept.is_control as boolean) as is_control,
        cast(kept.denominator as text) as denominator,
        cast(kept.better as text) as better,
        cast(kept.window_days as integer) as window_days,
        cast(kept.units as bigint) as units,
        cast(kept.units_pending as bigint) as units_pending,
        cast(kept.conversions as bigint) as conversions,
        cast(kept.tries as bigint) as tries,
        cast(kept.rate as numeric(18, 6)) as rate,
        cast(kept.difference as numeric(18, 6)) as difference,
        cast(kept.difference_from as numeric(18, 6)) as difference_from,
        cast(kept.difference_to as numeric(18, 6)) as difference_to,
        cast(kept.interval_method as text) as interval_method,
        cast(kept.no_interval_reason as text) as no_interval_reason,
        cast(kept.split_chi_square as numeric(18, 4)) as split_chi_square,
        cast(kept.split_limit as numeric(9, 3)) as split_limit,
        cast(kept.is_split_as_expected as boolean) as is_split_as_expected,
        cast(kept.reading as text) as reading
    from {{ ref('experiment_readouts') }} as kept
    where kept.as_of_date = {{ as_of_date() }}

)

select * from final
