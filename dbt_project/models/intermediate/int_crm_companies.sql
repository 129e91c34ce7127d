{{ config(materialized='view') }}

with

final as (

    {%- set systems = {
        'hubspot': ref('stg_hubspot_companies'),
        'salesforce': ref('stg_salesforce_accounts'),
        'bottlecrm': ref('stg_bottlecrm_accounts'),
        'files': ref('stg_files_accounts'),
    } %}
    {%- for system, model in systems.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        '{{ system }}' as crm_system,
        record_id as source_record_id,
        '{{ system }}:' || record_id as record_id,
        load_seq,
        valid_from,
        known_on,
        is_archived,
        account_number,
        account_name,
        industry,
        country,
        is_latest
    from {{ model }}
    {%- endfor %}

)

select * from final
