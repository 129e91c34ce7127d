"""Read files into DuckDB: every column of every row, and the rows that cannot be read."""

import csv
import gzip
import json
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import duckdb

from include.errors import StratumError
from include.settings import get_settings
from include.sources.expressions import first_line

log = logging.getLogger(__name__)

SOURCE = "source_rows"
"""The table of the rows as they stand: the file's columns, then stratum_file (its path below the folder
the files share) and stratum_row (its place among the file's readable rows, from 1)."""
REFUSED = "refused_lines"
"""The table of the rows that cannot be parsed: stratum_file, stratum_row (the row of the file, from 1, the
header and every row counted), line (the text as it stands), fault."""


REFUSED_FILES = "refused_files"
"""The table of the files that cannot be read at all, among others that can: stratum_file, fault."""


class Unreadable(StratumError):
    """A file that is not what its name says, or is cut off; another file beside it may be sound."""


def open_engine(timezone: str, **limits: str | int) -> duckdb.DuckDBPyConnection:
    """Open an empty DuckDB in memory that takes timestamps without a zone for local ones of `timezone`.

    `limits` are settings of DuckDB, such as memory_limit.
    """
    spill = get_settings().home / "tmp" / "duckdb"
    spill.parent.mkdir(parents=True, exist_ok=True)
    engine = duckdb.connect(
        config={
            "temp_directory": str(spill),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            **limits,
        }
    )
    engine.execute("set enable_progress_bar = false")  # it would fill the task logs
    engine.execute("load icu")  # built in; it brings the time zones
    engine.execute(f"set TimeZone = '{timezone}'")  # a name that config.py has checked
    engine.execute(f"create table {REFUSED_FILES} (stratum_file varchar, fault varchar)")
    return engine


def lock(engine: duckdb.DuckDBPyConnection, readable: Sequence[Path] = ()) -> None:
    """Take from the engine all access to files but `readable`, network and Python variables, for good."""
    engine.execute("set allowed_paths = ?", [[str(path) for path in readable]])
    engine.execute("set python_scan_all_frames = false")
    engine.execute("set python_enable_replacements = false")
    engine.execute("set enable_external_access = false")
    engine.execute("set lock_configuration = true")


def read_files(engine: duckdb.DuckDBPyConnection, files: list[Path], delimiter: str) -> list[str]:
    """Fill SOURCE and REFUSED from files of one kind and return the file's columns.

    The columns of csv and jsonl are text, whatever they hold: what a value means is the mapping's to say,
    and no guess from the first rows can change a load. An empty csv field is null. A file that is not what its
    name says goes into REFUSED_FILES where another one can be read. Raises StratumError where none can, or the
    files differ in kind or header.
    """
    kinds = {kind_of(path) for path in files}
    if len(kinds) > 1:
        raise StratumError(f"{files[0].parent}: the files differ in kind ({', '.join(sorted(kinds))}).")
    shared = _shared_folder(files)
    try:
        _read(engine, files, shared, delimiter)
    except Unreadable as error:
        faults = _faults(engine, files, delimiter)
        if not faults or len(faults) == len(files):
            raise (
                error
                if len(files) == 1
                else Unreadable(
                    f"None of the {len(files)} files can be read. {next(iter(faults.values()), error)}"
                )
            ) from error
        _read(engine, [path for path in files if path not in faults], shared, delimiter)
        for path, fault in faults.items():
            log.warning("%s The file is refused; the others are loaded.", fault)
            engine.execute(f"insert into {REFUSED_FILES} values (?, ?)", [names_below(files)[path], fault])  # noqa: S608
    columns = [row[0] for row in engine.execute(f"describe {SOURCE}").fetchall()]
    return [name for name in columns if name not in ("stratum_file", "stratum_row")]


def _faults(engine: duckdb.DuckDBPyConnection, files: list[Path], delimiter: str) -> dict[Path, str]:
    """Return the files that cannot be read, each tried alone, with what is wrong."""
    faults: dict[Path, str] = {}
    for path in files:
        try:
            _read(engine, [path], _shared_folder([path]), delimiter)
        except Unreadable as error:
            faults[path] = str(error)
    return faults


def _read(engine: duckdb.DuckDBPyConnection, files: list[Path], shared: str, delimiter: str) -> None:
    """Fill SOURCE and REFUSED anew. Raises Unreadable where one of the files is not what its name says."""
    for table in (SOURCE, REFUSED, "scanned", "lines"):
        engine.execute(f"drop table if exists {table}")
    engine.execute(
        f"create table {REFUSED} (stratum_file varchar, stratum_row bigint, line varchar, fault varchar)"
    )
    kind = kind_of(files[0])
    try:
        if kind == "csv":
            _read_csv(engine, files, shared, delimiter)
        elif kind == "jsonl":
            _read_jsonl(engine, files, shared)
        else:
            _read_parquet(engine, files, shared)
    except duckdb.Error as error:
        raise Unreadable(f"{_named(files)} cannot be read as {kind}: {first_line(error)}.") from error


def _named(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} (or one of {len(files)} files)"


def names_below(files: list[Path]) -> dict[Path, str]:
    """Return each file's path below the folder that all files share: its name, for one folder."""
    shared = _shared_folder(files)
    return {path: os.path.relpath(path, shared) for path in files}


def _shared_folder(files: list[Path]) -> str:
    return os.path.commonpath([path.parent for path in files])


def _below(shared: str, column: str) -> str:
    """Return the SQL of a file's path below the folder `shared`."""
    return f"substr({column}, {len(os.path.join(shared, '')) + 1}) as stratum_file"


def kind_of(path: Path) -> str:
    """Return the kind of file its name says: csv, jsonl or parquet."""
    return path.name.removesuffix(".gz").rpartition(".")[2]


def _read_parquet(engine: duckdb.DuckDBPyConnection, files: list[Path], shared: str) -> None:
    engine.execute(
        f"create table {SOURCE} as select * exclude (filename, file_row_number), {_below(shared, 'filename')}, "  # noqa: S608
        "file_row_number + 1 as stratum_row from read_parquet(?, union_by_name = true, filename = true, "
        "file_row_number = true)",
        [[str(path) for path in files]],
    )


def _read_csv(engine: duckdb.DuckDBPyConnection, files: list[Path], shared: str, delimiter: str) -> None:
    header = header_of(files[0], delimiter)
    for path in files[1:]:
        if (other := header_of(path, delimiter)) != header:
            raise StratumError(
                f"{path} has the columns {', '.join(other)}, but {files[0]} has {', '.join(header)}."
            )
    columns = dict.fromkeys(header, "VARCHAR")
    _read_text(engine, files, shared, columns, delim=delimiter, quote='"', header=True)
    engine.execute(f"alter table lines rename to {SOURCE}")


def _read_jsonl(engine: duckdb.DuckDBPyConnection, files: list[Path], shared: str) -> None:
    _read_text(engine, files, shared, {"line": "VARCHAR"}, delim="", quote="", header=False)
    # A blank line is no row. A line that is not a JSON object is a row that cannot be read.
    engine.execute("delete from lines where trim(coalesce(line, '')) = ''")
    engine.execute(
        f"insert into {REFUSED} select stratum_file, stratum_row, line, 'not a JSON object' from lines "  # noqa: S608
        "where not json_valid(line) or json_type(line) <> 'OBJECT'"
    )
    engine.execute("delete from lines where not json_valid(line) or json_type(line) <> 'OBJECT'")
    keys = engine.execute(
        "select key, min(rowid) from (select rowid, unnest(json_keys(line)) as key from lines) "
        "group by key order by 2, 1"
    ).fetchall()
    structure = json.dumps({key: "VARCHAR" for key, _ in keys}).replace("'", "''")
    values = f"unnest(from_json(line, '{structure}'))," if keys else ""
    engine.execute(f"create table {SOURCE} as select {values} stratum_file, stratum_row from lines")  # noqa: S608


def _read_text(
    engine: duckdb.DuckDBPyConnection,
    files: list[Path],
    shared: str,
    columns: dict[str, str],
    *,
    delim: str,
    quote: str,
    header: bool,
) -> None:
    """Read text files into the table `lines`, all columns as text, refused rows into REFUSED.

    Every column is materialised, since DuckDB checks only those a query projects.
    """
    engine.execute(
        f"create table scanned as select * exclude (stratum_path), {_below(shared, 'stratum_path')} "  # noqa: S608
        "from read_csv(?, columns = ?, delim = ?, quote = ?, escape = ?, header = ?, auto_detect = false, "
        "nullstr = '', store_rejects = true, rejects_limit = 0, filename = 'stratum_path')",
        [[str(path) for path in files], columns, delim, quote, quote, header],
    )
    # The engine is new, but the reject tables keep every scan: take the newest. A line may have several faults.
    engine.execute(
        f"insert into {REFUSED} select {_below(shared, 's.file_path')}, e.line, any_value(e.csv_line), "  # noqa: S608
        "min(e.error_type::varchar) from reject_errors e join reject_scans s using (scan_id, file_id) "
        "where e.scan_id = (select max(scan_id) from reject_scans) group by s.file_path, e.line"
    )
    engine.execute(
        "create table lines as select scanned.*, scanned.rowid - first_row + 1 as stratum_row from scanned "
        "join (select stratum_file, min(rowid) as first_row from scanned group by all) using (stratum_file) "
        "order by scanned.rowid"
    )
    engine.execute("drop table scanned")


def header_of(path: Path, delimiter: str) -> list[str]:
    """Return the names in the first line of a csv file; raises StratumError where there are none, or one comes twice."""
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            names = next(csv.reader(file, delimiter=delimiter), [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise Unreadable(f"{path} cannot be read as csv: {error}.") from error
    if not names:
        raise Unreadable(f"{path} is empty: a csv file begins with a line that names its columns.")
    names = [name.strip() or f"column{index}" for index, name in enumerate(names, start=1)]
    lowered = [name.lower() for name in names]
    if doubled := [name for name in names if lowered.count(name.lower()) > 1]:
        raise StratumError(f"{path} names the column '{doubled[0]}' twice.")
    return names
