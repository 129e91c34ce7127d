{#- How KPIs are made of a fact: a family model sums the fact (`sums_by_dimension`) and makes rows of the sums
    (`kpi_rows`); marts.kpis is the union of the families. -#}

{#- Sums of a fact per as_of_date: of the whole company, for every date of `dates`, and by each value of each dimension.
      dates       a relation of as_of_date: the fact is expected to hold these dates alone
      sums        column → aggregate
      dimensions  dimension → column of the fact
    A row of the fact without a value of a dimension counts in the company's sums alone. -#}
{% macro sums_by_dimension(dates, fact, sums, dimensions) -%}
    select
        dates.as_of_date,
        'company' as dimension,
        'all' as dimension_value
        {%- for name, aggregate in sums.items() %},
        {{ aggregate }} as {{ name }}
        {%- endfor %}
    from {{ dates }} as dates
    left join {{ fact }} as fact on dates.as_of_date = fact.as_of_date
    group by dates.as_of_date
    {%- for dimension, column in dimensions.items() %}
    union all
    select
        fact.as_of_date,
        '{{ dimension }}' as dimension,
        fact.{{ column }} as dimension_value
        {%- for name, aggregate in sums.items() %},
        {{ aggregate }} as {{ name }}
        {%- endfor %}
    from {{ fact }} as fact
    where fact.{{ column }} is not null
    group by fact.as_of_date, fact.{{ column }}
    {%- endfor %}
{%- endmacro %}


{#- One row per row of `sums` and KPI. `kpis`: name → expressions over a row of `sums`:
      numerator, denominator  what is divided; without a denominator the numerator is the value
      value                   where it is neither
      reason                  text, or null: why there is no value, where it is not that nothing is to be measured -#}
{% macro kpi_rows(sums, kpis) -%}
    {%- for kpi, parts in kpis.items() %}
    {%- set numerator = parts.get('numerator', 'null') %}
    {%- set denominator = parts.get('denominator', 'null') %}
    {%- set ratio = 'cast(' ~ numerator ~ ' as numeric(28, 10))' %}
    {%- if 'denominator' in parts %}
    {%- set ratio = ratio ~ ' / nullif(' ~ denominator ~ ', 0)' %}
    {%- endif %}
    {%- set value = parts.get('value', ratio) %}
    {% if not loop.first %}union all{% endif %}
    select
        as_of_date,
        '{{ kpi }}' as kpi,
        dimension,
        dimension_value,
        cast({{ numerator }} as numeric(18, 4)) as numerator,
        cast({{ denominator }} as numeric(18, 4)) as denominator,
        cast({{ value }} as numeric(18, 6)) as value,
        case
            when {{ value }} is null then coalesce({{ parts.get('reason', 'null') }}, 'nothing to measure')
        end as no_value_reason
    from {{ sums }}
    {%- endfor %}
{%- endmacro %}


{#- The table repurchase_baselines as it stands before the build; none before the first one. -#}
{% macro stored_baselines() -%}
    {%- if execute -%}
    {{ return(adapter.get_relation(this.database, this.schema, 'repurchase_baselines')) }}
    {%- endif -%}
{%- endmacro %}
