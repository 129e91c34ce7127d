{{ config(alias='retention_cohorts') }}

with

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        cohort_month,
        month,
        months_since,
        {{ is_month_end('as_of_date') }} as is_month_complete,
        accounts,
        accounts_ordered,
        accounts_active,
        ordered_share,
        active_share
    from {{ ref('retention_cohorts') }}
    where
        as_of_date = {{ as_of_date() }}
        or (as_of_date < {{ as_of_date() }} and {{ is_month_end('as_of_date') }})

)

select * from final
