"""Records from files: each entity that sources.yml maps, landed as versions, one load per entity."""

from datetime import date

import duckdb

from include.dates import day_end
from include.errors import StratumError
from include.sources.config import Company, RecordFile, Sources
from include.sources.file_loads import land, require_kept, source_rows, timed
from include.sources.files import REFUSED
from include.sources.loads import Load, record_absent
from include.sources.mapping import MAPPED, Contract
from include.sources.orders import RATES, load_rates
from include.sources.record_contract import ENTITIES, SOURCE, Entity
from include.sources.record_loads import land_records
from include.sources.record_mapping import contract_of, make_versions, map_records


def ingest_records(sources: Sources, as_of: date) -> dict[str, Load]:
    """Land the records that files hold, as of the end of `as_of` in the company's time zone; the loads by entity.

    Entities go in the order of the contract, each in a transaction of its own. Where some are mapped, the others are
    written down as absent. Raises StratumError where a file is missing, none can be read, the mapping does not fit, or
    every row is refused: of that entity nothing is then landed, and the ones before it stand.
    """
    loads: dict[str, Load] = {}
    given = sources.record_files
    for name in ENTITIES if given else ():
        if name in given:
            crm = sources.crm.system if sources.crm else None
            loads[name] = _ingest(ENTITIES[name], given[name], sources.company, crm, as_of)
        else:
            record_absent(SOURCE, name, as_of)
    return loads


def _ingest(entity: Entity, given: RecordFile, company: Company, crm: str | None, as_of: date) -> Load:
    files, contract = given.files(), contract_of(entity, as_of)
    with source_rows(contract, given, company, files) as (engine, columns):
        with timed(contract, "mapped its rows to the contract"):
            load_rates(engine, RATES, company.currency)
            map_records(engine, entity, given, company, as_of)
        _require_rows(engine, given, entity)
        make_versions(engine, entity, company, as_of, crm)

        def keep(engine: duckdb.DuckDBPyConnection, contract: Contract, load: Load) -> None:
            with timed(contract, "landed what has changed"):
                end = day_end(as_of, company.timezone)
                land_records(engine, entity, load, company, end, snapshot=given.snapshot)

        return land(engine, contract, company, as_of, files, columns, keep=keep)


def _require_rows(engine: duckdb.DuckDBPyConnection, given: RecordFile, entity: Entity) -> None:
    """Raise StratumError where every row is refused, or a snapshot is empty. A file that is no snapshot may be."""
    rows, refused = engine.execute(
        f"select (select count(*) from {MAPPED}), (select count(*) from {REFUSED})"  # noqa: S608
    ).fetchall()[0]
    if rows or refused:
        require_kept(engine, given.origin, f"records of {entity.name}")
    elif given.snapshot:
        raise StratumError(
            f"{given.origin} has no rows, and records.{entity.name}.snapshot would archive every record. Correct the "
            "export, or leave snapshot out."
        )
