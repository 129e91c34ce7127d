{{ config(indexes=[{'columns': ['series_id', 'order_date'], 'unique': true}]) }}

with

members as (

    {{ members_of_series('order_series_id', 'orders') }}

),

-- Of several countries of a day that of the account's own number is told, else of the lowest.
placed_days as (

    select
        members.series_id,
        account_days.*,
        row_number() over (
            partition by members.series_id, account_days.order_date
            order by
                case when account_days.country is null then 1 else 0 end asc,
                case when members.source_account_id = members.account_id then 0 else 1 end asc,
                members.source_account_id asc
        ) as place_in_day
    from members
    inner join {{ ref('int_account_days') }} as account_days on members.source_account_id = account_days.account_id

),

final as (

    select
        placed_days.series_id,
        placed_days.order_date,
        max(case when placed_days.place_in_day = 1 then placed_days.country end) as country,
        cast(sum(placed_days.orders) as bigint) as orders,
        {{ order_line_totals('placed_days') }}
    from placed_days
    group by placed_days.series_id, placed_days.order_date

)

select * from final
order by series_id, order_date
