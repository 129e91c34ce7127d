"""When a refused row is refused no more: it is marked with the load that settled it, and stays in quarantine.

A row is settled by a replay that lands it (include/sources/replay.py), or by a load that read its file again and did
not refuse it: the source or the mapping was corrected, or the row is gone. A row that is refused again is open again.
"""

import duckdb

from include.sources.files import REFUSED_FILES
from include.sources.loads import Load
from include.sources.mapping import MAPPED


def resolve_files(engine: duckdb.DuckDBPyConnection, load: Load, files: list[str]) -> None:
    """Settle the open rows of the files that the load read (`files`, as source_file names them) and did not refuse.

    Call it when the refused rows of the load are written. Left open are rows that this load did not speak of: those
    last refused by a load of a later date, and those where now a row stands that is dated after this load's.
    """
    refused = {row[0] for row in engine.execute(f"select stratum_file from {REFUSED_FILES}").fetchall()}  # noqa: S608
    rows = _not_refused(load, [name for name in files if name not in refused])
    if not rows:
        return
    hashes = engine.execute(
        "select row_hash from (select unnest(?::varchar[]) as row_hash, unnest(?::varchar[]) as stratum_file, "  # noqa: S608
        "unnest(?::bigint[]) as stratum_row) as refused where not exists ("
        f"select 1 from {MAPPED} as standing where standing.is_later and standing.stratum_file = refused.stratum_file "
        "and standing.stratum_row = refused.stratum_row)",
        [list(column) for column in zip(*rows, strict=True)],
    ).fetchall()
    resolve(load, [row[0] for row in hashes])


def resolve_read(load: Load, files: list[str]) -> None:
    """Settle the open rows of files that the load read as a whole, none of whose rows is left for a later day."""
    resolve(load, [row[0] for row in _not_refused(load, files)])


def _not_refused(load: Load, files: list[str]) -> list[tuple[str, str, int]]:
    """Return (row_hash, source_file, source_row) of open rows of the files that the load did not refuse."""
    return load.connection.execute(
        "select row_hash, source_file, source_row from quarantine.rows "
        "inner join audit.loads on last_load_id = load_id "
        "where rows.source = %s and rows.entity = %s and resolved_load_id is null and last_load_id <> %s "
        "and source_file = any(%s) and as_of_date <= %s",
        [load.source, load.entity, load.load_id, files, load.as_of],
    ).fetchall()


def resolve_unseen(load: Load) -> None:
    """Settle all open rows of the load's entity that it did not refuse: for a load that reads every record."""
    rows = load.connection.execute(
        "select row_hash from quarantine.rows where source = %s and entity = %s and resolved_load_id is null "
        "and last_load_id <> %s",
        [load.source, load.entity, load.load_id],
    ).fetchall()
    resolve(load, [row[0] for row in rows])


def resolve_records(load: Load, id_field: str, ids: list[str]) -> None:
    """Settle the open rows of these records, named by `id_field` of the row: for a load that reads what has changed."""
    rows = load.connection.execute(
        "select row_hash from quarantine.rows where source = %s and entity = %s and resolved_load_id is null "
        "and last_load_id <> %s and original ->> %s = any(%s)",
        [load.source, load.entity, load.load_id, id_field, ids],
    ).fetchall()
    resolve(load, [row[0] for row in rows])


def resolve(load: Load, hashes: list[str]) -> None:
    """Mark rows of the load's entity as settled by it."""
    load.connection.execute(
        "update quarantine.rows set resolved_load_id = %s, resolved_at = clock_timestamp() "
        "where source = %s and entity = %s and row_hash = any(%s)",
        [load.load_id, load.source, load.entity, hashes],
    )
