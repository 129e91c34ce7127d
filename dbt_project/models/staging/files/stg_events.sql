-- No CTE, as in stg_order_lines: a reader that wants the events of a few accounts must reach them by index.
select
    versions.row_key,
    versions.customer_id,
    versions.user_id,
    versions.session_id,
    versions.event_name,
    versions.feature,
    versions.duration_s,
    versions.event_at,
    {{ local_date('versions.event_at') }} as usage_date,
    versions.known_on
from {{ source('raw_files', 'events') }} as versions
left join {{ source('raw_files', 'events') }} as newer_versions
    on
        versions.row_key = newer_versions.row_key
        and versions.load_seq < newer_versions.load_seq
where newer_versions.row_key is null
