{#- dbt renders a test's `where` when it parses, before the run's date is known; so a test that speaks of the run's
    rows alone writes __as_of_date__, which is put in here, when it runs. -#}
{% macro get_where_subquery(relation) -%}
    {%- set where = config.get('where', '') -%}
    {%- if where -%}
        (select * from {{ relation }} where {{ where | replace('__as_of_date__', as_of_date()) }}) as of_this_run
    {%- else -%}
        {{ relation }}
    {%- endif -%}
{%- endmacro %}
