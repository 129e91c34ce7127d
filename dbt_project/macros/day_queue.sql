{#- A table of account-days is kept up by a queue of the days that loads touched (columns load_id, customer_id, a day,
    claimed_by). int_account_days takes the rows of intermediate.account_day_queue that name a customer and
    int_unattributed_days those that name none (customer_id ''); int_usage_days takes intermediate.usage_day_queue, where
    customer_id '' stands for every account of a day of which no event was held before.
    Each does it in the transaction dbt opens for the model:
      1. claim         marks what is queued now; what a loader queues from here on waits for the next build
      2. widen         (orders alone) adds the other days of the orders those days touch, since an order counts on
                       one day only; unattributed days count no orders and do without
      3. remove        takes the claimed days out of the table
      4. the model     appends them as they stand in the raw rows
      5. restate       tells account_features from which day on it must make each touched account anew
      6. settle        takes the claimed rows out of the queue
    If any step fails all of it is rolled back: the queue and the table stay as they were.
    Days that several models are made of are taken by one after the other: of customers' days int_account_days claims and
    widens, int_category_days makes the claimed days anew by category, and int_account_categories, the last, settles; of
    usage days int_usage_days claims, and int_flow_sessions settles. Rows that a load queues between them carry no claim,
    and wait for the next build of them all. Where a later one fails, the claim of the failed build stands in the queue; the
    next build claims these rows like all others, and makes their days anew in all of them. -#}

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
        {%- else %}
        and claimed.customer_id = ''
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


{#- `with_customer`, where a queue has rows that name a customer and rows that name none: of the one kind, or the other, alone. -#}
{% macro settle_claim(queue, with_customer=none) -%}
    delete from {{ queue }}
    where
        claimed_by = '{{ var("run_id") }}'
        {%- if with_customer is not none %}
        and customer_id {{ '<>' if with_customer else '=' }} ''
        {%- endif %}
{%- endmacro %}


{#- Takes the customers of the claimed days out of a table that holds what they ever did. -#}
{% macro remove_claimed_customers(queue) -%}
    {%- if is_incremental() -%}
    delete from {{ this }}
    where account_id in (select customer_id from {{ queue }} where claimed_by = '{{ var("run_id") }}')
    {%- endif -%}
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


{#- The current lines of the orders that the claimed days touch, or of all orders on a full build, as CTEs: claimed_days,
    order_lines. Orders are read whole, since the day an order counts on is the first of all its days. The lines are
    imported where they are read: a CTE read twice is copied whole, and the claimed days could then not be reached by
    index. -#}
{% macro order_lines_to_roll_up() -%}
    {%- if is_incremental() -%}
    claimed_days as (

        select distinct
            customer_id,
            order_date
        from {{ source('intermediate', 'account_day_queue') }}
        where claimed_by = '{{ var("run_id") }}' and customer_id <> ''

    ),

    claimed_orders as (

        select distinct
            lines_of_days.customer_id,
            lines_of_days.order_id
        from claimed_days
        inner join {{ ref('stg_order_lines') }} as lines_of_days
            on
                claimed_days.customer_id = lines_of_days.customer_id
                and lines_of_days.ordered_at >= {{ day_start('claimed_days.order_date') }}
                and lines_of_days.ordered_at < {{ day_start(days_before('claimed_days.order_date', -1)) }}

    ),
    {% endif %}
    order_lines as (

        select lines_of_orders.*
        from {{ ref('stg_order_lines') }} as lines_of_orders
        {%- if is_incremental() %}
        inner join claimed_orders
            on
                lines_of_orders.customer_id = claimed_orders.customer_id
                and lines_of_orders.order_id = claimed_orders.order_id
        {%- endif %}
        where lines_of_orders.customer_id is not null

    )
{%- endmacro %}


{#- The current events of the claimed days, or of all days on a full build, as the CTE events and what it needs. The events of
    a day are found by time: each stretch of days is read once, whatever number of accounts it is for. -#}
{% macro events_to_roll_up() -%}
    {%- if is_incremental() -%}
    claimed_days as (

        select distinct
            customer_id,
            usage_date
        from {{ source('intermediate', 'usage_day_queue') }}
        where claimed_by = '{{ var("run_id") }}'

    ),

    dates as (

        select
            usage_date,
            lag(usage_date) over (order by usage_date) as date_before
        from (select distinct usage_date from claimed_days) as distinct_dates

    ),

    numbered_dates as (

        select
            usage_date,
            sum(case when {{ days_between('date_before', 'usage_date') }} <= 31 then 0 else 1 end)
                over (order by usage_date rows between unbounded preceding and current row) as stretch
        from dates

    ),

    stretches as (

        select
            min(usage_date) as first_date,
            max(usage_date) as last_date
        from numbered_dates
        group by stretch

    ),

    whole_days as (

        select usage_date
        from claimed_days
        where customer_id = ''

    ),
    {% endif %}
    events as (

        select events_of_days.*
        from {{ ref('stg_events') }} as events_of_days
        {%- if is_incremental() %}
        inner join stretches
            on
                events_of_days.event_at >= {{ day_start('stretches.first_date') }}
                and events_of_days.event_at < {{ day_start(days_before('stretches.last_date', -1)) }}
        left join whole_days
            on events_of_days.usage_date = whole_days.usage_date
        left join claimed_days
            on
                events_of_days.customer_id = claimed_days.customer_id
                and events_of_days.usage_date = claimed_days.usage_date
        {%- endif %}
        where
            events_of_days.customer_id is not null
            {%- if is_incremental() %}
            and (whole_days.usage_date is not null or claimed_days.usage_date is not null)
            {%- endif %}

    )
{%- endmacro %}
