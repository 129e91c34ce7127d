{{
    config(
        materialized='table',
        pre_hook=[
            "{{ claim_restatements() }}",
            "{{ resolve_claimed_companies() }}",
        ],
    )
}}

-- depends_on: {{ ref('int_account_crosswalk') }}
{%- set kept_features = kept_features() %}
{%- set every_date = makes_every_date(kept_features) %}

with

first_orders as (

    select
        account_id,
        min(order_date) as first_order_date
    from {{ ref('int_account_days') }}
    where orders > 0
    group by account_id

),

ordering_span as (

    select min(first_order_date) as first_day from first_orders

),

month_ends as (

    select months.month_end as as_of_date
    from ordering_span
    cross join lateral {{ month_ends('ordering_span.first_day', as_of_date()) }} as months
    where months.month_end < {{ as_of_date() }}

),

{% if kept_features %}
kept_span as (

    select
        min(as_of_date) as first_day,
        max(as_of_date) as last_day
    from {{ kept_features }}

),

-- Day by day, since looking a day up in the index costs less than reading the dates of every row.
kept_dates as (

    select calendar.calendar_day as as_of_date
    from kept_span
    cross join lateral {{ days_of('kept_span.first_day', 'kept_span.last_day') }} as calendar
    where
        exists (
            select 1
            from {{ kept_features }} as kept
            where kept.as_of_date = calendar.calendar_day
        )

),
{% endif %}

whole_dates as (

    select {{ as_of_date() }} as as_of_date
    union
    {% if every_date and kept_features %}
    select as_of_date from kept_dates
    union
    {% endif %}
    select as_of_date from month_ends
    {% if not every_date %}
    where as_of_date not in (select kept_dates.as_of_date from kept_dates)
    {% endif %}

),

{% if not every_date %}
restatements as (

    {{ claimed_restatements() }}

),
{% endif %}

final as (

    select
        whole_dates.as_of_date,
        first_orders.account_id,
        first_orders.first_order_date
    from whole_dates
    inner join first_orders on whole_dates.as_of_date >= first_orders.first_order_date
    {% if not every_date %}
    union all
    select
        kept_dates.as_of_date,
        first_orders.account_id,
        first_orders.first_order_date
    from restatements
    inner join first_orders on restatements.account_id = first_orders.account_id
    inner join kept_dates
        on
            restatements.from_date <= kept_dates.as_of_date
            and first_orders.first_order_date <= kept_dates.as_of_date
            and kept_dates.as_of_date <> {{ as_of_date() }}
    {% endif %}

)

select * from final
