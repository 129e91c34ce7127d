{{ config(indexes=[{'columns': ['as_of_date', 'kpi', 'dimension', 'dimension_value'], 'unique': true}]) }}

{%- set kpis = {'accounts_gone_inactive': {'numerator': 'accounts'}} %}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select as_of_date from {{ ref('growth_dates') }}

),

churn_causes as (

    select * from {{ ref('churn_causes') }}
    where as_of_date in (select growth_dates.as_of_date from growth_dates)

),

accounts as (

    select distinct
        as_of_date,
        account_id,
        churn_kind,
        tier_before
    from churn_causes

),

sums as (

    {{ sums_by_dimension(
        'growth_dates',
        'accounts',
        {'accounts': 'count(fact.account_id)'},
        {'tier': 'tier_before', 'churn_kind': 'churn_kind'}
    ) }}
    union all
    select
        as_of_date,
        'cause' as dimension,
        cause as dimension_value,
        count(*) as accounts
    from churn_causes
    group by as_of_date, cause

),

final as (

    {{ kpi_rows('sums', kpis) }}

)

select * from final
