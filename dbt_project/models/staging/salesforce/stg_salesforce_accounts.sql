with

final as (

    {{ crm_company_versions('raw_salesforce', 'accounts', {
        'account_name': 'Name',
        'industry': 'Industry',
        'country': 'BillingCountry',
        'owner_id': 'OwnerId',
    }) }}

)

select * from final
