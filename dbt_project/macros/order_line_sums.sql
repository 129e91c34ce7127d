{#- The additive measures of order lines, defined once for lines with and without a customer. -#}
{% macro order_line_sums() -%}
    count(*) as order_lines,
        count(case when line_type = 'sale' then 1 end) as sale_lines,
        count(case when line_type = 'return' then 1 end) as return_lines,
        count(case when line_type = 'non_product' then 1 end) as non_product_lines,
        count(case when amount is null then 1 end) as unpriced_lines,
        coalesce(sum(case when line_type <> 'non_product' then quantity end), 0) as units,
        coalesce(sum(case when line_type = 'sale' then amount end), 0) as gross_sales,
        coalesce(-sum(case when line_type = 'return' then amount end), 0) as returns_amount,
        coalesce(sum(case when line_type <> 'non_product' then amount end), 0) as net_revenue,
        coalesce(sum(case when line_type = 'non_product' then amount end), 0) as non_product_amount
{%- endmacro %}


{#- The same measures summed over rows that hold them already. -#}
{% macro order_line_totals(relation) -%}
    {%- for count in ['order_lines', 'sale_lines', 'return_lines', 'non_product_lines', 'unpriced_lines'] %}
        cast(sum({{ relation }}.{{ count }}) as bigint) as {{ count }},
    {%- endfor %}
        cast(sum({{ relation }}.units) as numeric(18, 4)) as units,
    {%- for amount in ['gross_sales', 'returns_amount', 'net_revenue', 'non_product_amount'] %}
        cast(sum({{ relation }}.{{ amount }}) as numeric(18, 2)) as {{ amount }}{% if not loop.last %},{% endif %}
    {%- endfor %}
{%- endmacro %}
