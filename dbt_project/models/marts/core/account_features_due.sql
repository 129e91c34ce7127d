{{
    config(
        materialized='table',
        pre_hook=[
            "{{ claim_restatements() }}",
            "{{ resolve_claimed_ids() }}",
        ],
    )
}}

-- depends_on: {{ ref('int_account_crosswalk') }}
{%- set kept_features = kept_features() %}
{%- set every_date = makes_every_date(kept_features) %}

with

first_orders as (

    select
        series_id,
        min(order_date) as first_order_date
    from {{ order_series() }} as order_days
    where orders > 0
    group by series_id

),

-- Which series of days an account is, and when: for most their own id's, always.
accounts as (

    select
        first_orders.series_id as account_id,
        first_orders.series_id as order_series_id,
        first_orders.series_id as usage_series_id,
        first_orders.first_order_date,
        first_orders.first_order_date as from_date,
        {{ end_of_time() }} as until_date
    from first_orders
    where
        first_orders.series_id not like ' %'
        and not exists (
            select 1
            from {{ ref('int_account_spans') }} as spans
            where spans.account_id = first_orders.series_id
        )
    union all
    select
        spans.account_id,
        spans.order_series_id,
        spans.usage_series_id,
        first_orders.first_order_date,
        greatest(first_orders.first_order_date, spans.valid_from_date) as from_date,
        coalesce(spans.valid_until_date, {{ end_of_time() }}) as until_date
    from {{ ref('int_account_spans') }} as spans
    inner join first_orders on spans.order_series_id = first_orders.series_id

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
        accounts.account_id,
        accounts.order_series_id,
        accounts.usage_series_id,
        accounts.first_order_date
    from whole_dates
    inner join accounts
        on
            whole_dates.as_of_date >= accounts.from_date
            and whole_dates.as_of_date < accounts.until_date
    {% if not every_date %}
    union all
    select
        kept_dates.as_of_date,
        accounts.account_id,
        accounts.order_series_id,
        accounts.usage_series_id,
        accounts.first_order_date
    from restatements
    inner join accounts on restatements.account_id = accounts.account_id
    inner join kept_dates
        on
            restatements.from_date <= kept_dates.as_of_date
            and accounts.from_date <= kept_dates.as_of_date
            and accounts.until_date > kept_dates.as_of_date
            and kept_dates.as_of_date <> {{ as_of_date() }}
    {% endif %}

)

select * from final
