"""Take a load of events out again: its rows and readings go, and what had given way to them counts again."""

from typing import Any, LiteralString

import psycopg

# What gave way to this load gives way to a later one instead, where that read the same file in another version over its
# time, or where the event that had taken its place was itself corrected.
_HEIRS: LiteralString = """
create temp table freed on commit drop as
select event.file_id, event.source_row, event.customer_id, event.event_at, least(
    (
        select min(later.load_seq) from raw_files.event_files as later
        where later.path = file.path and later.load_seq > %(load_seq)s
            and (later.size, later.stamp) <> (file.size, file.stamp)
            and (later.from_at is null or later.from_at <= event.event_at) and event.event_at < later.until_at
    ),
    (
        select min(later.load_seq)
        from raw_files.events as taken
        inner join raw_files.event_files as taker on taker.file_id = taken.file_id
        inner join raw_files.superseded_events as later
            on later.file_id = taken.file_id and later.source_row = taken.source_row
        where taker.load_seq = %(load_seq)s and later.load_seq > %(load_seq)s
            and taken.event_id = event.event_id
    )
) as heir
from raw_files.superseded_events as superseded
inner join raw_files.events as event
    on event.file_id = superseded.file_id and event.source_row = superseded.source_row
inner join raw_files.event_files as file on file.file_id = event.file_id
where superseded.load_seq = %(load_seq)s"""
_PASS_ON: LiteralString = """
update raw_files.superseded_events as superseded set load_seq = freed.heir
from freed
where freed.heir is not null
    and superseded.file_id = freed.file_id and superseded.source_row = freed.source_row"""  # noqa: S105
_QUEUE: LiteralString = """
insert into intermediate.usage_day_queue (load_id, customer_id, usage_date)
select distinct %(load_id)s::uuid, touched.customer_id, (touched.event_at at time zone company.timezone)::date
from (
    select event.customer_id, event.event_at
    from raw_files.events as event
    inner join raw_files.event_files as file on file.file_id = event.file_id
    where file.load_seq = %(load_seq)s
    union all
    select customer_id, event_at from freed
) as touched
cross join audit.company
where touched.customer_id is not null
on conflict do nothing"""
_DELETE: tuple[LiteralString, ...] = (
    "delete from raw_files.superseded_events where load_seq = %(load_seq)s or file_id in "
    "(select file_id from raw_files.event_files where load_seq = %(load_seq)s)",
    "delete from raw_files.event_file_days where file_id in "
    "(select file_id from raw_files.event_files where load_seq = %(load_seq)s)",
    "delete from raw_files.event_files where load_seq = %(load_seq)s",
)
# A later load passed over rows that this one had landed: its files are read again.
_READ_AGAIN: LiteralString = """
update raw_files.event_files set stamp = '' where load_seq in (
    select load_seq from audit.loads where load_seq > %(load_seq)s and status = 'loaded' and rows_unchanged > 0
)"""


def take_out_events(connection: psycopg.Connection, load: dict[str, Any]) -> int:
    """Delete the events of a load (a row of audit.loads) and queue the days they touch; return how many there were.

    Its files, and those of which a later load found rows unchanged, are read again by the next load.
    """
    connection.execute(_HEIRS, load)
    connection.execute(_PASS_ON, load)
    connection.execute(_QUEUE, load)
    deleted = connection.execute(
        "delete from raw_files.events where file_id in "
        "(select file_id from raw_files.event_files where load_seq = %(load_seq)s)",
        load,
    )
    for statement in _DELETE:
        connection.execute(statement, load)
    connection.execute(_READ_AGAIN, load)
    return deleted.rowcount
