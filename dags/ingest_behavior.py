"""Pull behavior events from files into `raw_files`, up to the end of the as-of date.

Announces `raw_behavior` for the date. A behavior source that is not configured is announced as absent.

Start it for a date with `stratum run --as-of DATE`. When it fails: docs/runbooks/ingest.md.
"""

from datetime import date

from include.assets import RAW_BEHAVIOR
from include.dag_support import ingest_dag
from include.sources.config import Sources
from include.sources.loads import Load


def pull(sources: Sources, as_of: date) -> Load | None:
    """Load up to the as-of date; None where the source is absent."""
    from include.sources.behavior import ingest_behavior

    return ingest_behavior(sources, as_of)


dag = ingest_dag("ingest_behavior", RAW_BEHAVIOR, pull, __doc__)
