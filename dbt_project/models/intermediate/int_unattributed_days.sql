{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[{'columns': ['order_date'], 'unique': true}],
        pre_hook=[
            "{{ claim_queued_days(source('intermediate', 'account_day_queue'), with_customer=false) }}",
            "{{ remove_claimed_days(source('intermediate', 'account_day_queue'), 'order_date', with_customer=false) }}",
        ],
        post_hook=[
            "{{ settle_claim(source('intermediate', 'account_day_queue'), with_customer=false) }}",
            "{{ remember_definition(var('definition')) }}",
            "analyze {{ this }}",
        ],
    )
}}

with

{% if is_incremental() %}
claimed_days as (

    select distinct order_date
    from {{ source('intermediate', 'account_day_queue') }}
    where claimed_by = '{{ var("run_id") }}' and customer_id = ''

),
{% endif %}

order_lines as (

    select lines_of_days.*
    from {{ ref('stg_order_lines') }} as lines_of_days
    {% if is_incremental() %}
    inner join claimed_days
        on
            lines_of_days.ordered_at >= {{ day_start('claimed_days.order_date') }}
            and lines_of_days.ordered_at < {{ day_start(days_before('claimed_days.order_date', -1)) }}
    {% endif %}
    where lines_of_days.customer_id is null

),

day_sums as (

    select
        order_date,
        {{ order_line_sums() }}
    from order_lines
    group by order_date

),

final as (

    select
        day_sums.order_date,
        {{ order_line_totals('day_sums') }}
    from day_sums
    group by day_sums.order_date

)

select * from final
