"""Pull the CRM, as versions, from HubSpot, Salesforce or BottleCRM into `raw_<system>`; and load records from files.

Announces `raw_crm` for the date. A CRM that is not configured is announced as absent.

Start it for a date with `stratum run --as-of DATE`. When it fails: docs/runbooks/ingest.md.
"""

from datetime import date

from include.assets import RAW_CRM
from include.dag_support import ingest_dag
from include.sources.config import Sources
from include.sources.loads import Load


def pull(sources: Sources, as_of: date) -> dict[str, Load] | None:
    """Load up to the as-of date, one load per entity; None where there is neither a CRM nor a file of records."""
    from include.sources.crm import ingest_crm_and_records

    return ingest_crm_and_records(sources, as_of)


dag = ingest_dag("ingest_crm", RAW_CRM, pull, __doc__)
