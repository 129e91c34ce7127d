{#- Days whose raw events housekeeping has dropped cannot be made again. A full rebuild takes them over from the
    table as it was, to the columns the model names; the loader lands no event of such a day again, so no queue
    ever names one. Put at the end of the model. -#}
{% macro closed_days(columns, day) -%}
    {%- set housekeeping = source('audit', 'housekeeping') -%}
    {%- if execute and not is_incremental() and load_relation(this) is not none %}
    union all
    select
        {{ columns | join(',\n        ') }}
    from {{ this }}
    where {{ day }} < (
        select max(dropped.older_than)
        from {{ housekeeping }} as dropped
        where dropped.thing = 'raw_events'
    )
    {%- endif -%}
{%- endmacro %}
