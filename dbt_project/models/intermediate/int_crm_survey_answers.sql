{{ config(materialized='view') }}

with

final as (

    {{ crm_union({
        'hubspot': ref('stg_hubspot_survey_answers'),
        'files': ref('stg_files_survey_answers'),
    }, [
        'load_seq',
        'valid_from',
        'known_on',
        'is_archived',
        'contact_record_id',
        'survey_type',
        'answer',
        'submitted_at',
        'submitted_date',
        'valid_from_date',
        'valid_until_date',
    ]) }}

)

select * from final
