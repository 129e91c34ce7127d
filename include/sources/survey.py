"""Look at every source that sources.yml names, without loading: is it there, what has it, what is left unmapped.

Nothing is written anywhere, and no warehouse is needed.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

from include.connections import get_connection, get_login
from include.dates import zone
from include.errors import StratumError
from include.sources.behavior import EVENTS
from include.sources.bottlecrm import check_access
from include.sources.bottlecrm import unreachable as unreachable_bottlecrm
from include.sources.bottlecrm_api import BottleCrmApi
from include.sources.bottlecrm_api import Refused as Rejected
from include.sources.bottlecrm_versions import KINDS
from include.sources.bottlecrm_versions import Kind as BottleCrmKind
from include.sources.config import Crm, Sources
from include.sources.crm_versions import ENTITIES, Entity
from include.sources.databases import count_rows, declare, reading
from include.sources.files import REFUSED, SOURCE, lock, open_engine, read_files
from include.sources.mapping import Contract, check_mapping
from include.sources.orders import ORDER_LINES
from include.sources.record_contract import ENTITIES as ENTITIES_OF_FILES
from include.sources.record_contract import FILES, MODIFIED_AT
from include.sources.record_mapping import contract_of
from include.sources.row_sources import Behavior, Company, DatabaseOrders, FileSource
from include.sources.salesforce import condition
from include.sources.salesforce_api import OutOfReach, SalesforceApi
from include.sources.salesforce_versions import Kind, kinds
from include.sources.stores import ObjectStore, in_store
from include.sync.hubspot_api import HubSpotApi, unreachable
from include.sync.limits import Alone
from include.sync.mapping import SyncMapping
from include.sync.setup import lacking_fields
from include.sync.target import NoAnswer, Refused
from include.sync.targets import open_target
from include.sync.targets.hubspot import OUR_PREFIX

CUSTOM = "__c"
"""The ending of fields that an org has made for itself."""


@dataclass(frozen=True)
class Seen:
    """One entity of a source as it was found. `fault` is why it cannot be loaded; the rest is then empty."""

    source: str
    """Its section of sources.yml."""
    entity: str
    place: str
    """The file, the table or the connection; no secret."""
    rows: int | None = None
    newest: str | None = None
    """When the newest row was made, in the company's time zone; of a database, the greatest value of its cursor."""
    not_mapped: list[str] = field(default_factory=list)
    """Columns or fields that are there and that Stratum makes no use of."""
    note: str | None = None
    fault: str | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether it could be looked at."""
        return self.fault is None


def survey(sources: Sources) -> Iterator[Seen]:
    """Yield what each configured source has, one entity after the other; a fault is told, not raised."""
    company = sources.company
    if isinstance(sources.orders, DatabaseOrders):
        yield _seen("orders", "order_lines", sources.orders.origin, _database(sources.orders, company))
    elif sources.orders is not None:
        yield from _files(ORDER_LINES, sources.orders, company)
    if sources.behavior is not None and in_store(sources.behavior):
        yield _seen("behavior", "events", sources.behavior.file, _objects_of_store(sources.behavior, company))
    elif sources.behavior is not None:
        yield from _files(EVENTS, sources.behavior, company)
    for name, given in sources.record_files.items():
        yield from _files(contract_of(ENTITIES_OF_FILES[name], date.max), given, company)
    if sources.crm is not None and sources.crm.system != FILES:
        yield from _crm(sources.crm, company)
    for mapping in sources.sync.values():
        yield _seen("sync", mapping.object, mapping.connection, _target(mapping))


def _seen(source: str, entity: str, place: str, look: Callable[[str, str, str], Seen]) -> Seen:
    try:
        return look(source, entity, place)
    except StratumError as error:
        return Seen(source, entity, place, fault=str(error))


def _files(contract: Contract, given: FileSource, company: Company) -> Iterator[Seen]:
    """Look at each file by itself: a broken one is told beside the good ones, and memory holds one at a time."""
    try:
        files = given.files()
    except StratumError as error:
        yield Seen(contract.source, contract.entity, given.file, fault=str(error))
        return
    for path in files:
        yield _seen(contract.source, contract.entity, str(path), _file(contract, given, company, path))


def _file(
    contract: Contract, given: FileSource, company: Company, path: Path
) -> Callable[[str, str, str], Seen]:
    def look(source: str, entity: str, place: str) -> Seen:
        with open_engine(given.timezone or company.timezone) as engine:
            columns = read_files(engine, [path], given.delimiter)
            lock(engine)
            used = check_mapping(engine, contract, given, columns)
            dates = [
                text
                for name, text in given.columns.expressions().items()
                if name in (contract.at, MODIFIED_AT)
            ]
            moments = ", ".join(f"try_cast(try({text}\n) as timestamptz)" for text in dates)
            rows, newest, refused = engine.execute(
                f"select count(*), {f'max(greatest({moments}))' if dates else 'null'}, "  # noqa: S608
                f"(select count(*) from {REFUSED}) from {SOURCE}"
            ).fetchall()[0]
        return Seen(
            source,
            entity,
            place,
            rows + refused,
            _local(newest, company),
            [name for name in columns if name.lower() not in used],
            f"{refused} rows cannot be parsed" if refused else None,
        )

    return look


def _objects_of_store(behavior: Behavior, company: Company) -> Callable[[str, str, str], Seen]:
    """Look at all objects, and into the one that was changed last."""

    def look(source: str, entity: str, place: str) -> Seen:
        store = ObjectStore(behavior, sleep=lambda seconds: None)
        files = store.files()
        newest = max(files, key=lambda file: (file.changed_at is not None, file.changed_at, file.path))
        with tempfile.TemporaryDirectory(prefix="stratum-") as folder:
            local = store.bring(newest, Path(folder), 1).readable
            seen = _file(EVENTS, behavior, company, local)(source, entity, newest.path)
        size = sum(file.size for file in files)
        changed = f", changed {_local(newest.changed_at, company)}" if newest.changed_at else ""
        note = f"{len(files)} objects of {size:,} bytes; rows and columns are those of {newest.path}{changed}"
        return replace(seen, place=place, note="; ".join(filter(None, [note, seen.note])))

    return look


def _database(orders: DatabaseOrders, company: Company) -> Callable[[str, str, str], Seen]:
    def look(source: str, entity: str, place: str) -> Seen:
        with open_engine(orders.timezone or company.timezone) as engine, reading(orders) as connection:
            read = declare(engine, connection, orders)
            rows, newest = count_rows(connection, orders)
            lock(engine)
            used = check_mapping(engine, ORDER_LINES, orders, read.columns) | {(orders.cursor or "").lower()}
        return Seen(
            source,
            entity,
            place,
            rows,
            _local(newest, company)
            if isinstance(newest, datetime)
            else newest
            if newest is None
            else str(newest),
            [name for name in read.columns if name.lower() not in used],
            None if orders.cursor else "without a cursor all rows are read each time",
        )

    return look


def _crm(crm: Crm, company: Company) -> Iterator[Seen]:
    if crm.system == "salesforce":
        for kind in kinds(crm.account_number_field):
            yield _seen("crm", kind.entity.name, crm.connection, _objects(crm.connection, kind, company))
        return
    if crm.system == "bottlecrm":
        for listed in KINDS:
            yield _seen("crm", listed.entity.name, crm.connection, _bottlecrm(crm, listed))
        return
    for entity in ENTITIES:
        yield _seen("crm", entity.name, crm.connection, _records(crm.connection, entity, company))


def _hubspot(connection: str) -> HubSpotApi:
    # A look tries again without a pause: who waits for it wants to know that nobody answers.
    return HubSpotApi(get_connection(connection), Alone(), sleep=lambda seconds: None)


def _records(connection: str, entity: Entity, company: Company) -> Callable[[str, str, str], Seen]:
    def look(source: str, name: str, place: str) -> Seen:
        api = _hubspot(connection)
        try:
            rows, newest = api.newest(name)
        except (Refused, NoAnswer) as error:
            raise unreachable(error, f"let Stratum read the {name} at {api.host}") from error
        fields, note = _other_fields(api, entity)
        created = None if newest is None else datetime.fromisoformat(newest)
        return Seen(source, name, place, rows, _local(created, company), fields, note)

    return look


def _objects(connection: str, kind: Kind, company: Company) -> Callable[[str, str, str], Seen]:
    def look(source: str, name: str, place: str) -> Seen:
        # Likewise without a pause.
        api = SalesforceApi(get_login(connection), sleep=lambda seconds: None)
        try:
            there = api.describe(kind.name)
            rows, newest = api.newest(kind.name, condition(kind, there))
        except OutOfReach as error:
            raise StratumError(f"Salesforce does not let Stratum read {kind.name}: {error}") from None
        own = [field for field in there if field.endswith(CUSTOM) and field not in kind.fields]
        created = None if newest is None else datetime.fromisoformat(newest)
        return Seen(source, name, place, rows, _local(created, company), own)

    return look


def _bottlecrm(crm: Crm, kind: BottleCrmKind) -> Callable[[str, str, str], Seen]:
    def look(source: str, name: str, place: str) -> Seen:
        api = BottleCrmApi(get_connection(crm.connection), sleep=lambda seconds: None)
        try:
            own = check_access(api, crm.account_number_field)
            rows = api.count(kind.listing)
        except Rejected as error:
            raise unreachable_bottlecrm(api, error, f"read the {name}") from None
        finally:
            api.close()
        fields = own if kind.entity.is_company else []
        return Seen(
            source, name, place, rows, not_mapped=fields, note="its lists do not say which is the newest"
        )

    return look


def _other_fields(api: HubSpotApi, entity: Entity) -> tuple[list[str], str | None]:
    """Return the account's own fields that are not pulled (HubSpot's hundreds of built-in ones aside), and a note."""
    try:
        definitions = api.definitions(entity.name)
    except (Refused, NoAnswer) as error:
        return [], f"its fields are not shown ({error})"
    return [
        each["name"]
        for each in definitions
        if not each.get("hubspotDefined")
        and each["name"] not in entity.properties
        and not each["name"].startswith(OUR_PREFIX)
    ], None


def _target(mapping: SyncMapping) -> Callable[[str, str, str], Seen]:
    def look(source: str, entity: str, place: str) -> Seen:
        # The columns' types stand in the warehouse; whether a field is there can be told without them.
        with open_target(mapping, None) as target:
            told = mapping.columns | mapping.columns_at_creation
            lacking = lacking_fields(target, dict.fromkeys(told, "string"))
        if lacking and not mapping.make_fields:
            raise StratumError(
                f"{target.name} has no field {', '.join(lacking)}: run `stratum sync setup`, or take it out of sync.yml."
            )
        note = f"{len(lacking)} of {len(told)} fields are made by the next sync" if lacking else None
        return Seen(source, entity, place, note=note)

    return look


def _local(moment: datetime | None, company: Company) -> str | None:
    return None if moment is None else f"{moment.astimezone(zone(company.timezone)):%Y-%m-%d %H:%M:%S}"
