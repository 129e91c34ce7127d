with

versions as (

    {{ crm_versions('raw_hubspot', 'contacts', {
        'job_title': 'jobtitle',
        'buying_roles': 'hs_buying_role',
        'opted_out': 'hs_email_optout',
    }) }}

),

final as (

    select
        record_id,
        load_seq,
        company_record_id,
        valid_from,
        known_on,
        is_archived,
        job_title,
        buying_roles,
        coalesce(opted_out = 'true', false) as has_opted_out,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
