{#- A table of account-days is kept up by a queue of the days that loads touched (columns load_id, customer_id, a day,
    claimed_by). int_account_days takes the rows of intermediate.account_day_queue that name a customer and
    int_unattributed_days those that name none (customer_id ''); int_usage_days takes intermediate.usage_day_queue, where
    customer_id '' stands for every account of a day of which no event was held before.
    Each does it in the one transaction dbt opens for the model:
      1. claim         marks what is queued now; what a loader queues from here on waits for the next build
      2. widen         (orders alone) adds the other days of the orders those days touch, since an order counts on
                       one day only; unattributed days count no orders and do without
      3. remove        takes the claimed days out of the table
      4. the model     appends them as they stand in the raw rows
      5. restate       tells account_features from which day on it must make each touched account anew
      6. settle        takes the claimed rows out of the queue
    If any step fails all of it is rolled back: the queue and the table stay as they were. No claim is ever
    committed, so no model sees another's, and what carries the run's id is the model's own. -#}

{% macro claim_queued_days(queue, with_customer=true) -%}
    update {{ queue }}
    set claimed_by = '{{ var("run_id") }}'
    where customer_id {{ '<>' if with_customer else '=' }} ''
{%- endmacro %}


{% macro claim_all_queued_days(queue) -%}
    update {{ queue }}
    set claimed_by = '{{ var("run_id") }}'
{%- endmacro %}


{#- Reads every version of the lines on the claimed days, not the current ones alone: a line that left an
    order may move the day on which the rest of that order counts. -#}
{% macro widen_claim_to_touched_orders(queue) -%}
    {%- if is_incremental() -%}
    insert into {{ queue }} (load_id, customer_id, order_date, claimed_by)
    select
        touched_orders.load_id,
        touched_orders.customer_id,
        {{ local_date('order_lines.ordered_at') }} as order_date,
        '{{ var("run_id") }}' as claimed_by
    from (
        select
            order_lines.customer_id,
            order_lines.order_id,
            {{ one_load('claimed.load_id') }} as load_id
        from {{ queue }} as claimed
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


{% macro remove_claimed_days(queue, day, with_customer=true) -%}
    {%- if is_incremental() -%}
    delete from {{ this }} as days
    using {{ queue }} as claimed
    where
        claimed.claimed_by = '{{ var("run_id") }}'
        {%- if with_customer %}
        and days.account_id = claimed.customer_id
        {%- endif %}
        and days.{{ day }} = claimed.{{ day }}
    {%- endif -%}
{%- endmacro %}


{% macro remove_claimed_whole_days(queue, day) -%}
    {%- if is_incremental() -%}
    delete from {{ this }}
    where {{ day }} in (
        select {{ day }} from {{ queue }}
        where claimed_by = '{{ var("run_id") }}' and customer_id = ''
    )
    {%- endif -%}
{%- endmacro %}


{% macro restate_from_claimed_days(queue, day) -%}
    insert into {{ source('intermediate', 'restatement_queue') }} (load_id, account_key, from_date)
    select
        {{ one_load('load_id') }} as load_id,
        customer_id as account_key,
        min({{ day }}) as from_date
    from {{ queue }}
    where claimed_by = '{{ var("run_id") }}' and customer_id <> ''
    group by customer_id
    on conflict do nothing
{%- endmacro %}


{#- Of a day that is claimed as a whole, the accounts that now have a row of it. -#}
{% macro restate_from_claimed_whole_days(queue, day) -%}
    insert into {{ source('intermediate', 'restatement_queue') }} (load_id, account_key, from_date)
    select
        {{ one_load('claimed.load_id') }} as load_id,
        days.account_id as account_key,
        min(days.{{ day }}) as from_date
    from {{ this }} as days
    inner join {{ queue }} as claimed on days.{{ day }} = claimed.{{ day }}
    where claimed.claimed_by = '{{ var("run_id") }}' and claimed.customer_id = ''
    group by days.account_id
    on conflict do nothing
{%- endmacro %}


{% macro settle_claim(queue) -%}
    delete from {{ queue }} where claimed_by = '{{ var("run_id") }}'
{%- endmacro %}


{#- Which of several loads is told does not matter; one must be, and it is settled with this run. -#}
{% macro one_load(load_id) -%}
    cast(min(cast({{ load_id }} as text)) as uuid)
{%- endmacro %}


{#- Leaves on the table what it was made from (models, macros, exchange rates, hashed): where that has
    changed, include/dbt.py rebuilds the table instead of adding to it. -#}
{% macro remember_definition(definition) -%}
    comment on table {{ this }} is '{{ definition }}'
{%- endmacro %}
