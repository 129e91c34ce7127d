{%- set factors = ['price', 'convenience', 'experience', 'reputation'] %}
{%- set parts = ['need_match', 'usage_frequency', 'usage_cycle', 'ability_to_pay'] + factors %}

with

prospects as (

    select * from {{ ref('account_profiles') }}
    where as_of_date = {{ as_of_date() }} and not has_ordered

),

crm_records as (

    select * from {{ ref('account_keys') }}
    where is_crm_record

),

prospect_fit_parts as (

    {{ policy_rows('prospect_fit_parts', key='part') }}

),

policy as (

    select
        {%- for part in parts %}
        max(case when part = '{{ part }}' then weight end) as {{ part }}_weight,
        max(case when part = '{{ part }}' then full_at end) as {{ part }}_full_at,
        {%- endfor %}
        count(*) as parts
    from prospect_fit_parts

),

deal_stages as (

    {{ policy_rows('deal_stages', key='deal_stage') }}

),

deals as (

    select
        crm_records.account_id,
        deals.amount * case
            when coalesce(deals.currency, '{{ var("reporting_currency") }}') = '{{ var("reporting_currency") }}' then 1
            else exchange_rates.rate
        end as amount,
        not deals.is_won and coalesce(deal_stages.outcome, 'open') = 'open' as is_open
    from crm_records
    inner join {{ ref('int_crm_deals') }} as deals
        on
            crm_records.account_key = deals.company_record_id
            and {{ stands_on('deals', 'crm_records.as_of_date') }}
    left join deal_stages on deals.deal_stage = deal_stages.deal_stage
    left join {{ ref('stg_exchange_rates') }} as exchange_rates
        on
            deals.currency = exchange_rates.currency
            and crm_records.as_of_date >= exchange_rates.effective_from
            and (crm_records.as_of_date < exchange_rates.effective_until or exchange_rates.effective_until is null)

),

deal_sums as (

    select
        account_id,
        count(case when is_open then 1 end) as open_deals,
        sum(case when is_open then amount end) as open_deal_amount
    from deals
    group by account_id

),

company_deals as (

    select count(*) as accounts_with_deals from deal_sums

),

-- What people said in surveys that are named for a need or a factor, 0 to 10; the newest counts.
answers as (

    select
        crm_records.account_id,
        lower(survey_answers.survey_type) as asked,
        survey_answers.answer,
        row_number() over (
            partition by crm_records.account_id, survey_answers.survey_type
            order by survey_answers.submitted_at desc, survey_answers.record_id desc
        ) as newness
    from crm_records
    inner join {{ ref('int_crm_survey_answers') }} as survey_answers
        on
            crm_records.account_key = survey_answers.company_record_id
            and {{ stands_on('survey_answers', 'crm_records.as_of_date') }}
    where
        survey_answers.survey_type in ('NEED', 'PRICE', 'CONVENIENCE', 'EXPERIENCE', 'REPUTATION')
        and survey_answers.answer is not null
        and survey_answers.submitted_date <= crm_records.as_of_date

),

answer_sums as (

    select
        account_id,
        {%- for factor in factors %}
        max(case when asked = '{{ factor }}' then answer end) as {{ factor }},
        {%- endfor %}
        max(case when asked = 'need' then answer end) as need
    from answers
    where newness = 1
    group by account_id

),

-- Of the CRMs files alone say which opportunity is a trial.
trial_deals as (

    select
        crm_records.account_id,
        min({{ local_date('opportunities.created_at') }}) as began_on
    from crm_records
    inner join {{ ref('stg_files_opportunities') }} as opportunities
        on
            crm_records.account_key = 'files:' || opportunities.company_record_id
            and {{ stands_on('opportunities', 'crm_records.as_of_date') }}
    left join deal_stages on opportunities.deal_stage = deal_stages.deal_stage
    where
        opportunities.opportunity_type = 'trial'
        and coalesce(deal_stages.outcome, 'open') <> 'lost'
    group by crm_records.account_id

),

profile_rules as (

    {{ policy_rows('profile_rules', key='name') }}

),

-- A prospect's use of the product is a trial, too.
usage_sums as (

    select
        prospects.account_id,
        min(usage_days.usage_date) as first_used_on,
        max(usage_days.usage_date) as last_used_on,
        count(distinct usage_days.usage_date) as usage_days,
        count(
            distinct case
                when usage_days.usage_date > {{ days_before(as_of_date(), 30) }} then usage_days.usage_date
            end
        ) as active_days_30d
    from prospects
    inner join {{ ref('int_account_crosswalk') }} as tenants
        on
            prospects.account_id = tenants.account_id
            and tenants.source_system = 'behavior'
            and {{ holds_on('tenants', as_of_date()) }}
    inner join {{ ref('int_usage_days') }} as usage_days
        on
            tenants.source_account_id = usage_days.account_id
            and usage_days.usage_date <= {{ as_of_date() }}
    group by prospects.account_id

),

measured as (

    select
        prospects.account_id,
        prospects.industry,
        least(trial_deals.began_on, usage_sums.first_used_on) as trial_began_on,
        trial_deals.account_id is not null
        or coalesce(
            {{ days_between('usage_sums.last_used_on', as_of_date()) }}
            <= {{ threshold('trial_idle_days', 'profile_rules') }},
            false
        ) as is_on_trial,
        case
            when answer_sums.need is not null then answer_sums.need / 10
            when company_deals.accounts_with_deals > 0
                then case when deal_sums.open_deals > 0 then 1.0 else 0.0 end
        end as need_match,
        cast(usage_sums.active_days_30d as numeric(9, 4)) as usage_frequency,
        cast(
            {{ days_between('usage_sums.first_used_on', 'usage_sums.last_used_on') }} as numeric(9, 4)
        ) / nullif(usage_sums.usage_days - 1, 0) as usage_cycle,
        {%- for factor in factors %}
        answer_sums.{{ factor }},
        {%- endfor %}
        deal_sums.open_deal_amount as ability_to_pay
    from prospects
    cross join company_deals
    left join deal_sums on prospects.account_id = deal_sums.account_id
    left join answer_sums on prospects.account_id = answer_sums.account_id
    left join usage_sums on prospects.account_id = usage_sums.account_id
    left join trial_deals on prospects.account_id = trial_deals.account_id

),

-- Each part from 0 to 1, 1 from full_at on; days between uses count the other way round.
scored as (

    select
        measured.account_id,
        measured.industry,
        measured.trial_began_on,
        measured.is_on_trial,
        cast(measured.usage_frequency as integer) as active_days_30d,
        cast(measured.usage_cycle as numeric(9, 4)) as usage_cycle_days,
        cast(measured.ability_to_pay as numeric(18, 2)) as open_deal_amount,
        {%- for part in parts %}
        policy.{{ part }}_weight,
        {%- endfor %}
        {%- for part in parts if part != 'usage_cycle' %}
        case
            when measured.{{ part }} is not null
                then least(greatest(measured.{{ part }} / policy.{{ part }}_full_at, 0), 1)
        end as {{ part }},
        {%- endfor %}
        case
            when measured.usage_cycle is not null
                then least(policy.usage_cycle_full_at / measured.usage_cycle, 1)
        end as usage_cycle
    from measured
    cross join policy

),

-- One row per part, so that what is known is weighed alone.
weights as (
    {% for part in parts %}
    {% if not loop.first %}union all{% endif %}
    select
        account_id,
        {{ part }} as part_fit,
        {{ part }}_weight as part_weight
    from scored
    where {{ part }} is not null
    {%- endfor %}

),

weighed as (

    select
        account_id,
        sum(part_weight) as known_weight,
        sum(part_fit * part_weight) as weighed_sum
    from weights
    group by account_id

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        scored.account_id,
        scored.industry,
        scored.trial_began_on,
        scored.is_on_trial,
        scored.active_days_30d,
        scored.usage_cycle_days,
        scored.open_deal_amount,
        {%- for part in parts %}
        cast(scored.{{ part }} as numeric(5, 4)) as {{ part }}_fit,
        {%- endfor %}
        cast(coalesce(weighed.known_weight, 0) as numeric(5, 4)) as known_weight,
        cast(weighed.weighed_sum / weighed.known_weight as numeric(5, 4)) as fit_score,
        case
            when weighed.account_id is null then 'no deal, use of the product or answer of it is known'
        end as no_fit_reason,
        nullif(
            substr(
                ''
                {%- for part in parts %}
                || case
                    when scored.{{ part }} > 0
                        then ', {{ part | replace("_", " ") }} ' || cast(scored.{{ part }} as numeric(5, 2))
                    else ''
                end
                {%- endfor %},
                3
            ),
            ''
        ) as matched_parts,
        nullif(
            case when scored.need_match is null then 'need match: no deal and no answer is known; ' else '' end
            || case when scored.usage_frequency is null then 'use: no event of it is known; ' else '' end
            || case when scored.ability_to_pay is null then 'ability to pay: no open deal with an amount; ' else '' end
            {%- for factor in factors %}
            || case when scored.{{ factor }} is null then '{{ factor }}: nobody was asked; ' else '' end
            {%- endfor %},
            ''
        ) as unknown_parts
    from scored
    left join weighed on scored.account_id = weighed.account_id

)

select * from final
