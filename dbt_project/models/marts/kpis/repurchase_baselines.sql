{#- What was once stored is stored again, whatever has been learned of that time since. Other than the rows of a date
    they outlive a build of their date, and a full refresh. -#}
{%- set stored = stored_baselines() %}
{{
    config(
        materialized='table',
        indexes=[{'columns': ['effective_from', 'dimension', 'dimension_value'], 'unique': true}],
    )
}}

with

{% if stored %}
stored as (

    select * from {{ stored }}

),

{% endif %}
ordering_span as (

    select min(order_date) as first_day
    from {{ ref('int_account_days') }}
    where orders > 0

),

-- Each row of the policy has a baseline of its own.
baseline_dates as (

    select
        kpi_thresholds.effective_from,
        {{ days_before(
            months_after(
                month_start(
                    'greatest(' ~ days_before('ordering_span.first_day', '-cast(kpi_thresholds.value as integer)')
                    ~ ', ' ~ days_before('kpi_thresholds.effective_from', 1) ~ ')'
                ),
                1
            ),
            1
        ) }} as baseline_date
    from {{ ref('kpi_thresholds') }} as kpi_thresholds
    cross join ordering_span
    where kpi_thresholds.name = 'repurchase_baseline_days'

),

due as (

    select baseline_dates.*
    from baseline_dates
    where
        baseline_dates.baseline_date <= {{ as_of_date() }}
        {% if stored %}
        and baseline_dates.effective_from not in (select stored.effective_from from stored)
        {% endif %}

),

account_months as (

    select
        account_months.*,
        due.effective_from
    from {{ ref('account_months') }} as account_months
    inner join due on account_months.as_of_date = due.baseline_date

),

baselines as (

    {%- for dimension, column in {'company': "cast('all' as text)", 'tier': 'account_months.tier_3m_before'}.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        account_months.effective_from,
        account_months.as_of_date as baseline_date,
        '{{ dimension }}' as dimension,
        {{ column }} as dimension_value,
        cast(sum(account_months.had_ordered_before_90d * account_months.has_ordered_90d) as bigint) as numerator,
        cast(sum(account_months.had_ordered_before_90d) as bigint) as denominator
    from account_months
    where {{ column }} is not null
    group by account_months.effective_from, account_months.as_of_date, {{ column }}
    {%- endfor %}

),

final as (

    {% if stored %}
    select
        effective_from,
        baseline_date,
        dimension,
        dimension_value,
        numerator,
        denominator,
        stored_as_of,
        run_id
    from stored
    union all
    {% endif %}
    select
        effective_from,
        baseline_date,
        dimension,
        dimension_value,
        numerator,
        denominator,
        {{ as_of_date() }} as stored_as_of,
        '{{ var("run_id") }}' as run_id
    from baselines

)

select * from final
