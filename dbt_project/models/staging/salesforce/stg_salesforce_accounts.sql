with

versions as (

    select * from {{ source('raw_salesforce', 'accounts') }}

),

final as (

    select
        versions.record_id,
        versions.load_seq,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        nullif(trim(versions.account_number), '') as account_number,
        {{ json_text('versions.properties', 'Name') }} as account_name,
        {{ json_text('versions.properties', 'Industry') }} as industry,
        {{ json_text('versions.properties', 'BillingCountry') }} as country,
        {{ json_text('versions.properties', 'OwnerId') }} as owner_id,
        row_number() over (
            partition by versions.record_id order by versions.valid_from desc, versions.load_seq desc
        ) = 1 as is_latest
    from versions

)

select * from final
