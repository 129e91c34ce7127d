{#- The rows of a policy seed in force on the as-of date: for each key (a column, several, or the whole seed where none
    is given) the newest rows whose effective_from is not after it. A changed number is a new row with its own date;
    older dates keep the older number. -#}
{% macro policy_rows(seed, key=[]) -%}
    {%- set keys = [key] if key is string else key -%}
    select dated.*
    from (
        select
            policy.*,
            rank() over (
                {% if keys %}partition by policy.{{ keys | join(', policy.') }} {% endif %}order by policy.effective_from desc
            ) as newness
        from {{ ref(seed) }} as policy
        where policy.effective_from <= {{ as_of_date() }}
    ) as dated
    where dated.newness = 1
{%- endmacro %}


{#- The same on each date of a relation with a column as_of_date, which the rows then carry. -#}
{% macro policy_rows_on_dates(seed, key=[], dates=none) -%}
    {%- set keys = [key] if key is string else key -%}
    select dated.*
    from (
        select
            dates.as_of_date,
            policy.*,
            rank() over (
                partition by dates.as_of_date{% for column in keys %}, policy.{{ column }}{% endfor %}
                order by policy.effective_from desc
            ) as newness
        from {{ dates }} as dates
        inner join {{ ref(seed) }} as policy on dates.as_of_date >= policy.effective_from
    ) as dated
    where dated.newness = 1
{%- endmacro %}


{#- Pre-hook of what joins accounts with policies on many dates: these come out of window functions, whose size PostgreSQL
    takes for one row, and a join row by row that it then chooses took a minute and more for 20,000 accounts. -#}
{% macro join_by_hash() -%} set local enable_nestloop = off {%- endmacro %}


{#- Numbers of a policy of single numbers on each date of a relation, a column each of the type `kind`, as a query: one row per
    as_of_date. -#}
{% macro thresholds_on_dates(names, dates, kind='numeric', seed='thresholds') -%}
    select
        as_of_date,
        {%- for name in names %}
        cast(max(case when name = '{{ name }}' then value end) as {{ kind }}) as {{ name }}{{ ',' if not loop.last }}
        {%- endfor %}
    from ({{ policy_rows_on_dates(seed, key='name', dates=dates) }}) as thresholds_in_force
    group by as_of_date
{%- endmacro %}


{#- One number of the thresholds policy, as a scalar subquery; `policy` is the CTE that holds the rows in force. -#}
{% macro threshold(name, policy='thresholds') -%}
    (select in_force.value from {{ policy }} as in_force where in_force.name = '{{ name }}')
{%- endmacro %}


{#- Joins the band of the RFM policy that a value falls into on its date, as `<metric>_bands`. Needs a CTE named bands. -#}
{% macro join_band(metric, relation, column) -%}
    {%- set value = relation ~ '.' ~ column -%}
    left join bands as {{ metric }}_bands
        on
            {{ relation }}.as_of_date = {{ metric }}_bands.as_of_date
            and {{ metric }}_bands.metric = '{{ metric }}'
            and ({{ metric }}_bands.from_value is null or {{ value }} >= {{ metric }}_bands.from_value)
            and ({{ metric }}_bands.below_value is null or {{ value }} < {{ metric }}_bands.below_value)
{%- endmacro %}
