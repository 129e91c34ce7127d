with

versions as (

    {{ file_versions('industries', ['yearly_growth', 'effective_from']) }}

),

final as (

    select
        record_id as industry,
        load_seq,
        valid_from,
        known_on,
        cast(yearly_growth as numeric(9, 4)) as yearly_growth,
        cast(effective_from as date) as effective_from,
        is_latest,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
