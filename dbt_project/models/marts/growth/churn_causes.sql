{{ config(indexes=[{'columns': ['as_of_date', 'account_id', 'cause'], 'unique': true}]) }}

{%- set measures = {
    'open_tickets': 'open_tickets',
    'tickets_90d': 'tickets_90d',
    'urgent_tickets_90d': 'urgent_tickets_90d',
    'nps_latest': 'nps_latest',
    'nps_fall': 'nps_previous - nps_latest',
    'days_since_last_login': 'days_since_last_login',
    'return_rate_365d': 'return_rate_365d',
} %}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

churn_cause_rules as (

    {{ policy_rows_on_dates('churn_cause_rules', key='cause', dates='growth_dates') }}

),

-- Accounts whose silence reached churn_horizon_days within the month of the date.
gone as (

    select
        account_features.*,
        growth_dates.month,
        {{ days_before('account_features.last_order_date', '-growth_dates.churn_horizon_days') }} as inactive_since,
        case
            when
                {{ days_between('account_features.first_order_date', 'account_features.last_order_date') }}
                < growth_dates.churn_new_days
                then 'new, never grew'
            else 'old, gone inactive'
        end as churn_kind
    from growth_dates
    inner join {{ ref('account_features') }} as account_features
        on growth_dates.as_of_date = account_features.as_of_date
    where
        {{ days_before('account_features.last_order_date', '-growth_dates.churn_horizon_days') }} >= growth_dates.month
        and account_features.days_since_last_order >= growth_dates.churn_horizon_days

),

signals as (

    {%- for measure, value in measures.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        as_of_date,
        account_id,
        '{{ measure }}' as measure,
        cast({{ value }} as numeric(18, 4)) as value
    from gone
    {%- endfor %}

),

causes as (

    select
        signals.as_of_date,
        signals.account_id,
        rules.cause,
        rules.told_by,
        signals.measure,
        signals.value,
        replace(
            replace(rules.evidence, '{value}', {{ shown_number('signals.value', 'rules.shown_as') }}),
            '{limit}', {{ shown_number('coalesce(rules.from_value, rules.to_value)', 'rules.shown_as') }}
        ) as evidence
    from signals
    inner join churn_cause_rules as rules
        on
            signals.as_of_date = rules.as_of_date
            and signals.measure = rules.measure
            and (signals.value >= rules.from_value or rules.from_value is null)
            and (signals.value <= rules.to_value or rules.to_value is null)
    where signals.value is not null

),

final as (

    select
        gone.as_of_date,
        gone.account_id,
        gone.month,
        account_tiers.tier as tier_before,
        gone.churn_kind,
        gone.inactive_since,
        coalesce(causes.cause, 'not told') as cause,
        causes.told_by,
        causes.measure,
        causes.value,
        coalesce(causes.evidence, 'No rule holds for what the sources tell of the account on the date') as evidence
    from gone
    left join causes
        on
            gone.as_of_date = causes.as_of_date
            and gone.account_id = causes.account_id
    left join {{ ref('account_tiers') }} as account_tiers
        on
            {{ days_before('gone.month', 1) }} = account_tiers.as_of_date
            and gone.account_id = account_tiers.account_id

)

select * from final
