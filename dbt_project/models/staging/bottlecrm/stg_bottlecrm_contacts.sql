with

versions as (

    {{ crm_versions('raw_bottlecrm', 'contacts', {
        'job_title': 'title',
        'do_not_call': 'do_not_call',
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
        -- BottleCRM has no buying roles.
        cast(null as text) as buying_roles,
        -- The only wish to be left alone that BottleCRM knows.
        coalesce(do_not_call = 'true', false) as has_opted_out,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
