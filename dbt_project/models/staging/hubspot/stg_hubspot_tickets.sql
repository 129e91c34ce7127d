with

versions as (

    {{ crm_versions('raw_hubspot', 'tickets', {
        'priority': 'hs_ticket_priority',
        'created_at': 'createdate',
        'closed_at': 'closed_date',
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
        priority,
        {{ instant_of('created_at') }} as opened_at,
        {{ instant_of('closed_at') }} as resolved_at,
        {{ local_date('(' ~ instant_of('created_at') ~ ')') }} as created_date,
        {{ local_date('(' ~ instant_of('closed_at') ~ ')') }} as closed_date,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
