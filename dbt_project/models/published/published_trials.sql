{{ config(alias='trials') }}

{#- Each measure of the rule, and why an account can lack it: a count of 0 tells nothing where no trial has any. -#}
{%- set measures = {
    'login_days_in_a_row_90d': 'no login of any trial is loaded',
    'core_feature_uses_90d': 'no use of a core feature by any trial is loaded',
} %}

with

trials as (

    select * from {{ ref('trial_features') }}
    where as_of_date = {{ as_of_date() }}

),

trial_rules as (

    {{ policy_rows('trial_rules', key='rule') }}

),

scores as (

    select * from {{ source('ml', 'scores') }}
    where run_id = '{{ var("run_id") }}' and model = 'trial'

),

runs as (

    select * from {{ source('ml', 'runs') }}
    where run_id = '{{ var("run_id") }}' and model = 'trial'

),

signals as (

    {%- for measure, nothing in measures.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        account_id,
        '{{ measure }}' as measure,
        case when max({{ measure }}) over () > 0 then {{ measure }} end as measured,
        '{{ nothing }}' as no_value_reason
    from trials
    {%- endfor %}

),

ruled as (

    select
        signals.account_id,
        count(*) - count(signals.measured) as rules_unknown,
        count(case when signals.measured < trial_rules.from_value then 1 end) as rules_missed,
        {{ joined_texts(
            "case when signals.measured < trial_rules.from_value then " ~ as_text('signals.measured') ~ " || ' of ' || "
            ~ as_text('cast(trial_rules.from_value as integer)') ~ " || ' ' || trial_rules.unit end", '; '
        ) }} as missing,
        {{ joined_texts("case when signals.measured is null then signals.no_value_reason end", '; ') }}
            as unknown_reason
    from signals
    inner join trial_rules on signals.measure = trial_rules.measure
    group by signals.account_id

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        trials.account_id,
        trials.first_used_on,
        trials.last_used_on,
        trials.login_days_90d,
        trials.login_days_in_a_row_90d,
        trials.core_feature_uses_90d,
        case
            when ruled.rules_missed > 0 then false
            when ruled.rules_unknown = 0 then true
        end as meets_trial_rule,
        ruled.missing as trial_rule_missing,
        ruled.unknown_reason as trial_rule_unknown,
        scores.probability,
        scores.score_rank,
        runs.horizon_days,
        case when scores.probability is not null then 'the model and the rule' else 'the rule alone' end as told_by,
        case when scores.probability is null then runs.reason end as no_score_reason
    from trials
    left join ruled on trials.account_id = ruled.account_id
    left join scores on trials.account_id = scores.account_id
    left join runs on true

)

select * from final
