with

final as (

    {{ crm_company_versions('raw_salesforce', 'accounts', {
        'account_name': 'Name',
        'industry': 'Industry',
        'country': 'BillingCountry',
        'owner_id': 'OwnerId',
        'website': 'Website',
        'parent_record_id': 'ParentId',
        'merged_into_record_id': 'MasterRecordId',
    }) }}

)

select * from final
