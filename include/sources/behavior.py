"""Behavior events: their contract, and the load of the user's new files up to an as-of date."""

import csv
import logging
import os
from dataclasses import replace
from datetime import date
from pathlib import Path

from include.dates import day_end
from include.errors import StratumError
from include.sources.config import EventColumns, Sources
from include.sources.dropped import events_kept_from
from include.sources.event_files import ListedFile, is_empty, known_columns, list_files, plan
from include.sources.event_loads import land_rows
from include.sources.event_rows import EventRows, open_rows
from include.sources.file_loads import timed, write_quarantine
from include.sources.loads import Load, bind_company, landing, record_absent
from include.sources.mapping import Contract

LIMITS = Path(__file__).parent / "limits.csv"
IMPLAUSIBLE = "implausible_date"
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
    },
    required=("event_id", "event_name", "event_at"),
    at="event_at",
    queue="intermediate.usage_day_queue",
    queue_day="usage_date",
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
    files = list_files(behavior.files())
    floor = f"local_day < date '{earliest_event(as_of)}'"
    contract = replace(EVENTS, refused=((IMPLAUSIBLE, floor), *EVENTS.refused))
    with landing(EVENTS.source, EVENTS.entity, as_of) as load:
        bind_company(load.connection, company.name, company.timezone, company.currency)
        readings = plan(load.connection, files, day_end(as_of, company.timezone))
        log.info("Behavior: %d of %d files hold something new.", len(readings), len(files))
        load.files = [reading.file.path for reading in readings]
        if not readings:
            return load
        keys = known_columns(load.connection, "jsonl")
        with open_rows(contract, behavior, company.timezone, readings, keys) as rows:
            with timed(EVENTS, "judged its rows"):
                _judge(load, rows, behavior.file)
            with timed(EVENTS, "landed its rows"):
                land_rows(load, rows)
            with timed(EVENTS, f"wrote {load.rows_quarantined} refused rows"):
                rows.gather_originals(_names(files, rows))
                write_quarantine(rows.engine, load, "concat_ws('|', original, stratum_file)")
        return load


def earliest_event(as_of: date) -> date:
    """Return the day before which an event's date is taken for a mistake, as policy has it on a date."""
    with LIMITS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "earliest_event"]
    in_force = [row for row in rows if row["effective_from"] <= as_of.isoformat()]
    if not in_force:
        raise StratumError(f"{LIMITS} says nothing of earliest_event as of {as_of}.")
    return date.fromisoformat(max(in_force, key=lambda row: row["effective_from"])["value"])


def _judge(load: Load, rows: EventRows, origin: str) -> None:
    """Judge the rows. Raises StratumError where all that the files hold is refused, or no file ever held a row."""
    kept_from = events_kept_from(load.connection)
    dropped = rows.judge(kept_from, never_dropped=IMPLAUSIBLE)
    if dropped:
        log.info(
            "%d events before %s are left out: policy no longer keeps events so old.", dropped, kept_from
        )
    load.rows_later = rows.rows_later()
    if rows.days or load.rows_later or dropped or any(reading.from_at for reading in rows.readings):
        return
    if refused := rows.reasons():
        listed = ", ".join(
            f"{n} {why}" for why, n in sorted(refused.items(), key=lambda each: (-each[1], each[0]))
        )
        told = [f"{rows.readings[number - 1].file.path}: {fault}" for number, fault in rows.faults.items()]
        raise StratumError(
            f"Every row of {origin} is refused ({listed}). "
            + (told[0] if told else "Does the mapping in sources.yml fit it?")
        )
    if is_empty(load.connection) and not any(reading.rows for reading in rows.readings):
        raise StratumError(f"{origin} has no rows: there are no events to load.")


def _names(files: list[ListedFile], rows: EventRows) -> dict[int, str]:
    """Return the path of each file that was read below the folder that all listed files share."""
    shared = os.path.commonpath([Path(file.path).parent for file in files])
    return {reading.number: os.path.relpath(reading.file.path, shared) for reading in rows.readings}
