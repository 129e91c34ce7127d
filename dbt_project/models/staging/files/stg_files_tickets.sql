with

versions as (

    {{ crm_versions('raw_files', 'tickets', {
        'severity': 'severity',
        'opened': 'opened_at',
        'resolved': 'resolved_at',
        'csat': 'csat',
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
        upper(severity) as priority,
        {{ instant_of('opened') }} as opened_at,
        {{ instant_of('resolved') }} as resolved_at,
        {{ local_date('(' ~ instant_of('opened') ~ ')') }} as created_date,
        {{ local_date('(' ~ instant_of('resolved') ~ ')') }} as closed_date,
        cast(csat as numeric(9, 2)) as csat,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
