"""Land mapped rows: each kept with a version or refused, and counted, in one transaction.

What is new or corrected is told by comparing row_hash with the current version of each row_key. A row that
is no longer in the file is no deletion: what was landed stays. docs/contracts/sources.md has the rules.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb
from psycopg import sql

from include.errors import StratumError
from include.sources.columns import SourceColumns, check_columns, column_types, record_columns
from include.sources.config import Company, FileSource
from include.sources.files import (
    REFUSED,
    REFUSED_FILES,
    SOURCE,
    kind_of,
    lock,
    names_below,
    open_engine,
    read_files,
)
from include.sources.loads import Load, bind_company, landing
from include.sources.mapping import MAPPED, Contract, check_mapping, named_columns
from include.sources.resolution import resolve_files

BATCH_ROWS = 50_000
KEPT = f"{MAPPED} where reason is null and not is_later"
UNREADABLE_FILE = "unreadable_file"
"""The reason of a file that cannot be read, beside others that can: it counts as one row."""
EXTRAS = "extras"
"""In the engine: row_no and, as JSON text, the columns that no mapping reads and that came after the first load."""

log = logging.getLogger(__name__)


@contextmanager
def source_rows(
    contract: Contract, given: FileSource, company: Company, files: list[Path]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, SourceColumns]]:
    """Read the files into an engine that can reach nothing else, and check the mapping against them.

    Yields the engine and the columns of the files. Raises StratumError where none of the files can be read, an
    expression does not fit them, or a column that the mapping reads is no longer what it was.
    """
    with open_engine(given.timezone or company.timezone) as engine:
        with timed(contract, f"read {given.file}"):
            read_files(engine, files, given.delimiter)
        lock(engine)
        named = named_columns(engine, contract, given)
        columns = SourceColumns(kind_of(files[0]), column_types(engine), frozenset(named))
        check_columns(columns, named, contract.source, contract.entity, given.file)
        check_mapping(engine, contract, given, list(columns.types))
        yield engine, columns


@contextmanager
def timed(contract: Contract, step: str) -> Iterator[None]:
    """Log how long a step of a load took."""
    started = time.perf_counter()
    yield
    log.info("%s: %s in %.1f s", contract.source.capitalize(), step, time.perf_counter() - started)


def require_kept(engine: duckdb.DuckDBPyConnection, origin: str, noun: str) -> None:
    """Raise StratumError where the files (`origin`) hold no row, or none that is kept, whatever its date."""
    counts = engine.execute(
        f"select coalesce(reason, ''), count(*) from {MAPPED} group by all union all "  # noqa: S608
        f"select 'unreadable_row', count(*) from {REFUSED} having count(*) > 0 order by 2 desc, 1"
    ).fetchall()
    if not counts:
        raise StratumError(f"{origin} has no rows: there are no {noun} to load.")
    if all(reason for reason, _ in counts):
        listed = ", ".join(f"{count} {reason}" for reason, count in counts)
        raise StratumError(
            f"Every row of {origin} is refused ({listed}). Does the mapping in sources.yml fit it?"
        )


def land(
    engine: duckdb.DuckDBPyConnection,
    contract: Contract,
    company: Company,
    as_of: date,
    files: Sequence[Path | str],
    columns: SourceColumns,
    finish: Callable[[Load], None] | None = None,
    keep: Callable[[duckdb.DuckDBPyConnection, Contract, Load], None] | None = None,
) -> Load:
    """Land the rows of MAPPED dated up to the end of `as_of` and return the books of the load.

    All is written in one transaction; `keep` lands the rows that are not refused (`land_kept` where it is not given),
    and `finish` is called at the end. Raises StratumError where the warehouse holds another company.
    """
    with landing(contract.source, contract.entity, as_of) as load:
        bind_company(load.connection, company.name, company.timezone, company.currency)
        load.files = [str(path) for path in files]
        extras = record_columns(load, columns)
        if extras:
            _find_extras(engine, extras)
        (keep or land_kept)(engine, contract, load)
        with timed(contract, f"wrote {load.rows_quarantined} refused rows"):
            _quarantine(engine, load, list(columns.types))
            # What reads a database reads no row twice, so it settles none.
            if paths := [path for path in files if isinstance(path, Path)]:
                resolve_files(engine, load, list(names_below(paths).values()))
        if finish is not None:
            finish(load)
    return load


def land_kept(engine: duckdb.DuckDBPyConnection, contract: Contract, load: Load) -> None:
    """Count the rows of MAPPED in the books of the load and land those kept that are new or corrected."""
    _count(engine, load)
    with timed(contract, "compared its rows with what is held"):
        _find_changes(engine, contract, load)
    with timed(contract, f"landed {load.rows_new} new and {load.rows_corrected} corrected rows"):
        _land_rows(engine, contract, load)


def _count(engine: duckdb.DuckDBPyConnection, load: Load) -> None:
    kept, unattributed, later = engine.execute(
        "select count(*) filter (where reason is null and not is_later), "  # noqa: S608
        "count(*) filter (where reason is null and not is_later and customer_id is null), "
        f"count(*) filter (where is_later) from {MAPPED}"
    ).fetchall()[0]
    load.rows_unattributed, load.rows_later = unattributed, later
    count_refused(engine, load)
    load.rows_in = kept + load.rows_quarantined


def count_refused(engine: duckdb.DuckDBPyConnection, load: Load) -> None:
    """Count the refused rows of MAPPED, and the lines and files that cannot be read, in the books of the load."""
    load.reasons.update(
        dict(
            engine.execute(
                f"select reason, count(*) from {MAPPED} where reason is not null and not is_later group by reason "  # noqa: S608
                f"union all select 'unreadable_row', count(*) from {REFUSED} having count(*) > 0 "
                f"union all select '{UNREADABLE_FILE}', count(*) from {REFUSED_FILES} having count(*) > 0"
            ).fetchall()
        )
    )


def _find_changes(engine: duckdb.DuckDBPyConnection, contract: Contract, load: Load) -> None:
    """Fill `changes` (row_no, is_corrected) in the engine, queue the old places of corrected rows, and count."""
    table = _name(contract.table)
    held = load.connection.execute(sql.SQL("select exists (select from {})").format(table)).fetchone()
    if held == (True,):
        _compare(engine, contract, load)
    else:
        engine.execute(f"create table changes as select row_no, false as is_corrected from {KEPT}")  # noqa: S608
    new, corrected, all_kept = engine.execute(
        "select count(*) filter (where not is_corrected), count(*) filter (where is_corrected), "  # noqa: S608
        f"(select count(*) from {KEPT}) from changes"
    ).fetchall()[0]
    load.rows_new, load.rows_corrected, load.rows_unchanged = new, corrected, all_kept - new - corrected


def _compare(engine: duckdb.DuckDBPyConnection, contract: Contract, load: Load) -> None:
    """Send keys and hashes alone to PostgreSQL and bring back the rows that are not what it holds."""
    load.connection.execute(
        "create temp table seen (row_no bigint, row_key text, row_hash text) on commit drop"
    )
    copy_rows(
        engine,
        load,
        "seen (row_no, row_key, row_hash)",
        {"row_no": "row_no", "row_key": csv_text("row_key"), "row_hash": "row_hash"},
        KEPT,
    )
    load.connection.execute("analyze seen")
    load.connection.execute(
        sql.SQL("""
create temp table changed on commit drop as
with unheld as (
    select seen.* from seen
    where not exists (
        select from {table} as held
        where held.row_key = seen.row_key and held.row_hash = seen.row_hash
            and not exists (
                select from {table} as newer
                where newer.row_key = held.row_key and newer.load_seq > held.load_seq
            )
    )
)
select unheld.row_no, old.row_key is not null as is_corrected, old.customer_id, old.at
from unheld
left join lateral (
    select row_key, customer_id, {at} as at from {table} as held
    where held.row_key = unheld.row_key
    order by held.load_seq desc limit 1
) as old on true
""").format(table=_name(contract.table), at=sql.Identifier(contract.at))
    )
    _queue(
        contract,
        load,
        sql.SQL(
            "select coalesce(customer_id, '') as customer_id, (at at time zone company.timezone)::date as day "
            "from changed cross join audit.company where is_corrected"
        ),
    )
    rows = load.connection.execute("select row_no, is_corrected from changed").fetchall()
    engine.execute(
        "create table changes as select unnest(?::bigint[]) as row_no, unnest(?::boolean[]) as is_corrected",
        [[row[0] for row in rows], [row[1] for row in rows]],
    )


def _land_rows(engine: duckdb.DuckDBPyConnection, contract: Contract, load: Load) -> None:
    """Append a version for each changed row and queue the days they fall on, of '' where they name no customer."""
    values = {
        "load_id": f"'{load.load_id}'",
        "load_seq": str(load.load_seq),
        "loaded_at": f"'{load.started_at.isoformat()}'",
        "known_on": known_on(load),
        "source_file": csv_text("stratum_file"),
        "source_row": "stratum_row",
        "row_key": csv_text("row_key"),
        "row_hash": "row_hash",
    }
    values |= {name: csv_text(name) if kind == "text" else name for name, kind in contract.types.items()}
    values |= {name: csv_text(name) for name in contract.derived}
    values[contract.at] = f"strftime(timezone('UTC', {contract.at}), '%Y-%m-%d %H:%M:%S.%f+00')"
    changed = f"{MAPPED} join changes using (row_no)"
    if _has_extras(engine):
        values["extras"] = csv_text("extras")
        changed += f" left join {EXTRAS} using (row_no)"
    copy_rows(engine, load, f"{contract.table} ({', '.join(values)})", values, f"{changed} order by row_no")
    load.connection.execute("create temp table places (customer_id text, day date) on commit drop")
    copy_rows(
        engine,
        load,
        "places (customer_id, day)",
        {"customer_id": csv_text("customer_id"), "day": "local_day"},
        f"(select distinct coalesce(customer_id, '') as customer_id, local_day from {changed})",  # noqa: S608
    )
    _queue(contract, load, sql.SQL("select customer_id, day from places"))


def known_on(load: Load) -> str:
    """Return the SQL of the day a row could be known: its own, or the load's where that day was looked for before."""
    if load.covered_until is None:
        return "local_day"
    return f"case when local_day > date '{load.covered_until}' then local_day else date '{load.as_of}' end"


def _queue(contract: Contract, load: Load, touched: sql.SQL) -> None:
    """Queue the customers and days of `touched`, a query of (customer_id, day); once where one is queued already."""
    load.connection.execute(
        sql.SQL(
            "insert into {queue} (load_id, customer_id, {day}) select distinct %s::uuid, customer_id, day "
            "from ({touched}) as touched on conflict do nothing"
        ).format(
            queue=_name(contract.queue),
            day=sql.Identifier(contract.queue_day),
            touched=touched,
        ),
        [load.load_id],
    )


def _quarantine(engine: duckdb.DuckDBPyConnection, load: Load, columns: list[str]) -> None:
    """Keep each refused row of MAPPED and REFUSED as it stood."""
    engine.execute(f"""
create table originals as
select reason, stratum_file, stratum_row, {original_json(engine, columns)} as original
from {MAPPED} join (select rowid as row_no, * exclude (stratum_file, stratum_row) from {SOURCE}) as source
    using (row_no)
where reason is not null and not is_later
union all
select 'unreadable_row', stratum_file, stratum_row, to_json({{'line': line, 'fault': fault}})::varchar
from {REFUSED}
union all
select '{UNREADABLE_FILE}', stratum_file, null, to_json({{'file': stratum_file, 'fault': fault}})::varchar
from {REFUSED_FILES}
""")  # noqa: S608
    write_quarantine(engine, load, "original")


def write_quarantine(engine: duckdb.DuckDBPyConnection, load: Load, identity: str) -> None:
    """Write the table `originals` (reason, stratum_file, stratum_row, original) of refused rows into the quarantine.

    `identity` is SQL of what a row is known by; equal ones are kept apart by their number among equals. A row that is
    there already keeps its first load and gets a new last one.
    """
    engine.execute(f"""
create table quarantined as
select * replace (replace(original, '\\u0000', '\\ufffd') as original), case
    -- The same file, whatever its fault is called.
    when reason = '{UNREADABLE_FILE}' then md5('{UNREADABLE_FILE}|' || stratum_file)
    else md5({identity} || '|' || row_number() over (partition by {identity} order by stratum_file, stratum_row))
end as row_hash
from originals
""")  # noqa: S608
    load.connection.execute(
        "create temp table refused (row_hash text, reason text, source_file text, source_row bigint, "
        "original jsonb) on commit drop"
    )
    values = {
        "row_hash": "row_hash",
        "reason": "reason",
        "source_file": csv_text("stratum_file"),
        "source_row": "stratum_row",
        "original": csv_text("original"),
    }
    copy_rows(engine, load, f"refused ({', '.join(values)})", values, "quarantined")
    load.connection.execute(
        "insert into quarantine.rows (source, entity, row_hash, reason, source_file, source_row, original, "
        "first_load_id, last_load_id) select %s, %s, row_hash, reason, source_file, source_row, original, "
        "%s, %s from refused on conflict (source, entity, row_hash) do update set reason = excluded.reason, "
        "source_file = excluded.source_file, source_row = excluded.source_row, original = excluded.original, "
        "last_load_id = excluded.last_load_id, resolved_load_id = null, resolved_at = null",
        [load.source, load.entity, load.load_id, load.load_id],
    )


def original_json(engine: duckdb.DuckDBPyConnection, columns: list[str]) -> str:
    """Return the SQL of a row of SOURCE (as `source`) as JSON text; a float that JSON cannot hold (NaN, infinity) is written as text."""  # noqa: E501
    types = {row[0]: row[1] for row in engine.execute(f"describe {SOURCE}").fetchall()}
    fields = []
    for name in columns:
        column = _column(name)
        value = column
        if types[name] in ("FLOAT", "DOUBLE"):
            value = f"case when isfinite({column}) then to_json({column}) else to_json({column}::varchar) end"
        fields.append(f"'{name.replace(chr(39), chr(39) * 2)}': {value}")
    return f"to_json({{{', '.join(fields)}}})::varchar"


def _column(name: str) -> str:
    return f'source."{name.replace(chr(34), chr(34) * 2)}"'


def _find_extras(engine: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    """Fill EXTRAS for the rows in which one of the columns has a value."""
    given = " or ".join(f"{_column(name)} is not null" for name in names)
    engine.execute(
        f"create table {EXTRAS} as select rowid as row_no, "  # noqa: S608
        f"replace({original_json(engine, names)}, '\\u0000', '\\ufffd') as extras from {SOURCE} as source where {given}"
    )


def _has_extras(engine: duckdb.DuckDBPyConnection) -> bool:
    return bool(engine.execute("select 1 from duckdb_tables() where table_name = ?", [EXTRAS]).fetchall())


def _name(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))


def csv_text(value: str) -> str:
    """Return the SQL of a text, given by SQL, as a quoted field of csv."""
    return f"""'"' || replace({value}, '"', '""') || '"'"""


def copy_rows(
    engine: duckdb.DuckDBPyConnection, load: Load, target: str, values: dict[str, str], origin: str
) -> None:
    """COPY a DuckDB query into a PostgreSQL table within the load's transaction.

    DuckDB writes each row as a line of CSV, so the bytes of an Arrow column are the payload as it stands: no
    Python per row. `values` maps each column of the target to the SQL of its CSV field; null is empty.
    """
    line = " || ',' || ".join(f"coalesce(({value})::varchar, '')" for value in values.values())
    reader = engine.sql(f"select {line} || chr(10) from {origin}").to_arrow_reader(BATCH_ROWS)  # noqa: S608
    statement = sql.SQL("copy {} from stdin (format csv)").format(sql.SQL(target))
    with load.connection.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in reader:
            lines = batch.column(0)
            _, offsets, data = lines.buffers()
            if data is not None and len(lines):
                bounds = memoryview(offsets).cast("i")
                copy.write(memoryview(data)[bounds[lines.offset] : bounds[lines.offset + len(lines)]])
