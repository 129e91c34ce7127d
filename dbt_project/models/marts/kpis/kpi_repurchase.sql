{%- set of_3m_before = {
    'tier': 'tier_3m_before', 'segment': 'segment_3m_before', 'value_tier': 'value_tier_3m_before',
    'industry': 'industry', 'company_size': 'company_size',
} %}
{%- set no_baseline = "'no baseline is stored yet: see repurchase_baseline_days in kpi_thresholds'" %}

with

kpi_dates as (

    select as_of_date from {{ ref('kpi_dates') }}

),

account_months as (

    select * from {{ ref('account_months') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

baselines_in_force as (

    select
        thresholds.as_of_date,
        baselines.dimension,
        baselines.dimension_value,
        cast(baselines.numerator as numeric(18, 8)) / nullif(baselines.denominator, 0) as rate
    from ({{ policy_rows_on_dates('kpi_thresholds', key='name', dates='kpi_dates') }}) as thresholds
    inner join {{ ref('repurchase_baselines') }} as baselines
        on
            thresholds.effective_from = baselines.effective_from
            and thresholds.as_of_date >= baselines.baseline_date
    where thresholds.name = 'repurchase_baseline_days'

),

sums as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'had_ordered': 'sum(fact.had_ordered_before_90d)',
        'ordered_again': 'sum(fact.had_ordered_before_90d * fact.has_ordered_90d)',
    }, of_3m_before) }}

),

compared as (

    select
        sums.*,
        cast(sums.ordered_again as numeric(18, 8)) / nullif(sums.had_ordered, 0) as rate,
        baselines_in_force.rate as baseline_rate
    from sums
    left join baselines_in_force
        on
            sums.as_of_date = baselines_in_force.as_of_date
            and sums.dimension = baselines_in_force.dimension
            and sums.dimension_value = baselines_in_force.dimension_value

),

-- What is frozen is by tier and for the company.
compared_with_baseline as (

    select * from compared
    where dimension in ('company', 'tier')

),

final as (

    {{ kpi_rows('compared', {
        'repurchase_rate': {
            'numerator': 'ordered_again',
            'denominator': 'had_ordered',
            'reason': "'no account had ordered by 90 days before'",
        },
    }) }}
    union all
    {{ kpi_rows('compared_with_baseline', {
        'repurchase_change': {
            'numerator': 'rate - baseline_rate',
            'denominator': 'baseline_rate',
            'reason': "case when rate is null then 'no account had ordered by 90 days before'"
                ~ " when baseline_rate = 0 then 'the baseline is 0' else " ~ no_baseline ~ " end",
        },
    }) }}

)

select * from final
