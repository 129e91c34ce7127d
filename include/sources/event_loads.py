"""Land the rows of event files: on days of which no event is held as they come, on others after a comparison.

On a contested day an event that is held already is unchanged. One with the id of a held event of the same day, or of
a file that was read before in another version, takes its place. docs/decisions/0015-event-files.md says why.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import LiteralString

from psycopg import sql

from include.dates import day_end
from include.errors import StratumError
from include.sources.binary_copy import copy_arrow
from include.sources.event_files import register
from include.sources.event_rows import DayRows, EventRows
from include.sources.file_loads import known_on
from include.sources.loads import Load

EVENTS = sql.Identifier("raw_files", "events")
JSONB = ("properties", "extras")
ARRIVED = sql.Identifier("arrived")
STRETCH_GAP_DAYS = 31
"""Days further apart are looked up one after the other, others with all that lies between them."""
_HELD: LiteralString = """
insert into held
select event.*, file.path, file.load_seq, day.usage_date
from raw_files.events as event
inner join raw_files.event_files as file on file.file_id = event.file_id
cross join audit.company
inner join contested_days as day on day.usage_date = (event.event_at at time zone company.timezone)::date
where event.event_at >= %(begin)s and event.event_at < %(end)s
    and not exists (
        select from raw_files.superseded_events as superseded
        where superseded.file_id = event.file_id and superseded.source_row = event.source_row
    )"""
# Rows that hold nulls cannot be joined by equality: they are joined by their hash, and then compared whole.
_COMPARE: LiteralString = """
create temp table fresh on commit drop as
select arrived.*, (arrived.event_at at time zone company.timezone)::date as usage_date
from arrived
cross join audit.company
where not exists (select from held where {same});

create temp table gone on commit drop as
select held.file_id, held.source_row, held.event_id, held.customer_id, held.usage_date
from held
where not exists (select from arrived where {same})
and (
    (
        -- Rows of one id within one load are different events.
        held.load_seq < {load_seq}
        and exists (select from fresh where fresh.event_id = held.event_id and fresh.usage_date = held.usage_date)
    )
    or exists (
        select from replaced
        where replaced.path = held.path and held.event_at between replaced.first_at and replaced.last_at
    )
)"""
_LAND: LiteralString = """
insert into raw_files.events ({columns}) select {columns} from fresh;
insert into raw_files.event_file_days (file_id, usage_date, rows)
select file_id, usage_date, count(*) from fresh group by file_id, usage_date;
insert into raw_files.superseded_events (file_id, source_row, load_seq)
select file_id, source_row, {load_seq} from gone;
insert into intermediate.usage_day_queue (load_id, customer_id, usage_date)
select distinct {load_id}::uuid, customer_id, usage_date
from (select customer_id, usage_date from fresh union all select customer_id, usage_date from gone) as touched
where customer_id is not null
on conflict do nothing"""

log = logging.getLogger(__name__)


def land_rows(load: Load, rows: EventRows) -> None:
    """Land the kept rows of all readings, queue the days they touch, and fill the books of the load.

    Raises StratumError where the rows that were written are not those that were counted.
    """
    for reading in rows.readable:
        register(load.connection, load.load_seq, reading, rows.columns[reading.number])
    days = rows.days
    _find_contested(load, rows)
    contested = {day for (day,) in load.connection.execute("select usage_date from contested_days")}
    rows.contest(sorted(contested))
    free = [day for day in days if day.day not in contested]
    _land_free(load, rows, free)
    _queue_free(load, free)
    kept = sum(day.rows for day in days)
    if contested:
        _land_contested(load, rows, kept - sum(day.rows for day in free))
    load.rows_new += sum(day.rows for day in free)
    load.rows_unattributed += kept - sum(day.attributed for day in days)
    refused = rows.reasons()
    load.reasons.update(refused)
    load.rows_in += kept + sum(refused.values())


def _find_contested(load: Load, rows: EventRows) -> None:
    """Fill `contested_days`: days of these rows, or that a changed file covers, of which events are held."""
    load.connection.execute("""
drop table if exists contested_days, replaced;
create temp table contested_days (usage_date date) on commit drop;
create temp table replaced (path text, first_at timestamptz, last_at timestamptz) on commit drop""")
    for reading in rows.readable:
        if reading.changed and (span := rows.span(reading)):
            load.connection.execute("insert into replaced values (%s, %s, %s)", [reading.file.path, *span])
    load.connection.execute(
        """
insert into contested_days
select distinct held.usage_date
from raw_files.event_file_days as held
inner join raw_files.event_files as file using (file_id)
cross join audit.company
left join replaced
    on replaced.path = file.path
    and held.usage_date between (replaced.first_at at time zone company.timezone)::date
        and (replaced.last_at at time zone company.timezone)::date
where held.usage_date = any(%s) or replaced.path is not null""",
        [sorted({day.day for day in rows.days})],
    )


def _land_free(load: Load, rows: EventRows, days: Sequence[DayRows]) -> None:
    expected = {reading.number: 0 for reading in rows.readable}
    for day in days:
        expected[day.number] += day.rows
    for reading in rows.readable:
        if expected[reading.number]:
            stream = rows.stream(reading, known_on(load), contested=False)
            written = copy_arrow(load.connection, EVENTS, stream, JSONB)
            _require_equal(reading.file.path, written, expected[reading.number])
    with load.connection.cursor() as cursor:
        file_ids = {reading.number: reading.file_id for reading in rows.readable}
        statement = "copy raw_files.event_file_days (file_id, usage_date, rows) from stdin"
        with cursor.copy(statement) as copy:
            for day in days:
                copy.write_row((file_ids[day.number], day.day, day.rows))


def _queue_free(load: Load, days: Iterable[DayRows]) -> None:
    """Queue days of which nothing was held as a whole, under the customer ''."""
    touched = sorted({day.day for day in days if day.attributed})
    load.connection.execute(
        "insert into intermediate.usage_day_queue (load_id, customer_id, usage_date) select %s, '', unnest(%s::date[])",
        [load.load_id, touched],
    )


def _land_contested(load: Load, rows: EventRows, expected: int) -> None:
    """Land what differs from the events held of the same days, and queue exactly the account-days that change."""
    connection = load.connection
    connection.execute(
        "drop table if exists arrived, held, fresh, gone;"
        "create temp table arrived (like raw_files.events) on commit drop;"
        "create temp table held (like raw_files.events, path text, load_seq bigint, usage_date date) on commit drop"
    )
    copied = sum(
        copy_arrow(connection, ARRIVED, rows.stream(reading, known_on(load), contested=True), JSONB)
        for reading in rows.readable
    )
    _require_equal("contested days", copied, expected)
    days = connection.execute("select usage_date from contested_days order by 1").fetchall()
    for first, last in _stretches([day for (day,) in days]):
        begin, end = day_end(first - timedelta(days=1), rows.timezone), day_end(last, rows.timezone)
        connection.execute(_HELD, {"begin": begin, "end": end})
    connection.execute("analyze arrived; analyze held")
    same = sql.SQL(
        "hash_record_extended(row({arrived}), 0) = hash_record_extended(row({held}), 0) "
        "and row({arrived}) is not distinct from row({held})"
    ).format(arrived=_columns(rows, "arrived"), held=_columns(rows, "held"))
    connection.execute(sql.SQL(_COMPARE).format(same=same, load_seq=sql.Literal(load.load_seq)))
    names = [*rows.contract.types, "known_on", "file_id", "source_row", "extras"]
    connection.execute(
        sql.SQL(_LAND).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, names)),
            load_seq=sql.Literal(load.load_seq),
            load_id=sql.Literal(load.load_id),
        )
    )
    ((fresh, corrected, gone),) = connection.execute(
        "select count(*), count(*) filter (where event_id in (select event_id from gone)), "
        "(select count(*) from gone) from fresh"
    ).fetchall()
    load.rows_new += fresh - corrected
    load.rows_corrected += corrected
    load.rows_unchanged += copied - fresh
    if gone:
        log.info("%d events held before give way to those of this load.", gone)


def _columns(rows: EventRows, table: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in rows.contract.types)


def _stretches(days: Sequence[date]) -> list[tuple[date, date]]:
    """Return the first and last day of each stretch of sorted days that lie no more than STRETCH_GAP_DAYS apart."""
    found: list[tuple[date, date]] = []
    for day in days:
        if found and (day - found[-1][1]).days <= STRETCH_GAP_DAYS:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def _require_equal(what: str, written: int, counted: int) -> None:
    if written != counted:
        raise StratumError(
            f"Of {what}, {counted} events were counted and {written} written: did a file change while it was read? "
            "Load the date again."
        )
