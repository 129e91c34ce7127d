"""Pull the CRM, as versions: from HubSpot, Salesforce or BottleCRM into `raw_<system>`.

Announces `raw_crm` for the date. A CRM that is not configured is announced as absent.

Start it for a date with `stratum run --as-of DATE`. When it fails: docs/runbooks/ingest.md.
"""

from datetime import date

from include.assets import RAW_CRM
from include.dag_support import ingest_dag
from include.sources.config import Sources
from include.sources.loads import Load


def pull(sources: Sources, as_of: date) -> dict[str, Load] | None:
    """Load up to the as-of date, one load per entity; None where the source is absent.

    What a CRM that was configured before still has standing is archived as of the date.
    """
    loads = _ingest(sources, as_of)
    if sources.crm is not None:
        from include.sources.crm_change import retire_others

        retire_others(sources.crm.system, sources.company, as_of)
    return loads


def _ingest(sources: Sources, as_of: date) -> dict[str, Load] | None:
    if sources.crm is not None and sources.crm.system == "salesforce":
        from include.sources.salesforce import ingest_salesforce

        return ingest_salesforce(sources, as_of)
    if sources.crm is not None and sources.crm.system == "bottlecrm":
        from include.sources.bottlecrm import ingest_bottlecrm

        return ingest_bottlecrm(sources, as_of)
    from include.sources.hubspot import ingest_crm

    return ingest_crm(sources, as_of)


dag = ingest_dag("ingest_crm", RAW_CRM, pull, __doc__)
