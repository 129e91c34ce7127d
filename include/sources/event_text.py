"""Event files brought to parquet: csv and jsonl are parsed once, all columns as text, a file at a time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from include.errors import StratumError
from include.sources.event_files import Reading
from include.sources.expressions import first_line
from include.sources.files import header_of, kind_of

REFUSED_LINES = "refused_lines"
"""The rows that cannot be parsed: number (of the reading), source_row, line (the text as it stands), fault."""

OF_FILES = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.SerializationException,
    duckdb.NotImplementedException,
)
"""What DuckDB raises of a file that is not what its name says, is cut off or damaged, or is of a form unknown to it."""


@dataclass
class Staged:
    """By the number of the reading: the parquet file and the SQL of its rows, or why they cannot be read."""

    paths: dict[int, Path] = field(default_factory=dict)
    origins: dict[int, str] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)


def stage(
    engine: duckdb.DuckDBPyConnection,
    readings: Sequence[Reading],
    delimiter: str,
    folder: Path,
    known_keys: Sequence[str],
) -> Staged:
    """Make every file readable as parquet, whose rows have their place in the file as stratum_row.

    Text goes to a parquet file in `folder`; its lines that cannot be parsed go to REFUSED_LINES. `known_keys` are
    columns that lines of jsonl may have besides those found. Raises StratumError where csv files differ in header.
    """
    engine.execute(
        f"create table {REFUSED_LINES} (number integer, source_row bigint, line varchar, fault varchar)"
    )
    staged = Staged()
    header: tuple[str, list[str]] | None = None
    for reading in readings:
        path, kind = reading.file.readable, kind_of(reading.file.readable)
        try:
            if kind == "csv":
                names = header_of(path, delimiter)
                header = header or (reading.file.path, names)
                _stage_lines(engine, reading, folder, dict.fromkeys(names, "VARCHAR"), delimiter)
            elif kind == "jsonl":
                names = []
                _stage_lines(engine, reading, folder, {"line": "VARCHAR"}, "")
        except (duckdb.Error, StratumError) as error:
            staged.faults[reading.number] = fault_of(error, reading)
            continue
        if kind == "csv" and header is not None and names != header[1]:
            raise StratumError(
                f"{reading.file.path} has the columns {', '.join(names)}, but {header[0]} has {', '.join(header[1])}."
            )
        staged.paths[reading.number] = path if kind == "parquet" else _target(folder, reading.number)
    _parse_json(
        engine,
        [n for n in staged.paths if kind_of(readings[n - 1].file.readable) == "jsonl"],
        folder,
        known_keys,
    )
    for number, path in staged.paths.items():
        is_json = kind_of(readings[number - 1].file.readable) == "jsonl"
        staged.origins[number] = f"(from read_parquet({literal(path)}))" if is_json else _numbered(path)
    return staged


def fault_of(error: Exception, reading: Reading) -> str:
    """Return why the file of a reading cannot be read, in one line. Raises the error again where it is no file's fault."""
    if isinstance(error, StratumError):
        told = str(error)
    elif isinstance(error, OF_FILES) or type(error) is duckdb.Error:  # of a broken header within the file
        told = f"{first_line(error)}."
    else:
        raise error
    return told.replace(str(reading.file.readable), reading.file.path)


def literal(value: object) -> str:
    """Return a value as a literal of SQL text."""
    return "'" + str(value).replace("'", "''") + "'"


def _target(folder: Path, number: int) -> Path:
    return folder / f"{number}.parquet"


def _numbered(path: Path) -> str:
    return (
        "(select * exclude (file_row_number), file_row_number + 1 as stratum_row "  # noqa: S608
        f"from read_parquet({literal(path)}, file_row_number = true))"
    )


def _stage_lines(
    engine: duckdb.DuckDBPyConnection, reading: Reading, folder: Path, columns: dict[str, str], delimiter: str
) -> None:
    """Write the rows of a text file that can be parsed; all columns are read, as DuckDB checks only those."""
    quote = '"' if delimiter else ""
    types = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in columns.items())
    engine.execute(
        f"copy (from read_csv({literal(reading.file.readable)}, columns = {{{types}}}, delim = {literal(delimiter)}, "  # noqa: RUF100, S608
        f"quote = '{quote}', escape = '{quote}', header = {bool(delimiter)}, auto_detect = false, nullstr = '', "
        f"store_rejects = true, rejects_limit = 0)) to {literal(_target(folder, reading.number))} (format parquet)"
    )
    # The reject tables keep every scan: take the newest. A line may have several faults.
    engine.execute(
        f"insert into {REFUSED_LINES} select ?, line, any_value(csv_line), min(error_type::varchar) "  # noqa: S608
        "from reject_errors where scan_id = (select max(scan_id) from reject_scans) group by line",
        [reading.number],
    )


def _parse_json(
    engine: duckdb.DuckDBPyConnection, numbers: Sequence[int], folder: Path, known_keys: Sequence[str]
) -> None:
    """Bring staged lines of JSON to columns, the same for all files: the keys of any, in their order.

    A blank line is no row. A line that is not a JSON object is a row that cannot be read.
    """
    is_object = "case when json_valid(line) then json_type(line) = 'OBJECT' else false end"
    keys: dict[str, str] = {}
    for number in numbers:
        lines = f"from {_numbered(_target(folder, number))} where trim(coalesce(line, '')) <> ''"
        engine.execute(
            f"insert into {REFUSED_LINES} select ?, stratum_row, line, 'not a JSON object' {lines} "  # noqa: RUF100, S608
            f"and not {is_object}",
            [number],
        )
        found = engine.execute(
            "select key from (select stratum_row, unnest(json_keys(line)) as key "  # noqa: S608
            f"{lines} and {is_object}) group by key order by min(stratum_row), key"
        ).fetchall()
        keys |= {key: "VARCHAR" for (key,) in found}
    keys |= dict.fromkeys(known_keys, "VARCHAR")
    values = f"unnest(from_json(line, {literal(json.dumps(keys))}))," if keys else ""
    for number in numbers:
        path, parsed = _target(folder, number), folder / f"{number}.parsed"
        engine.execute(
            f"copy (select {values} stratum_row from {_numbered(path)} "  # noqa: S608
            f"where trim(coalesce(line, '')) <> '' and {is_object}) to {literal(parsed)} (format parquet)"
        )
        parsed.replace(path)
