-- A failure means that no policy is in force on the as-of date for the name told, that the shares of the tiers in
-- force or the weights of the retention index do not sum to 1, or that ages from 0 months, probabilities from 0 on or a
-- value have no band: add or mend the rows in seeds/policy.
with

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

kpi_thresholds as (

    {{ policy_rows('kpi_thresholds', key='name') }}

),

tier_shares as (

    {{ policy_rows('tier_shares', key='tier') }}

),

tier_actions as (

    {{ policy_rows('tier_actions', key='tier') }}

),

rfm_bands as (

    {{ policy_rows('rfm_bands', key='metric') }}

),

lifecycle_stages as (

    {{ policy_rows('lifecycle_stages', key='stage') }}

),

risk_bands as (

    {{ policy_rows('risk_bands') }}

),

segments as (

    {{ policy_rows('segments', key=['recency_band', 'frequency_band', 'monetary_band']) }}

),

segment_actions as (

    {{ policy_rows('segment_actions', key='segment') }}

),

membership_levels as (

    {{ policy_rows('membership_levels') }}

),

value_bands as (

    {{ policy_rows('value_bands', key='metric') }}

),

value_band_pairs as (

    {{ policy_rows('value_band_pairs', key=['side', 'first_band', 'second_band']) }}

),

value_matrix as (

    {{ policy_rows('value_matrix', key=['current_value_band', 'potential_value_band']) }}

),

value_actions as (

    {{ policy_rows('value_actions', key=['value_tier', 'is_growth_candidate']) }}

),

relationship_actions as (

    {{ policy_rows('relationship_actions', key='stage') }}

),

journey_actions as (

    {{ policy_rows('journey_actions', key='stage') }}

),

age_actions as (

    {{ policy_rows('age_actions', key='stage') }}

),

service_focuses as (

    {{ policy_rows('service_focuses', key=['kind', 'value']) }}

),

dedicated_manager_rules as (

    {{ policy_rows('dedicated_manager_rules', key='rule') }}

),

flow_steps as (

    {{ policy_rows('flow_steps', key='flow') }}

),

experiment_metrics as (

    {{ policy_rows('experiment_metrics', key='experiment') }}

),

holdouts as (

    {{ policy_rows('holdouts') }}

),

profile_rules as (

    {{ policy_rows('profile_rules', key='name') }}

),

prospect_fit_parts as (

    {{ policy_rows('prospect_fit_parts', key='part') }}

),

operating_lists as (

    {{ policy_rows('operating_lists', key='list') }}

),

list_routing as (

    {{ policy_rows('list_routing', key='value_tier') }}

),

usage_report_audience as (

    {{ policy_rows('usage_report_audience', key='value_tier') }}

),

decision_roles as (

    {{ policy_rows('decision_roles', key='role') }}

),

decision_role_words as (

    {{ policy_rows('decision_role_words', key='word') }}

),

content_themes as (

    {{ policy_rows('content_themes', key=['company_size', 'industry_focus']) }}

),

content_formats as (

    {{ policy_rows('content_formats', key='value_tier') }}

),

freshness_limits as (

    {{ policy_rows('freshness_limits', key=['source', 'entity']) }}

),

warning_rules as (

    {{ policy_rows('warning_rules', key='rule') }}

),

trial_rules as (

    {{ policy_rows('trial_rules', key='rule') }}

),

found as (

    select
        (select count(distinct measure) from warning_rules) as warning_measures,
        (select count(distinct measure) from trial_rules) as trial_measures,
        (select count(*) from profile_rules) as profile_rules,
        (select count(*) from prospect_fit_parts) as fit_parts,
        (select sum(weight) from prospect_fit_parts) as fit_weight,
        (select count(*) from operating_lists) as operating_lists,
        (select count(*) from list_routing) as list_routes,
        (select count(*) from usage_report_audience) as report_tiers,
        (select count(*) from decision_roles) as decision_roles,
        (select count(distinct role) from decision_role_words) as roles_with_words,
        (select count(case when company_size = '*' and industry_focus = '*' then 1 end) from content_themes)
            as common_themes,
        (select count(*) from content_formats) as content_formats,
        (select count(case when source = '*' and entity = '*' then 1 end) from freshness_limits) as common_limits,
        (select count(*) from thresholds) as thresholds,
        (select count(*) from kpi_thresholds) as kpi_thresholds,
        (select sum(case when name like 'index_weight_%' then value end) from kpi_thresholds) as total_index_weight,
        (select count(*) from tier_shares) as tier_shares,
        (select sum(target_share) from tier_shares) as total_share,
        (select count(*) from tier_actions) as tier_actions,
        (select count(distinct metric) from rfm_bands) as band_metrics,
        (select min(from_months) from lifecycle_stages) as first_stage_from,
        (select count(*) - count(below_months) from lifecycle_stages) as endless_stages,
        (select count(*) from segments) as segments,
        (select count(case when metric = 'recency' then 1 end) from rfm_bands)
        * (select count(case when metric = 'frequency' then 1 end) from rfm_bands)
        * (select count(case when metric = 'monetary' then 1 end) from rfm_bands) as band_triples,
        (select count(*) from segment_actions) as segment_actions,
        (select min(from_points) from membership_levels) as first_level_from,
        (select count(distinct metric) from value_bands) as value_metrics,
        (select count(*) - count(from_value) from value_bands) as bottomless_value_bands,
        (select count(*) - count(below_value) from value_bands) as endless_value_bands,
        (select count(*) from value_band_pairs) as value_band_pairs,
        (select count(*) from value_matrix) as value_matrix,
        (select count(*) from value_actions) as value_actions,
        (select count(*) from relationship_actions) as relationship_actions,
        (select count(*) from journey_actions) as journey_actions,
        (select count(*) from age_actions) as age_actions,
        (select count(case when kind = 'company_size' then 1 end) from service_focuses) as size_focuses,
        (select count(distinct rule) from dedicated_manager_rules) as manager_rules,
        (select min(position) from flow_steps) as first_step,
        (select count(case when experiment = '*' then 1 end) from experiment_metrics) as common_metrics,
        (select count(case when share >= 0 and share < 1 then 1 end) from holdouts) as holdouts,
        (select min(from_probability) from risk_bands) as first_band_from,
        (select count(*) - count(below_probability) from risk_bands) as endless_bands

),

final as (

    select * from found
    where
        thresholds <> 44
        or warning_measures <> 3
        or trial_measures <> 2
        or kpi_thresholds <> 10
        or total_index_weight <> 1
        or tier_shares <> 4
        or total_share <> 1
        or tier_actions <> 4
        or band_metrics <> 3
        or segments <> band_triples
        or segment_actions <> 4
        or first_level_from is distinct from 0
        or first_stage_from is distinct from 0
        or endless_stages <> 1
        or value_metrics <> 4
        or bottomless_value_bands <> 4
        or endless_value_bands <> 4
        or value_band_pairs <> 21
        or value_matrix <> 12
        or value_actions <> 6
        or relationship_actions <> 5
        or journey_actions <> 4
        or age_actions <> 4
        or size_focuses <> 2
        or manager_rules <> 4
        or first_step is distinct from 1
        or common_metrics = 0
        or holdouts <> 1
        or profile_rules <> 15
        or fit_parts <> 8
        or fit_weight <> 1
        or operating_lists <> 11
        or list_routes <> 4
        or report_tiers <> 3
        or decision_roles <> 3
        or roles_with_words <> 3
        or common_themes <> 1
        or content_formats <> 4
        or common_limits <> 1
        or first_band_from is distinct from 0
        or endless_bands <> 1

)

select * from final
