with

versions as (

    {{ file_versions('products', ['product_name', 'category', 'module']) }}

),

final as (

    select
        record_id as product_id,
        load_seq,
        valid_from,
        known_on,
        is_archived,
        product_name,
        category as product_category,
        module as product_module,
        is_latest,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
