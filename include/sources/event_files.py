"""Which event files hold something that is not landed yet, and the registry of what was read of each.

A reading is what one load takes of one file: its rows dated from `from_at` up to `until_at`. A file is known by
path, size and stamp; one that has changed is read from its beginning again. docs/decisions/0015-event-files.md.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psycopg

from include.errors import StratumError
from include.sources.files import kind_of, names_below

BATCH_BYTES = 2 * 1024**3
"""Objects of a store are copied to read them, and the rows of csv and jsonl to check them."""


@dataclass(frozen=True)
class ListedFile:
    """A file, or an object of a store, that is there now."""

    path: str
    """Its absolute path, or its URL."""
    size: int
    stamp: str
    """Changes when the content does."""
    name: str
    """Its path below the folder that all files share: what the quarantine calls it."""
    local: Path | None
    """Where it can be read; None until it is brought there."""
    changed_at: datetime | None = None

    @property
    def readable(self) -> Path:
        """Where it is read. Raises ValueError where it was not brought yet."""
        if self.local is None:
            raise ValueError(f"{self.path} was not brought")
        return self.local


@dataclass
class Reading:
    """What a load reads of a file: its rows dated from `from_at` (None: all, and those without a date) to `until_at`."""

    number: int
    """Its place in its batch: rows of equal content count for the file that comes first."""
    file: ListedFile
    from_at: datetime | None
    until_at: datetime
    rows_before: int
    """How many rows of the file earlier readings of it took."""
    changed: bool
    """Whether the file was read before, in another version or by another mapping: its rows give way to these."""
    rows: int = 0
    next_at: datetime | None = None
    """The first date at or after `until_at` that the file has rows of; None where it has none."""
    file_id: int = 0


class _Held(NamedTuple):
    """What was read of a version of a file before."""

    size: int
    stamp: str
    from_at: datetime | None
    until_at: datetime
    next_at: datetime | None
    rows: int


def list_files(paths: Sequence[Path]) -> list[ListedFile]:
    """Return the files of these paths as they are now. Raises StratumError for one that cannot be looked at."""
    found = []
    for path, name in names_below([path.absolute() for path in paths]).items():
        try:
            stat = path.stat()
        except OSError as error:
            raise StratumError(f"{path} cannot be looked at: {error.strerror}.") from error
        changed_at = datetime.fromtimestamp(stat.st_mtime, UTC)
        found.append(ListedFile(str(path), stat.st_size, str(stat.st_mtime_ns), name, path, changed_at))
    return found


def plan(
    connection: psycopg.Connection, files: Sequence[ListedFile], until: datetime, again: bool = False
) -> list[Reading]:
    """Return what is to be read so that all rows dated before `until` are landed, in the order of the files.

    A version of a file of which nothing before `until` is left to read is not opened, unless all are to be read
    `again`, from their beginning on.
    """
    held: dict[str, list[_Held]] = defaultdict(list)
    for path, *reading in connection.execute(
        "select path, size, stamp, from_at, until_at, next_at, rows from raw_files.event_files where path = any(%s)",
        [[file.path for file in files]],
    ):
        held[path].append(_Held(*reading))
    readings: list[Reading] = []
    for file in files:
        of_path = held[file.path]
        same = [] if again else [h for h in of_path if (h.size, h.stamp) == (file.size, file.stamp)]
        done = _read_through(same)
        if done and _has_nothing_before(done[-1], until):
            continue
        changed = again or any((h.size, h.stamp) != (file.size, file.stamp) for h in of_path)
        from_at, rows = (done[-1].until_at, sum(h.rows for h in done)) if done else (None, 0)
        readings.append(Reading(len(readings) + 1, file, from_at, until, rows, changed))
    return readings


def batches(readings: Sequence[Reading]) -> Iterator[list[Reading]]:
    """Yield readings that are made together, numbered from 1: what has to be copied for them to be read is bounded.

    It is BATCH_BYTES as the files count, or one file that is larger. A parquet file on this disk is read where it is.
    """
    batch: list[Reading] = []
    size = 0
    for reading in readings:
        file = reading.file
        copied = 0 if file.local is not None and kind_of(file.local) == "parquet" else file.size
        if batch and size + copied > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        size += copied
        batch.append(reading)
        reading.number = len(batch)
    if batch:
        yield batch


def _read_through(held: list[_Held]) -> list[_Held]:
    """Return the readings that together cover a file from its beginning on without a gap."""
    chain: list[_Held] = []
    while after := [h for h in held if h.from_at == (chain[-1].until_at if chain else None)]:
        chain.append(max(after, key=lambda h: h.until_at))
    return chain


def _has_nothing_before(last: _Held, until: datetime) -> bool:
    return last.until_at >= until or last.next_at is None or last.next_at >= until


def is_empty(connection: psycopg.Connection) -> bool:
    """Tell whether no event file was ever read."""
    return connection.execute("select from raw_files.event_files limit 1").fetchone() is None


def known_columns(connection: psycopg.Connection, kind: str) -> list[str]:
    """Return the columns that files of a kind had when they were read."""
    rows = connection.execute(
        "select distinct unnest(columns) from raw_files.event_files where path like %s order by 1",
        [f"%.{kind}%"],
    ).fetchall()
    return [name for (name,) in rows]


def register(connection: psycopg.Connection, load_seq: int, reading: Reading, columns: Sequence[str]) -> None:
    """Write a reading of a file with these columns down and give it its file_id."""
    ((reading.file_id,),) = connection.execute(
        "insert into raw_files.event_files (load_seq, path, size, stamp, from_at, until_at, next_at, rows, "
        "columns) values (%s, %s, %s, %s, %s, %s, %s, %s, %s) returning file_id",
        [
            load_seq,
            reading.file.path,
            reading.file.size,
            reading.file.stamp,
            reading.from_at,
            reading.until_at,
            reading.next_at,
            reading.rows,
            list(columns),
        ],
    ).fetchall()
