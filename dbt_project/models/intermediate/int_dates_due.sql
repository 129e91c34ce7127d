{%- set built_dates = dates_built_before() %}

with

first_orders as (

    select min(order_date) as first_day
    from {{ ref('int_account_days') }}
    where orders > 0

),

-- Where nobody has ordered, who signs a contract is a customer all the same: from the day that the signature was known.
first_signatures as (

    select min(greatest({{ local_date('signed_at') }}, valid_from_date)) as first_day
    from {{ ref('stg_contracts') }}
    where
        signed_at is not null
        and not is_archived

),

company_span as (

    select coalesce(first_orders.first_day, first_signatures.first_day) as first_day
    from first_orders
    cross join first_signatures

),

month_ends as (

    select months.month_end as as_of_date
    from company_span
    cross join lateral {{ month_ends('company_span.first_day', as_of_date()) }} as months
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
