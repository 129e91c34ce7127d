{{ config(alias='tier_migrations') }}

with

-- The quarter of the date up to it, and the quarters of the two years before as they ended.
tier_migrations as (

    select * from {{ ref('tier_migrations') }}
    where
        as_of_date = {{ as_of_date() }}
        or (
            as_of_date < {{ as_of_date() }}
            and as_of_date >= {{ months_after(quarter_start(as_of_date()), -24) }}
            and as_of_date = {{ days_before(months_after('quarter_start', 3), 1) }}
        )

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        quarter_start,
        as_of_date as until_date,
        as_of_date = {{ days_before(months_after('quarter_start', 3), 1) }} as is_quarter_complete,
        tier_before,
        tier,
        accounts,
        share
    from tier_migrations

)

select * from final
