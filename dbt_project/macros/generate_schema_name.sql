{#- The schema a model names is the schema it lands in: the warehouse's schemas are fixed by its migrations. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
