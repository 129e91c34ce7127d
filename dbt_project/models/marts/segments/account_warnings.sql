{%- set day_before = days_before(month_start(days_before('dates_due.as_of_date', 89)), 1) %}

{#- Each measure: the expression, whether anything of its kind is known on the date, and why an account can lack it. -#}
{%- set measures = {
    'days_since_last_login': {
        'value': 'days_since_last_login',
        'known': 'has_logins',
        'nothing': 'no login of any account is loaded up to the date',
        'not_of_account': "'it has never logged in'",
    },
    'tickets_rise': {
        'value': 'tickets_90d - tickets_before',
        'known': 'has_tickets',
        'nothing': 'no ticket is loaded, or nothing is kept of the days before',
        'not_of_account': "case when accounts.has_ordered then 'it had not ordered the quarter before'
            else 'it has never ordered' end",
    },
    'nps_fall': {
        'value': 'nps_previous - nps_latest',
        'known': 'has_answers',
        'nothing': 'no NPS answer is loaded up to the date',
        'not_of_account': "case when accounts.has_ordered then 'it has not given two NPS answers'
            else 'it has never ordered' end",
    },
} %}

with

dates_due as (

    select
        dates_due.as_of_date,
        {{ day_before }} as day_before
    from {{ ref('int_dates_due') }} as dates_due

),

warning_rules as (

    {{ policy_rows_on_dates('warning_rules', key='rule', dates='dates_due') }}

),

-- Beside each account its tickets of the 90 days that ended with the newest month-end at least 90 days ago.
accounts as (

    select
        features.as_of_date,
        features.account_id,
        true as has_ordered,
        features.days_since_last_login,
        features.tickets_90d,
        earlier.tickets_90d as tickets_before,
        features.nps_latest,
        features.nps_previous
    from dates_due
    inner join {{ ref('account_features') }} as features on dates_due.as_of_date = features.as_of_date
    left join {{ ref('account_features') }} as earlier
        on
            dates_due.day_before = earlier.as_of_date
            and features.account_id = earlier.account_id
    union all
    -- Of who pays by a contract and has never ordered the use alone is known.
    select
        held.as_of_date,
        held.account_id,
        false as has_ordered,
        held.days_since_last_login,
        null as tickets_90d,
        null as tickets_before,
        null as nps_latest,
        null as nps_previous
    from dates_due
    inner join {{ ref('lapse_features') }} as held on dates_due.as_of_date = held.as_of_date
    left join {{ ref('account_features') }} as features
        on
            held.as_of_date = features.as_of_date
            and held.account_id = features.account_id
    where features.account_id is null

),

-- A count of 0 tells nothing where no account of the date has any.
known as (

    select
        as_of_date,
        count(days_since_last_login) > 0 as has_logins,
        count(tickets_before) > 0 and coalesce(sum(tickets_90d), 0) + coalesce(sum(tickets_before), 0) > 0
            as has_tickets,
        count(nps_latest) > 0 as has_answers
    from accounts
    group by as_of_date

),

signals as (

    {%- for measure, one in measures.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        accounts.as_of_date,
        accounts.account_id,
        '{{ measure }}' as measure,
        cast(case when known.{{ one.known }} then {{ one.value }} end as numeric(18, 4)) as value,
        case
            when not known.{{ one.known }} then '{{ one.nothing }}'
            when {{ one.value }} is null then {{ one.not_of_account }}
        end as no_value_reason
    from accounts
    inner join known on accounts.as_of_date = known.as_of_date
    {%- endfor %}

),

told as (

    select
        signals.as_of_date,
        signals.account_id,
        count(*) as rules,
        count(signals.value) as rules_known,
        count(case when signals.value >= warning_rules.from_value then 1 end) as rules_warning,
        max(
            case
                when signals.value < warning_rules.from_value then 0
                when signals.value is null then null
                when warning_rules.severity = 'high' then 3
                when warning_rules.severity = 'medium' then 2
                else 1
            end
        ) as worst,
        {{ joined_texts('case when signals.value >= warning_rules.from_value then warning_rules.rule end', '; ') }}
            as warnings,
        {{ joined_texts("warning_rules.rule || ': ' || signals.no_value_reason", '; ') }} as unknown_reason
    from signals
    inner join warning_rules
        on
            signals.as_of_date = warning_rules.as_of_date
            and signals.measure = warning_rules.measure
    group by signals.as_of_date, signals.account_id

),

final as (

    select
        as_of_date,
        account_id,
        case worst
            when 0 then 'none'
            when 1 then 'low'
            when 2 then 'medium'
            when 3 then 'high'
        end as severity,
        warnings,
        case when rules_known > 0 then rules_warning end as rules_warning,
        rules - rules_known as rules_unknown,
        unknown_reason
    from told

)

select * from final
