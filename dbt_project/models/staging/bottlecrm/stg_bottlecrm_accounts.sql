with

final as (

    {{ crm_company_versions('raw_bottlecrm', 'accounts', {
        'account_name': 'name',
        'industry': 'industry',
        'country': 'country',
        'owner_ids': 'assigned_to',
        'website': 'website',
    }) }}

)

select * from final
