with

versions as (

    {{ crm_versions('raw_bottlecrm', 'tickets', {
        'priority': 'priority',
        'status': 'status',
        'created_at': 'createdate',
        'resolved': 'resolved_at',
        'closed_on': 'closed_on',
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
        upper(priority) as priority,
        {{ instant_of('created_at') }} as opened_at,
        {{ instant_of('resolved') }} as resolved_at,
        {{ local_date('(' ~ instant_of('created_at') ~ ')') }} as created_date,
        -- BottleCRM dates only what is closed; what is rejected or a duplicate is done with since it was seen to be.
        case
            when resolved is not null then {{ local_date('(' ~ instant_of('resolved') ~ ')') }}
            when closed_on is not null then cast(closed_on as date)
            when status in ('Closed', 'Rejected', 'Duplicate') then valid_from_date
        end as closed_date,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
