"""Event files: a registry of what was read of each, events without keys or hashes, and the ones that gave way."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per reading of a version of an event file: its rows dated from from_at on and before until_at.
create table raw_files.event_files (
    file_id bigint generated always as identity primary key,
    load_seq bigint not null references audit.loads (load_seq),
    path text not null,
    size bigint not null,
    stamp text not null,
    from_at timestamptz,
    until_at timestamptz not null,
    next_at timestamptz,
    rows bigint not null,
    columns text[] not null
);
create index on raw_files.event_files (path);
create index on raw_files.event_files (load_seq);
comment on column raw_files.event_files.stamp is
    'Changes when the content does: the time of its last change in nanoseconds. Empty: to be read again.';
comment on column raw_files.event_files.from_at is 'Null: from the first row on, and the rows without a date.';
comment on column raw_files.event_files.next_at is
    'The first date at or after until_at that the file has a row of; null where it has none.';
comment on column raw_files.event_files.rows is 'Rows of the file that the reading judged, kept or refused.';
comment on column raw_files.event_files.columns is 'The columns of the file.';

-- One row per reading and day of which it landed events.
create table raw_files.event_file_days (
    file_id bigint not null,
    usage_date date not null,
    rows bigint not null,
    primary key (file_id, usage_date)
);

-- One row per landed event that gave way to a later load: corrected, or gone from its file.
create table raw_files.superseded_events (
    file_id bigint not null,
    source_row bigint not null,
    load_seq bigint not null,
    primary key (file_id, source_row)
);
create index on raw_files.superseded_events (load_seq);

alter table raw_files.events rename to events_before;
create table raw_files.events (
    event_id text,
    customer_id text,
    user_id text,
    session_id text,
    event_name text not null,
    feature text,
    duration_s numeric(12, 3),
    event_at timestamptz not null,
    known_on date not null,
    file_id bigint not null,
    source_row bigint not null
);
comment on table raw_files.events is
    'One row per version of a behavior event; it counts unless superseded_events names it.';
comment on column raw_files.events.event_id is 'The id the source gives the event; null where it gives none.';
comment on column raw_files.events.customer_id is
    'The account as the orders name it; null where the event names none.';
comment on column raw_files.events.file_id is 'The reading that landed it; load and file stand in event_files.';

-- What was landed before: of each load and file one reading, of unknown size and time, so that it is read again.
create temp table old_files on commit drop as
select load_seq, source_file, count(*) as rows, row_number() over (order by load_seq, source_file) as file_id
from raw_files.events_before
group by load_seq, source_file;
insert into raw_files.event_files (file_id, load_seq, path, size, stamp, until_at, rows, columns)
overriding system value
select old.file_id, old.load_seq,
    coalesce(
        (
            select min(path) from unnest(load.files) as files (path)
            where path = old.source_file or right(path, length(old.source_file) + 1) = '/' || old.source_file
        ),
        old.source_file
    ),
    -1, '', (load.as_of_date + 1)::timestamp at time zone company.timezone, old.rows, '{}'
from old_files as old
inner join audit.loads as load on load.load_seq = old.load_seq
cross join audit.company;
select setval(
    pg_get_serial_sequence('raw_files.event_files', 'file_id'), (select count(*) + 1 from old_files), false
);
insert into raw_files.events (event_id, customer_id, user_id, session_id, event_name, feature, duration_s, event_at,
    known_on, file_id, source_row)
select event_id, customer_id, user_id, session_id, event_name, feature, duration_s, event_at, known_on, file_id,
    source_row
from raw_files.events_before as old
inner join old_files using (load_seq, source_file)
order by load_seq, event_at;
insert into raw_files.event_file_days (file_id, usage_date, rows)
select file_id, (event_at at time zone company.timezone)::date, count(*)
from raw_files.events
cross join audit.company
group by 1, 2;
insert into raw_files.superseded_events (file_id, source_row, load_seq)
select file_id, source_row, newer.load_seq
from (
    select load_seq, source_file, source_row,
        lead(load_seq) over (partition by row_key order by load_seq) as next_load_seq
    from raw_files.events_before
) as old
inner join old_files using (load_seq, source_file)
inner join audit.loads as newer on newer.load_seq = old.next_load_seq;
drop table raw_files.events_before;
-- Both tell where in the table a day, or what a load landed, lies; rows come in the order of their files.
create index on raw_files.events using brin (event_at, file_id);

comment on column intermediate.usage_day_queue.customer_id is
    'The account whose day a load touched; empty text: every account of the day, of which no event was held before.';
""")
