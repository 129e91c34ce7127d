-- What is read of the JSON is read once, below the window function, and cast above it.
with

versions as (

    select * from {{ source('raw_hubspot', 'deals') }}

),

read_versions as (

    select
        versions.record_id,
        versions.load_seq,
        nullif(trim(versions.company_record_id), '') as company_record_id,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        {{ json_text('versions.properties', 'dealstage') }} as deal_stage,
        {{ json_text('versions.properties', 'amount') }} as amount,
        {{ json_text('versions.properties', 'deal_currency_code') }} as currency,
        {{ json_text('versions.properties', 'hs_is_closed_won') }} as closed_won,
        {{ json_text('versions.properties', 'closedate') }} as closed_at,
        {{ version_days('versions') }}
    from versions

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
        valid_from_date,
        valid_until_date
    from read_versions

)

select * from final
