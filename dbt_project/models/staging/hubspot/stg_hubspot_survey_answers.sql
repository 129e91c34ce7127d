with

versions as (

    {{ crm_versions('raw_hubspot', 'feedback_submissions', {
        'survey_type': 'hs_survey_type',
        'answer': 'hs_value',
        'submission': 'hs_submission_timestamp',
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
        cast(null as text) as contact_record_id,
        survey_type,
        {{ number_of('answer') }} as answer,
        {{ instant_of('submission') }} as submitted_at,
        {{ local_date('(' ~ instant_of('submission') ~ ')') }} as submitted_date,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
