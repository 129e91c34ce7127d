"""The CRM of the sources, whichever it is, and the records that files hold beside it."""

from datetime import date

from include.sources.config import Sources
from include.sources.crm_change import retire_others
from include.sources.crm_versions import ENTITIES as HUBSPOT_ENTITIES
from include.sources.loads import Load, record_absent
from include.sources.record_contract import FILES
from include.sources.records import ingest_records


def ingest_crm_and_records(sources: Sources, as_of: date) -> dict[str, Load] | None:
    """Land the CRM's records, then those of files, as of the end of `as_of`; the loads by entity.

    What a CRM that was configured before still has standing is archived as of the date. None where the sources have
    neither. Raises StratumError as the ingests of the CRMs and of records do.
    """
    pulled = _pull(sources, as_of)
    records = ingest_records(sources, as_of)
    if sources.crm is not None:
        retire_others(sources.crm.system, sources.company, as_of)
    return None if pulled is None and not records else (pulled or {}) | records


def _pull(sources: Sources, as_of: date) -> dict[str, Load] | None:
    system = sources.crm.system if sources.crm else None
    if system == "salesforce":
        from include.sources.salesforce import ingest_salesforce

        return ingest_salesforce(sources, as_of)
    if system == "bottlecrm":
        from include.sources.bottlecrm import ingest_bottlecrm

        return ingest_bottlecrm(sources, as_of)
    if system == FILES:
        record_absent("crm", [entity.name for entity in HUBSPOT_ENTITIES], as_of)
        return None
    from include.sources.hubspot import ingest_crm

    return ingest_crm(sources, as_of)
