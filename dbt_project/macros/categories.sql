{#- Product categories by series of days, as macros/identity.sql has them of orders and usage. -#}

{% macro category_series() -%}
    (
        select
            account_id as series_id, order_date, product_category, orders, net_revenue
        from {{ ref('int_category_days') }}
        union all
        select
            series_id, order_date, product_category, orders, net_revenue
        from {{ ref('int_merged_category_days') }}
    )
{%- endmacro %}


{#- Since when a series has bought each category, and until when, over all days loaded. Those of merged accounts are few,
    and made where they are asked for. -#}
{% macro series_categories() -%}
    (
        select
            account_id as series_id, product_category, first_line_date, first_order_date, last_order_date
        from {{ ref('int_account_categories') }}
        union all
        select
            series_id,
            product_category,
            min(order_date) as first_line_date,
            min(case when orders > 0 then order_date end) as first_order_date,
            max(case when orders > 0 then order_date end) as last_order_date
        from {{ ref('int_merged_category_days') }}
        group by series_id, product_category
    )
{%- endmacro %}


{#- The categories of a row that is due (`pair`: as_of_date, order_series_id) of which a line is dated up to its date:
      first_order_date  also after the date
      is_new            first ordered up to the date, on a later day than the first of all
      is_bought_365d    ordered in the last 365 days
    A category counts in the window by its first day or its last one alone; only where the first lies before the window and
    the last after the date are its days looked up. -#}
{% macro categories_by_date(pair) -%}
    {%- set window_start = days_before(pair ~ '.as_of_date', 364) -%}
    (
        select
            categories.first_order_date,
            categories.first_order_date <= {{ pair }}.as_of_date
            and categories.first_order_date > min(categories.first_order_date) over () as is_new,
            case
                when categories.first_order_date > {{ pair }}.as_of_date then false
                when categories.first_order_date >= {{ window_start }} then true
                when categories.last_order_date <= {{ pair }}.as_of_date
                    then categories.last_order_date >= {{ window_start }}
                else exists (
                    select 1
                    from {{ category_series() }} as category_days
                    where
                        category_days.series_id = {{ pair }}.order_series_id
                        and category_days.product_category = categories.product_category
                        and category_days.order_date >= {{ window_start }}
                        and category_days.order_date <= {{ pair }}.as_of_date
                        and category_days.orders > 0
                )
            end as is_bought_365d
        from {{ series_categories() }} as categories
        where
            categories.series_id = {{ pair }}.order_series_id
            and categories.first_line_date <= {{ pair }}.as_of_date
    )
{%- endmacro %}
