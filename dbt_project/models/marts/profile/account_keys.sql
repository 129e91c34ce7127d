with

mappings as (

    select * from {{ ref('int_account_crosswalk') }}
    where source_system <> 'behavior'

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        mappings.account_id,
        {{ account_key('mappings') }} as account_key,
        mappings.source_system <> 'orders' as is_crm_record,
        mappings.matched_by
    from mappings
    where
        not mappings.is_internal
        and {{ holds_on('mappings', as_of_date()) }}

)

select * from final
