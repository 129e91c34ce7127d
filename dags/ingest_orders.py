"""Pull the company's order lines up to the as-of date into `raw_files`.

Reads the files that `sources.yml` maps, lands new and corrected lines as versions, puts refused rows into
`quarantine`, and announces `raw_orders` for the date. A source that is not configured is announced as absent.

Start it for a date with `stratum run --as-of DATE`. When it fails: docs/runbooks/ingest.md.
"""

from datetime import date

from include.assets import RAW_ORDERS
from include.dag_support import ingest_dag
from include.sources.config import Sources
from include.sources.loads import Load


def pull(sources: Sources, as_of: date) -> Load | None:
    """Load up to the as-of date; None where the source is absent."""
    from include.sources.orders import ingest_orders

    return ingest_orders(sources, as_of)


dag = ingest_dag("ingest_orders", RAW_ORDERS, pull, __doc__)
