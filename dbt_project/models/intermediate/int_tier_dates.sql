{%- set built_dates = dates_built_before() %}

with

kept_dates as (

    select as_of_date from {{ ref('int_dates_due') }}
    {% if built_dates %}
    union
    select built.as_of_date from {{ built_dates }} as built
    {% endif %}

),

placed_dates as (

    select
        as_of_date,
        lag(as_of_date) over (order by as_of_date) as date_before
    from kept_dates

),

final as (

    select
        placed_dates.as_of_date,
        placed_dates.date_before
    from placed_dates
    left join {{ ref('int_dates_due') }} as dates_due on placed_dates.as_of_date = dates_due.as_of_date
    left join {{ ref('int_dates_due') }} as dates_due_before on placed_dates.date_before = dates_due_before.as_of_date
    where
        dates_due.as_of_date is not null
        or dates_due_before.as_of_date is not null

)

select * from final
