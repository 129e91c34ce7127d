{{ config(alias='warning_agreement') }}

{%- set window_end = days_before('told_dates.told_on', '-told_dates.horizon_days') %}
{#- Each form of churn with its model and the policy of its window. -#}
{%- set forms = {
    'no order': {'model': 'churn', 'horizon': 'churn_horizon_days'},
    'contract lapse': {'model': 'lapse', 'horizon': 'lapse_horizon_days'},
} %}

with

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

risk_bands as (

    {{ policy_rows('risk_bands') }}

),

told_dates as (

    {%- for definition, form in forms.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        '{{ definition }}' as churn_definition,
        {{ as_of_date() }} as told_on,
        cast(value as integer) as horizon_days,
        false as is_known
    from thresholds
    where name = '{{ form.horizon }}'
    union all
    select
        '{{ definition }}' as churn_definition,
        {{ days_before(month_start(days_before(as_of_date(), 'cast(value as integer) - 1')), 1) }} as told_on,
        cast(value as integer) as horizon_days,
        true as is_known
    from thresholds
    where name = '{{ form.horizon }}'
    {%- endfor %}

),

-- Of the run itself what it told, of the earlier date what was published.
scored_runs as (

    select
        churn_definition,
        told_on,
        '{{ var("run_id") }}' as run_id
    from told_dates
    where not is_known
    union all
    select
        told_dates.churn_definition,
        told_dates.told_on,
        history.run_id
    from {{ source('published', 'history_run') }} as history
    inner join told_dates on history.as_of_date = told_dates.told_on
    where told_dates.is_known

),

churn_scores as (

    select
        scored_runs.churn_definition,
        scored_runs.told_on,
        scores.account_id,
        scores.probability,
        risk_bands.risk
    from scored_runs
    inner join {{ source('ml', 'scores') }} as scores
        on
            scored_runs.run_id = scores.run_id
            and scores.model = case scored_runs.churn_definition
                {%- for definition, form in forms.items() %}
                when '{{ definition }}' then '{{ form.model }}'
                {%- endfor %}
            end
    inner join risk_bands
        on
            scores.probability >= risk_bands.from_probability
            and (scores.probability < risk_bands.below_probability or risk_bands.below_probability is null)

),

customers as (

    select
        account_id,
        source_account_id as customer_id,
        valid_from_date,
        valid_until_date
    from {{ ref('int_account_crosswalk') }}
    where source_system = 'orders'

),

-- An account counts as what it is today, so that one merged since is not lost. One look into the index for each
-- customer: joined, all order days there ever were would be read.
ordering_today as (

    select distinct
        told_dates.told_on,
        customers.account_id
    from told_dates
    cross join customers
    where
        told_dates.is_known
        and told_dates.churn_definition = 'no order'
        and customers.valid_until_date is null
        and (
            select count(*) > 0
            from {{ ref('int_account_days') }} as account_days
            where
                account_days.account_id = customers.customer_id
                and account_days.order_date > told_dates.told_on
                and account_days.order_date <= {{ window_end }}
                and account_days.orders > 0
        )

),

ordering_then as (

    select distinct
        ordering_today.told_on,
        members.account_id
    from ordering_today
    inner join customers as members_today
        on
            ordering_today.account_id = members_today.account_id
            and members_today.valid_until_date is null
    inner join customers as members
        on
            members_today.customer_id = members.customer_id
            and {{ holds_on('members', 'ordering_today.told_on') }}

),

-- Who paid by a contract on the day has churned when that lapsed, the others when they ordered no more.
accounts as (

    select
        told_dates.told_on,
        told_dates.is_known,
        told_dates.horizon_days,
        told_dates.churn_definition,
        account_warnings.account_id,
        coalesce(account_warnings.severity, 'unknown') as warning_severity,
        coalesce(churn_scores.risk, 'no score') as churn_risk,
        churn_scores.probability,
        case
            when told_dates.is_known and held.account_id is null then ordering_then.account_id is null
            when told_dates.is_known then lapse_outcomes.has_lapsed
        end as has_churned
    from told_dates
    inner join {{ ref('account_warnings') }} as account_warnings on told_dates.told_on = account_warnings.as_of_date
    left join {{ ref('lapse_features') }} as held
        on
            account_warnings.as_of_date = held.as_of_date
            and account_warnings.account_id = held.account_id
    left join {{ ref('lapse_outcomes') }} as lapse_outcomes
        on
            held.as_of_date = lapse_outcomes.as_of_date
            and held.account_id = lapse_outcomes.account_id
            and told_dates.horizon_days = lapse_outcomes.horizon_days
    left join churn_scores
        on
            told_dates.churn_definition = churn_scores.churn_definition
            and told_dates.told_on = churn_scores.told_on
            and account_warnings.account_id = churn_scores.account_id
    left join ordering_then
        on
            told_dates.told_on = ordering_then.told_on
            and account_warnings.account_id = ordering_then.account_id
    where
        (told_dates.churn_definition = 'contract lapse' and held.is_due)
        or (told_dates.churn_definition = 'no order' and held.account_id is null)

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        told_on,
        warning_severity,
        churn_risk,
        horizon_days,
        count(*) as accounts,
        cast(avg(probability) as numeric(7, 6)) as mean_probability,
        case when is_known then count(case when has_churned then 1 end) end as accounts_churned,
        cast(
            case
                when is_known
                    then cast(count(case when has_churned then 1 end) as numeric(18, 6)) / count(*)
            end as numeric(7, 6)
        ) as churn_rate,
        case when not is_known then 'the window after told_on has not passed' end as no_churn_reason,
        churn_definition
    from accounts
    group by told_on, is_known, horizon_days, churn_definition, warning_severity, churn_risk

)

select * from final
