{{ config(materialized='table', indexes=[{'columns': ['as_of_date'], 'unique': true}]) }}

-- depends_on: {{ ref('account_features') }}
{%- set built_dates = dates_built_before() %}

with

final as (

    select as_of_date from {{ ref('int_dates_due') }}
    {% if built_dates %}
    union
    select built.as_of_date from {{ built_dates }} as built
    where
        {{ is_month_end('built.as_of_date') }}
        and built.as_of_date < {{ as_of_date() }}
        and (not built.kpis_stand or built.kpi_definition <> '{{ var("kpi_definition") }}')
    {% endif %}

)

select * from final
