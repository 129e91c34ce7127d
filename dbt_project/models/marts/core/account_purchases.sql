{{ config(materialized='view') }}

with

-- A view, so that only who asks pays for reading the lines: the recommendations are fitted once a week.
order_lines as (

    select
        customer_id,
        product_id,
        product_category,
        ordered_at,
        order_date
    from {{ ref('stg_order_lines') }}
    where line_type = 'sale' and customer_id is not null

),

customers as (

    select
        source_account_id,
        account_id,
        valid_from_date,
        valid_until_date
    from {{ ref('int_account_crosswalk') }}
    where source_system = 'orders' and not is_internal

),

final as (

    select
        customers.account_id,
        order_lines.product_id,
        order_lines.product_category,
        order_lines.ordered_at,
        order_lines.order_date,
        customers.valid_from_date,
        customers.valid_until_date
    from order_lines
    inner join customers on order_lines.customer_id = customers.source_account_id

)

select * from final
