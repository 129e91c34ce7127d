with

versions as (

    {{ file_versions('opportunity_stages', ['stage', 'stage_kind']) }}

),

final as (

    select
        record_id as opportunity_id,
        load_seq,
        valid_from,
        known_on,
        is_archived,
        stage as stage_name,
        lower(stage_kind) as stage_kind,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
