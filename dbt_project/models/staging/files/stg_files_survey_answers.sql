with

versions as (

    {{ crm_versions('raw_files', 'survey_answers', {
        'survey_type': 'survey_type',
        'score': 'score',
        'answered': 'answered_at',
        'contact_record_id': 'contact_id',
    }) }}

),

tickets as (

    select * from {{ ref('stg_files_tickets') }}
    where csat is not null

),

answers as (

    select
        record_id,
        load_seq,
        company_record_id,
        valid_from,
        known_on,
        is_archived,
        contact_record_id,
        upper(survey_type) as survey_type,
        cast(score as numeric(9, 2)) as answer,
        {{ instant_of('answered') }} as submitted_at,
        valid_from_date,
        valid_until_date
    from versions

),

-- What a ticket's customer said of it is an answer, too, on the day it was resolved.
ticket_answers as (

    select
        'ticket:' || record_id as record_id,
        load_seq,
        company_record_id,
        valid_from,
        known_on,
        is_archived,
        cast(null as text) as contact_record_id,
        'CSAT' as survey_type,
        csat as answer,
        coalesce(resolved_at, valid_from) as submitted_at,
        valid_from_date,
        valid_until_date
    from tickets

),

united as (

    select * from answers
    union all
    select * from ticket_answers

),

final as (

    select
        record_id,
        load_seq,
        company_record_id,
        valid_from,
        known_on,
        is_archived,
        contact_record_id,
        survey_type,
        answer,
        submitted_at,
        {{ local_date('submitted_at') }} as submitted_date,
        valid_from_date,
        valid_until_date
    from united

)

select * from final
