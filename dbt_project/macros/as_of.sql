{#- The date the run belongs to. Nothing here reads a clock. -#}
{% macro as_of_date() -%}
    cast('{{ var("as_of_date") }}' as date)
{%- endmacro %}


{#- The first instant after the as-of date in the company's time zone: what is known lies before it. -#}
{% macro as_of_end() -%}
    {{ day_start(days_before(as_of_date(), -1)) }}
{%- endmacro %}


{#- Pre-hook of every mart: takes the as-of date's rows out, so that appending them again replaces them,
    and an account that is no longer among them does not stay behind. -#}
{% macro remove_as_of_date() -%}
    {%- if is_incremental() -%}
        delete from {{ this }} where as_of_date = {{ as_of_date() }}
    {%- endif -%}
{%- endmacro %}


{#- Units, not policy: a year is 365 days and a quarter a fourth of it, so that a window of 365 days is
    exactly one year and exactly four quarters. -#}
{% macro days_per_year() -%} 365 {%- endmacro %}
{% macro days_per_quarter() -%} 91.25 {%- endmacro %}


{#- Post-hook of every mart: statistics for the ones that follow. A view has none. -#}
{% macro analyze_table() -%}
    {%- if model.config.materialized != 'view' -%}
        analyze {{ this }}
    {%- endif -%}
{%- endmacro %}
