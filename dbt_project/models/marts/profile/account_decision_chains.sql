with

account_reach as (

    select * from {{ ref('account_reach') }}

),

account_contacts as (

    select * from {{ ref('account_contacts') }}
    where buying_roles is not null

),

decision_roles as (

    {{ policy_rows('decision_roles', key='role') }}

),

decision_role_words as (

    {{ policy_rows('decision_role_words', key='word') }}

),

-- A contact may have several roles, and a role several words.
contact_roles as (

    select distinct
        account_contacts.account_id,
        account_contacts.contact_record_id,
        decision_role_words.role
    from account_contacts
    inner join decision_role_words
        on ';' || account_contacts.buying_roles || ';' like '%;' || decision_role_words.word || ';%'

),

role_sums as (

    select
        account_id,
        role,
        count(*) as contacts
    from contact_roles
    group by account_id, role

),

company_sums as (

    select count(*) as roles_told from role_sums

),

counted as (

    select
        account_reach.as_of_date,
        account_reach.account_id,
        decision_roles.role,
        decision_roles.message,
        decision_roles.format,
        case
            when account_reach.contacts is null then account_reach.no_mail_reason
            when company_sums.roles_told = 0 then 'no contact in the CRM has a role in the decision'
        end as no_value_reason,
        coalesce(role_sums.contacts, 0) as contacts
    from account_reach
    cross join decision_roles
    cross join company_sums
    left join role_sums
        on
            account_reach.account_id = role_sums.account_id
            and decision_roles.role = role_sums.role

),

final as (

    select
        as_of_date,
        account_id,
        role,
        case when no_value_reason is null then contacts end as contacts,
        case when no_value_reason is null then contacts > 0 end as is_covered,
        case when no_value_reason is null and contacts = 0 then message end as missing_message,
        case when no_value_reason is null and contacts = 0 then format end as missing_format,
        no_value_reason
    from counted

)

select * from final
