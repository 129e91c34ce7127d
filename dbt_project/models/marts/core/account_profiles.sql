with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_crosswalk as (

    select
        dates_due.as_of_date,
        mappings.*
    from dates_due
    inner join {{ ref('int_account_crosswalk') }} as mappings
        on
            mappings.source_system not in ('orders', 'behavior')
            and not mappings.is_internal
            and {{ holds_on('mappings', 'dates_due.as_of_date') }}

),

company_versions as (

    select
        dates_due.as_of_date,
        versions.*,
        row_number() over (
            partition by dates_due.as_of_date, versions.record_id
            order by versions.valid_from desc, versions.load_seq desc
        ) as newness
    from dates_due
    inner join {{ ref('int_crm_companies') }} as versions
        on versions.valid_from < {{ day_start(days_before('dates_due.as_of_date', -1)) }}

),

companies as (

    select
        account_crosswalk.as_of_date,
        account_crosswalk.account_id,
        company_versions.account_name,
        company_versions.industry,
        company_versions.country,
        company_versions.is_archived,
        row_number() over (
            partition by account_crosswalk.as_of_date, account_crosswalk.account_id
            order by
                case when company_versions.is_archived then 1 else 0 end asc,
                {{ directness('account_crosswalk.matched_by') }} asc,
                company_versions.valid_from desc,
                company_versions.record_id asc
        ) as place_in_account
    from company_versions
    inner join account_crosswalk
        on
            company_versions.as_of_date = account_crosswalk.as_of_date
            and company_versions.crm_system = account_crosswalk.source_system
            and company_versions.source_record_id = account_crosswalk.source_account_id
    where company_versions.newness = 1

),

account_companies as (

    select * from companies
    where place_in_account = 1

),

crm_records as (

    select
        as_of_date,
        account_id,
        source_system as crm_system,
        source_account_id as crm_record_id,
        row_number() over (partition by as_of_date, account_id order by preference) as place_in_account
    from account_crosswalk
    where is_active

),

-- Who pays by a contract is a customer, though it has not ordered and no CRM has it any more.
held_accounts as (

    select
        as_of_date,
        account_id
    from {{ ref('lapse_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

-- Of several parents the order system's is told, else that of the record that speaks for the account.
account_parents as (

    select *
    from (
        select
            dates_due.as_of_date,
            parents.account_id,
            parents.parent_account_id,
            row_number() over (
                partition by dates_due.as_of_date, parents.account_id
                order by parents.preference, parents.parent_account_id
            ) as place_in_account
        from dates_due
        inner join {{ ref('int_account_parents') }} as parents on {{ holds_on('parents', 'dates_due.as_of_date') }}
    ) as placed
    where place_in_account = 1

),

accounts as (

    select
        as_of_date,
        account_id
    from account_features
    union
    select
        as_of_date,
        account_id
    from account_companies
    where not is_archived
    union
    select
        as_of_date,
        account_id
    from held_accounts

),

final as (

    select
        accounts.as_of_date,
        accounts.account_id,
        account_companies.account_name,
        crm_records.crm_system,
        crm_records.crm_record_id,
        account_parents.parent_account_id,
        account_companies.industry,
        account_features.account_id is not null as has_ordered,
        coalesce(account_companies.country, account_features.order_country) as country
    from accounts
    left join account_features
        on
            accounts.as_of_date = account_features.as_of_date
            and accounts.account_id = account_features.account_id
    left join account_companies
        on
            accounts.as_of_date = account_companies.as_of_date
            and accounts.account_id = account_companies.account_id
    left join crm_records
        on
            accounts.as_of_date = crm_records.as_of_date
            and accounts.account_id = crm_records.account_id
            and crm_records.place_in_account = 1
    left join account_parents
        on
            accounts.as_of_date = account_parents.as_of_date
            and accounts.account_id = account_parents.account_id

)

select * from final
