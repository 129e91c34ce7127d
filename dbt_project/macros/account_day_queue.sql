{#- int_account_days consumes the rows of intermediate.account_day_queue that name a customer, and
    int_unattributed_days those that name none (customer_id ''), each in the one transaction dbt opens for the model:
      1. claim         marks what is queued now; what a loader queues from here on waits for the next build
      2. widen         adds the other days of the orders those days touch (an order counts on one day only);
                       unattributed days count no orders and do without
      3. remove        takes the claimed days out of the table
      4. the model     appends them as they stand in the raw rows
      5. settle        takes the claimed rows out of the queue
    If any step fails all of it is rolled back: the queue and the table stay as they were. No claim is ever
    committed, so neither model sees the other's, and what carries the run's id is the model's own. -#}

{% macro claim_queued_days(with_customer) -%}
    update {{ source('intermediate', 'account_day_queue') }}
    set claimed_by = '{{ var("run_id") }}'
    where customer_id {{ '<>' if with_customer else '=' }} ''
{%- endmacro %}


{#- Reads every version of the lines on the claimed days, not the current ones alone: a line that left an
    order may move the day on which the rest of that order counts. -#}
{% macro widen_claim_to_touched_orders() -%}
    {%- if is_incremental() -%}
    insert into {{ source('intermediate', 'account_day_queue') }} (load_id, customer_id, order_date, claimed_by)
    select
        touched_orders.load_id,
        touched_orders.customer_id,
        {{ local_date('order_lines.ordered_at') }} as order_date,
        '{{ var("run_id") }}' as claimed_by
    from (
        select
            order_lines.customer_id,
            order_lines.order_id,
            -- Which of the loads is told does not matter; one must be, and it is settled with this run.
            cast(min(cast(claimed.load_id as text)) as uuid) as load_id
        from {{ source('intermediate', 'account_day_queue') }} as claimed
        inner join {{ source('raw_files', 'order_lines') }} as order_lines
            on
                claimed.customer_id = order_lines.customer_id
                and order_lines.ordered_at >= {{ day_start('claimed.order_date') }}
                and order_lines.ordered_at < {{ day_start(days_before('claimed.order_date', -1)) }}
        where claimed.claimed_by = '{{ var("run_id") }}'
        group by order_lines.customer_id, order_lines.order_id
    ) as touched_orders
    inner join {{ source('raw_files', 'order_lines') }} as order_lines
        on
            touched_orders.customer_id = order_lines.customer_id
            and touched_orders.order_id = order_lines.order_id
    group by touched_orders.load_id, touched_orders.customer_id, {{ local_date('order_lines.ordered_at') }}
    on conflict do nothing
    {%- endif -%}
{%- endmacro %}


{% macro remove_claimed_days(with_customer) -%}
    {%- if is_incremental() -%}
    delete from {{ this }} as days
    using {{ source('intermediate', 'account_day_queue') }} as claimed
    where
        claimed.claimed_by = '{{ var("run_id") }}'
        {%- if with_customer %}
        and days.account_id = claimed.customer_id
        {%- endif %}
        and days.order_date = claimed.order_date
    {%- endif -%}
{%- endmacro %}


{% macro settle_claimed_days() -%}
    delete from {{ source('intermediate', 'account_day_queue') }} where claimed_by = '{{ var("run_id") }}'
{%- endmacro %}


{#- Leaves on the table what it was made from (models, macros, exchange rates, hashed): where that has
    changed, include/dbt.py rebuilds the table instead of adding to it. -#}
{% macro remember_definition() -%}
    comment on table {{ this }} is '{{ var("definition") }}'
{%- endmacro %}
