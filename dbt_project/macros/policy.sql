{#- The rows of a policy seed in force on the as-of date: for each key the newest row whose effective_from
    is not after it. A changed number is a new row with its own date; older dates keep the older number. -#}
{% macro policy_rows(seed, key) -%}
    select dated.*
    from (
        select
            policy.*,
            rank() over (partition by policy.{{ key }} order by policy.effective_from desc) as newness
        from {{ ref(seed) }} as policy
        where policy.effective_from <= {{ as_of_date() }}
    ) as dated
    where dated.newness = 1
{%- endmacro %}


{#- One number of the thresholds policy, as a scalar subquery. -#}
{% macro threshold(name) -%}
    (select in_force.value from thresholds as in_force where in_force.name = '{{ name }}')
{%- endmacro %}


{#- Joins the band of the RFM policy that a value falls into, as `<metric>_bands`. Needs a CTE named bands. -#}
{% macro join_band(metric, value) -%}
    left join bands as {{ metric }}_bands
        on
            {{ metric }}_bands.metric = '{{ metric }}'
            and ({{ metric }}_bands.from_value is null or {{ value }} >= {{ metric }}_bands.from_value)
            and ({{ metric }}_bands.below_value is null or {{ value }} < {{ metric }}_bands.below_value)
{%- endmacro %}
