-- No CTE: a reader that wants the events of a few days must reach them by index.
select
    events.file_id,
    events.source_row,
    events.event_id,
    events.customer_id,
    events.user_id,
    events.session_id,
    events.event_name,
    events.feature,
    events.duration_s,
    events.flow_step,
    events.properties,
    events.event_at,
    {{ local_date('events.event_at') }} as usage_date,
    events.known_on
from {{ source('raw_files', 'events') }} as events
left join {{ source('raw_files', 'superseded_events') }} as superseded_events
    on
        events.file_id = superseded_events.file_id
        and events.source_row = superseded_events.source_row
where superseded_events.file_id is null
