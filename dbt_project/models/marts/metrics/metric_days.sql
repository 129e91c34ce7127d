{#- A view has no rows of dates to take out, nor an index. -#}
{{ config(materialized='view', pre_hook=[], indexes=[]) }}

with

ordering_span as (

    select min(order_date) as first_day
    from {{ ref('int_account_days') }}
    where orders > 0

),

final as (

    select calendar.calendar_day
    from ordering_span
    cross join lateral {{ days_of('ordering_span.first_day', as_of_date()) }} as calendar

)

select * from final
