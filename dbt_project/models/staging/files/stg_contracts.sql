with

versions as (

    {{ file_versions('contracts', [
        'value',
        'currency',
        'sent_at',
        'signed_at',
        'starts_on',
        'ends_on',
        'renews_contract_id',
    ], owner='account_key') }}

),

final as (

    select
        record_id as contract_id,
        load_seq,
        account_key,
        valid_from,
        known_on,
        is_archived,
        cast(value as numeric(18, 2)) as contract_value,
        coalesce(currency, '{{ var("reporting_currency") }}') as currency,
        {{ instant_of('sent_at') }} as sent_at,
        {{ instant_of('signed_at') }} as signed_at,
        cast(starts_on as date) as starts_on,
        cast(ends_on as date) as ends_on,
        renews_contract_id,
        is_latest,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
