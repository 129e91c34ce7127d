with

crm_records as (

    select * from {{ ref('account_keys') }}
    where is_crm_record

),

company_versions as (

    select
        record_id,
        owner_id,
        valid_from,
        is_archived,
        row_number() over (partition by record_id order by valid_from desc, load_seq desc) as newness
    from {{ ref('int_crm_companies') }}
    where valid_from < {{ as_of_end() }}

),

-- Of several companies of an account the one speaks that stands for it most directly, of those that name an owner.
owners as (

    select
        crm_records.as_of_date,
        crm_records.account_id,
        company_versions.owner_id,
        row_number() over (
            partition by crm_records.account_id
            order by
                {{ directness('crm_records.matched_by') }} asc,
                company_versions.valid_from desc,
                company_versions.record_id asc
        ) as place_in_account
    from crm_records
    inner join company_versions on crm_records.account_key = company_versions.record_id
    where
        company_versions.newness = 1
        and not company_versions.is_archived
        and company_versions.owner_id is not null

),

final as (

    select
        as_of_date,
        account_id,
        owner_id
    from owners
    where place_in_account = 1

)

select * from final
