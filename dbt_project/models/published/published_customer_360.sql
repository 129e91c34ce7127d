{{ config(alias='customer_360') }}

{#- Who pays by a contract is a customer, though no order is known. -#}
{%- set on_trial = "coalesce(prospect_fit.is_on_trial, false)
            and coalesce(account_relationships.relationship_stage, 'prospect') in ('prospect', 'trial')" %}

{#- Models of which who acts on an account is told beside its churn. -#}
{%- set told_models = ['upsell', 'repurchase'] %}

with

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date = {{ as_of_date() }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

account_rfm as (

    select * from {{ ref('account_rfm') }}
    where as_of_date = {{ as_of_date() }}

),

account_tiers as (

    select * from {{ ref('account_tiers') }}
    where as_of_date = {{ as_of_date() }}

),

account_segments as (

    select * from {{ ref('account_segments') }}
    where as_of_date = {{ as_of_date() }}

),

account_memberships as (

    select * from {{ ref('account_memberships') }}
    where as_of_date = {{ as_of_date() }}

),

account_lifecycle as (

    select * from {{ ref('account_lifecycle') }}
    where as_of_date = {{ as_of_date() }}

),

account_value_tiers as (

    select * from {{ ref('account_value_tiers') }}
    where as_of_date = {{ as_of_date() }}

),

account_relationships as (

    select * from {{ ref('account_relationships') }}
    where as_of_date = {{ as_of_date() }}

),

account_journeys as (

    select * from {{ ref('account_journeys') }}
    where as_of_date = {{ as_of_date() }}

),

account_kinds as (

    select * from {{ ref('account_kinds') }}
    where as_of_date = {{ as_of_date() }}

),

account_care as (

    select * from {{ ref('account_care') }}
    where as_of_date = {{ as_of_date() }}

),

age_actions as (

    {{ policy_rows('age_actions', key='stage') }}

),

account_owners as (

    select * from {{ ref('account_owners') }}

),

account_holdouts as (

    select * from {{ ref('account_holdouts') }}
    where as_of_date = {{ as_of_date() }} and is_held_out

),

account_contents as (

    select * from {{ ref('account_contents') }}

),

account_reach as (

    select * from {{ ref('account_reach') }}

),

-- Of the customer master the version of the day; a merged account goes by the name of the customer that remains.
customer_versions as (

    select
        customer_id,
        customer_name,
        row_number() over (partition by customer_id order by valid_from desc, load_seq desc) as newness
    from {{ ref('stg_customers') }}
    where valid_from < {{ as_of_end() }}

),

customer_names as (

    select * from customer_versions
    where newness = 1

),

-- What of the decision is not covered: null where nothing is known of it.
chains as (

    select
        account_id,
        count(is_covered) as roles_known,
        coalesce({{ joined_texts('case when not is_covered then role end', ', ') }}, 'none') as missing_roles,
        max(no_value_reason) as missing_roles_reason
    from {{ ref('account_decision_chains') }}
    group by account_id

),

contract_ends as (

    select
        account_id,
        min(ends_on) as next_contract_end
    from {{ ref('account_contracts') }}
    where
        ends_on >= {{ as_of_date() }}
        and (is_signed or is_signed is null)
    group by account_id

),

prospect_fit as (

    select * from {{ ref('prospect_fit') }}

),

held_accounts as (

    select * from {{ ref('lapse_features') }}
    where as_of_date = {{ as_of_date() }}

),

-- Who pays by a contract churns when that lapses, who else has ordered when it orders no more (docs/decisions/0034).
churn_forms as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        case when held_accounts.account_id is not null then 'lapse' else 'churn' end as form_model,
        case
            when held_accounts.account_id is not null then 'contract lapse'
            when account_profiles.has_ordered then 'no order'
            else 'nothing'
        end as churn_definition,
        case
            when not held_accounts.is_due
                then
                    'its contract runs until ' || {{ as_text('held_accounts.contract_ends_on') }}
                    || ' and cannot lapse in the next ' || held_accounts.lapse_horizon_days || ' days'
            when held_accounts.account_id is null and not account_profiles.has_ordered
                then 'it has not ordered: neither the model nor the rules speak of it'
        end as no_model_reason
    from account_profiles
    left join held_accounts on account_profiles.account_id = held_accounts.account_id

),

churn_scores as (

    select * from {{ source('ml', 'scores') }}
    where run_id = '{{ var("run_id") }}' and model in ('churn', 'lapse')

),

churn_runs as (

    select * from {{ source('ml', 'runs') }}
    where run_id = '{{ var("run_id") }}' and model in ('churn', 'lapse')

),

{%- for model in told_models %}

{{ model }}_scores as (

    select * from {{ source('ml', 'scores') }}
    where run_id = '{{ var("run_id") }}' and model = '{{ model }}'

),

{{ model }}_runs as (

    select * from {{ source('ml', 'runs') }}
    where run_id = '{{ var("run_id") }}' and model = '{{ model }}'

),
{%- endfor %}

-- What is usual: the mean of those that the model scored.
upsell_means as (

    select avg(probability) as mean_probability from upsell_scores

),

profile_rules as (

    {{ policy_rows('profile_rules', key='name') }}

),

account_warnings as (

    select * from {{ ref('account_warnings') }}
    where as_of_date = {{ as_of_date() }}

),

risk_bands as (

    {{ policy_rows('risk_bands') }}

),

recommendation_runs as (

    select * from {{ source('ml', 'recommendation_runs') }}
    where run_id = '{{ var("run_id") }}'

),

accounts_with_recommendations as (

    select distinct account_id from {{ ref('published_recommendations') }}

),

next_actions as (

    {{ policy_rows('next_actions', key=['tier', 'churn_risk']) }}

),

tier_actions as (

    {{ policy_rows('tier_actions', key='tier') }}

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        account_profiles.as_of_date,
        account_profiles.account_id,
        coalesce(account_profiles.account_name, customer_names.customer_name) as account_name,
        account_profiles.crm_system,
        account_profiles.crm_record_id,
        account_profiles.parent_account_id,
        account_profiles.industry,
        account_profiles.country,
        account_profiles.has_ordered,
        account_features.first_order_date,
        account_features.last_order_date,
        account_features.days_since_last_order,
        coalesce(account_features.orders_total, 0) as orders_total,
        coalesce(account_features.orders_365d, 0) as orders_365d,
        account_features.orders_per_quarter,
        coalesce(account_features.net_revenue_total, 0) as net_revenue_total,
        coalesce(account_features.net_revenue_365d, 0) as net_revenue_365d,
        account_features.yearly_net_spend,
        account_features.average_order_value,
        account_features.return_rate_365d,
        account_rfm.recency_band,
        account_rfm.frequency_band,
        account_rfm.monetary_band,
        account_rfm.recency_score,
        account_rfm.frequency_score,
        account_rfm.monetary_score,
        account_rfm.rfm_score,
        account_tiers.is_dormant,
        account_tiers.tier,
        account_tiers.tier_rank,
        coalesce(next_actions.action, tier_actions.action) as next_action,
        account_segments.segment,
        account_segments.segment_action,
        account_memberships.membership_level,
        account_lifecycle.age_stage,
        account_features.logins_30d,
        account_features.days_since_last_login,
        account_features.open_tickets,
        account_features.nps_latest,
        account_features.open_deal_amount,
        account_features.contacts,
        account_features.has_decision_maker,
        churn_scores.probability as churn_probability,
        churn_scores.score_rank as churn_rank,
        risk_bands.risk as churn_risk,
        churn_scores.reason_1 as churn_reason_1,
        churn_scores.reason_2 as churn_reason_2,
        churn_scores.reason_3 as churn_reason_3,
        churn_scores.model_id as churn_model_id,
        '{{ var("reporting_currency") }}' as currency,
        case
            when account_profiles.account_name is not null then 'CRM'
            when customer_names.customer_name is not null then 'customer master'
        end as account_name_source,
        account_owners.owner_id,
        account_value_tiers.value_tier,
        account_value_tiers.current_value_band,
        account_value_tiers.potential_value_band,
        account_value_tiers.is_growth_candidate,
        account_value_tiers.value_action,
        account_value_tiers.value_tier_reason,
        account_relationships.relationship_stage,
        account_relationships.relationship_action,
        account_journeys.journey_stage,
        account_journeys.journey_action,
        age_actions.action as age_action,
        account_kinds.company_size,
        account_kinds.industry_focus,
        account_kinds.is_small_b_large_c,
        account_kinds.service_focus,
        coalesce(account_care.owes_dedicated_manager, false) as owes_dedicated_manager,
        account_care.dedicated_manager_reason,
        account_contents.content_tag,
        account_contents.reachable_channels,
        case when chains.roles_known > 0 then chains.missing_roles end as missing_roles,
        chains.missing_roles_reason,
        account_reach.can_be_mailed,
        account_reach.no_mail_reason,
        contract_ends.next_contract_end,
        {{ on_trial }} as is_on_trial,
        case when {{ on_trial }} then prospect_fit.trial_began_on end as trial_began_on,
        prospect_fit.fit_score as prospect_fit,
        prospect_fit.no_fit_reason as no_prospect_fit_reason,
        account_holdouts.account_id is not null as is_held_out,
        account_lifecycle.age_reason,
        account_relationships.relationship_reason,
        account_journeys.journey_reason,
        case
            when churn_scores.probability is not null then 'model'
            when account_warnings.severity is not null then 'rules'
            else 'nothing'
        end as churn_told_by,
        case
            when churn_scores.probability is not null then 'a model tells a probability, and its reasons'
            when churn_forms.no_model_reason is not null then churn_forms.no_model_reason
            when churn_runs.status = 'scored' then 'it is not of the accounts that the model speaks of'
            else coalesce(churn_runs.reason, 'no model was asked in this run')
        end as churn_told_by_reason,
        coalesce(account_warnings.severity, 'unknown') as churn_warning_severity,
        account_warnings.rules_warning as churn_warnings_count,
        case
            when account_warnings.severity is null then 'unknown'
            else coalesce(account_warnings.warnings, 'none')
        end as churn_warnings,
        case
            when account_warnings.account_id is null then 'all: it has not ordered'
            else coalesce(account_warnings.unknown_reason, 'none')
        end as churn_warnings_unknown,
        case
            when accounts_with_recommendations.account_id is not null then null
            when recommendation_runs.fit_id is not null
                then 'nothing is left that could be recommended: it was bought since, or is no longer sold'
            else coalesce(recommendation_runs.reason, 'no recommendations were looked for in this run')
        end as no_recommendation_reason,
        churn_forms.churn_definition,
        {%- for model in told_models %}
        case when {{ model }}_scores.probability is not null then 'model' else 'nothing' end as {{ model }}_told_by,
        case
            when {{ model }}_scores.probability is not null then 'a model tells a probability, and its reasons'
            when not account_profiles.has_ordered then 'it has not ordered: the model does not speak of it'
            when {{ model }}_runs.status = 'scored' then 'it is not of the accounts that the model speaks of'
            else coalesce({{ model }}_runs.reason, 'no model was asked in this run')
        end as {{ model }}_told_by_reason,
        {%- endfor %}
        case when upsell_scores.probability is not null then upsell_runs.definition end as upsell_definition,
        upsell_scores.probability as upsell_probability,
        upsell_scores.score_rank as upsell_rank,
        case
            when
                upsell_scores.probability
                >= {{ threshold('upsell_min_lift', 'profile_rules') }} * upsell_means.mean_probability
                then 'high'
            when upsell_scores.probability is not null then 'normal'
        end as upsell_chance,
        upsell_scores.next_best as upsell_next_best,
        upsell_scores.next_best_probability as upsell_next_best_probability,
        upsell_scores.reason_1 as upsell_reason_1,
        upsell_scores.reason_2 as upsell_reason_2,
        upsell_scores.reason_3 as upsell_reason_3,
        upsell_scores.model_id as upsell_model_id,
        repurchase_scores.probability as repurchase_probability,
        repurchase_scores.score_rank as repurchase_rank,
        repurchase_scores.expected_value as repurchase_expected_value,
        repurchase_scores.reason_1 as repurchase_reason_1,
        repurchase_scores.reason_2 as repurchase_reason_2,
        repurchase_scores.reason_3 as repurchase_reason_3,
        repurchase_scores.model_id as repurchase_model_id
    from account_profiles
    left join account_features on account_profiles.account_id = account_features.account_id
    left join account_rfm on account_profiles.account_id = account_rfm.account_id
    left join account_tiers on account_profiles.account_id = account_tiers.account_id
    left join account_segments on account_profiles.account_id = account_segments.account_id
    left join account_memberships on account_profiles.account_id = account_memberships.account_id
    left join account_lifecycle on account_profiles.account_id = account_lifecycle.account_id
    left join account_value_tiers on account_profiles.account_id = account_value_tiers.account_id
    left join account_relationships on account_profiles.account_id = account_relationships.account_id
    left join account_journeys on account_profiles.account_id = account_journeys.account_id
    left join account_kinds on account_profiles.account_id = account_kinds.account_id
    left join account_care on account_profiles.account_id = account_care.account_id
    left join account_owners on account_profiles.account_id = account_owners.account_id
    left join account_holdouts on account_profiles.account_id = account_holdouts.account_id
    left join account_contents on account_profiles.account_id = account_contents.account_id
    left join age_actions on account_lifecycle.age_stage = age_actions.stage
    left join customer_names on account_profiles.account_id = customer_names.customer_id
    left join account_reach on account_profiles.account_id = account_reach.account_id
    left join chains on account_profiles.account_id = chains.account_id
    left join contract_ends on account_profiles.account_id = contract_ends.account_id
    left join prospect_fit on account_profiles.account_id = prospect_fit.account_id
    inner join churn_forms on account_profiles.account_id = churn_forms.account_id
    left join churn_scores
        on
            account_profiles.account_id = churn_scores.account_id
            and churn_forms.form_model = churn_scores.model
    left join account_warnings on account_profiles.account_id = account_warnings.account_id
    left join recommendation_runs on account_profiles.as_of_date = recommendation_runs.as_of_date
    left join accounts_with_recommendations
        on account_profiles.account_id = accounts_with_recommendations.account_id
    left join churn_runs on churn_forms.form_model = churn_runs.model
    {%- for model in told_models %}
    left join {{ model }}_scores on account_profiles.account_id = {{ model }}_scores.account_id
    left join {{ model }}_runs on account_profiles.as_of_date = {{ model }}_runs.as_of_date
    {%- endfor %}
    cross join upsell_means
    left join risk_bands
        on
            churn_scores.probability >= risk_bands.from_probability
            and (churn_scores.probability < risk_bands.below_probability or risk_bands.below_probability is null)
    left join next_actions
        on
            account_tiers.tier = next_actions.tier
            and risk_bands.risk = next_actions.churn_risk
    left join tier_actions on account_tiers.tier = tier_actions.tier

)

select * from final
