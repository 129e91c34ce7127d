{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[{'columns': ['account_id', 'product_category', 'order_date'], 'unique': true}],
        pre_hook="{{ remove_claimed_days(source('intermediate', 'account_day_queue'), 'order_date') }}",
        post_hook=[
            "{{ remember_definition(var('definition')) }}",
            "analyze {{ this }}",
        ],
    )
}}

-- The claim is that of int_account_days, which this follows; int_account_categories settles it (macros/day_queue.sql).
-- depends_on: {{ ref('int_account_days') }}
with

{{ order_lines_to_roll_up() }},

products as (

    select
        product_id,
        product_category,
        valid_from_date,
        valid_until_date
    from {{ ref('stg_products') }}
    where product_category is not null

),

-- What the catalogue said on the day of the order, not what it says today; an archived product keeps its category.
order_parts as (

    select
        order_lines.customer_id as account_id,
        order_lines.order_id,
        order_lines.order_date,
        coalesce(order_lines.product_category, products.product_category) as product_category,
        count(case when order_lines.line_type = 'sale' then 1 end) as sale_lines,
        coalesce(sum(order_lines.amount), 0) as net_revenue
    from order_lines
    left join products
        on
            order_lines.product_id = products.product_id
            and order_lines.product_category is null
            and {{ holds_on('products', 'order_lines.order_date') }}
    where
        order_lines.line_type <> 'non_product'
        and coalesce(order_lines.product_category, products.product_category) is not null
    group by
        order_lines.customer_id,
        order_lines.order_id,
        order_lines.order_date,
        coalesce(order_lines.product_category, products.product_category)

),

dated_parts as (

    select
        *,
        min(case when sale_lines > 0 then order_date end) over (
            partition by account_id, order_id, product_category
        ) as first_sale_date
    from order_parts

),

final as (

    select
        dated_parts.account_id,
        dated_parts.order_date,
        dated_parts.product_category,
        count(case when dated_parts.order_date = dated_parts.first_sale_date then 1 end) as orders,
        cast(sum(dated_parts.net_revenue) as numeric(18, 2)) as net_revenue
    from dated_parts
    {% if is_incremental() %}
    inner join claimed_days
        on
            dated_parts.account_id = claimed_days.customer_id
            and dated_parts.order_date = claimed_days.order_date
    {% endif %}
    group by dated_parts.account_id, dated_parts.order_date, dated_parts.product_category

)

-- By account, as its readers look the days up.
select * from final
order by account_id, product_category, order_date
