{#- Marts hold the run's date, every date that was built, and every month-end since the first order, or, of a company
    without any, since its first signed contract. A build makes
      int_dates_due   the run's date and the month-ends that were never built: their profiles, bands, tiers, segments
      kpi_dates       these, and the month-ends whose features this build has made anew: their KPIs
    and notes in built_dates, last of all, that they stand. Profiles, tiers and segments of a date stay as they were built,
    as people were told them; features and KPIs follow what is known of the past. -#}

{#- The table built_dates as it stands before the build; none before the first one. dbt's cache is not asked: of a schema
    that the nodes at work are not in, it holds what other relations are made from, and would say that there is none. -#}
{% macro dates_built_before() -%}
    {%- if execute -%}
    {%- set built_dates = api.Relation.create(database=this.database, schema='marts', identifier='built_dates') -%}
    {{ return(built_dates if is_there(built_dates) else none) }}
    {%- endif -%}
{%- endmacro %}


{#- Pre-hook of what is made for int_dates_due: takes their rows out, so that appending them again replaces them. -#}
{% macro remove_dates_due() -%}
    {%- if is_incremental() -%}
        delete from {{ this }} where as_of_date in (select as_of_date from {{ ref('int_dates_due') }})
    {%- endif -%}
{%- endmacro %}


{#- The same of what is made for kpi_dates. -#}
{% macro remove_kpi_dates() -%}
    {%- if is_incremental() -%}
        delete from {{ this }} where as_of_date in (select as_of_date from {{ ref('kpi_dates') }})
    {%- endif -%}
{%- endmacro %}


{#- Post-hook of account_features, in its transaction, before the claims are settled: the KPIs of month-ends that it has
    made anew no longer stand, nor do those from which it took an account away (its first order has moved). -#}
{% macro unsettle_kpis() -%}
    {%- set built_dates = dates_built_before() -%}
    {%- if built_dates %}
    update {{ built_dates }}
    set kpis_stand = false
    where
        {{ is_month_end('as_of_date') }}
        and (
            as_of_date in (select as_of_date from {{ ref('account_features_due') }})
            or as_of_date >= (select min(claimed.from_date) from ({{ claimed_restatements() }}) as claimed)
        )
    {%- endif -%}
{%- endmacro %}
