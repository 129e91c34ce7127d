{{ config(materialized='view') }}

with

final as (

    {{ crm_union({
        'hubspot': ref('stg_hubspot_tickets'),
        'salesforce': ref('stg_salesforce_cases'),
        'bottlecrm': ref('stg_bottlecrm_tickets'),
        'files': ref('stg_files_tickets'),
    }, [
        'load_seq',
        'valid_from',
        'known_on',
        'is_archived',
        'priority',
        'opened_at',
        'resolved_at',
        'created_date',
        'closed_date',
        'valid_from_date',
        'valid_until_date',
    ]) }}

)

select * from final
