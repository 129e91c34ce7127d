with

versions as (

    {{ file_versions('customers', [
        'customer_name',
        'tax_id',
        'domain',
        'country',
        'parent_customer_id',
        'merged_into_customer_id',
        'merged_on',
        'is_internal',
    ]) }}

),

final as (

    select
        record_id as customer_id,
        load_seq,
        valid_from,
        known_on,
        is_archived,
        customer_name,
        tax_id,
        domain,
        country,
        parent_customer_id,
        merged_into_customer_id,
        cast(merged_on as date) as merged_on,
        coalesce(is_internal = 'true', false) as is_internal,
        is_latest
    from versions

)

select * from final
