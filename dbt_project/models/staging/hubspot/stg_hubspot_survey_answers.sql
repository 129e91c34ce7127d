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
        survey_type,
        cast(answer as numeric(9, 2)) as answer,
        {{ instant_of('submission') }} as submitted_at,
        {{ local_date('(' ~ instant_of('submission') ~ ')') }} as submitted_date,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
