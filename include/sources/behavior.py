"""Behavior events: their contract, and the load of the user's files up to an as-of date."""

from datetime import date

from include.sources.config import EventColumns, Sources
from include.sources.file_loads import land, require_kept, source_rows, timed
from include.sources.loads import Load, record_absent
from include.sources.mapping import Contract, map_rows

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
    queues_unattributed=False,
    refused=(("duration_negative", "duration_s < 0"),),
)

assert tuple(EVENTS.types) == tuple(EventColumns.model_fields)  # noqa: S101 - one contract, written twice


def ingest_behavior(sources: Sources, as_of: date) -> Load | None:
    """Land the behavior events dated up to the end of `as_of` in the company's time zone.

    Returns the books of the load, or None where sources.yml has no behavior: that is recorded as absent. A
    date before the first event is loaded with no rows: tracking may have begun after the first order. All is
    written in one transaction. Raises StratumError, nothing being written, where the files are missing, hold
    no rows or cannot be read, the mapping does not fit them, or every row is refused.
    """
    behavior, company = sources.behavior, sources.company
    if behavior is None:
        record_absent(EVENTS.source, EVENTS.entity, as_of)
        return None
    files = behavior.files()
    with source_rows(EVENTS, behavior, company, files) as (engine, columns):
        with timed(EVENTS, "mapped its rows to the contract"):
            map_rows(engine, EVENTS, behavior, as_of, company.timezone)
        require_kept(engine, behavior.file, "events")
        return land(engine, EVENTS, company, as_of, files, columns)
