"""Behavior events: a source that sources.yml cannot name yet, so it is always absent, and that is recorded."""

from datetime import date

from include.sources.config import Sources
from include.sources.loads import Load, record_absent


def ingest_behavior(sources: Sources, as_of: date) -> Load | None:
    """Record that there is no behavior source for `as_of`, so that its absence is a fact and not a gap."""
    if sources.behavior is None:
        record_absent("behavior", "events", as_of)
    return None
