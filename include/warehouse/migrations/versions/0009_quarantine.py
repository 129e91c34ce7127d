"""Refused rows that were settled, replays in the books, and the columns that each load met."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- A refused row is settled by the load that landed it after a fix, or that no longer found it refused.
alter table quarantine.rows add column resolved_load_id uuid;
alter table quarantine.rows add column resolved_at timestamptz;
alter table quarantine.rows add constraint resolution_is_whole
    check ((resolved_load_id is null) = (resolved_at is null));
comment on column quarantine.rows.resolved_load_id is
    'The load since which the row is refused no more: a replay that landed it, or a load that read its file again '
    'and did not refuse it. Null while it is refused.';

-- A replay is a load of its own that covers no day: it lands refused rows of earlier loads.
alter table audit.loads drop constraint loads_status_check;
alter table audit.loads add constraint loads_status_check
    check (status in ('loaded', 'absent', 'retracted', 'replayed'));
alter table audit.loads add column rows_replayed bigint not null default 0;
alter table audit.loads add constraint replayed_were_quarantined
    check (rows_replayed between 0 and rows_quarantined);
comment on column audit.loads.rows_replayed is
    'Of rows_quarantined, how many a replay has landed since.';

-- The columns a load found in its files or its table, in their order.
alter table audit.loads add column columns jsonb;
alter table audit.loads add column columns_of text check (columns_of in ('csv', 'jsonl', 'parquet', 'database'));
alter table audit.loads add constraint columns_are_whole check ((columns is null) = (columns_of is null));
comment on column audit.loads.columns is
    'What the load found, in order: [{"name": ..., "type": DuckDB''s name of the type}]; null where it read none.';

-- A new type of a column that a person has agreed to.
create table audit.accepted_columns (
    source text not null,
    entity text not null,
    column_name text not null,
    column_type text not null,
    why text not null,
    accepted_at timestamptz not null default clock_timestamp(),
    primary key (source, entity, column_name, column_type)
);

alter table raw_files.order_lines add column extras jsonb;
comment on column raw_files.order_lines.extras is
    'Columns that came to the source after its first load and that no mapping reads; null where there are none.';

-- One row per column and type that loads of an entity have met.
create view audit.source_columns as
with met as (
    select loads.source, loads.entity, loads.load_id, loads.load_seq, loads.as_of_date, loads.columns_of,
        found.value ->> 'name' as column_name, found.value ->> 'type' as column_type,
        max(loads.load_seq) over (partition by loads.source, loads.entity) as newest_seq
    from audit.loads
    cross join lateral jsonb_array_elements(loads.columns) as found
    where loads.status = 'loaded'
)
select source, entity, column_name, column_type,
    (array_agg(columns_of order by load_seq desc))[1] as columns_of,
    (array_agg(load_id order by load_seq))[1] as first_load_id,
    (array_agg(as_of_date order by load_seq))[1] as first_as_of_date,
    (array_agg(load_id order by load_seq desc))[1] as last_load_id,
    (array_agg(as_of_date order by load_seq desc))[1] as last_as_of_date,
    bool_or(load_seq = newest_seq) as is_current
from met
group by source, entity, column_name, column_type;

-- One row per column in which a load differs from the load of its entity before: new, gone or retyped.
-- A type that goes with another kind of source (csv, then parquet) is no change: the mapping is checked against it.
create view audit.column_changes as
with reading as (
    select load_id, load_seq, source, entity, as_of_date, columns, columns_of,
        lag(columns) over earlier as columns_before,
        lag(columns_of) over earlier as columns_of_before
    from audit.loads
    where status = 'loaded' and columns is not null
    window earlier as (partition by source, entity order by load_seq)
), present as (
    select load_id, found.value ->> 'name' as column_name, found.value ->> 'type' as column_type
    from reading cross join lateral jsonb_array_elements(columns) as found
    where columns_before is not null
), past as (
    select load_id, found.value ->> 'name' as column_name, found.value ->> 'type' as column_type
    from reading cross join lateral jsonb_array_elements(columns_before) as found
), compared as (
    select coalesce(present.load_id, past.load_id) as load_id,
        coalesce(present.column_name, past.column_name) as column_name,
        past.column_type as type_before,
        present.column_type as type_now
    from present
    full join past
        on present.load_id = past.load_id and lower(present.column_name) = lower(past.column_name)
)
select reading.load_id, reading.load_seq, reading.source, reading.entity, reading.as_of_date, compared.column_name,
    case when type_before is null then 'new' when type_now is null then 'gone' else 'retyped' end as change,
    compared.type_before, compared.type_now
from compared
inner join reading on compared.load_id = reading.load_id
where type_before is null or type_now is null
    or (type_before <> type_now and reading.columns_of = reading.columns_of_before);
""")
