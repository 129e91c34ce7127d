{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[{'columns': ['account_id', 'order_date'], 'unique': true}],
        pre_hook=[
            "{{ claim_queued_days(source('intermediate', 'account_day_queue')) }}",
            "{{ widen_claim_to_touched_orders(source('intermediate', 'account_day_queue')) }}",
            "{{ remove_claimed_days(source('intermediate', 'account_day_queue'), 'order_date') }}",
        ],
        post_hook=[
            "{{ restate_from_claimed_days(source('intermediate', 'account_day_queue'), 'order_date') }}",
            "{{ remember_definition(var('definition')) }}",
            "analyze {{ this }}",
        ],
    )
}}

with

{{ order_lines_to_roll_up() }},

order_parts as (

    select
        customer_id as account_id,
        order_id,
        order_date,
        country,
        max(ordered_at) as last_line_at,
        {{ order_line_sums() }}
    from order_lines
    group by customer_id, order_id, order_date, country

),

ranked_parts as (

    select
        *,
        row_number() over (
            partition by account_id, order_id
            order by case when sale_lines > 0 then 0 else 1 end, order_date, country nulls last
        ) as place_in_order,
        row_number() over (
            partition by account_id, order_date
            order by case when country is null then 1 else 0 end asc, last_line_at desc, country asc nulls last
        ) as place_in_day
    from order_parts

),

final as (

    select
        ranked_parts.account_id,
        ranked_parts.order_date,
        max(case when ranked_parts.place_in_day = 1 then ranked_parts.country end) as country,
        count(case when ranked_parts.sale_lines > 0 and ranked_parts.place_in_order = 1 then 1 end) as orders,
        {{ order_line_totals('ranked_parts') }}
    from ranked_parts
    {% if is_incremental() %}
    inner join claimed_days
        on
            ranked_parts.account_id = claimed_days.customer_id
            and ranked_parts.order_date = claimed_days.order_date
    {% endif %}
    group by ranked_parts.account_id, ranked_parts.order_date

)

-- By account, as its readers look the days up.
select * from final
order by account_id, order_date
