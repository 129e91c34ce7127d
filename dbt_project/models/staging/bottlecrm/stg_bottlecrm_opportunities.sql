with

versions as (

    {{ crm_versions('raw_bottlecrm', 'opportunities', {
        'stage': 'stage',
        'stage_kind': 'stage_kind',
        'amount': 'amount',
        'currency': 'currency',
        'close_date': 'closed_on',
        'opportunity_type': 'opportunity_type',
        'channel': 'lead_source',
        'created': 'createdate',
        'owner_ids': 'assigned_to',
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
        -- A pipeline may name its stages as it likes; which of them are lost BottleCRM says itself.
        case when stage_kind = 'lost' then 'CLOSED_LOST' else stage end as deal_stage,
        cast(amount as numeric(18, 2)) as amount,
        upper(currency) as currency,
        coalesce(stage_kind = 'won', false) as is_won,
        cast(close_date as date) as close_date,
        opportunity_type,
        channel,
        {{ local_date('(' ~ instant_of('created') ~ ')') }} as created_date,
        owner_ids,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
