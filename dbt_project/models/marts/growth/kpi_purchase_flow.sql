{{ config(indexes=[{'columns': ['as_of_date', 'kpi', 'dimension', 'dimension_value'], 'unique': true}]) }}

{%- set kpis = {
    'purchase_flow_completion_rate': {
        'numerator': 'completed',
        'denominator': 'started',
        'reason': "'no session of the purchase flow is known of the month'",
    },
} %}
{%- set step_kpis = {
    'purchase_flow_lost_share': {
        'numerator': 'sessions_lost',
        'denominator': 'sessions_reached',
        'reason': "'no session reached the step'",
    },
} %}

-- depends_on: {{ ref('kpi_dates') }}

with

kpi_dates as (

    select as_of_date from {{ ref('growth_dates') }}

),

purchase_flow as (

    select * from {{ ref('purchase_flow') }}
    where
        flow = 'purchase'
        and as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

sessions as (

    select * from {{ ref('purchase_sessions') }}
    where flow = 'purchase'

),

sums as (

    {{ sums_by_dimension(
        'kpi_dates',
        'sessions',
        {'started': 'count(fact.session_key)', 'completed': 'sum(fact.is_completed)'},
        {'tier': 'tier'}
    ) }}

),

steps as (

    select
        as_of_date,
        'step' as dimension,
        step as dimension_value,
        sessions_lost,
        sessions_reached
    from purchase_flow
    where tier = 'all'

),

final as (

    {{ kpi_rows('sums', kpis) }}
    union all
    {{ kpi_rows('steps', step_kpis) }}

)

select * from final
