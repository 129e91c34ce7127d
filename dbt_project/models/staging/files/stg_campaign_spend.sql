with

versions as (

    {{ file_versions('campaign_spend', ['spent_on', 'channel', 'campaign', 'is_online', 'amount', 'currency']) }}

),

final as (

    select
        record_id as spend_id,
        load_seq,
        valid_from,
        known_on,
        cast(spent_on as date) as spent_on,
        channel,
        campaign,
        cast(is_online as boolean) as is_online,
        cast(amount as numeric(18, 2)) as amount,
        coalesce(currency, '{{ var("reporting_currency") }}') as currency,
        is_latest,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
