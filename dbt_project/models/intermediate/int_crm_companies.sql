{{ config(materialized='view') }}

with

final as (

    {#- What some systems tell of a company beyond its number, name and industry; what one does not is null. -#}
    {%- set told_by_some = {
        'domain': 'text', 'tax_id': 'text', 'parent_record_id': 'text', 'merged_into_record_id': 'text',
        'merged_record_ids': 'text', 'is_internal': 'boolean', 'account_size': 'text', 'owner_id': 'text',
        'channel': 'text',
    } %}
    {%- set systems = {
        'hubspot': {
            'model': ref('stg_hubspot_companies'),
            'domain': 'domain',
            'parent_record_id': "'hubspot:' || parent_record_id",
            'merged_record_ids': 'merged_record_ids',
        },
        'salesforce': {
            'model': ref('stg_salesforce_accounts'),
            'domain': 'website',
            'parent_record_id': "'salesforce:' || parent_record_id",
            'merged_into_record_id': "'salesforce:' || merged_into_record_id",
            'owner_id': 'owner_id',
        },
        'bottlecrm': {
            'model': ref('stg_bottlecrm_accounts'),
            'domain': 'website',
            'owner_id': 'owner_ids',
        },
        'files': {
            'model': ref('stg_files_accounts'),
            'domain': 'domain',
            'tax_id': 'tax_id',
            'parent_record_id': 'parent_record_id',
            'merged_into_record_id': 'merged_into_record_id',
            'is_internal': 'is_internal',
            'account_size': 'account_size',
            'owner_id': 'owner_id',
            'channel': 'channel',
        },
    } %}
    {%- for system, columns in systems.items() %}
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
        {%- for column, type in told_by_some.items() %}
        cast({{ columns.get(column, 'null') }} as {{ type }}) as {{ column }},
        {%- endfor %}
        is_latest
    from {{ columns['model'] }}
    {%- endfor %}

)

select * from final
