{{ config(indexes=[{'columns': ['series_id', 'product_category', 'order_date'], 'unique': true}]) }}

with

members as (

    {{ members_of_series('order_series_id', 'orders') }}

),

final as (

    select
        members.series_id,
        category_days.order_date,
        category_days.product_category,
        cast(sum(category_days.orders) as bigint) as orders,
        cast(sum(category_days.net_revenue) as numeric(18, 2)) as net_revenue
    from members
    inner join {{ ref('int_category_days') }} as category_days on members.source_account_id = category_days.account_id
    group by members.series_id, category_days.order_date, category_days.product_category

)

select * from final
order by series_id, product_category, order_date
