"""Lands order lines, events and CRM records as the loaders do, without files: for tests of what is built from them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb

from include.sources.loads import Load, bind_company, landing
from tests.fixtures.raw_events import add_events, add_reading

TIMEZONE = "Asia/Shanghai"
CURRENCY = "CNY"


@dataclass(frozen=True)
class Line:
    """One order line; `ordered_at` is an instant, `amount` is signed, `known_on` the load's date unless given."""

    row_key: str
    order_id: str
    customer_id: str | None
    ordered_at: datetime
    amount: Decimal = Decimal("10.00")
    quantity: int = 1
    line_type: str = "sale"
    country: str | None = "CN"
    currency: str = CURRENCY
    known_on: date | None = None
    product_id: str = "p"
    product_category: str | None = None

    @property
    def day(self) -> date:
        return self.ordered_at.astimezone(ZoneInfo(TIMEZONE)).date()


def at(day: date, hour: int = 12, minute: int = 0) -> datetime:
    """Return a time of that day in the company's time zone."""
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(TIMEZONE))


class Orders:
    """The order source of one warehouse: remembers each line's current version to tell new from corrected."""

    def __init__(self) -> None:
        self.current: dict[str, Line] = {}

    def land(self, as_of: date, lines: Iterable[Line]) -> None:
        """Land new and corrected lines and queue the new and the old place of each, in one load."""
        with landing("orders", "order_lines", as_of) as load:
            bind_company(load.connection, "Test company", TIMEZONE, CURRENCY)
            queued: set[tuple[str, date]] = set()
            rows: list[list[object]] = []
            for line in lines:
                before = self.current.get(line.row_key)
                load.rows_in += 1
                load.rows_new += before is None
                load.rows_corrected += before is not None
                load.rows_unattributed += line.customer_id is None
                queued |= {(place.customer_id or "", place.day) for place in (before, line) if place}
                rows.append(_values(load, line))
                self.current[line.row_key] = line
            with load.connection.cursor() as cursor:
                cursor.executemany(INSERT_LINE, rows)
                cursor.executemany(
                    "insert into intermediate.account_day_queue (load_id, customer_id, order_date) "
                    "values (%s, %s, %s)",
                    [(load.load_id, *place) for place in sorted(queued)],
                )

    def correct(self, as_of: date, row_key: str, **changes: object) -> None:
        """Land one corrected line."""
        self.land(as_of, [replace(self.current[row_key], **changes)])  # type: ignore[arg-type]


INSERT_LINE = """
    insert into raw_files.order_lines (load_id, load_seq, loaded_at, known_on, source_file, source_row, row_key, row_hash,
        order_id, customer_id, product_id, product_category, country, quantity, unit_price, amount, currency,
        ordered_at, line_type)
    values (%s, %s, now(), %s, 'test', 1, %s, %s, %s, %s, %s, %s, %s, %s, 1, %s, %s, %s, %s)
"""


def _values(load: Load, line: Line) -> list[object]:
    return [
        load.load_id,
        load.load_seq,
        line.known_on or load.as_of,
        line.row_key,
        str(hash(line)),
        line.order_id,
        line.customer_id,
        line.product_id,
        line.product_category,
        line.country,
        line.quantity,
        line.amount,
        line.currency,
        line.ordered_at,
        line.line_type,
    ]


@dataclass(frozen=True)
class Event:
    """One behavior event; `at` is an instant."""

    row_key: str
    customer_id: str | None
    at: datetime
    event_name: str = "login"
    feature: str | None = None
    session_id: str | None = "s1"
    duration_s: Decimal | None = None

    @property
    def day(self) -> date:
        return self.at.astimezone(ZoneInfo(TIMEZONE)).date()


class Events:
    """The event source of one warehouse: remembers each event's current version, and where it was landed."""

    def __init__(self) -> None:
        self.current: dict[str, Event] = {}
        self.places: dict[str, tuple[int, int]] = {}

    def land(self, as_of: date, events: Iterable[Event]) -> None:
        """Land new and corrected events and queue the new and the old place of each, in one load."""
        with landing("behavior", "events", as_of) as load:
            bind_company(load.connection, "Test company", TIMEZONE, CURRENCY)
            file_id = add_reading(load)
            queued: set[tuple[str, date]] = set()
            rows, gone = [], []
            for source_row, event in enumerate(events, 1):
                before = self.current.get(event.row_key)
                load.rows_in += 1
                load.rows_new += before is None
                load.rows_corrected += before is not None
                queued |= {
                    (place.customer_id, place.day) for place in (before, event) if place and place.customer_id
                }
                if before is not None:
                    gone.append((*self.places[event.row_key], load.load_seq))
                rows.append(
                    {
                        "customer_id": event.customer_id,
                        "session_id": event.session_id,
                        "event_name": event.event_name,
                        "feature": event.feature,
                        "duration_s": event.duration_s,
                        "event_at": event.at,
                        "known_on": as_of,
                    }
                )
                self.current[event.row_key] = event
                self.places[event.row_key] = (file_id, source_row)
            add_events(load, file_id, rows)
            with load.connection.cursor() as cursor:
                cursor.executemany("insert into raw_files.superseded_events values (%s, %s, %s)", gone)
                cursor.executemany(
                    "insert into intermediate.usage_day_queue (load_id, customer_id, usage_date) values (%s, %s, %s)",
                    [(load.load_id, *place) for place in sorted(queued)],
                )

    def correct(self, as_of: date, row_key: str, **changes: object) -> None:
        """Land one corrected event."""
        self.land(as_of, [replace(self.current[row_key], **changes)])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Version:
    """One version of a CRM record; `owner` is a company's account number, else the company it belongs to."""

    record_id: str
    owner: str | None
    valid_from: datetime
    properties: dict[str, str | None]
    is_archived: bool = False
    owner_before: str | None = None
    """The company it belonged to until then, where that is another one."""


def land_versions(as_of: date, entity: str, versions: Iterable[Version], system: str = "hubspot") -> None:
    """Land versions of CRM records of one entity and queue the accounts they touch, in one load."""
    is_company = entity in ("companies", "accounts")
    owner = "account_number" if is_company else "company_record_id"
    with landing("crm" if system == "hubspot" else system, entity, as_of) as load:
        bind_company(load.connection, "Test company", TIMEZONE, CURRENCY)
        rows: list[list[object]] = []
        touched: list[tuple[int, str, date]] = []
        for version in versions:
            load.rows_in += 1
            load.rows_new += 1
            rows.append(
                [
                    *(load.load_id, load.load_seq, as_of, version.valid_from, version.record_id),
                    *(version.owner, version.is_archived, Jsonb(version.properties)),
                ]
            )
            day = version.valid_from.astimezone(ZoneInfo(TIMEZONE)).date()
            companies = {version.record_id} if is_company else {version.owner, version.owner_before}
            touched += [(load.load_id, f"{system}:{company}", day) for company in companies - {None}]
        with load.connection.cursor() as cursor:
            cursor.executemany(
                f"insert into raw_{system}.{entity} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, "
                f"{owner}, is_archived, row_hash, properties) values (%s, %s, now(), %s, %s, %s, %s, %s, 'hash', %s)",
                rows,
            )
            cursor.executemany(
                "insert into intermediate.restatement_queue (load_id, account_key, from_date) values (%s, %s, %s) "
                "on conflict do nothing",
                touched,
            )


def land_company(
    as_of: date, record_id: str, account_number: str | None, valid_from: datetime, **properties: str
) -> None:
    """Land one version of a CRM company."""
    land_versions(as_of, "companies", [Version(record_id, account_number, valid_from, dict(properties))])
