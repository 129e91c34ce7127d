"""Every table that dbt makes, read from the catalogue: what is added to the project later is compared, too."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import date

from tests.conftest import Warehouse

ALL_LAYERS = ("intermediate", "identity", "marts", "candidate")
STAMPS = ("run_id",)
"""Columns that name the run which made a row: the only ones that may differ."""

Rows = Counter[tuple[object, ...]]
Tables = dict[str, Rows]


def columns_of(warehouse: Warehouse, layers: Collection[str]) -> dict[str, list[str]]:
    """Return the columns, in alphabetical order, of each table in the layers, by schema.table."""
    found: dict[str, list[str]] = {}
    for table, column in warehouse.rows(
        "select table_schema || '.' || table_name, column_name from information_schema.columns "
        "where table_schema = any(%s) order by 1, 2",
        list(layers),
    ):
        found.setdefault(table, []).append(column)
    return found


def read_tables(warehouse: Warehouse, layers: Collection[str], excluded: Iterable[str] = ()) -> Tables:
    """Return how often each row stands in each table of the layers, without STAMPS; a row has its columns by name.

    `excluded` names tables as schema.table.
    """
    columns = columns_of(warehouse, layers)
    return {
        table: Counter(
            tuple(
                (name, repr(value)) if isinstance(value, list | dict) else (name, value)
                for name, value in row
            )
            for row in (
                tuple(zip(kept, values, strict=True))
                for values in warehouse.rows(f"select {', '.join(kept)} from {table}")
            )
        )
        for table, names in columns.items()
        if table not in excluded and (kept := [name for name in names if name not in STAMPS])
    }


def of_dates(tables: Tables, dates: Mapping[str, Collection[date]]) -> Tables:
    """Return the tables, each without the rows of other as-of dates than its own; rows that have no as_of_date stay."""

    def stays(row: tuple[object, ...], kept: Collection[date]) -> bool:
        return dict(row).get("as_of_date", next(iter(kept))) in kept  # type: ignore[call-overload]

    return {
        table: Counter({row: count for row, count in rows.items() if stays(row, dates[table])})
        for table, rows in tables.items()
    }


def dates_in(tables: Tables) -> set[date]:
    """Return the as-of dates that any row has."""
    return {value for rows in tables.values() for row in rows for name, value in row if name == "as_of_date"}  # type: ignore[misc]


def differences(found: Tables, wanted: Tables) -> dict[str, str]:
    """Return, for each table that is not equal row by row, what is missing and too many, with an example of each."""
    told = {}
    for table in sorted(found.keys() | wanted.keys()):
        here, there = found.get(table), wanted.get(table)
        if here is None or there is None:
            told[table] = "stands on one side alone"
        elif here != there:
            missing, extra = there - here, here - there
            told[table] = f"{missing.total()} rows missing, {extra.total()} too many: " + "; ".join(
                f"{sign} {dict(min(rows, key=repr))}" for sign, rows in (("-", missing), ("+", extra)) if rows
            )
    return told
