{{ config(alias='purchase_flow') }}

with

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        cast(kept.as_of_date as date) as month_as_of,
        cast(kept.month as date) as month,
        cast(kept.flow as text) as flow,
        cast(kept.tier as text) as tier,
        cast(kept.position as integer) as position,
        cast(kept.step as text) as step,
        cast(kept.sessions_started as bigint) as sessions_started,
        cast(kept.sessions_reached as bigint) as sessions_reached,
        cast(kept.sessions_lost as bigint) as sessions_lost,
        cast(kept.reached_share as numeric(9, 4)) as reached_share,
        cast(kept.lost_share as numeric(9, 4)) as lost_share,
        cast(kept.share_of_losses as numeric(9, 4)) as share_of_losses,
        cast(kept.is_drop_off_stage as boolean) as is_drop_off_stage
    from {{ ref('purchase_flow') }} as kept
    where
        kept.as_of_date = {{ as_of_date() }}
        or (
            {{ is_month_end('kept.as_of_date') }}
            and kept.as_of_date < {{ as_of_date() }}
            and kept.as_of_date >= {{ months_after(month_start(as_of_date()), -24) }}
        )

)

select * from final
