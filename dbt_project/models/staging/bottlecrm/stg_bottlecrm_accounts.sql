with

versions as (

    select * from {{ source('raw_bottlecrm', 'accounts') }}

),

final as (

    select
        versions.record_id,
        versions.load_seq,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        nullif(trim(versions.account_number), '') as account_number,
        {{ json_text('versions.properties', 'name') }} as account_name,
        {{ json_text('versions.properties', 'industry') }} as industry,
        {{ json_text('versions.properties', 'country') }} as country,
        {{ json_text('versions.properties', 'assigned_to') }} as owner_ids,
        row_number() over (
            partition by versions.record_id order by versions.valid_from desc, versions.load_seq desc
        ) = 1 as is_latest
    from versions

)

select * from final
