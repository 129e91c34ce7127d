with

versions as (

    {{ crm_versions('raw_salesforce', 'opportunities', {
        'deal_stage': 'StageName',
        'amount': 'Amount',
        'currency': 'CurrencyIsoCode',
        'won': 'IsWon',
        'close_date': 'CloseDate',
        'opportunity_type': 'Type',
        'channel': 'LeadSource',
        'created': 'createdate',
        'owner_id': 'OwnerId',
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
        coalesce(won = 'true', false) as is_won,
        cast(close_date as date) as close_date,
        opportunity_type,
        channel,
        {{ local_date('(' ~ instant_of('created') ~ ')') }} as created_date,
        owner_id,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
