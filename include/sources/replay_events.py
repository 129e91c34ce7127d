"""Replay refused events: the files they stand in are read again, by the sources.yml of today.

Events have no keys to be placed by, and a file read again lands only what is not held. So a replay needs the files;
rows of one that is no longer there stay as they are.
"""

from collections import Counter
from datetime import date
from typing import NamedTuple

from include.errors import StratumError
from include.sources.behavior import EVENTS, find_files, load_files
from include.sources.config import Sources
from include.sources.loads import Load, landing


class Outcome(NamedTuple):
    """What became of the open rows that were taken up; rows = settled + sum of refused + gone."""

    load_id: str | None
    """The load in the books; None where no file could be read again."""
    rows: int
    settled: int
    refused: dict[str, int]
    """Rows that stay refused, by their reason of now."""
    gone: int
    """Rows of files that are no longer there."""


class _Nothing(Exception):
    """There is nothing to write down."""


def replay_events(sources: Sources, as_of: date, reason: str | None) -> Outcome:
    """Read the files of the open refused events again, up to `as_of`; `reason` names those of which rows.

    Raises StratumError where the sources name no behavior, or the mapping does not fit the files.
    """
    outcome = Outcome(None, 0, 0, {}, 0)
    try:
        with landing(EVENTS.source, EVENTS.entity, as_of, "replayed") as load:
            outcome = _replay_into(load, sources, reason)
            if outcome.load_id is None:
                raise _Nothing
    except _Nothing:
        pass
    return outcome


def _replay_into(load: Load, sources: Sources, reason: str | None) -> Outcome:
    taken = load.connection.execute(
        "select row_hash, source_file, last_load_id from quarantine.rows where source = %(source)s "
        "and entity = %(entity)s and resolved_load_id is null and (%(reason)s::text is null or reason = %(reason)s)",
        {"source": load.source, "entity": load.entity, "reason": reason},
    ).fetchall()
    if not taken:
        return Outcome(None, 0, 0, {}, 0)
    if sources.behavior is None:
        raise StratumError(
            f"{len(taken)} refused events cannot be replayed: the sources have no 'behavior' to map them by."
        )
    wanted = {row[1] for row in taken}
    there = [file for file in find_files(sources.behavior) if file.name in wanted]
    names = {file.name for file in there}
    gone = sum(row[1] not in names for row in taken)
    if not there:
        return Outcome(None, len(taken), 0, {}, gone)
    load_files(load, sources.behavior, sources.company, there, again=True)
    left: Counter[str] = Counter(
        dict(
            load.connection.execute(
                "select reason, count(*) from quarantine.rows where source = %s and entity = %s "
                "and row_hash = any(%s) and source_file = any(%s) and resolved_load_id is null group by reason",
                [load.source, load.entity, [row[0] for row in taken], sorted(names)],
            ).fetchall()
        )
    )
    load.connection.execute(
        "update audit.loads set rows_replayed = rows_replayed + settled.rows from ("
        "  select last_load_id, count(*) as rows from quarantine.rows where source = %s and entity = %s "
        "  and row_hash = any(%s) and resolved_load_id = %s group by last_load_id) as settled "
        "where loads.load_id = settled.last_load_id",
        [load.source, load.entity, [row[0] for row in taken], load.load_id],
    )
    return Outcome(str(load.load_id), len(taken), len(taken) - gone - left.total(), dict(left), gone)
