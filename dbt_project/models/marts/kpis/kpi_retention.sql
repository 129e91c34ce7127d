{#- A rate that looks back over a window counts an account by the tier and segment it had when the window began: the
    outcome has no part in them. -#}
{%- set of_now = {
    'tier': 'tier', 'segment': 'segment', 'value_tier': 'value_tier',
    'industry': 'industry', 'company_size': 'company_size',
} %}
{%- set of_before = {
    'tier': 'tier_before', 'segment': 'segment_before', 'value_tier': 'value_tier_before',
    'industry': 'industry', 'company_size': 'company_size',
} %}
{%- set of_3m_before = {
    'tier': 'tier_3m_before', 'segment': 'segment_3m_before', 'value_tier': 'value_tier_3m_before',
    'industry': 'industry', 'company_size': 'company_size',
} %}
{%- set of_12m_before = {
    'tier': 'tier_12m_before', 'segment': 'segment_12m_before', 'value_tier': 'value_tier_12m_before',
    'industry': 'industry', 'company_size': 'company_size',
} %}

{%- set none_before = "'no account was active in the 30 days before the last 30'" %}
{%- set no_depth %}
    case
        when active_30d = 0 then 'no account was active in the last 30 days'
        when depth_sum is null then 'no behavior event is known up to the date, or no core feature is in force'
    end
{%- endset %}

with

kpi_dates as (

    select as_of_date from {{ ref('kpi_dates') }}

),

account_months as (

    select * from {{ ref('account_months') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

weights as (

    {{ thresholds_on_dates(
        ['index_weight_retention', 'index_weight_depth', 'index_weight_frequency'], 'kpi_dates',
        seed='kpi_thresholds'
    ) }}

),

sums_now as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'active_accounts': 'coalesce(sum(fact.is_active_mtd), 0)',
        'active_minutes': 'sum(fact.active_minutes_mtd)',
        'active_days': 'sum(fact.active_days_mtd)',
        'repurchases': 'sum(fact.repurchases_365d)',
        'buyers': 'sum(fact.has_ordered_365d)',
    }, of_now) }}

),

sums_before as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'active_before': 'sum(fact.was_active_month_before)',
        'retained': 'sum(fact.was_active_month_before * fact.is_active_mtd)',
        'active_prior_30d': 'sum(fact.was_active_prior_30d)',
        'retained_30d': 'sum(fact.was_active_prior_30d * fact.is_active_30d)',
        'active_30d': 'coalesce(sum(fact.is_active_30d), 0)',
        'depth_sum': 'sum(fact.feature_depth * fact.is_active_30d)',
        'frequency_sum': 'sum(fact.order_frequency * fact.is_active_30d)',
    }, of_before) }}

),

-- Without a value a part makes the index null; its weight goes to no other part.
parts as (

    select
        sums_before.*,
        cast(sums_before.retained_30d as numeric(18, 4)) / nullif(sums_before.active_prior_30d, 0)
        * weights.index_weight_retention
        + sums_before.depth_sum / nullif(sums_before.active_30d, 0) * weights.index_weight_depth
        + sums_before.frequency_sum / nullif(sums_before.active_30d, 0) * weights.index_weight_frequency
            as index_share
    from sums_before
    left join weights on sums_before.as_of_date = weights.as_of_date

),

sums_3m_before as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'active_prior_90d': 'sum(fact.was_active_prior_90d)',
        'retained_90d': 'sum(fact.was_active_prior_90d * fact.is_active_90d)',
    }, of_3m_before) }}

),

sums_12m_before as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'bought_prior_365d': 'sum(fact.has_ordered_prior_365d)',
        'retained_365d': 'sum(fact.has_ordered_prior_365d * fact.has_ordered_365d)',
    }, of_12m_before) }}

),

final as (

    {{ kpi_rows('sums_now', {
        'monthly_active_accounts': {'numerator': 'active_accounts'},
        'minutes_a_day': {
            'numerator': 'nullif(active_minutes, 0)',
            'denominator': 'active_days',
            'reason': "'no behavior event of the month tells how long it lasted'",
        },
        'repurchases_yearly': {
            'numerator': 'repurchases',
            'denominator': 'buyers',
            'reason': "'no account ordered in the last 365 days'",
        },
    }) }}
    union all
    {{ kpi_rows('parts', {
        'retention_monthly': {
            'numerator': 'retained',
            'denominator': 'active_before',
            'reason': "'no account was active in the month before'",
        },
        'churn_monthly': {
            'numerator': 'active_before - retained',
            'denominator': 'active_before',
            'reason': "'no account was active in the month before'",
        },
        'retention_30d': {'numerator': 'retained_30d', 'denominator': 'active_prior_30d', 'reason': none_before},
        'feature_depth': {'numerator': 'depth_sum', 'denominator': 'active_30d', 'reason': no_depth},
        'order_frequency': {
            'numerator': 'frequency_sum',
            'denominator': 'active_30d',
            'reason': "'no account was active in the last 30 days'",
        },
        'retention_index': {
            'value': '100 * index_share',
            'reason': 'case when active_prior_30d > 0 then ' ~ no_depth ~ ' else ' ~ none_before ~ ' end',
        },
    }) }}
    union all
    {{ kpi_rows('sums_3m_before', {
        'retention_90d': {
            'numerator': 'retained_90d',
            'denominator': 'active_prior_90d',
            'reason': "'no account was active in the 90 days before the last 90'",
        },
    }) }}
    union all
    {{ kpi_rows('sums_12m_before', {
        'retention_yearly': {
            'numerator': 'retained_365d',
            'denominator': 'bought_prior_365d',
            'reason': "'no account ordered in the 365 days before the last 365'",
        },
        'churn_yearly': {
            'numerator': 'bought_prior_365d - retained_365d',
            'denominator': 'bought_prior_365d',
            'reason': "'no account ordered in the 365 days before the last 365'",
        },
    }) }}

)

select * from final
