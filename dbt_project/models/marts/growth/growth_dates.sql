{{ config(materialized='table', indexes=[{'columns': ['as_of_date'], 'unique': true}]) }}

{%- set numbers = [
    'acquisition_months', 'conversion_window_days', 'roi_window_days', 'resolution_window_days', 'nps_window_days',
    'csat_satisfied_from', 'csat_scale_to', 'followup_window_days', 'signing_window_days', 'renewal_grace_days',
    'session_gap_minutes', 'flow_paths_kept', 'experiment_kept_days', 'experiment_min_units',
    'churn_new_days', 'churn_horizon_days',
] %}
{%- set cohorts = {
    'conversion_month': 'conversion_window_days',
    'roi_month': 'roi_window_days - 1',
    'resolution_month': 'resolution_window_days',
    'signing_month': 'signing_window_days',
    'renewal_month': 'renewal_grace_days',
} %}

with

kpi_dates as (

    select as_of_date from {{ ref('kpi_dates') }}

),

numbers as (

    {{ thresholds_on_dates(numbers, 'kpi_dates', kind='integer') }}

),

final as (

    select
        *,
        {{ month_start('as_of_date') }} as month,
        {{ months_after(month_start('as_of_date'), '-acquisition_months') }} as first_cohort_month,
        {%- for month, window in cohorts.items() %}
        {{ cohort_month('as_of_date', window) }} as {{ month }}{% if not loop.last %},{% endif %}
        {%- endfor %}
    from numbers

)

select * from final
