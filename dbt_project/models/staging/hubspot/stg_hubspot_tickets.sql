-- What is read of the JSON is read once, below the window function, and cast above it.
with

versions as (

    select * from {{ source('raw_hubspot', 'tickets') }}

),

read_versions as (

    select
        versions.record_id,
        versions.load_seq,
        nullif(trim(versions.company_record_id), '') as company_record_id,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        {{ json_text('versions.properties', 'hs_ticket_priority') }} as priority,
        {{ json_text('versions.properties', 'createdate') }} as created_at,
        {{ json_text('versions.properties', 'closed_date') }} as closed_at,
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
        priority,
        {{ local_date('(' ~ instant_of('created_at') ~ ')') }} as created_date,
        {{ local_date('(' ~ instant_of('closed_at') ~ ')') }} as closed_date,
        valid_from_date,
        valid_until_date
    from read_versions

)

select * from final
