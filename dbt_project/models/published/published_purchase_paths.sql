{{ config(alias='purchase_paths') }}

with

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        cast(kept.as_of_date as date) as month_as_of,
        cast(kept.month as date) as month,
        cast(kept.flow as text) as flow,
        cast(kept.tier as text) as tier,
        cast(kept.outcome as text) as outcome,
        cast(kept.place as integer) as place,
        cast(kept.path as text) as path,
        cast(kept.sessions as bigint) as sessions,
        cast(kept.share_of_outcome as numeric(9, 4)) as share_of_outcome
    from {{ ref('purchase_paths') }} as kept
    where
        kept.as_of_date = {{ as_of_date() }}
        or (
            {{ is_month_end('kept.as_of_date') }}
            and kept.as_of_date < {{ as_of_date() }}
            and kept.as_of_date >= {{ months_after(month_start(as_of_date()), -24) }}
        )

)

select * from final
