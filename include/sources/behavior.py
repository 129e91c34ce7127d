"""Behavior events: their contract, and the load of the user's new files up to an as-of date."""

import logging
from datetime import date

from include.dates import day_end
from include.errors import StratumError
from include.sources.columns import SourceColumns, check_columns, record_columns
from include.sources.config import Sources
from include.sources.dropped import events_kept_from
from include.sources.event_files import (
    ListedFile,
    Reading,
    batches,
    is_empty,
    known_columns,
    list_files,
    plan,
)
from include.sources.event_loads import land_rows
from include.sources.event_rows import EventRows, open_rows
from include.sources.file_loads import timed, write_quarantine
from include.sources.files import kind_of
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sources.mapping import Contract, named_columns
from include.sources.plausible import IMPLAUSIBLE, plausible
from include.sources.resolution import resolve_read
from include.sources.row_sources import Behavior, Company, EventColumns
from include.sources.stores import ObjectStore, brought, in_store

EVENTS = Contract(
    source="behavior",
    entity="events",
    table="raw_files.events",
    types={
        "event_id": "text",
        "customer_id": "text",
        "user_id": "text",
        "session_id": "text",
        "event_name": "text",
        "feature": "text",
        "duration_s": "decimal(12, 3)",
        "event_at": "timestamptz",
        "flow_step": "text",
        "properties": "json",
    },
    required=("event_id", "event_name", "event_at"),
    at="event_at",
    queue="intermediate.usage_day_queue",
    queue_day="usage_date",
    rules=("skip_when",),
    left_out="skip_when",
    refused=(("duration_negative", "duration_s < 0"),),
)

assert tuple(EVENTS.types) == tuple(EventColumns.model_fields)  # noqa: S101 - one contract, written twice

log = logging.getLogger(__name__)


def ingest_behavior(sources: Sources, as_of: date) -> Load | None:
    """Land the behavior events dated up to the end of `as_of` in the company's time zone.

    Only files that hold something new are opened. Returns the books of the load, or None where sources.yml has no
    behavior: that is recorded as absent. A date before the first event is loaded with no rows: tracking may have
    begun after the first order. A file that cannot be read is refused alone. All is written in one transaction.
    Raises StratumError, nothing being written, where the files are missing or hold no rows, the mapping does not fit
    them, or all they hold is refused.
    """
    behavior, company = sources.behavior, sources.company
    if behavior is None:
        record_absent(EVENTS.source, EVENTS.entity, as_of)
        return None
    with landing(EVENTS.source, EVENTS.entity, as_of) as load:
        load_files(load, behavior, company, find_files(behavior))
    return load


def find_files(behavior: Behavior) -> list[ListedFile]:
    """Return the files, or the objects of a store, as they are now. Raises StratumError where there are none."""
    return ObjectStore(behavior).files() if in_store(behavior) else list_files(behavior.files())


def load_files(
    load: Load, behavior: Behavior, company: Company, files: list[ListedFile], again: bool = False
) -> None:
    """Land what is new in the files, or all that is in them `again`; what is held already is unchanged.

    Raises StratumError as `ingest_behavior` does, but for files read again of which all rows are refused.
    """
    bind_company(load.connection, company.name, company.timezone, company.currency)
    readings = plan(load.connection, files, day_end(load.as_of, company.timezone), again)
    log.info("Behavior: %d of %d files hold something new.", len(readings), len(files))
    load.files = [reading.file.path for reading in readings]
    was_empty, found = is_empty(load.connection), again or not readings
    faults: list[str] = []
    for batch in batches(readings):
        with brought(behavior, [reading.file for reading in batch]) as local:
            for reading, file in zip(batch, local, strict=True):
                reading.file = file
            found = _load_batch(load, behavior, company, batch, faults) or found
    if not found:
        _refuse(load, behavior.file, faults, was_empty and not any(reading.rows for reading in readings))


def _load_batch(
    load: Load, behavior: Behavior, company: Company, readings: list[Reading], faults: list[str]
) -> bool:
    """Land what is new in some files and return whether there was anything; add why files cannot be read to `faults`."""
    keys = known_columns(load.connection, "jsonl")
    contract = plausible(EVENTS, load.as_of)
    with open_rows(contract, behavior, company.timezone, readings, keys) as rows:
        named = named_columns(rows.engine, contract, behavior)
        columns = SourceColumns(kind_of(readings[0].file.readable), rows.types, frozenset(named))
        check_columns(columns, named, load.source, load.entity, behavior.file)
        rows.extras = record_columns(load, columns)
        with timed(EVENTS, "judged its rows"):
            is_found = _judge(load, rows)
        with timed(EVENTS, "landed its rows"):
            land_rows(load, rows)
        with timed(EVENTS, f"wrote {load.rows_quarantined} refused rows"):
            rows.gather_originals()
            write_quarantine(rows.engine, load, "concat_ws('|', original, stratum_file)")
            # Of a file that is read in part, or that has rows of later days, this load cannot speak as a whole.
            whole = [each for each in rows.readable if each.from_at is None and each.next_at is None]
            resolve_read(load, [each.file.name for each in whole])
        faults += [f"{readings[number - 1].file.path}: {fault}" for number, fault in rows.faults.items()]
    return is_found


def _judge(load: Load, rows: EventRows) -> bool:
    """Judge the rows, and return whether there are any that are kept, left for later or left out."""
    kept_from = events_kept_from(load.connection)
    dropped, skipped = rows.judge(kept_from, never_dropped=IMPLAUSIBLE)
    if skipped:
        log.info("%d rows are no events: behavior.skip_when says so.", skipped)
    if dropped:
        log.info(
            "%d events before %s are left out: policy no longer keeps events so old.", dropped, kept_from
        )
    later = rows.rows_later()
    load.rows_later += later
    return bool(rows.days or later or dropped or skipped or any(reading.from_at for reading in rows.readings))


def _refuse(load: Load, origin: str, faults: list[str], is_without_rows: bool) -> None:
    """Raise StratumError where all that the files hold is refused, or no file ever held a row."""
    if load.reasons:
        listed = ", ".join(
            f"{n} {why}" for why, n in sorted(load.reasons.items(), key=lambda each: (-each[1], each[0]))
        )
        told = faults[0] if faults else "Does the mapping in sources.yml fit it?"
        raise StratumError(f"Every row of {origin} is refused ({listed}). {told}")
    if is_without_rows:
        raise StratumError(f"{origin} has no rows: there are no events to load.")
