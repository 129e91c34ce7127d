"""A company whose records are files: what a load brought, and what a reader of a day sees of a record."""

import csv
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from include.sources.config import Sources
from include.sources.loads import Load
from include.sources.records import ingest_records
from tests.conftest import Warehouse

TIMEZONE = "Asia/Shanghai"


class Records:
    """One entity's files in a folder, and the sources that map each of their columns to the one of its name."""

    def __init__(self, warehouse: Warehouse, folder: Path, entity: str, **keys: Any) -> None:
        self.warehouse, self.folder, self.entity, self.keys = warehouse, folder, entity, keys

    def write(self, *rows: dict[str, str | None], name: str = "1.csv") -> Path:
        """Write rows as csv; the columns are those of the first row."""
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    def sources(self, columns: Iterable[str], **others: Any) -> Sources:
        given = {"file": str(self.folder / "*.csv"), "columns": {name: name for name in columns}} | self.keys
        return Sources.model_validate(
            {
                "company": {"name": "Test", "timezone": TIMEZONE, "currency": "CNY"},
                "records": {self.entity: given, **others.pop("records", {})},
                **others,
            }
        )

    def load(self, as_of: date, *rows: dict[str, str | None], **others: Any) -> Load:
        """Write the rows, ingest them, check that the books add up, and return them."""
        self.write(*rows)
        loads = ingest_records(self.sources(rows[0], **others), as_of)
        for load in loads.values():
            check_books(self.warehouse, load)
        return loads[self.entity]

    def seen(self, record_id: str, day: date) -> tuple[dict[str, str | None], bool] | None:
        """Return what a reader as of a day sees of a record: its properties, and whether it is archived."""
        rows = self.warehouse.rows(
            f"select properties, is_archived from raw_files.{self.entity} where record_id = %s "
            "and valid_from < ((%s::date + 1)::timestamp at time zone %s) order by valid_from desc, load_seq desc limit 1",
            record_id,
            day,
            TIMEZONE,
        )
        return rows[0] if rows else None

    def value(self, record_id: str, day: date, name: str) -> str | None:
        """Return a property as of a day; the record has to be there."""
        found = self.seen(record_id, day)
        assert found is not None, f"{record_id} is not there on {day}"
        return found[0][name]

    def versions(self) -> list[tuple[str, date, str]]:
        """Return (record_id, local day, hash) of all versions, without what says which load brought them."""
        return self.warehouse.rows(
            f"select record_id, (valid_from at time zone '{TIMEZONE}')::date, row_hash from raw_files.{self.entity} "
            "order by record_id, valid_from, load_seq"
        )

    def refused(self) -> dict[str, int]:
        """Return the open refused rows by reason."""
        return dict(
            self.warehouse.rows(
                "select reason, count(*) from quarantine.rows where source = 'records' and entity = %s "
                "and resolved_load_id is null group by reason",
                self.entity,
            )
        )


def counts(load: Load) -> tuple[int, int, int, int]:
    """Return the rows that were new, corrected, unchanged, quarantined."""
    return load.rows_new, load.rows_corrected, load.rows_unchanged, load.rows_quarantined


def check_books(warehouse: Warehouse, load: Load) -> None:
    """Check that what the load says of itself is in the books, and adds up."""
    booked = warehouse.rows(
        "select rows_in, rows_new, rows_corrected, rows_unchanged, rows_quarantined, rows_later from audit.loads "
        "where load_id = %s",
        load.load_id,
    )
    assert booked == [(sum(counts(load)), *counts(load), load.rows_later)]
