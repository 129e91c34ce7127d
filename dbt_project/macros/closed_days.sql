{#- Days whose raw events housekeeping has dropped cannot be made again. A full rebuild takes them over from the
    table as it was, to the columns the model names; one that the table did not have yet is null for them. The loader
    lands no event of such a day again, so no queue ever names one. Put at the end of the model. -#}
{% macro closed_days(columns, day) -%}
    {%- set housekeeping = source('audit', 'housekeeping') -%}
    {%- if execute and not is_incremental() and load_relation(this) is not none %}
    {%- set had = adapter.get_columns_in_relation(this) | map(attribute='name') | list %}
    union all
    select
        {%- for column in columns %}
        {{ column if column in had else 'null as ' ~ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ this }}
    where {{ day }} < (
        select max(dropped.older_than)
        from {{ housekeeping }} as dropped
        where dropped.thing = 'raw_events'
    )
    {%- endif -%}
{%- endmacro %}
