with

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

account_crosswalk as (

    select mappings.* from {{ ref('int_account_crosswalk') }} as mappings
    where
        mappings.source_system not in ('orders', 'behavior')
        and not mappings.is_internal
        and {{ holds_on('mappings', as_of_date()) }}

),

company_versions as (

    select
        *,
        row_number() over (partition by record_id order by valid_from desc, load_seq desc) as newness
    from {{ ref('int_crm_companies') }}
    where valid_from < {{ as_of_end() }}

),

companies as (

    select
        account_crosswalk.account_id,
        company_versions.account_name,
        company_versions.industry,
        company_versions.country,
        company_versions.is_archived,
        row_number() over (
            partition by account_crosswalk.account_id
            order by
                case when company_versions.is_archived then 1 else 0 end asc,
                {{ directness('account_crosswalk.matched_by') }} asc,
                company_versions.valid_from desc,
                company_versions.record_id asc
        ) as place_in_account
    from company_versions
    inner join account_crosswalk
        on
            company_versions.crm_system = account_crosswalk.source_system
            and company_versions.source_record_id = account_crosswalk.source_account_id
    where company_versions.newness = 1

),

account_companies as (

    select * from companies
    where place_in_account = 1

),

crm_records as (

    select
        account_id,
        source_system as crm_system,
        source_account_id as crm_record_id,
        row_number() over (partition by account_id order by preference) as place_in_account
    from account_crosswalk
    where is_active

),

-- Of several parents the order system's is told, else that of the record that speaks for the account.
account_parents as (

    select *
    from (
        select
            parents.account_id,
            parents.parent_account_id,
            row_number() over (
                partition by parents.account_id order by parents.preference, parents.parent_account_id
            ) as place_in_account
        from {{ ref('int_account_parents') }} as parents
        where {{ holds_on('parents', as_of_date()) }}
    ) as placed
    where place_in_account = 1

),

accounts as (

    select account_id from account_features
    union
    select account_id from account_companies
    where not is_archived

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        accounts.account_id,
        account_companies.account_name,
        crm_records.crm_system,
        crm_records.crm_record_id,
        account_parents.parent_account_id,
        account_companies.industry,
        account_features.account_id is not null as has_ordered,
        coalesce(account_companies.country, account_features.order_country) as country
    from accounts
    left join account_features on accounts.account_id = account_features.account_id
    left join account_companies on accounts.account_id = account_companies.account_id
    left join crm_records on accounts.account_id = crm_records.account_id and crm_records.place_in_account = 1
    left join account_parents on accounts.account_id = account_parents.account_id

)

select * from final
