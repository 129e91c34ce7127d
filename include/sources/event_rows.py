"""The rows of event files in DuckDB: judged and counted in one pass, handed on as Arrow in a second.

No table holds whole rows: of each row JUDGED keeps its place, its day and a hash of what it says. What does not fit
the memory limit is spilled, so a load takes the same memory whatever the size of its files.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from include.settings import get_settings
from include.sources.event_files import Reading
from include.sources.event_text import REFUSED_LINES, Staged, fault_of, literal, stage
from include.sources.file_loads import original_json, source_column
from include.sources.files import SOURCE, lock, open_engine
from include.sources.fixed_offsets import instant, local_day
from include.sources.mapping import Contract, check_mapping, computed_sql, reasons
from include.sources.row_sources import FileSource

MEMORY = "400MB"
THREADS = 4
"""Each thread holds a part of a file besides what the memory limit counts."""
BATCH_ROWS = 50_000
REPEATED, UNREADABLE_ROW, UNREADABLE_FILE = "repeated", "unreadable_row", "unreadable_file"
TABLES = """
create table judged (
    number integer, source_row bigint, local_day date, is_attributed boolean, reason utinyint, content ubigint
);
create table refused (number integer, source_row bigint, local_day date, is_attributed boolean, reason varchar);
create table contested (local_day date);
create table originals (reason varchar, stratum_file varchar, stratum_row bigint, original varchar);
"""


class DayRows(NamedTuple):
    """How many rows of a reading are kept of a day, and how many of these name a customer."""

    number: int
    day: date
    rows: int
    attributed: int


@contextmanager
def open_rows(
    contract: Contract,
    given: FileSource,
    timezone: str,
    readings: Sequence[Reading],
    known_keys: Sequence[str],
) -> Iterator["EventRows"]:
    """Open the files of the readings, which are numbered from 1, and yield their rows.

    `timezone` is the company's; `known_keys` are what lines of jsonl had before. Raises StratumError where the mapping
    does not fit a file; a file that cannot be read is a fault of its own.
    """
    spill = get_settings().home / "tmp"
    spill.mkdir(parents=True, exist_ok=True)
    threads = min(os.cpu_count() or 1, THREADS)
    with (
        tempfile.TemporaryDirectory(dir=spill, prefix="events-") as folder,
        open_engine(given.timezone or timezone, memory_limit=MEMORY, threads=threads) as engine,
    ):
        engine.execute(TABLES)
        # A condition on a column that is computed would be pushed down and the column computed twice.
        engine.execute("set disabled_optimizers = 'filter_pushdown'")
        staged = stage(engine, readings, given.delimiter, Path(folder), known_keys)
        lock(engine, list(staged.paths.values()))
        rows = EventRows(engine, contract, given, timezone, list(readings), staged)
        rows.check_mapping()
        yield rows


class EventRows:
    """The rows of several readings; a row is named by the number of its reading and its place in the file."""

    def __init__(
        self,
        engine: duckdb.DuckDBPyConnection,
        contract: Contract,
        given: FileSource,
        timezone: str,
        readings: list[Reading],
        staged: Staged,
    ) -> None:
        """`engine` holds TABLES and reaches the staged files alone."""
        self.engine = engine
        self.contract = contract
        self.given = given
        self.timezone = timezone
        self.mapped = [name for name in contract.types if name in given.columns.expressions()]
        """The columns of the contract that have a value: no other is compared or written."""
        self.extras: list[str] = []
        """Columns of the files that are kept beside, as JSON, though no expression reads them."""
        self.readings = readings
        self.faults = staged.faults
        self.columns: dict[int, list[str]] = {}
        """Of each reading the columns of its file."""
        self.types: dict[str, str] = {}
        """The columns of all files, with their types; of one that differs from file to file that of the last."""
        self.days: list[DayRows] = []
        """Once they are judged, the kept rows of each reading and day."""
        self._origins = staged.origins
        self._types: dict[tuple[int, str], str] = {}
        self._kept_from: date | None = None
        self._has_contested = False

    @property
    def readable(self) -> list[Reading]:
        """The readings whose file can be read."""
        return [reading for reading in self.readings if reading.number not in self.faults]

    def check_mapping(self) -> None:
        """Check the mapping against each file whose columns differ from those of the files before."""
        checked = set()
        for reading in self.readable:
            try:
                described = self._describe(reading)
            except duckdb.Error as error:
                self.faults[reading.number] = fault_of(error, reading)
                continue
            self.columns[reading.number] = [name for name, _ in described]
            self.types |= dict(described)
            self._types |= {(reading.number, name): kind for name, kind in described}
            if (columns := tuple(described)) not in checked:
                check_mapping(
                    self.engine, self.contract, self.given, self.columns[reading.number], reading.file.path
                )
                checked.add(columns)

    def judge(self, kept_from: date | None, never_dropped: str) -> tuple[int, int]:
        """Decide of every row of the readings whether it is kept, and count the rows of each reading.

        Rows dated before `kept_from` are left out, but for those refused as `never_dropped`; so are those that the
        section says are none. Returns how many of each.
        """
        self._kept_from = kept_from
        names = [name for name, _ in reasons(self.contract, self.given)]
        for reading in self.readable:
            try:
                self._judge(reading)
            except duckdb.Error as error:
                self.faults[reading.number] = fault_of(error, reading)
                self.engine.execute("delete from judged where number = ?", [reading.number])
        dropped = skipped = 0
        if self._skips:
            ((skipped,),) = self.engine.execute(
                "delete from judged where reason = ?", [names.index(str(self.contract.left_out))]
            ).fetchall()
        if kept_from is not None:
            ((dropped,),) = self.engine.execute(
                "delete from judged where local_day < ? and reason is distinct from ?",
                [kept_from, names.index(never_dropped)],
            ).fetchall()
        self.engine.execute(
            "insert into refused select number, source_row, local_day, is_attributed, (?::varchar[])[reason + 1] "
            "from judged where reason is not null",
            [names],
        )
        self._refuse_repeated()
        self.days = self._kept_days()
        return int(dropped), int(skipped)

    def rows_later(self) -> int:
        """Return how many rows of the files are dated after the readings' end."""
        return sum(self._later(reading) for reading in self.readable)

    def reasons(self) -> dict[str, int]:
        """Return how many rows are refused for each reason; a file that cannot be read counts as one."""
        counts = dict(self.engine.execute("select reason, count(*) from refused group by reason").fetchall())
        lines = self._count(f"select count(*) from {REFUSED_LINES} where number in {self._from_beginning()}")  # noqa: S608
        found = {UNREADABLE_ROW: lines, UNREADABLE_FILE: len(self.faults), **counts}
        return {reason: count for reason, count in found.items() if count}

    def _kept_days(self) -> list[DayRows]:
        rows = self.engine.execute(f"""
select number, local_day, sum(rows)::bigint, sum(attributed)::bigint from (
    select number, local_day, count(*) as rows, count(*) filter (where is_attributed) as attributed
    from judged where reason is null group by all
    union all
    select number, local_day, -count(*), -count(*) filter (where is_attributed)
    from refused where reason = {literal(REPEATED)} group by all
) group by number, local_day having sum(rows) > 0 order by number, local_day""").fetchall()  # noqa: S608
        return [DayRows(*row) for row in rows]

    def span(self, reading: Reading) -> tuple[datetime, datetime] | None:
        """Return the time a file covers within the reading, both ends included; None where it has no rows in it.

        It reaches to an end of the reading where the file has rows beyond it.
        """
        ((first, last),) = self._query(
            reading,
            self._window(reading),
            f"select epoch_us(min({self._at})), epoch_us(max({self._at})) from computed where local_day is not null",  # noqa: S608
        ).fetchall()
        begin = reading.from_at if reading.rows_before else first and _moment(first)
        end = reading.until_at - timedelta(microseconds=1) if reading.next_at else last and _moment(last)
        return (begin, end) if begin and end else None

    def contest(self, days: Sequence[date]) -> None:
        """Set the days apart of which events are held already."""
        self.engine.execute("insert into contested select unnest(?::date[])", [list(days)])
        self._has_contested = bool(days)

    def stream(self, reading: Reading, known_on: str, contested: bool) -> Any:
        """Return the kept rows of a reading, of contested days or of the others, as a pyarrow.RecordBatchReader.

        Its columns are the contract's that are mapped, known_on (SQL over local_day), file_id and source_row; and extras,
        as JSON text, where there are any.
        """
        conditions = self._conditions(reading)
        if self._has_contested:
            conditions.append(f"local_day {'in' if contested else 'not in'} (from contested)")
        where = f" where {' and '.join(conditions)}" if conditions else ""
        everything = reading.from_at is None and not self._later(reading)
        extras = self._extras(reading)
        return self._query(
            reading,
            "true" if everything else self._window(reading),
            f"select {', '.join(self.mapped)}, {known_on} as known_on, {reading.file_id}::bigint as file_id, "  # noqa: S608
            f"stratum_row as source_row{', extras' if extras else ''} from computed{where}",
            extras,
        ).to_arrow_reader(BATCH_ROWS)

    def _extras(self, reading: Reading) -> str:
        """Return the SQL, to be selected beside stratum_row, of the extras of a reading's file; empty without any."""
        names = [name for name in self.columns[reading.number] if name in self.extras]
        if not names:
            return ""
        self._describe(reading)
        given = " or ".join(f"{source_column(name)} is not null" for name in names)
        found = original_json(self.engine, names)
        return f", case when {given} then replace({found}, '\\u0000', '\\ufffd') end as extras"

    def gather_originals(self) -> None:
        """Fill the table `originals` with every refused row as it stood."""
        for number, fault in self.faults.items():
            self.engine.execute(
                "insert into originals select ?, ?, null, to_json({'file': ?::varchar, 'fault': ?::varchar})::varchar",
                [UNREADABLE_FILE, *[self.readings[number - 1].file.name] * 2, fault],
            )
        for reading in self.readable:
            name = literal(reading.file.name)
            if reading.from_at is None:
                self.engine.execute(
                    f"insert into originals select '{UNREADABLE_ROW}', {name}, source_row, "  # noqa: S608
                    f"to_json({{'line': line, 'fault': fault}})::varchar from {REFUSED_LINES} where number = ?",
                    [reading.number],
                )
            if self._count(f"select count(*) from refused where number = {reading.number}"):  # noqa: S608
                self._describe(reading)
                original = original_json(self.engine, self.columns[reading.number])
                self.engine.execute(
                    f"insert into originals select reason, {name}, stratum_row, {original} from {SOURCE} as source "  # noqa: S608
                    "join refused on refused.number = ? and refused.source_row = source.stratum_row",
                    [reading.number],
                )

    def _describe(self, reading: Reading) -> list[tuple[str, str]]:
        """Let SOURCE be the rows of a reading, and return its file's columns with their types."""
        self.engine.execute(f"create or replace view {SOURCE} as from {self._origins[reading.number]}")
        described = self.engine.execute(f"describe {SOURCE}").fetchall()
        return [(name, kind) for name, kind, *_ in described if name != "stratum_row"]

    def _judge(self, reading: Reading) -> None:
        cases = " ".join(
            f"when {condition} then {place}"
            for place, (_, condition) in enumerate(reasons(self.contract, self.given))
        )
        self.engine.execute(
            f"insert into judged {self._with(reading, self._window(reading))} "  # noqa: S608
            f"select {reading.number}, stratum_row, local_day, customer_id is not null, "
            f"(case {cases} end)::utinyint as refused_for, "
            f"case when refused_for is null then hash({', '.join(self.mapped)}) end "
            "from computed"
        )
        reading.rows = self._count(f"select count(*) from judged where number = {reading.number}")  # noqa: S608
        if self._later(reading):
            ((later,),) = self._query(
                reading,
                f"{self._at} >= {_instant(reading.until_at)}",
                f"select epoch_us(min({self._at})) from computed where local_day is not null",  # noqa: S608
            ).fetchall()
            reading.next_at = None if later is None else _moment(later)

    def _refuse_repeated(self) -> None:
        """Refuse each kept row that equals an earlier one in every column: rows of one hash are looked at whole."""
        self.engine.execute("""
create table suspects as
select number, source_row, local_day, is_attributed from judged where content in (
    select content from judged where content is not null group by content having count(*) > 1
)""")
        columns = ", ".join(self.mapped)
        candidates = " union all ".join(
            f"select suspects.*, {columns} from ({computed}) "  # noqa: S608
            f"join suspects on suspects.number = {number} and suspects.source_row = stratum_row"
            for number, computed in self._suspected(columns)
        )
        if candidates:
            self.engine.execute(
                f"insert into refused select number, source_row, local_day, is_attributed, '{REPEATED}' from ({candidates}) "  # noqa: S608
                f"qualify row_number() over (partition by {columns} order by number, source_row) > 1"
            )

    def _conditions(self, reading: Reading) -> list[str]:
        """Return what tells the kept rows of a reading from those that are not: nothing, where all are."""
        found = [f"not rule_{self.contract.left_out}"] if self._skips else []
        if self._count(f"select count(*) from refused where number = {reading.number}"):  # noqa: S608
            found.append(
                f"stratum_row not in (select source_row from refused where number = {reading.number})"  # noqa: S608
            )
        if self._kept_from is not None:
            found.append(f"local_day >= date {literal(self._kept_from)}")
        return found

    def _later(self, reading: Reading) -> int:
        """Return how many rows of a file are dated after the reading's end."""
        held = self._count(f"select count(*) from {self._origins[reading.number]}")  # noqa: S608
        return held - reading.rows_before - reading.rows

    def _suspected(self, columns: str) -> list[tuple[int, str]]:
        rows = self.engine.execute("select distinct number from suspects order by 1").fetchall()
        readings = {reading.number: reading for reading in self.readings}
        return [
            (number, f"{self._with(readings[number])} select {columns}, stratum_row from computed")  # noqa: S608
            for (number,) in rows
        ]

    @property
    def _at(self) -> str:
        return self.contract.at

    def _window(self, reading: Reading) -> str:
        """Return the condition that a row is the reading's to judge: one without a date is the first reading's."""
        before = f"{self._at} < {_instant(reading.until_at)}"
        if reading.from_at is None:
            return f"({self._at} is null or not isfinite({self._at}) or {before})"
        return f"{self._at} >= {_instant(reading.from_at)} and {before}"

    @property
    def _skips(self) -> bool:
        return self.contract.left_out is not None and getattr(self.given, self.contract.left_out) is not None

    def _with(self, reading: Reading, window: str = "true", beside: str = "") -> str:
        origin, timezone = f"{self._origins[reading.number]} as source", literal(self.timezone)
        until, at = reading.until_at, self._at
        day = local_day(at, self.timezone, until, f"timezone({timezone}, {at})::date")
        moment = None
        text = self.given.columns.expressions()[at]
        if self._types.get((reading.number, text.strip('"'))) == "TIMESTAMP":
            moment = instant(
                f"t_{at}", self.given.timezone or self.timezone, until, f"try_cast(t_{at} as timestamptz)"
            )
        return computed_sql(
            self.contract, self.given, origin, f"stratum_row{beside}", timezone, window, moment, day
        )

    def _query(self, reading: Reading, window: str, select: str, beside: str = "") -> Any:
        return self.engine.sql(f"{self._with(reading, window, beside)} {select}")

    def _from_beginning(self) -> str:
        numbers = [reading.number for reading in self.readable if reading.from_at is None]
        return f"({', '.join(map(str, [0, *numbers]))})"

    def _count(self, query: str) -> int:
        ((count,),) = self.engine.execute(query).fetchall()
        return int(count)


def _instant(moment: datetime) -> str:
    return f"timestamptz {literal(moment.isoformat())}"


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
