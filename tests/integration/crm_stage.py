"""A company whose CRM is pulled in tests: what a load brought, and what a reader of a day sees of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import date

from include.sources.config import Sources
from include.sources.loads import Load
from tests.conftest import Warehouse

Counts = tuple[int, int, int, int]
"""Records that are new, corrected, unchanged, quarantined."""


class CrmStage(ABC):
    """A company with one CRM, and a warehouse to ingest it into; `system` and `entities` are the raw tables'."""

    system: str
    entities: tuple[str, ...]

    def __init__(self, warehouse: Warehouse, timezone: str = "Asia/Shanghai") -> None:
        self.warehouse = warehouse
        self.timezone = timezone
        self.slept: list[float] = []
        self.sources = self.sources_with()

    def sources_with(self, **crm: str) -> Sources:
        return Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": self.timezone, "currency": "CNY"},
                "crm": {"system": self.system, **crm},
            }
        )

    @abstractmethod
    def pull(self, as_of: date) -> Mapping[str, Load]:
        """Ingest all entities, without waiting where it would."""

    def ingest(self, as_of: date) -> dict[str, Counts]:
        """Ingest all, check the books, and return the counts by entity."""
        counts = {}
        for entity, load in self.pull(as_of).items():
            counts[entity] = (load.rows_new, load.rows_corrected, load.rows_unchanged, load.rows_quarantined)
            booked = self.warehouse.rows(
                "select rows_in, rows_new, rows_corrected, rows_unchanged, rows_quarantined "
                "from audit.loads where load_id = %s",
                load.load_id,
            )
            assert booked == [(sum(counts[entity]), *counts[entity])]
        return counts

    def seen(self, entity: str, record_id: str, day: date) -> tuple[str | None, dict, bool] | None:
        """Return what a reader as of a day sees of a record: its owner, its properties, whether it is archived."""
        rows = self.warehouse.rows(
            f"select {_owner(entity)}, properties, is_archived from raw_{self.system}.{entity} where record_id = %s "
            "and valid_from < ((%s::date + 1)::timestamp at time zone %s) "
            "order by valid_from desc, load_seq desc limit 1",
            record_id,
            day,
            self.timezone,
        )
        return rows[0] if rows else None

    def value(self, entity: str, record_id: str, day: date, name: str) -> str | None:
        """Return a property as of a day; the record has to be there."""
        found = self.seen(entity, record_id, day)
        assert found is not None
        return found[1][name]

    def versions(self) -> set[tuple]:
        """Return all versions of all entities, without what says which load brought them."""
        found = set()
        for entity in self.entities:
            rows = self.warehouse.rows(
                f"select record_id, valid_from, {_owner(entity)}, is_archived, row_hash, properties::text "
                f"from raw_{self.system}.{entity}"
            )
            found |= {(entity, *row) for row in rows}
            assert len(rows) == len({row[:2] for row in rows}), "a version landed twice"
        return found

    def is_empty(self) -> bool:
        """Whether nothing was ever landed, nor written into the books."""
        return self.warehouse.rows("select count(*) from audit.loads") == [(0,)] and not self.versions()

    def forget(self) -> None:
        """Empty the warehouse of all that was pulled."""
        tables = ", ".join(f"raw_{self.system}.{entity}" for entity in self.entities)
        self.warehouse.rows(f"truncate audit.loads cascade; truncate {tables}, quarantine.rows")
        self.warehouse.rows("delete from intermediate.restatement_queue")


def _owner(entity: str) -> str:
    return "account_number" if entity == "accounts" else "company_record_id"
