with

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date = {{ as_of_date() }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

account_tiers as (

    select * from {{ ref('account_tiers') }}
    where as_of_date = {{ as_of_date() }}

),

account_relationships as (

    select * from {{ ref('account_relationships') }}
    where as_of_date = {{ as_of_date() }}

),

profile_rules as (

    {{ policy_rows('profile_rules', key='name') }}

),

final as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        account_profiles.industry,
        account_tiers.tier,
        account_relationships.relationship_stage,
        account_features.nps_latest,
        account_features.days_since_last_order,
        account_features.yearly_net_spend,
        row_number() over (
            partition by account_profiles.industry
            order by
                account_features.nps_latest desc,
                account_features.yearly_net_spend desc,
                account_profiles.account_id asc
        ) as place_in_industry
    from account_profiles
    inner join account_features on account_profiles.account_id = account_features.account_id
    inner join account_tiers on account_profiles.account_id = account_tiers.account_id
    inner join account_relationships on account_profiles.account_id = account_relationships.account_id
    where
        account_profiles.industry is not null
        and (account_tiers.tier = 'S' or account_relationships.relationship_stage = 'loyal')
        and account_features.nps_latest >= {{ threshold('reference_min_nps', 'profile_rules') }}
        and account_features.days_since_last_order < {{ threshold('reference_active_days', 'profile_rules') }}

)

select * from final
