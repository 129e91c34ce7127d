with

prospects as (

    select * from {{ ref('prospect_fit') }}

),

reference_accounts as (

    select * from {{ ref('reference_accounts') }}

),

profile_rules as (

    {{ policy_rows('profile_rules', key='name') }}

),

final as (

    select
        prospects.as_of_date,
        prospects.account_id,
        reference_accounts.account_id as reference_account_id,
        reference_accounts.place_in_industry as place,
        prospects.industry,
        prospects.is_on_trial
    from prospects
    inner join reference_accounts on prospects.industry = reference_accounts.industry
    where reference_accounts.place_in_industry <= {{ threshold('references_per_prospect', 'profile_rules') }}

)

select * from final
