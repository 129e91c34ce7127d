-- A warning means that the books of a sync that has ended do not add up, or do not list each row that failed or was
-- held: somebody changed them since, for its own gate had passed them. Compare them with the CRM before the next sync.
{{ config(severity='warn') }}

with

ended_runs as (

    select * from {{ source('sync', 'runs') }}
    where status in ('finished', 'failed', 'held')

),

listed as (

    select
        sync_id,
        count(case when outcome = 'failed' then 1 end) as failed_rows,
        count(case when outcome = 'held' then 1 end) as held_rows
    from {{ source('sync', 'outcomes') }}
    group by sync_id

),

final as (

    select
        ended_runs.sync_id,
        ended_runs.target,
        ended_runs.queried,
        ended_runs.sent,
        ended_runs.unchanged,
        ended_runs.failed,
        ended_runs.held,
        coalesce(listed.failed_rows, 0) as failed_rows,
        coalesce(listed.held_rows, 0) as held_rows
    from ended_runs
    left join listed on ended_runs.sync_id = listed.sync_id
    where
        ended_runs.queried <> ended_runs.sent + ended_runs.unchanged + ended_runs.failed + ended_runs.held
        or ended_runs.failed <> coalesce(listed.failed_rows, 0)
        or ended_runs.held <> coalesce(listed.held_rows, 0)

)

select * from final
