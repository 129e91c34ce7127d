with

final as (

    {{ crm_company_versions('raw_hubspot', 'companies', {
        'account_name': 'name',
        'industry': 'industry',
        'country': 'country',
        'domain': 'domain',
        'parent_record_id': 'hs_parent_company_id',
        'merged_record_ids': 'hs_merged_object_ids',
    }) }}

)

select * from final
