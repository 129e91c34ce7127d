{#- Rates that look forward (a lead becomes a trial, a contract is renewed) are taken of the newest calendar month of which
    every day has had its whole window: a younger one would look worse than it is. Both need growth_dates. -#}

{#- The first day of the newest calendar month whose last day lies `window_days` or more before `day`. -#}
{% macro cohort_month(day, window_days) -%}
    {{ month_start(days_before(month_start(days_before(day, window_days ~ ' - 1')), 1)) }}
{%- endmacro %}


{#- The outcome of a deal on a date: won, lost or open. Needs a CTE deal_stages with the policy on dates. -#}
{% macro is_won(deals, deal_stages) -%}
    ({{ deals }}.is_won or coalesce({{ deal_stages }}.outcome = 'won', false))
{%- endmacro %}


{#- Rows of a fact as they count: once for the whole company, once for their value of each dimension. -#}
{% macro rows_by_dimension(fact, dimensions) -%}
    select
        *,
        'company' as dimension,
        'all' as dimension_value
    from {{ fact }}
    {%- for dimension, column in dimensions.items() %}
    union all
    select
        *,
        '{{ dimension }}' as dimension,
        {{ column }} as dimension_value
    from {{ fact }}
    where {{ column }} is not null
    {%- endfor %}
{%- endmacro %}


{#- The durations of a measure, one row for the company on every date. Needs a CTE kpi_dates. -#}
{% macro durations_of(measure) -%}
    select
        kpi_dates.as_of_date,
        coalesce(growth_durations.dimension, 'company') as dimension,
        coalesce(growth_durations.dimension_value, 'all') as dimension_value,
        growth_durations.measured,
        growth_durations.mean_hours,
        growth_durations.median_hours
    from kpi_dates
    left join {{ ref('growth_durations') }} as growth_durations
        on
            kpi_dates.as_of_date = growth_durations.as_of_date
            and growth_durations.measure = '{{ measure }}'
{%- endmacro %}


{#- Channels as the policy calls them: systems spell one differently (PAID_SEARCH, Paid Search, ppc), and who was spent on
    would not be found among who came. A channel without a row of the policy goes by its own words. -#}
{% macro channel_words(told) -%}
    nullif(replace(replace(lower(trim({{ told }})), ' ', '_'), '-', '_'), '')
{%- endmacro %}


{#- The channel that `told` is, after join_channel_names. -#}
{% macro channel_of(told) -%}
    coalesce(channel_names.channel, {{ channel_words(told) }})
{%- endmacro %}


{#- Joins the policy in force on the as_of_date of `relation`. Needs a CTE channel_names with the policy on dates. -#}
{% macro join_channel_names(relation, told) -%}
    left join channel_names
        on
            {{ relation }}.as_of_date = channel_names.as_of_date
            and {{ channel_words(told) }} = channel_names.told_as
{%- endmacro %}


{#- A number as people read it; `shown_as` is percent of a share, else number. -#}
{% macro shown_number(number, shown_as) -%}
    case
        when {{ shown_as }} = 'percent' then cast(round(100 * {{ number }}) as integer) || ' %'
        else {{ as_text('cast(round(' ~ number ~ ') as integer)') }}
    end
{%- endmacro %}
