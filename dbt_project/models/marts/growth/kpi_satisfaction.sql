{{ config(indexes=[{'columns': ['as_of_date', 'kpi', 'dimension', 'dimension_value'], 'unique': true}]) }}

{%- set ticket_sums = {
    'opened': 'sum(fact.is_of_resolution_month)',
    'resolved': 'sum(fact.is_of_resolution_month * fact.is_resolved_in_window)',
} %}
{%- set answer_sums = {
    'respondents': 'sum(fact.is_nps_in_force)',
    'promoters': 'sum(fact.is_promoter)',
    'detractors': 'sum(fact.is_detractor)',
    'csat_answers': 'sum(fact.is_csat_of_month)',
    'csat_points': 'sum(case when fact.is_csat_of_month = 1 then fact.answer end)',
    'satisfied': 'sum(fact.is_satisfied)',
    'to_follow_up': 'sum(fact.is_to_follow_up)',
    'followed_up': 'sum(fact.is_to_follow_up * fact.is_followed_up)',
    'untold': 'count(case when fact.is_to_follow_up = 1 and fact.is_followed_up is null then 1 end)',
} %}
{%- set account_sums = {'accounts': 'count(fact.account_nps)', 'nps_points': 'sum(fact.account_nps)'} %}
{%- set tiers = {'tier': 'tier_before'} %}
{%- set ticket_kpis = {
    'ticket_resolution_rate': {
        'numerator': 'resolved',
        'denominator': 'opened',
        'reason': "'no ticket was opened in the newest month whose windows are over'",
    },
} %}
{%- set answer_kpis = {
    'company_nps': {
        'numerator': '100 * (promoters - detractors)',
        'denominator': 'respondents',
        'reason': "'nobody has answered an NPS survey within the window'",
    },
    'csat': {
        'numerator': 'satisfied',
        'denominator': 'csat_answers',
        'reason': "'no CSAT answer in the month'",
    },
    'csat_mean': {
        'numerator': 'csat_points',
        'denominator': 'csat_answers',
        'reason': "'no CSAT answer in the month'",
    },
    'detractors_followed_up': {
        'numerator': 'followed_up',
        'denominator': 'case when untold = 0 then to_follow_up end',
        'reason': "case when untold > 0 then 'no ticket and no opportunity is known that could tell'
                    else 'no detractor answered within nps_window_days whose time to be heard is over' end",
    },
} %}
{%- set account_kpis = {
    'account_nps': {
        'numerator': 'nps_points',
        'denominator': 'accounts',
        'reason': "'nobody has answered an NPS survey within the window'",
    },
} %}
{%- set duration_kpis = {
    'ticket_resolution_hours_mean': {'numerator': 'mean_hours', 'reason': "'no ticket was resolved in the month'"},
    'ticket_resolution_hours_median': {'numerator': 'median_hours', 'reason': "'no ticket was resolved in the month'"},
} %}

-- depends_on: {{ ref('kpi_dates') }}

with

kpi_dates as (

    select as_of_date from {{ ref('growth_dates') }}

),

tickets as (

    select * from {{ ref('ticket_resolutions') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

answers as (

    select * from {{ ref('feedback_answers') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

-- Each account counts once, however many of it answer.
account_answers as (

    select
        as_of_date,
        account_id,
        tier_before,
        100 * cast(sum(is_promoter) - sum(is_detractor) as numeric) / sum(is_nps_in_force) as account_nps
    from answers
    where is_nps_in_force = 1
    group by as_of_date, account_id, tier_before

),

ticket_sums as (

    {{ sums_by_dimension('kpi_dates', 'tickets', ticket_sums, tiers) }}

),

answer_sums as (

    {{ sums_by_dimension('kpi_dates', 'answers', answer_sums, tiers) }}

),

account_sums as (

    {{ sums_by_dimension('kpi_dates', 'account_answers', account_sums, tiers) }}

),

durations as (

    {{ durations_of('ticket_resolution') }}

),

final as (

    {{ kpi_rows('ticket_sums', ticket_kpis) }}
    union all
    {{ kpi_rows('answer_sums', answer_kpis) }}
    union all
    {{ kpi_rows('account_sums', account_kpis) }}
    union all
    {{ kpi_rows('durations', duration_kpis) }}

)

select * from final
