"""Map refused rows again, by the sources.yml of today, and land those that now pass.

A replay is a load of its own (`replayed` in audit.loads) that covers no day. What it lands is what a load of the files
would: a line has the key it has there, so that the next load of the file finds it unchanged. Where refused rows alone
cannot tell which line of a key a row is, it is left for that load.
"""

import csv
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

import duckdb
from psycopg import sql

from include.errors import StratumError
from include.sources.behavior import EVENTS
from include.sources.config import Sources
from include.sources.expressions import first_line
from include.sources.file_loads import UNREADABLE_FILE, land_kept
from include.sources.files import REFUSED, SOURCE, lock, open_engine
from include.sources.loads import Load, bind_company, landing
from include.sources.mapping import MAPPED, Contract, check_mapping, map_rows
from include.sources.orders import ORDER_LINES, RATES, load_rates
from include.sources.plausible import plausible
from include.sources.record_contract import SOURCE as RECORDS
from include.sources.replay_events import replay_events
from include.sources.resolution import resolve
from include.sources.row_sources import FileSource, OrderRows
from include.warehouse.connect import connect

UNREADABLE_ROW = "unreadable_row"
REPEATED = "repeated"
AMBIGUOUS = "ambiguous"
FILE_GONE = "file_gone"
HASH = "stratum_hash"
"""The column of SOURCE that says which refused row a row is."""


CRMS = ("crm", "salesforce", "bottlecrm")
"""Sources in the books whose refused rows are records of a CRM; HubSpot's is `crm`."""


class Refused(NamedTuple):
    """An open row of the quarantine."""

    row_hash: str
    reason: str
    source_file: str | None
    source_row: int | None
    original: dict[str, Any]
    first_load_id: str
    last_load_id: str


class Held(NamedTuple):
    """The current version of a landed row: its key and place within it, what it says, and who landed it from where."""

    row_key: str
    place: int
    row_hash: str
    source_file: str
    source_row: int
    load_id: str


@dataclass
class Replayed:
    """What became of the refused rows of one entity that were taken up; rows = landed + unchanged + refused + left."""

    source: str
    entity: str
    as_of: date
    load_id: str | None = None
    """The load in the books; None where nothing could be replayed."""
    rows: int = 0
    landed: int = 0
    unchanged: int = 0
    """Rows that pass and say what is held already."""
    refused: dict[str, int] = field(default_factory=dict)
    """Rows that stay refused, by their reason of now."""
    left: dict[str, int] = field(default_factory=dict)
    """Rows that a replay cannot speak of, by why: `later` than the as-of date, `ambiguous`, `no_longer_kept`,
    `unreadable_file`, or `file_gone`."""


def replay(
    sources: Sources,
    as_of: date,
    source: str | None = None,
    entity: str | None = None,
    reason: str | None = None,
) -> list[Replayed]:
    """Replay the open refused rows of orders and events that the filters name, each entity in a load of its own.

    Of events `landed` are those that are refused no more, whether they landed or their file has them no more.
    Rows dated after `as_of` are left. Raises StratumError where the sources no longer have the rows' source, or the
    mapping does not fit them; what was replayed of another entity before stands.
    """
    done = []
    for contract, way in ((ORDER_LINES, _replay_orders), (EVENTS, _replay_events)):
        if (source in (None, contract.source)) and (entity in (None, contract.entity)):
            replayed = way(sources, as_of, reason)
            if replayed.rows:
                done.append(replayed)
    return done


def crm_rows_open(source: str | None) -> int:
    """Return how many refused CRM records are open, where the filter takes them in: a pull settles them, no replay."""
    return _rows_open([name for name in CRMS if source in (None, name)])


def record_rows_open(source: str | None, entity: str | None) -> int:
    """Return how many refused rows of record files are open: every load reads those files whole, so it settles them."""
    return _rows_open([RECORDS] if source in (None, RECORDS) else [], entity)


def _rows_open(sources: list[str], entity: str | None = None) -> int:
    with connect("loader") as connection:
        row = connection.execute(
            "select count(*) from quarantine.rows where source = any(%(sources)s) and resolved_load_id is null "
            "and (%(entity)s::text is null or entity = %(entity)s)",
            {"sources": sources, "entity": entity},
        ).fetchone()
    return row[0] if row else 0


class _Nothing(Exception):
    """There is nothing to write down."""


def _replay_events(sources: Sources, as_of: date, reason: str | None) -> Replayed:
    outcome = replay_events(sources, as_of, reason)
    done = Replayed(EVENTS.source, EVENTS.entity, as_of, outcome.load_id, outcome.rows, outcome.settled)
    done.refused = outcome.refused
    if outcome.gone:
        done.left[FILE_GONE] = outcome.gone
    return done


def _replay_orders(sources: Sources, as_of: date, reason: str | None) -> Replayed:
    done = Replayed(ORDER_LINES.source, ORDER_LINES.entity, as_of)
    try:
        with landing(done.source, done.entity, as_of, "replayed") as load:
            _replay_into(load, sources, reason, done)
    except _Nothing:
        done.load_id = None
    return done


def _replay_into(load: Load, sources: Sources, reason: str | None, done: Replayed) -> None:
    given, company = sources.orders, sources.company
    taken = _open_rows(load, reason)
    done.rows, done.load_id = len(taken), str(load.load_id)
    rows = [row for row in taken if row.reason != UNREADABLE_FILE]
    if files := len(taken) - len(rows):
        done.left[UNREADABLE_FILE] = files
    if not rows:
        raise _Nothing
    if given is None:
        raise StratumError(
            f"{len(rows)} refused rows of {load.source} cannot be replayed: the sources have no '{load.source}' to map "
            "them by."
        )
    contract = plausible(ORDER_LINES, load.as_of)
    with open_engine(given.timezone or company.timezone) as engine:
        bind_company(load.connection, company.name, company.timezone, company.currency)
        # Only the rows of files may be lines that have to be taken apart.
        delimiter = given.delimiter if isinstance(given, FileSource) else ","
        columns = _fill_source(engine, load, rows, delimiter)
        lock(engine)
        check_mapping(engine, contract, given, columns)
        load_rates(engine, RATES, company.currency)
        map_rows(engine, contract, given, load.as_of, company.timezone)
        _find_places(engine, contract, given, load, rows, done)
        land_kept(engine, contract, load)
        _settle(engine, load, rows, done)


def _open_rows(load: Load, reason: str | None) -> list[Refused]:
    rows = load.connection.execute(
        "select row_hash, reason, source_file, source_row, original, first_load_id::text, last_load_id::text "
        "from quarantine.rows where source = %(source)s and entity = %(entity)s and resolved_load_id is null "
        "and (%(reason)s::text is null or reason = %(reason)s) order by source_file, source_row, row_hash",
        {"source": load.source, "entity": load.entity, "reason": reason},
    ).fetchall()
    return [Refused(*row) for row in rows]


def _fill_source(
    engine: duckdb.DuckDBPyConnection, load: Load, rows: list[Refused], delimiter: str
) -> list[str]:
    """Fill SOURCE with the rows as they stood, each column of the type it had, and REFUSED with lines still unreadable.

    Returns the columns: those of the newest load of the entity, and those that only refused rows have.
    """
    columns = _columns_of_loads(load)
    engine.execute(
        f"create table {REFUSED} (stratum_file varchar, stratum_row bigint, line varchar, fault varchar)"
    )
    readable: list[tuple[Refused, dict[str, Any]]] = []
    for row in rows:
        original = row.original
        if row.reason == UNREADABLE_ROW:
            parsed = _parsed(original.get("line"), columns.get(row.last_load_id, {}), delimiter)
            if parsed is None:
                engine.execute(
                    f"insert into {REFUSED} values (?, ?, ?, ?)",  # noqa: S608
                    [row.source_file, row.source_row, original.get("line"), original.get("fault")],
                )
                continue
            original = parsed
        readable.append((row, original))
    types = _types(columns, [original for _, original in readable])
    engine.execute(
        "create table originals as select unnest(?::varchar[]) as stratum_file, unnest(?::bigint[]) as stratum_row, "
        f"unnest(?::varchar[]) as {HASH}, unnest(?::varchar[]) as original",
        [
            [row.source_file for row, _ in readable],
            [row.source_row for row, _ in readable],
            [row.row_hash for row, _ in readable],
            [json.dumps(_folded(original)) for _, original in readable],
        ],
    )
    values = "".join(f"{_value(name, kind)} as {_quoted(name)}, " for name, kind in types.items())
    try:
        engine.execute(
            f"create table {SOURCE} as select {values} stratum_file, stratum_row, {HASH} from originals"  # noqa: S608
        )
    except duckdb.Error as error:
        raise StratumError(
            f"The refused rows of {load.source} do not have the types that its newest load met: {first_line(error)}. "
            "Load their files again: stratum run --as-of DATE"
        ) from error
    return list(types)


def _columns_of_loads(load: Load) -> dict[str, dict[str, str]]:
    """Return load id → column → type of the loads of the entity that read any, the newest last."""
    rows = load.connection.execute(
        "select load_id::text, columns from audit.loads where source = %s and entity = %s and status = 'loaded' "
        "and columns is not null order by load_seq",
        [load.source, load.entity],
    ).fetchall()
    return {load_id: {each["name"]: each["type"] for each in columns} for load_id, columns in rows}


def _types(columns: dict[str, dict[str, str]], originals: list[dict[str, Any]]) -> dict[str, str]:
    """Return column → type: of the newest load, and as text those that only the rows have."""
    types = dict(list(columns.values())[-1]) if columns else {}
    known = {name.lower() for name in types}
    for name in dict.fromkeys(name for original in originals for name in original):
        if name.lower() not in known:
            known.add(name.lower())
            types[name] = "VARCHAR"
    return types


def _folded(original: dict[str, Any]) -> dict[str, Any]:
    """Return a row under the names of its columns in small letters: two loads may have written them differently."""
    return {name.lower(): value for name, value in original.items()}


def _value(name: str, kind: str) -> str:
    path = f"'$.\"{name.lower().replace(chr(39), chr(39) * 2)}\"'"
    if kind == "VARCHAR":
        return f"original ->> {path}"
    return f"cast(json(original) -> {path} as {kind})"


def _quoted(name: str) -> str:
    return f'"{name.replace(chr(34), chr(34) * 2)}"'


def _parsed(line: Any, columns: dict[str, str], delimiter: str) -> dict[str, str | None] | None:
    """Return a line of csv as a row under the columns its load met, or None where it still cannot be read as one."""
    if not isinstance(line, str) or not columns or "\ufffd" in line:
        return None
    try:
        records = list(csv.reader(line.splitlines(keepends=True), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    if len(records) != 1 or len(records[0]) != len(columns):
        return None
    return {name: value or None for name, value in zip(columns, records[0], strict=True)}


def _find_places(
    engine: duckdb.DuckDBPyConnection,
    contract: Contract,
    given: OrderRows,
    load: Load,
    rows: list[Refused],
    done: Replayed,
) -> None:
    """Give each passing row of MAPPED the key it has among the rows that are held; take out those it cannot be told of."""
    refused = {row.row_hash: row for row in rows}
    passing = engine.execute(
        f"select row_no, row_key, row_hash, {HASH} from {MAPPED} "  # noqa: S608
        f"join (select rowid as row_no, {HASH} from {SOURCE}) using (row_no) "
        "where reason is null and not is_later order by row_no"
    ).fetchall()
    held = _held(contract, load, [row[1] for row in passing])
    keys: dict[int, str] = {}
    repeated: list[int] = []
    ambiguous: list[int] = []
    for row_no, row_key, row_hash, refused_hash in passing:
        among = held.get(_natural(row_key))
        if not among:
            continue
        place = _place(among, row_hash, refused[refused_hash], given.keeps_repeated)
        if isinstance(place, int):
            keys[row_no] = f"{_natural(row_key)}|{place}"
        else:
            (repeated if place == REPEATED else ambiguous).append(row_no)
    engine.execute(
        "create table placed as select unnest(?::bigint[]) as row_no, unnest(?::varchar[]) as row_key",
        [list(keys), list(keys.values())],
    )
    engine.execute(
        f"update {MAPPED} set row_key = placed.row_key from placed where placed.row_no = {MAPPED}.row_no"  # noqa: S608
    )
    engine.execute(
        f"update {MAPPED} set reason = '{REPEATED}', row_key = null, row_hash = null where row_no in "  # noqa: S608
        "(select unnest(?::bigint[]))",
        [repeated],
    )
    engine.execute(f"delete from {MAPPED} where row_no in (select unnest(?::bigint[]))", [ambiguous])  # noqa: S608
    if ambiguous:
        done.left[AMBIGUOUS] = len(ambiguous)


def _place(among: list[Held], row_hash: str, row: Refused, keeps_repeated: bool) -> int | str:
    """Return the place of a passing row among the held ones of its natural key, or REPEATED, or AMBIGUOUS.

    A row at the very place of a held one is that line, corrected. A row that was refused by the load that landed the
    last of them stood beside it: it is a line more, and takes the next place. Otherwise it may be either.
    `among` is kept up: it is what the next row of the key is placed by.
    """
    for one in among:
        if (one.source_file, one.source_row) == (row.source_file, row.source_row):
            return one.place
    if not keeps_repeated and any(one.row_hash == row_hash for one in among):
        return REPEATED
    last = max(among, key=lambda one: one.place)
    if last.load_id not in (row.first_load_id, row.last_load_id):
        return AMBIGUOUS
    # It has the mark of the load of the last one, so that the next row beside both is told in the same way.
    place = last.place + 1
    among.append(Held("", place, row_hash, row.source_file or "", row.source_row or 0, last.load_id))
    return place


def _natural(row_key: str) -> str:
    return row_key.rpartition("|")[0]


def _held(contract: Contract, load: Load, row_keys: list[str]) -> dict[str, list[Held]]:
    """Return natural key → the current versions of its rows, for the natural keys of `row_keys`."""
    if not row_keys:
        return {}
    rows = load.connection.execute(
        sql.SQL(
            "select distinct on (row_key) row_key, row_hash, source_file, source_row, load_id::text from {} "
            "where regexp_replace(row_key, '[|][0-9]+$', '') = any(%s) order by row_key, load_seq desc"
        ).format(sql.Identifier(*contract.table.split("."))),
        [sorted({_natural(row_key) for row_key in row_keys})],
    ).fetchall()
    held: dict[str, list[Held]] = defaultdict(list)
    for row_key, *rest in rows:
        natural, _, place = row_key.rpartition("|")
        held[natural].append(Held(row_key, int(place), *rest))
    return held


def _settle(engine: duckdb.DuckDBPyConnection, load: Load, rows: list[Refused], done: Replayed) -> None:
    """Mark what was landed as settled by this load, give the others their reason of now, and count."""
    outcomes = engine.execute(
        f"select {HASH}, reason from {MAPPED} "  # noqa: S608
        f"join (select rowid as row_no, {HASH} from {SOURCE}) using (row_no) where not is_later"
    ).fetchall()
    settled = [row_hash for row_hash, reason in outcomes if reason is None]
    resolve(load, settled)
    load.connection.execute(
        "update quarantine.rows set reason = now.reason "
        "from (select unnest(%s::text[]) as row_hash, unnest(%s::text[]) as reason) as now "
        "where source = %s and entity = %s and rows.row_hash = now.row_hash",
        [
            [row_hash for row_hash, reason in outcomes if reason],
            [reason for _, reason in outcomes if reason],
            load.source,
            load.entity,
        ],
    )
    last_loads = {row.row_hash: row.last_load_id for row in rows}
    landed_of = Counter(last_loads[row_hash] for row_hash in settled)
    load.connection.execute(
        "update audit.loads set rows_replayed = rows_replayed + settled.rows "
        "from (select unnest(%s::uuid[]) as load_id, unnest(%s::bigint[]) as rows) as settled "
        "where loads.load_id = settled.load_id",
        [list(landed_of), list(landed_of.values())],
    )
    done.landed, done.unchanged = load.rows_new + load.rows_corrected, load.rows_unchanged
    done.refused = dict(load.reasons)
    if load.rows_later:
        done.left["later"] = load.rows_later
    gone = done.rows - done.landed - done.unchanged - sum(done.refused.values()) - sum(done.left.values())
    if gone:
        done.left["no_longer_kept"] = gone
