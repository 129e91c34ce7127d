{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[{'columns': ['account_id', 'product_category'], 'unique': true}],
        pre_hook="{{ remove_claimed_customers(source('intermediate', 'account_day_queue')) }}",
        post_hook=[
            "{{ settle_claim(source('intermediate', 'account_day_queue'), with_customer=true) }}",
            "{{ remember_definition(var('definition')) }}",
            "analyze {{ this }}",
        ],
    )
}}

-- The last of the three models that take the claim of int_account_days.
with

{% if is_incremental() %}
claimed_customers as (

    select distinct customer_id
    from {{ source('intermediate', 'account_day_queue') }}
    where claimed_by = '{{ var("run_id") }}' and customer_id <> ''

),
{% endif %}

final as (

    select
        category_days.account_id,
        category_days.product_category,
        min(category_days.order_date) as first_line_date,
        min(case when category_days.orders > 0 then category_days.order_date end) as first_order_date,
        max(case when category_days.orders > 0 then category_days.order_date end) as last_order_date
    from {{ ref('int_category_days') }} as category_days
    {% if is_incremental() %}
    inner join claimed_customers on category_days.account_id = claimed_customers.customer_id
    {% endif %}
    group by category_days.account_id, category_days.product_category

)

select * from final
order by account_id, product_category
