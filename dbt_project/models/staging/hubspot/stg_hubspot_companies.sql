with

final as (

    {{ crm_company_versions('raw_hubspot', 'companies', {
        'account_name': 'name',
        'industry': 'industry',
        'country': 'country',
    }) }}

)

select * from final
