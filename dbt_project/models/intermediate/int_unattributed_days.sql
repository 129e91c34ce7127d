with

order_lines as (

    select * from {{ ref('stg_order_lines') }}
    where customer_id is null

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
