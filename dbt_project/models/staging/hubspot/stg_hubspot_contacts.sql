-- What is read of the JSON is read once, below the window function, and cast above it.
with

versions as (

    select * from {{ source('raw_hubspot', 'contacts') }}

),

read_versions as (

    select
        versions.record_id,
        versions.load_seq,
        nullif(trim(versions.company_record_id), '') as company_record_id,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        {{ json_text('versions.properties', 'jobtitle') }} as job_title,
        {{ json_text('versions.properties', 'hs_buying_role') }} as buying_roles,
        {{ json_text('versions.properties', 'hs_email_optout') }} as opted_out,
        {{ version_days('versions') }}
    from versions

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
    from read_versions

)

select * from final
