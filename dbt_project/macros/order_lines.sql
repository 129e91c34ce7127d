{#- Order lines as they stand, or as they stood with what was known by each of several days: of each line the newest version
    of those known by then (`calibrations` has quarter_start, known_until, input_date and input_until, the instant it ends; the
    lines up to then carry the first and the third). Amounts in the reporting currency; null without a rate. -#}
{% macro order_lines_as_known(calibrations=none) -%}
    select
        {%- if calibrations %}
        calibrations.quarter_start,
        calibrations.input_date,
        {%- endif %}
        versions.row_key,
        versions.order_id,
        versions.customer_id,
        versions.product_id,
        nullif(trim(versions.product_category), '') as product_category,
        versions.country,
        versions.quantity,
        versions.line_type,
        versions.ordered_at,
        {{ local_date('versions.ordered_at') }} as order_date,
        versions.known_on,
        case
            when versions.currency = '{{ var("reporting_currency") }}' then versions.amount
            else cast(versions.amount * exchange_rates.rate as numeric(18, 2))
        end as amount
    {%- if calibrations %}
    from (
        select
            *,
            min(known_on) over (
                partition by row_key order by load_seq rows between 1 following and unbounded following
            ) as superseded_on
        from {{ source('raw_files', 'order_lines') }}
    ) as versions
    inner join {{ calibrations }} as calibrations
        on
            versions.known_on <= calibrations.known_until
            and versions.ordered_at < calibrations.input_until
            and (versions.superseded_on > calibrations.known_until or versions.superseded_on is null)
    {%- else %}
    from {{ source('raw_files', 'order_lines') }} as versions
    left join {{ source('raw_files', 'order_lines') }} as newer_versions
        on
            versions.row_key = newer_versions.row_key
            and versions.load_seq < newer_versions.load_seq
    {%- endif %}
    left join {{ ref('stg_exchange_rates') }} as exchange_rates
        on
            versions.currency = exchange_rates.currency
            and {{ local_date('versions.ordered_at') }} >= exchange_rates.effective_from
            and (
                {{ local_date('versions.ordered_at') }} < exchange_rates.effective_until
                or exchange_rates.effective_until is null
            )
    {%- if not calibrations %}
    where newer_versions.row_key is null
    {%- endif %}
{%- endmacro %}


{#- Orders per quarter of an account: its orders in the window, over the quarters of the window that it has been a
    customer for; the first quarter counts as a whole. -#}
{% macro orders_per_quarter(orders_in_window, tenure_days, window_days) -%}
    cast(
        {{ orders_in_window }} * {{ days_per_quarter() }}
        / greatest(least({{ tenure_days }}, {{ window_days }}), {{ days_per_quarter() }})
        as numeric(12, 4)
    )
{%- endmacro %}


{#- Net revenue per year of an account since its first order; the first year counts as a whole. -#}
{% macro yearly_net_spend(net_revenue_since_first_order, tenure_days) -%}
    cast(
        {{ net_revenue_since_first_order }} * {{ days_per_year() }}
        / greatest({{ tenure_days }}, {{ days_per_year() }})
        as numeric(18, 2)
    )
{%- endmacro %}
