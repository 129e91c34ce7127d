{{ config(indexes=[{'columns': ['as_of_date', 'kpi', 'dimension', 'dimension_value'], 'unique': true}]) }}

{%- set sums = {
    'ended': 'sum(fact.is_of_renewal_month)',
    'renewed': 'sum(fact.is_of_renewal_month * fact.is_renewed)',
    'sent': 'sum(fact.is_of_signing_month)',
    'signed': 'sum(case when fact.is_of_signing_month = 1 and fact.hours_to_sign is not null then 1 else 0 end)',
    'waiting': 'coalesce(sum(fact.is_waiting), 0)',
} %}
{%- set kpis = {
    'contract_renewal_rate': {
        'numerator': 'renewed',
        'denominator': 'ended',
        'reason': "'no contract ended in the newest month whose grace is over'",
    },
    'contract_signed_rate': {
        'numerator': 'signed',
        'denominator': 'sent',
        'reason': "'no contract was sent in the newest month whose windows are over'",
    },
    'contracts_waiting': {
        'numerator': 'case when contracts_known > 0 then waiting end',
        'reason': "'no contract is known'",
    },
} %}
{%- set not_signed = "case when measured > 0 then 'half of the contracts or more were not signed within the window'
                else 'no contract was sent in the newest month whose windows are over' end" %}
{%- set duration_kpis = {
    'contract_signing_hours_mean': {
        'numerator': 'mean_hours',
        'reason': "case when measured > 0 then 'no contract was signed within the window'
                else 'no contract was sent in the newest month whose windows are over' end",
    },
    'contract_signing_hours_median': {'numerator': 'median_hours', 'reason': not_signed},
} %}

-- depends_on: {{ ref('kpi_dates') }}

with

kpi_dates as (

    select as_of_date from {{ ref('growth_dates') }}

),

contracts as (

    select * from {{ ref('contract_outcomes') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

first_contracts as (

    select min(valid_from_date) as first_known_on from {{ ref('stg_contracts') }}

),

summed as (

    {{ sums_by_dimension('kpi_dates', 'contracts', sums, {'tier': 'tier_before'}) }}

),

sums as (

    select
        summed.*,
        case when first_contracts.first_known_on <= summed.as_of_date then 1 else 0 end as contracts_known
    from summed
    cross join first_contracts

),

durations as (

    {{ durations_of('contract_signing') }}

),

final as (

    {{ kpi_rows('sums', kpis) }}
    union all
    {{ kpi_rows('durations', duration_kpis) }}

)

select * from final
