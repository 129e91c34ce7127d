-- What is read of the JSON is read once, below the window function, and cast above it.
with

versions as (

    select * from {{ source('raw_hubspot', 'feedback_submissions') }}

),

read_versions as (

    select
        versions.record_id,
        versions.load_seq,
        nullif(trim(versions.company_record_id), '') as company_record_id,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        {{ json_text('versions.properties', 'hs_survey_type') }} as survey_type,
        {{ json_text('versions.properties', 'hs_value') }} as answer,
        {{ json_text('versions.properties', 'hs_submission_timestamp') }} as submission,
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
        survey_type,
        cast(answer as numeric(9, 2)) as answer,
        {{ instant_of('submission') }} as submitted_at,
        {{ local_date('(' ~ instant_of('submission') ~ ')') }} as submitted_date,
        valid_from_date,
        valid_until_date
    from read_versions

)

select * from final
