with

versions as (

    {{ crm_company_versions('raw_files', 'accounts', {
        'account_name': 'account_name',
        'industry': 'industry',
        'account_size': 'size',
        'country': 'country',
        'domain': 'domain',
        'tax_id': 'tax_id',
        'owner_id': 'owner',
        'channel': 'channel',
        'parent_account_id': 'parent_account_id',
        'merged_into_account_id': 'merged_into_account_id',
        'internal': 'is_internal',
    }) }}

),

final as (

    select
        record_id,
        load_seq,
        valid_from,
        known_on,
        is_archived,
        account_number,
        account_name,
        industry,
        account_size,
        country,
        domain,
        tax_id,
        owner_id,
        channel,
        'files:' || parent_account_id as parent_record_id,
        'files:' || merged_into_account_id as merged_into_record_id,
        cast(internal as boolean) as is_internal,
        is_latest
    from versions

)

select * from final
