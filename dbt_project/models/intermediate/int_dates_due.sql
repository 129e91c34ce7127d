{%- set built_dates = dates_built_before() %}

with

ordering_span as (

    select min(order_date) as first_day
    from {{ ref('int_account_days') }}
    where orders > 0

),

month_ends as (

    select months.month_end as as_of_date
    from ordering_span
    cross join lateral {{ month_ends('ordering_span.first_day', as_of_date()) }} as months
    where months.month_end < {{ as_of_date() }}

),

final as (

    select {{ as_of_date() }} as as_of_date
    union all
    select as_of_date from month_ends
    {% if built_dates %}
    where as_of_date not in (select built.as_of_date from {{ built_dates }} as built)
    {% endif %}

)

select * from final
