{%- set of_now = {
    'tier': 'tier', 'segment': 'segment', 'value_tier': 'value_tier',
    'industry': 'industry', 'company_size': 'company_size', 'age_stage': 'age_stage',
} %}
{%- set of_12m_before = {
    'tier': 'tier_12m_before', 'segment': 'segment_12m_before', 'value_tier': 'value_tier_12m_before',
    'industry': 'industry', 'company_size': 'company_size',
} %}
{%- set no_buyers = "'no account ordered in the last 365 days'" %}

with

kpi_dates as (

    select as_of_date from {{ ref('kpi_dates') }}

),

account_months as (

    select * from {{ ref('account_months') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

thresholds as (

    {{ thresholds_on_dates(['ltv_max_years'], 'kpi_dates', seed='kpi_thresholds') }}

),

sums as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'accounts': 'count(fact.account_id)',
        'buyers': 'sum(fact.has_ordered_365d)',
        'net_revenue_365d': 'sum(fact.net_revenue_365d)',
        'net_revenue_total': 'sum(fact.net_revenue_total)',
        'orders_30d': 'sum(fact.orders_30d)',
        'gross_sales_30d': 'sum(fact.gross_sales_30d)',
    }, of_now) }}

),

sums_12m_before as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'could_spend_more': 'sum(fact.could_spend_more)',
        'spend_more': 'sum(fact.spends_more)',
        'could_buy_new_category': 'sum(fact.could_buy_new_category)',
        'buy_new_category': 'sum(fact.buys_new_category)',
    }, of_12m_before) }}

),

-- How long an account is expected to stay on: 1 over the company's yearly churn, at most what the policy says.
expected_years as (

    select
        account_months.as_of_date,
        case
            when sum(account_months.has_ordered_prior_365d) > 0
                then
                    least(
                        max(thresholds.ltv_max_years),
                        coalesce(
                            cast(sum(account_months.has_ordered_prior_365d) as numeric(18, 8))
                            / nullif(
                                sum(account_months.has_ordered_prior_365d * (1 - account_months.has_ordered_365d)), 0
                            ),
                            max(thresholds.ltv_max_years)
                        )
                    )
        end as years
    from account_months
    inner join thresholds on account_months.as_of_date = thresholds.as_of_date
    group by account_months.as_of_date

),

lifetimes as (

    select
        sums.*,
        sums.net_revenue_total + sums.net_revenue_365d * expected_years.years as lifetime_revenue
    from sums
    left join expected_years on sums.as_of_date = expected_years.as_of_date

),

-- An account that returned more than it bought brings nothing; it takes nothing from what the others brought.
revenue_shares as (

    {{ sums_by_dimension('kpi_dates', 'account_months', {
        'revenue_of_top': 'sum(greatest(fact.net_revenue_365d, 0) * fact.is_top_by_revenue)',
        'revenue': 'sum(greatest(fact.net_revenue_365d, 0) * fact.has_ordered_365d)',
    }, {}) }}

),

final as (

    {{ kpi_rows('lifetimes', {
        'arpu_yearly': {'numerator': 'net_revenue_365d', 'denominator': 'buyers', 'reason': no_buyers},
        'average_order_value': {
            'numerator': 'gross_sales_30d',
            'denominator': 'orders_30d',
            'reason': "'no order in the last 30 days'",
        },
        'ltv_historic': {
            'numerator': 'net_revenue_total',
            'denominator': 'accounts',
            'reason': "'no account has ordered'",
        },
        'ltv': {
            'numerator': 'lifetime_revenue',
            'denominator': 'accounts',
            'reason': "'no account ordered in the 365 days before the last 365: yearly churn is not known'",
        },
    }) }}
    union all
    {{ kpi_rows('revenue_shares', {
        'pareto_share': {
            'numerator': 'revenue_of_top',
            'denominator': 'revenue',
            'reason': "'no net revenue above 0 in the last 365 days'",
        },
    }) }}
    union all
    {{ kpi_rows('sums_12m_before', {
        'upsell_rate': {
            'numerator': 'spend_more',
            'denominator': 'could_spend_more',
            'reason': "'no account had net revenue above 0 in the 365 days before the last 365'",
        },
        'cross_sell_rate': {
            'numerator': 'buy_new_category',
            'denominator': 'could_buy_new_category',
            'reason': "case when could_buy_new_category is null then 'no order line up to the date has a category'"
                ~ " else 'no account ordered in the 365 days before the last 365' end",
        },
    }) }}

)

select * from final
