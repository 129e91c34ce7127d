{{ config(materialized='view') }}

with

final as (

    {{ crm_union({
        'hubspot': ref('stg_hubspot_deals'),
        'salesforce': ref('stg_salesforce_opportunities'),
        'bottlecrm': ref('stg_bottlecrm_opportunities'),
        'files': ref('stg_files_opportunities'),
    }, [
        'load_seq',
        'valid_from',
        'known_on',
        'is_archived',
        'deal_stage',
        'amount',
        'currency',
        'is_won',
        'close_date',
        'opportunity_type',
        'channel',
        'created_date',
        'valid_from_date',
        'valid_until_date',
    ]) }}

)

select * from final
