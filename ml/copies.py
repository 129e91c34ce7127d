"""Rows out of the warehouse and into it by COPY, many times faster than row by row."""

from collections.abc import Iterable, Sequence
from io import BytesIO

import pandas as pd
import psycopg
import pyarrow as pa
from psycopg import sql
from pyarrow import csv


def read_rows(connection: psycopg.Connection, query: sql.Composed, types: dict[str, str]) -> pd.DataFrame:
    """Return the rows of a query: columns that `types` names have that pandas type, others float64; nulls are NaN."""
    data = BytesIO()
    statement = sql.SQL("copy ({}) to stdout (format csv, header)").format(query)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in copy:
            data.write(block)
    data.seek(0)
    header = data.readline().decode().strip().split(",")
    return pd.read_csv(
        data,
        names=header,
        dtype=dict.fromkeys(header, "float64") | types,
        keep_default_na=False,
        na_values={name: [""] for name in header},
    )


def write_rows(
    connection: psycopg.Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Append rows to a table, as `schema.name`."""
    with connection.cursor() as cursor, cursor.copy(_copy_into(table, columns)) as copy:
        for row in rows:
            copy.write_row(row)


def write_frame(connection: psycopg.Connection, table: str, frame: pd.DataFrame) -> None:
    """Append a frame's rows to the columns of a table that are called as its own; what is missing becomes null."""
    rows = BytesIO()
    # Texts are quoted, nulls are not: that tells a null from an empty text.
    csv.write_csv(
        pa.Table.from_pandas(frame, preserve_index=False), rows, csv.WriteOptions(include_header=False)
    )
    statement = _copy_into(table, list(frame.columns), "(format csv)")
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(rows.getbuffer())


def _copy_into(table: str, columns: Sequence[str], options: str = "") -> sql.Composed:
    return sql.SQL("copy {} ({}) from stdin " + options).format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
