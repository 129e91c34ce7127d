with

versions as (

    {{ crm_versions('raw_hubspot', 'deals', {
        'deal_stage': 'dealstage',
        'amount': 'amount',
        'currency': 'deal_currency_code',
        'closed_won': 'hs_is_closed_won',
        'closed_at': 'closedate',
        'opportunity_type': 'dealtype',
        'channel': 'hs_analytics_source',
        'created': 'createdate',
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
        deal_stage,
        cast(amount as numeric(18, 2)) as amount,
        upper(currency) as currency,
        coalesce(closed_won = 'true', false) as is_won,
        {{ local_date('(' ~ instant_of('closed_at') ~ ')') }} as close_date,
        opportunity_type,
        channel,
        {{ local_date('(' ~ instant_of('created') ~ ')') }} as created_date,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
