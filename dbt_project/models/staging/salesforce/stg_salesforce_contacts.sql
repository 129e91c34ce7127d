with

versions as (

    {{ crm_versions('raw_salesforce', 'contacts', {
        'job_title': 'Title',
        'opted_out': 'HasOptedOutOfEmail',
    }) }}

),

contact_roles as (

    select * from {{ ref('stg_salesforce_contact_roles') }}

),

-- The roles stand apart in Salesforce: a contact is another one on each day on which it or a role of it changed.
days as (

    select
        record_id,
        valid_from_date
    from versions
    union
    select
        contact_id as record_id,
        valid_from_date
    from contact_roles

),

spans as (

    select
        record_id,
        valid_from_date,
        lead(valid_from_date) over (partition by record_id order by valid_from_date) as valid_until_date
    from days

),

roles_on_days as (

    select
        spans.record_id,
        spans.valid_from_date,
        {{ joined_texts('contact_roles.buying_role', ';') }} as buying_roles
    from spans
    inner join contact_roles
        on
            spans.record_id = contact_roles.contact_id
            and {{ stands_on('contact_roles', 'spans.valid_from_date') }}
    group by spans.record_id, spans.valid_from_date

),

final as (

    select
        versions.record_id,
        versions.load_seq,
        versions.company_record_id,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        versions.job_title,
        roles_on_days.buying_roles,
        coalesce(versions.opted_out = 'true', false) as has_opted_out,
        spans.valid_from_date,
        spans.valid_until_date
    from spans
    inner join versions
        on
            spans.record_id = versions.record_id
            and spans.valid_from_date >= versions.valid_from_date
            and (spans.valid_from_date < versions.valid_until_date or versions.valid_until_date is null)
    left join roles_on_days
        on
            spans.record_id = roles_on_days.record_id
            and spans.valid_from_date = roles_on_days.valid_from_date

)

select * from final
