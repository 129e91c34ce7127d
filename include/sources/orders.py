"""Land order lines: the rows of the user's files up to the as-of date, each kept with a version or refused.

What is new or corrected is told by comparing row_hash with the current version of each row_key. A row that
is no longer in the file is no deletion: what was landed stays. docs/contracts/sources.md has the rules.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import duckdb
from psycopg import sql

from include.errors import StratumError
from include.sources.config import Sources
from include.sources.files import REFUSED, SOURCE, lock, open_engine, read_files
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sources.mapping import MAPPED, TYPES, check_mapping, map_rows

SOURCE_NAME = "orders"
ENTITY = "order_lines"
BATCH_ROWS = 50_000

log = logging.getLogger(__name__)


def ingest_orders(sources: Sources, as_of: date) -> Load | None:
    """Land the order lines dated up to the end of `as_of` in the company's time zone.

    Returns the books of the load, or None where sources.yml has no orders: that is recorded as absent. All
    is written in one transaction. Raises StratumError, nothing being written, where the file is missing or
    cannot be read, the mapping does not fit it, or it holds no order up to the as-of date.
    """
    orders = sources.orders
    if orders is None:
        record_absent(SOURCE_NAME, ENTITY, as_of)
        return None
    company = sources.company
    files = orders.files()
    with open_engine(orders.timezone or company.timezone) as engine:
        with _timed(f"read {orders.file}"):
            columns = read_files(engine, files, orders.delimiter)
        lock(engine)
        check_mapping(engine, orders, columns)
        with _timed("mapped its rows to the contract"):
            map_rows(engine, orders, as_of, company.timezone, company.currency)
        _require_orders(engine, orders.file, as_of, company.timezone)
        with landing(SOURCE_NAME, ENTITY, as_of) as load:
            bind_company(load.connection, company.name, company.timezone, company.currency)
            load.files = [str(path) for path in files]
            _count(engine, load)
            with _timed("compared them with what is held"):
                _find_changes(engine, load)
            with _timed(f"landed {load.rows_new} new and {load.rows_corrected} corrected order lines"):
                _land_lines(engine, load, company.timezone)
            with _timed(f"wrote {load.rows_quarantined} refused rows"):
                _quarantine(engine, load, columns)
    return load


@contextmanager
def _timed(step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    log.info("Orders: %s in %.1f s", step, time.perf_counter() - started)


def _require_orders(engine: duckdb.DuckDBPyConnection, origin: str, as_of: date, timezone: str) -> None:
    rows, kept, first = engine.execute(
        f"select (select count(*) from {MAPPED}) + (select count(*) from {REFUSED}), "  # noqa: S608
        "count(*) filter (where not is_later), timezone(?, min(ordered_at))::date "
        f"from {MAPPED} where reason is null",
        [timezone],
    ).fetchall()[0]
    if rows == 0:
        raise StratumError(f"{origin} has no rows: there are no orders to load.")
    if kept == 0 and first is not None:
        raise StratumError(
            f"As of {as_of} there are no orders: the first order in {origin} is of {first}. Choose {first} or later."
        )
    if kept == 0:
        counts = engine.execute(
            f"select reason, count(*) from (select reason from {MAPPED} union all select 'unreadable_row' "  # noqa: S608
            f"from {REFUSED}) group by reason order by 2 desc, 1"
        ).fetchall()
        listed = ", ".join(f"{count} {reason}" for reason, count in counts)
        raise StratumError(
            f"Every row of {origin} is refused ({listed}). Does the mapping in sources.yml fit it?"
        )


def _count(engine: duckdb.DuckDBPyConnection, load: Load) -> None:
    kept, unattributed, later = engine.execute(
        "select count(*) filter (where reason is null and not is_later), "  # noqa: S608
        "count(*) filter (where reason is null and not is_later and customer_id is null), "
        f"count(*) filter (where is_later) from {MAPPED}"
    ).fetchall()[0]
    load.rows_unattributed, load.rows_later = unattributed, later
    load.reasons.update(
        dict(
            engine.execute(
                f"select reason, count(*) from {MAPPED} where reason is not null and not is_later group by reason "  # noqa: S608
                f"union all select 'unreadable_row', count(*) from {REFUSED} having count(*) > 0"
            ).fetchall()
        )
    )
    load.rows_in = kept + load.rows_quarantined


def _find_changes(engine: duckdb.DuckDBPyConnection, load: Load) -> None:
    """Fill `changes` (row_no, is_corrected) in the engine, queue the old places of corrected rows, and count."""
    kept = f"select row_no from {MAPPED} where reason is null and not is_later"  # noqa: S608
    (is_held,) = load.connection.execute("select exists (select from raw_files.order_lines)").fetchone()  # type: ignore[misc]
    if is_held:
        _compare(engine, load)
    else:
        engine.execute(f"create table changes as select row_no, false as is_corrected from ({kept})")  # noqa: S608
    new, corrected, all_kept = engine.execute(
        "select count(*) filter (where not is_corrected), count(*) filter (where is_corrected), "  # noqa: S608
        f"(select count(*) from ({kept})) from changes"
    ).fetchall()[0]
    load.rows_new, load.rows_corrected, load.rows_unchanged = new, corrected, all_kept - new - corrected


def _compare(engine: duckdb.DuckDBPyConnection, load: Load) -> None:
    """Send keys and hashes alone to PostgreSQL and bring back the rows that are not what it holds."""
    load.connection.execute(
        "create temp table seen (row_no bigint, row_key text, row_hash text) on commit drop"
    )
    _copy(
        engine,
        load,
        "seen (row_no, row_key, row_hash)",
        {"row_no": "row_no", "row_key": _quoted("row_key"), "row_hash": "row_hash"},
        f"{MAPPED} where reason is null and not is_later",
    )
    load.connection.execute("analyze seen")
    load.connection.execute("""
create temp table changed on commit drop as
with unheld as (
    select seen.* from seen
    where not exists (
        select from raw_files.order_lines as held
        where held.row_key = seen.row_key and held.row_hash = seen.row_hash
            and not exists (
                select from raw_files.order_lines as newer
                where newer.row_key = held.row_key and newer.load_seq > held.load_seq
            )
    )
)
select unheld.row_no, old.row_key is not null as is_corrected, old.customer_id, old.ordered_at
from unheld
left join lateral (
    select row_key, customer_id, ordered_at from raw_files.order_lines as held
    where held.row_key = unheld.row_key
    order by held.load_seq desc limit 1
) as old on true
""")
    load.connection.execute(
        "insert into intermediate.account_day_queue (load_id, customer_id, order_date) "
        "select distinct %s::uuid, coalesce(customer_id, ''), (ordered_at at time zone company.timezone)::date "
        "from changed cross join audit.company where is_corrected",
        [load.load_id],
    )
    rows = load.connection.execute("select row_no, is_corrected from changed").fetchall()
    engine.execute(
        "create table changes as select unnest(?::bigint[]) as row_no, unnest(?::boolean[]) as is_corrected",
        [[row[0] for row in rows], [row[1] for row in rows]],
    )


def _land_lines(engine: duckdb.DuckDBPyConnection, load: Load, timezone: str) -> None:
    """Append a version for each changed row and queue the days they fall on, of '' where they name no customer."""
    local_date = f"timezone('{timezone}', ordered_at)::date"
    known_on = local_date
    if load.covered_until is not None:
        known_on = f"case when {local_date} > date '{load.covered_until}' then {local_date} else date '{load.as_of}' end"
    texts = ("order_id", "customer_id", "product_id", "product_name", "product_category", "country")
    values = {
        "load_id": f"'{load.load_id}'",
        "load_seq": str(load.load_seq),
        "loaded_at": f"'{load.started_at.isoformat()}'",
        "known_on": known_on,
        "source_file": _quoted("stratum_file"),
        "source_row": "stratum_row",
        "row_key": _quoted("row_key"),
        "row_hash": "row_hash",
        "line_type": "line_type",
    }
    values |= {name: _quoted(name) if name in texts else name for name in TYPES}
    values["ordered_at"] = "strftime(timezone('UTC', ordered_at), '%Y-%m-%d %H:%M:%S.%f+00')"
    changed = f"{MAPPED} join changes using (row_no)"
    _copy(engine, load, f"raw_files.order_lines ({', '.join(values)})", values, f"{changed} order by row_no")
    # The old places of corrected rows may be queued already, by _compare.
    load.connection.execute("create temp table places (customer_id text, order_date date) on commit drop")
    _copy(
        engine,
        load,
        "places (customer_id, order_date)",
        {"customer_id": _quoted("customer_id"), "order_date": "order_date"},
        f"(select distinct coalesce(customer_id, '') as customer_id, {local_date} as order_date from {changed})",  # noqa: S608
    )
    load.connection.execute(
        "insert into intermediate.account_day_queue (load_id, customer_id, order_date) "
        "select %s::uuid, customer_id, order_date from places on conflict do nothing",
        [load.load_id],
    )


def _quarantine(engine: duckdb.DuckDBPyConnection, load: Load, columns: list[str]) -> None:
    """Keep each refused row as it stood; one that is there already keeps its first load and gets a new last one."""
    engine.execute(f"""
create table quarantined as
with originals as (
    select reason, stratum_file, stratum_row, {_original(engine, columns)} as original
    from {MAPPED} join (select rowid as row_no, * exclude (stratum_file, stratum_row) from {SOURCE}) as source
        using (row_no)
    where reason is not null and not is_later
    union all
    select 'unreadable_row', stratum_file, stratum_row, to_json({{'line': line, 'fault': fault}})::varchar
    from {REFUSED}
)
select * replace (replace(original, '\\u0000', '\\ufffd') as original),
    md5(original || '|' || row_number() over (partition by original order by stratum_file, stratum_row)) as row_hash
from originals
""")  # noqa: S608
    load.connection.execute(
        "create temp table refused (row_hash text, reason text, source_file text, source_row bigint, "
        "original jsonb) on commit drop"
    )
    values = {
        "row_hash": "row_hash",
        "reason": "reason",
        "source_file": _quoted("stratum_file"),
        "source_row": "stratum_row",
        "original": _quoted("original"),
    }
    _copy(engine, load, f"refused ({', '.join(values)})", values, "quarantined")
    load.connection.execute(
        "insert into quarantine.rows (source, entity, row_hash, reason, source_file, source_row, original, "
        "first_load_id, last_load_id) select %s, %s, row_hash, reason, source_file, source_row, original, "
        "%s, %s from refused on conflict (source, entity, row_hash) do update set reason = excluded.reason, "
        "source_file = excluded.source_file, source_row = excluded.source_row, last_load_id = excluded.last_load_id",
        [load.source, load.entity, load.load_id, load.load_id],
    )


def _original(engine: duckdb.DuckDBPyConnection, columns: list[str]) -> str:
    """Return the SQL of a row as JSON text; a float that JSON cannot hold (NaN, infinity) is written as text."""
    types = {row[0]: row[1] for row in engine.execute(f"describe {SOURCE}").fetchall()}
    fields = []
    for name in columns:
        column = f'source."{name.replace(chr(34), chr(34) * 2)}"'
        value = column
        if types[name] in ("FLOAT", "DOUBLE"):
            value = f"case when isfinite({column}) then to_json({column}) else to_json({column}::varchar) end"
        fields.append(f"'{name.replace(chr(39), chr(39) * 2)}': {value}")
    return f"to_json({{{', '.join(fields)}}})::varchar"


def _quoted(value: str) -> str:
    return f"""'"' || replace({value}, '"', '""') || '"'"""


def _copy(
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
