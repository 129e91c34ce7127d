with

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date = {{ as_of_date() }}

),

contact_sums as (

    select
        account_id,
        count(*) as contacts,
        count(case when not has_opted_out then 1 end) as contacts_mailable
    from {{ ref('account_contacts') }}
    group by account_id

),

crm_accounts as (

    select distinct account_id from {{ ref('account_keys') }}
    where is_crm_record

),

company_sums as (

    select count(*) as accounts_with_contacts from contact_sums

),

counted as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        contact_sums.contacts_mailable,
        case
            when company_sums.accounts_with_contacts = 0 then 'no source has told of contacts yet'
            when crm_accounts.account_id is null then 'the CRM has no company for it'
        end as unknown_reason,
        coalesce(contact_sums.contacts, 0) as contacts_known
    from account_profiles
    cross join company_sums
    left join contact_sums on account_profiles.account_id = contact_sums.account_id
    left join crm_accounts on account_profiles.account_id = crm_accounts.account_id

),

final as (

    select
        as_of_date,
        account_id,
        case when unknown_reason is null then contacts_known end as contacts,
        case when unknown_reason is null then coalesce(contacts_mailable, 0) end as contacts_mailable,
        case when unknown_reason is null then coalesce(contacts_mailable, 0) > 0 end as can_be_mailed,
        case
            when unknown_reason is not null then unknown_reason
            when contacts_known = 0 then 'the CRM has no contact of it'
            when coalesce(contacts_mailable, 0) = 0 then 'all of its contacts have opted out'
        end as no_mail_reason
    from counted

)

select * from final
