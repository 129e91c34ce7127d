{{ config(materialized='view') }}

with

final as (

    {{ crm_union({
        'hubspot': ref('stg_hubspot_contacts'),
        'salesforce': ref('stg_salesforce_contacts'),
        'bottlecrm': ref('stg_bottlecrm_contacts'),
        'files': ref('stg_files_contacts'),
    }, [
        'load_seq',
        'valid_from',
        'known_on',
        'is_archived',
        'job_title',
        'buying_roles',
        'has_opted_out',
        'valid_from_date',
        'valid_until_date',
    ]) }}

)

select * from final
