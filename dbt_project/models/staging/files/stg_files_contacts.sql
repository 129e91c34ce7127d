with

versions as (

    {{ crm_versions('raw_files', 'contacts', {
        'job_title': 'job_title',
        'buying_roles': 'buying_roles',
        'opted_out': 'has_opted_out',
        'consented': 'consented_at',
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
        upper(replace(buying_roles, ' ', '_')) as buying_roles,
        coalesce(opted_out = 'true', false) as has_opted_out,
        {{ instant_of('consented') }} as consented_at,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
