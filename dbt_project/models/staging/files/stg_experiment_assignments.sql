with

versions as (

    {{ file_versions('experiment_assignments', [
        'experiment',
        'unit_id',
        'variant',
        'assigned_at',
    ], owner='account_key') }}

),

final as (

    select
        record_id as assignment_id,
        load_seq,
        account_key,
        valid_from,
        known_on,
        experiment,
        unit_id,
        variant,
        {{ instant_of('assigned_at') }} as assigned_at,
        is_latest,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
