with

crm_records as (

    select * from {{ ref('account_keys') }}
    where is_crm_record

),

contacts as (

    select * from {{ ref('int_crm_contacts') }}

),

final as (

    select
        crm_records.as_of_date,
        crm_records.account_id,
        contacts.record_id as contact_record_id,
        contacts.buying_roles,
        contacts.has_opted_out
    from crm_records
    inner join contacts
        on
            crm_records.account_key = contacts.company_record_id
            and {{ stands_on('contacts', 'crm_records.as_of_date') }}

)

select * from final
